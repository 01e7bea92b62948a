"""Trap 67: the Encrypted Attributes Sequence gives exact values to its recipient, and nothing to anybody else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import making
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pacs.deid.exchange import ENCRYPTED_ATTRIBUTES, encrypted, opened, recipient
from pacs.deid.profile import Deidentifier
from pacs.deid.restore import restored
from pacs.dicom import elements
from pacs.model.errors import ConfigurationError, IntegrityError, NotFound


def identity(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return a certificate for a key of the test."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "recipient")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, SHA256())


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """The recipient's key."""
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("name", ["Quillfeather^Zebulon", "Quillfeather^Zebulo", "Q" * 60])
def test_trap_67_the_recipient_gets_exact_values(key: rsa.RSAPrivateKey, name: str) -> None:
    """Every element that was taken, byte for byte, through a data set that is written and read again; the file stays even."""
    made = Deidentifier("research", b"k" * 32, collect_taken=True).deidentify(
        making.received(making.dataset(patient_name=name))
    )
    assert made.taken is not None
    taken = {tag: value for level in made.taken.levels.values() for tag, value in level.items()}
    data = b"".join(elements.join([*made.elements, encrypted(taken, identity(key))]))

    read = elements.walk(data)
    found = opened(read, identity(key), key)

    assert len(data) % 2 == 0
    assert found == {tag: value for tag, value in taken.items() if value}
    assert not any(word.encode() in data for word in making.PLANTED)
    whole = {one.tag: bytes(one.value) for one in restored(read, {**taken, ENCRYPTED_ATTRIBUTES: b""})}
    sent = elements.walk(making.encode(making.dataset(patient_name=name)))
    assert whole == {one.tag: bytes(one.value) for one in sent}


def test_trap_67_another_key_fails(key: rsa.RSAPrivateKey) -> None:
    """Another recipient, a changed byte and a file without it are told apart from success, and by class only."""
    one = encrypted({0x00100010: bytes(elements.element(0x00100010, "PN", b"Quillfeather").encoded)}, identity(key))
    other = rsa.generate_private_key(65537, 2048)
    broken = bytearray(one.encoded)
    broken[-40] ^= 1

    for data in (bytes(one.encoded), bytes(broken)):
        with pytest.raises(IntegrityError) as refused:
            opened(elements.walk(data), identity(other), other)
        assert "Quillfeather" not in str(refused.value)
    with pytest.raises(NotFound):
        opened([], identity(key), key)


def test_a_recipient_must_hold_an_rsa_key(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    """A missing file, a file that is none, and a key that cannot decrypt are refused when they are read."""
    good, curve = tmp_path / "good.pem", tmp_path / "curve.pem"
    good.write_bytes(identity(key).public_bytes(Encoding.PEM))
    curve.write_bytes(identity(ec.generate_private_key(ec.SECP256R1())).public_bytes(Encoding.PEM))
    (tmp_path / "text.pem").write_text("no certificate")

    assert recipient(good).public_key() == key.public_key()
    for path in (curve, tmp_path / "text.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigurationError):
            recipient(path)
