"""Seals and names of the identity vault: under its secret rows are encrypted, and everything is named by a keyed digest.

Nothing here touches a file. Whoever reads the vault without the secret learns which rows belong together, no value and no UID
(docs/format.md, section 5).
"""

import hmac
import secrets
import unicodedata

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.model.errors import IntegrityError
from pacs.model.query import Level
from pacs.store.providers import derive
from pacs.store.vault_rows import NAME_BYTES, Elements, plain_row, read_row

PREFIX_BYTES = 16
_REMEMBERED = 1024


class Seals:
    """What the secret of one vault can do; safe to share between threads."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(derive(secret, b"mini-pacs vault records"))
        self._digest_key = derive(secret, b"mini-pacs vault digests")
        self._names: dict[tuple[str, ...], bytes] = {}

    def seal(self, name: bytes, pseudonym: str, own: Elements) -> bytes:
        """Seal a row, bound to its name."""
        nonce = secrets.token_bytes(12)
        return nonce + self._cipher.encrypt(nonce, plain_row(pseudonym, own), name)

    def open(self, name: bytes, sealed: bytes) -> tuple[str, dict[int, bytes]]:
        """Return pseudonym and elements of a row. Raises `IntegrityError`."""
        try:
            plain = self._cipher.decrypt(sealed[:12], sealed[12:], name)
        except (InvalidTag, ValueError) as error:
            raise IntegrityError("a row of the identity vault was changed") from error
        return read_row(plain)

    def digest(self, kind: str, *parts: str) -> bytes:
        """Return what `parts` are found by."""
        message = "\0".join((kind, *parts)).encode("utf-8", "surrogateescape")
        return hmac.digest(self._digest_key, message, "sha256")[:NAME_BYTES]

    def called(self, kind: str, value: str) -> bytes:
        """Return what an original value is found by, however it was padded or its name was spelled."""
        return self.digest(kind, _normalised(kind, value))

    def name(self, level: Level, *uids: str) -> bytes:
        """Name a patient, study or series by its pseudonyms down to its level."""
        found = self._names.get(uids)
        if found is None:
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            found = self._names[uids] = self.digest(f"record {level}", *uids)
        return found

    def instance_name(self, sop_instance_uid: str, digest: bytes) -> bytes:
        """Name an instance so that all contents under one UID stand together."""
        return self.prefix(sop_instance_uid) + digest[: NAME_BYTES - PREFIX_BYTES]

    def prefix(self, sop_instance_uid: str) -> bytes:
        """Return what the names of all contents under one UID begin with."""
        return self.digest("instance", sop_instance_uid)[:PREFIX_BYTES]


def after(prefix: bytes) -> bytes:
    """Return what sorts behind everything that begins with `prefix`."""
    return prefix + b"\xff" * NAME_BYTES


def _normalised(kind: str, value: str) -> str:
    """Return a value as it is looked for: NFC, no padding; names without case and trailing separators."""
    text = unicodedata.normalize("NFC", value).strip(" \0")
    if kind == "name":
        return text.casefold().split("=")[0].rstrip("^ ")
    return "\\".join(part.strip(" ") for part in text.split("\\")) if kind == "patient" else text
