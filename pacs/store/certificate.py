"""Signed statements of the archive: JSON with an Ed25519 signature (RFC 8032) that anyone can check with the public key.

The signing key is derived from the secret *names*, which never changes, so that old statements stay checkable.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pacs.ports import KeyProvider

_PURPOSE = "certificate"


def sign(provider: KeyProvider, statement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statement with the public key and the signature added."""
    private = Ed25519PrivateKey.from_private_bytes(provider.derive(_PURPOSE))
    signed = {**statement, "public_key": public_key(provider)}
    return {**signed, "signature": base64.b64encode(private.sign(_canonical(signed))).decode("ascii")}


def public_key(provider: KeyProvider) -> str:
    """Return the archive's public key, base64: give it to whoever will have to check a statement."""
    private = Ed25519PrivateKey.from_private_bytes(provider.derive(_PURPOSE))
    return base64.b64encode(private.public_key().public_bytes_raw()).decode("ascii")


def is_genuine(document: Mapping[str, Any], known_public_key: str) -> bool:
    """Tell whether a statement was signed by the archive of this public key, and not changed since."""
    signed = {name: value for name, value in document.items() if name != "signature"}
    if document.get("public_key") != known_public_key:
        return False
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(known_public_key, validate=True))
        public.verify(base64.b64decode(str(document.get("signature", "")), validate=True), _canonical(signed))
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def _canonical(statement: Mapping[str, Any]) -> bytes:
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
