"""The Encrypted Attributes Sequence: the original identity in a de-identified file, for one recipient (PS3.15 E.1.1, E.2).

Made on the way out, for exchange with somebody who holds the private key; never in what is stored, because each encryption is
another and equal objects would no longer be equal. CMS enveloped-data with AES-256-CBC under an RSA key (RFC 5652). It is off
unless a recipient is configured and the export asks for it: for public release it is inadvisable.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509 import Certificate, load_pem_x509_certificate

from pacs.dicom.elements import EXPLICIT_LITTLE_ENDIAN, element, find, items, sequence, walk
from pacs.model.errors import ConfigurationError, IntegrityError, NotFound
from pacs.model.instance import Element

ENCRYPTED_ATTRIBUTES = 0x04000500
_TRANSFER_SYNTAX, _CONTENT, _MODIFIED_ATTRIBUTES = 0x04000510, 0x04000520, 0x04000550


def recipient(path: Path) -> Certificate:
    """Read the certificate of a recipient. Raises `ConfigurationError`."""
    try:
        certificate = load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"deid.recipient_certificate: {path} is no certificate in PEM that can be read") from error
    if not isinstance(certificate.public_key(), RSAPublicKey):
        raise ConfigurationError("deid.recipient_certificate: only RSA keys can open the Encrypted Attributes Sequence")
    return certificate


def encrypted(taken: Mapping[int, bytes], certificate: Certificate) -> Element:
    """Return the Encrypted Attributes Sequence (0400,0500) with these original elements, for who holds the certificate's key.

    Parameters
    ----------
    taken : mapping of int to bytes
        Tag -> original element, encoded; empty ones (there was none) are left out, the standard cannot say them.
    """
    inside = sorted((one for value in taken.values() if value for one in walk(value)), key=lambda one: one.tag)
    content = bytes(sequence(_MODIFIED_ATTRIBUTES, [inside]).encoded)
    envelope = pkcs7.PKCS7EnvelopeBuilder().set_data(content).set_content_encryption_algorithm(AES256)
    der = envelope.add_recipient(certificate).encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    syntax = element(_TRANSFER_SYNTAX, "UI", EXPLICIT_LITTLE_ENDIAN.encode("ascii"))
    return sequence(ENCRYPTED_ATTRIBUTES, [[syntax, element(_CONTENT, "OB", der)]])


def opened(elements: Sequence[Element], certificate: Certificate, key: RSAPrivateKey) -> dict[int, bytes]:
    """Return tag -> original element of a data set that was made for the holder of `key`.

    Raises
    ------
    NotFound
        There is no Encrypted Attributes Sequence.
    IntegrityError
        None of its items opens with this key, or what is in it was changed.
    """
    one = find(elements, ENCRYPTED_ATTRIBUTES)
    if one is None or one.vr != "SQ":
        raise NotFound("the file has no Encrypted Attributes Sequence")
    failure: Exception | None = None
    for item in items(one.value):
        content = find(item, _CONTENT)
        if content is None:
            continue
        try:
            plain = pkcs7.pkcs7_decrypt_der(_unpadded(bytes(content.value)), certificate, key, [])
            (modified,) = walk(plain)
            (inside,) = items(modified.value)
        except Exception as error:
            # The library has many ways to say that the key is another one, or that a byte was changed; to us they are one.
            failure = error
            continue
        return {original.tag: bytes(original.encoded) for original in inside}
    raise IntegrityError("no item of the Encrypted Attributes Sequence opens with this key") from failure


def _unpadded(der: bytes) -> bytes:
    """Take away the byte that made the length even: DER says how long it is."""
    if len(der) > 2 and der[1] & 0x80:
        count = der[1] & 0x7F
        return der[: 2 + count + int.from_bytes(der[2 : 2 + count], "big")]
    return der[: 2 + der[1]] if len(der) > 1 else der
