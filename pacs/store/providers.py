"""Key providers: where a key-encryption key comes from (docs/format.md, section 3.1).

`file` keeps it in a file of its owner, `passphrase` in a file sealed by Argon2id, `env` and `systemd` are given it.
All wrap the same way, so that a home can go from one to another; one contract suite holds them to it. While a key is rotated a
provider holds two: a name it does not know makes it read its files again, so that processes that serve notice a rotation.
"""

import base64
import binascii
import hmac
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pacs.model.errors import ConfigurationError

NONCE_BYTES = 12
KEY_BYTES = 32
_PASSPHRASE_CONTEXT = b"mini-pacs passphrase 1"
_LARGEST_FILE = 4096


def derive(key: bytes, info: bytes) -> bytes:
    """Return 32 bytes bound to `key` and `info`. Source: RFC 5869 with SHA-256 and no salt."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(key)


def key_id_of(key: bytes) -> str:
    """Return the name of a key; it says nothing about the key."""
    return hmac.digest(key, b"mini-pacs key id", "sha256").hex()[:16]


def sync_folder(folder: Path) -> None:
    """Make a new or renamed name in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LocalKeys:
    """A key provider over keys that this process holds: one to wrap with, and those that still unwrap."""

    def __init__(self, key: bytes, others: Iterable[bytes] = ()) -> None:
        """Use `key` to wrap; `others` only unwrap until `use` names one of them."""
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[bytes, AESGCM]] = {}
        self._current = ""
        self._hold(key, others)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key_id={self._current!r})"

    @property
    def key_id(self) -> str:
        """Name of the key that wraps; says nothing about it."""
        return self._current

    @property
    def key_ids(self) -> frozenset[str]:
        """Names of all keys held."""
        return frozenset(self._keys)

    def use(self, key_id: str) -> None:
        """Wrap with the key of this name from now on. Raises `ConfigurationError` if it is not held."""
        self._find(key_id)
        self._current = key_id

    def refresh(self) -> None:
        """Take in what has changed outside, if this provider can see it."""

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Wrap a data key; `context` is bound to it."""
        return self.wrap_named(key, context)[1]

    def wrap_named(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """Wrap a data key, and say with which key: the two belong together even while another thread rotates."""
        current = self._current
        nonce = secrets.token_bytes(NONCE_BYTES)
        return current, nonce + self._keys[current][1].encrypt(nonce, key, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap a data key. Raises `ConfigurationError` if `key_id` is not ours or the bytes were changed."""
        _, wrapping = self._find(key_id)
        try:
            return wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:
            raise ConfigurationError(
                f"a wrapped data key is damaged, or was not wrapped for this use (key {key_id})"
            ) from error

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes bound to this key and `purpose`."""
        return derive(self._keys[self._current][0], b"mini-pacs " + purpose.encode())

    def reveal(self) -> bytes:
        """Return the key itself: for its export, and for nothing else."""
        return self._keys[self._current][0]

    def _hold(self, key: bytes, others: Iterable[bytes]) -> None:
        held = {key_id_of(one): (one, AESGCM(derive(one, b"mini-pacs wrap"))) for one in (key, *others)}
        with self._lock:
            self._keys = {**self._keys, **held}
            self._current = key_id_of(key)

    def _find(self, key_id: str) -> tuple[bytes, AESGCM]:
        found = self._keys.get(key_id)
        if found is None:
            current = self._current
            self._reread()
            # Reading anew must not change which key wraps: whoever rotates says when.
            if current in self._keys:
                self._current = current
            found = self._keys.get(key_id)
        if found is None:
            raise ConfigurationError(f"a data key was wrapped with the key {key_id}, but the key in use is {self._current}")
        return found

    def _reread(self) -> None:
        """Read the keys again where they lie; nothing to do for keys that were given."""


class GivenKeyProvider(LocalKeys):
    """Keys that were given as text: from the environment or a credential."""

    @classmethod
    def parse(cls, text: str, where: str, *, next_text: str = "") -> "GivenKeyProvider":
        """Take a key as base64, or a whole key file; `next_text` is the one to rotate to. Raises `ConfigurationError`."""
        others = [parse_given(next_text, f"{where} (next)")] if next_text.strip() else []
        return cls(parse_given(text, where), others)


class FileKeyProvider(LocalKeys):
    """A key-encryption key in a file that only its owner can read; beside it, during a rotation, the next or the old one."""

    def __init__(self, key: bytes, others: Iterable[bytes] = (), *, path: Path | None = None) -> None:
        """Use `key`; `create` and `open` are the ways in for everybody but tests."""
        super().__init__(key, others)
        self.path = path
        self._stamps: tuple[object, ...] = self._stamp()

    @classmethod
    def create(cls, path: Path, key: bytes | None = None) -> "FileKeyProvider":
        """Make a new random key at `path` (or keep the one given); never replaces one.

        Raises `ConfigurationError` if the file is there already or cannot be written.
        """
        key = key or secrets.token_bytes(KEY_BYTES)
        write_key_file(path, key_file(key))
        return cls(key, path=path)

    @classmethod
    def open(cls, path: Path) -> "FileKeyProvider":
        """Read the key at `path`, and what a rotation has put beside it.

        Raises `ConfigurationError` if it is missing, malformed, or readable by others; the message says what to do.
        """
        key, others = read_with_siblings(path, parse_key_file)
        return cls(key, others, path=path)

    def refresh(self) -> None:
        """Read the files again if they have changed, and wrap with the one in force."""
        if self.path is not None and self._stamp() != self._stamps:
            self._reread()

    def _reread(self) -> None:
        if self.path is None:
            return
        stamps = self._stamp()
        key, others = read_with_siblings(self.path, self._parse)
        self._hold(key, others)
        self._stamps = stamps

    def _parse(self, content: bytes, path: Path) -> bytes:
        return parse_key_file(content, path)

    def _stamp(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in siblings(self.path) if self.path is not None else ():
            try:
                status = path.stat()
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                found.append(None)
        return tuple(found)


class PassphraseKeyProvider(FileKeyProvider):
    """A key-encryption key in a file that is itself sealed by a passphrase (Argon2id, RFC 9106)."""

    def __init__(self, key: bytes, others: Iterable[bytes] = (), *, path: Path | None = None, passphrase: str = "") -> None:
        super().__init__(key, others, path=path)
        self._passphrase = passphrase

    @classmethod
    def make(cls, path: Path, passphrase: str, key: bytes | None = None) -> "PassphraseKeyProvider":
        """Make a new random key at `path` (or keep the one given), sealed by `passphrase`; never replaces one."""
        key = key or secrets.token_bytes(KEY_BYTES)
        write_key_file(path, sealed_key_file(key, passphrase))
        return cls(key, path=path, passphrase=passphrase)

    @classmethod
    def unlock(cls, path: Path, passphrase: str) -> "PassphraseKeyProvider":
        """Read and unseal the key at `path`. Raises `ConfigurationError`, also if the passphrase is wrong."""
        key, others = read_with_siblings(path, lambda content, where: parse_sealed_key_file(content, where, passphrase))
        return cls(key, others, path=path, passphrase=passphrase)

    def _parse(self, content: bytes, path: Path) -> bytes:
        return parse_sealed_key_file(content, path, self._passphrase)


def siblings(path: Path) -> tuple[Path, Path, Path]:
    """Return where the key in force lies, the one that a rotation goes to, and the one it comes from."""
    return path, path.with_suffix(".next" + path.suffix), path.with_suffix(".old" + path.suffix)


def read_with_siblings(path: Path, parse: Callable[[bytes, Path], bytes]) -> tuple[bytes, list[bytes]]:
    """Return the key in force and those that a rotation has put beside it."""
    key = parse(read_key_file(path), path)
    others = []
    for one in siblings(path)[1:]:
        if one.exists():
            try:
                content = read_key_file(one)
            except ConfigurationError:
                if one.exists():
                    raise
                continue  # the rotation has ended meanwhile
            others.append(parse(content, one))
    return key, others


def read_key_file(path: Path) -> bytes:
    """Return a key file's content. Raises `ConfigurationError` if it is missing, or readable by others."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise ConfigurationError(f"the key {path} is missing; bring it back from its backup") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read the key {path}: {error.strerror}") from error
    if status.st_mode & 0o077:
        raise ConfigurationError(f"others may read the key {path}; say: chmod 600 {path}")
    return content


def write_key_file(path: Path, text: str) -> None:
    """Write a file that only its owner can read, durably; never replaces one. Raises `ConfigurationError`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, text.encode("ascii"))
            os.fsync(descriptor)
            # A link: whole or not there at all, whenever the power goes, and never in the place of another.
            os.link(temporary, path)
        finally:
            os.close(descriptor)
            temporary.unlink()
        sync_folder(path.parent)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} is there already; a key is never replaced") from error
    except OSError as error:
        raise ConfigurationError(f"cannot write the key {path}: {error.strerror}") from error


def key_file(key: bytes) -> str:
    """Return the text of a key file."""
    return checked_lines(f"mini-pacs-key: 1\nkey-id: {key_id_of(key)}\nkey: {base64.b64encode(key).decode()}\n")


def sealed_key_file(key: bytes, passphrase: str, *, memory_kib: int = 65536, iterations: int = 3, lanes: int = 4) -> str:
    """Return the text of a key file sealed by a passphrase; the defaults took 0.4 s on the machine they were chosen on."""
    if not passphrase:
        raise ConfigurationError("the passphrase must not be empty")
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(NONCE_BYTES)
    sealing = AESGCM(_stretched(passphrase, salt, memory_kib, iterations, lanes))
    wrapped = nonce + sealing.encrypt(nonce, key, _PASSPHRASE_CONTEXT + key_id_of(key).encode())
    return checked_lines(
        f"mini-pacs-sealed-key: 1\nkey-id: {key_id_of(key)}\n"
        f"kdf: argon2id {memory_kib} {iterations} {lanes}\n"
        f"salt: {base64.b64encode(salt).decode()}\nwrapped: {base64.b64encode(wrapped).decode()}\n"
    )


def parse_key_file(content: bytes, path: Path) -> bytes:
    """Return the key of a key file. Raises `ConfigurationError` if it was changed in any character."""
    problem = ConfigurationError(f"{path} is not a mini-pacs key file, or it was changed; bring it back from its backup")
    values = values_of_lines(content, ("mini-pacs-key", "key-id", "key"), problem)
    try:
        key = base64.b64decode(values["key"], validate=True)
    except (ValueError, binascii.Error) as error:
        raise problem from error
    if values["mini-pacs-key"] != "1":
        raise ConfigurationError(f"{path} has a key file version that this release does not know")
    if len(key) != KEY_BYTES or values["key-id"] != key_id_of(key):
        raise problem
    return key


def parse_sealed_key_file(content: bytes, path: Path, passphrase: str) -> bytes:
    """Return the key of a file sealed by a passphrase. Raises `ConfigurationError`."""
    problem = ConfigurationError(f"{path} is not a sealed mini-pacs key, or it was changed; bring it back from its backup")
    values = values_of_lines(content, ("mini-pacs-sealed-key", "key-id", "kdf", "salt", "wrapped"), problem)
    try:
        name, *numbers = values["kdf"].split(" ")
        memory_kib, iterations, lanes = map(int, numbers)
        salt, wrapped = (base64.b64decode(values[one], validate=True) for one in ("salt", "wrapped"))
        if values["mini-pacs-sealed-key"] != "1" or name != "argon2id":
            raise ConfigurationError(f"{path} has a version that this release does not know")
        sealing = AESGCM(_stretched(passphrase, salt, memory_kib, iterations, lanes))
        return sealing.decrypt(
            wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _PASSPHRASE_CONTEXT + values["key-id"].encode("ascii")
        )
    except InvalidTag as error:
        raise ConfigurationError(f"the passphrase does not open {path}") from error
    except (ValueError, binascii.Error) as error:
        raise problem from error


def parse_given(text: str, where: str) -> bytes:
    """Return a key given as base64 of 32 bytes, or as a whole key file. Raises `ConfigurationError`, never with the text."""
    if "mini-pacs-key:" in text:
        return parse_key_file(text.encode("utf-8", "replace"), Path(where))
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ConfigurationError(f"{where} is not a key: 32 bytes in base64; `pacs keys generate` makes one") from error
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"{where} is not a key: 32 bytes in base64; `pacs keys generate` makes one")
    return key


def checked_lines(body: str) -> str:
    """Return lines of a key file with the checksum that closes them."""
    return body + f"checksum: {sha256(body.encode()).hexdigest()[:8]}\n"


def values_of_lines(content: bytes, names: tuple[str, ...], problem: ConfigurationError) -> dict[str, str]:
    """Return the lines of a key file by name; they must be these names, in this order, under their checksum."""
    try:
        lines = [line.strip() for line in content.decode("ascii").splitlines()]
        values = dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))
        body = "".join(f"{name}: {values[name]}\n" for name in names)
        checksum = values["checksum"]
    except (UnicodeDecodeError, ValueError, KeyError) as error:
        raise problem from error
    if checksum != sha256(body.encode()).hexdigest()[:8]:
        raise problem
    return values


def _stretched(passphrase: str, salt: bytes, memory_kib: int, iterations: int, lanes: int) -> bytes:
    kdf = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
    return kdf.derive(passphrase.encode("utf-8"))
