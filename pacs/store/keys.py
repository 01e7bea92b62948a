"""Keys: one key-encryption key in a file, one random data key a study in the key ring (docs/format.md, section 3).

Forgetting a study's key makes it unreadable in every copy of every segment; a new key-encryption key re-wraps the ring and
touches no record. Absent on purpose: keys in the environment.
"""

import base64
import binascii
import hmac
import os
import secrets
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pacs.model.errors import ConfigurationError, IntegrityError, OutOfResources, Unavailable
from pacs.ports import KeyProvider

_NONCE_BYTES = 12
_RING_CONTEXT = b"mini-pacs ring"
_STUDY_CONTEXT = b"mini-pacs study key "
_CACHED_KEYS = 4096


def derive(key: bytes, info: bytes) -> bytes:
    """Return 32 bytes bound to `key` and `info`. Source: RFC 5869 with SHA-256 and no salt."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(key)


class FileKeyProvider:
    """A key-encryption key in a file that only its owner can read."""

    def __init__(self, key: bytes) -> None:
        """Use `key`, 32 bytes; `create` and `open` are the ways in for everybody but tests."""
        self._key = key
        self._wrapping = AESGCM(derive(key, b"mini-pacs wrap"))
        self._key_id = _key_id(key)

    def __repr__(self) -> str:
        return f"FileKeyProvider(key_id={self._key_id!r})"

    @property
    def key_id(self) -> str:
        """Name of the key; says nothing about it."""
        return self._key_id

    @classmethod
    def create(cls, path: Path) -> "FileKeyProvider":
        """Make a new random key at `path`; never replaces one.

        Raises `ConfigurationError` if the file is there already or cannot be written.
        """
        key = secrets.token_bytes(32)
        body = f"mini-pacs-key: 1\nkey-id: {_key_id(key)}\nkey: {base64.b64encode(key).decode()}\n"
        text = body + f"checksum: {sha256(body.encode()).hexdigest()[:8]}\n"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(descriptor, text.encode())
                os.fsync(descriptor)
            except BaseException:
                path.unlink()
                raise
            finally:
                os.close(descriptor)
            sync_folder(path.parent)
        except FileExistsError as error:
            raise ConfigurationError(f"{path} is there already; a key is never replaced") from error
        except OSError as error:
            raise ConfigurationError(f"cannot write the key {path}: {error.strerror}") from error
        return cls(key)

    @classmethod
    def open(cls, path: Path) -> "FileKeyProvider":
        """Read the key at `path`.

        Raises `ConfigurationError` if it is missing, malformed, or readable by others; the message says what to do.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                content = file.read(4097)
        except FileNotFoundError as error:
            raise ConfigurationError(f"the key {path} is missing; bring it back from its backup") from error
        except OSError as error:
            raise ConfigurationError(f"cannot read the key {path}: {error.strerror}") from error
        if status.st_mode & 0o077:
            raise ConfigurationError(f"others may read the key {path}; say: chmod 600 {path}")
        return cls(_parse_key_file(content, path))

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Wrap a data key; `context` is bound to it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, key, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap a data key. Raises `ConfigurationError` if `key_id` is not ours or the bytes were changed."""
        if key_id != self._key_id:
            raise ConfigurationError(f"a data key was wrapped with the key {key_id}, but the key in use is {self._key_id}")
        try:
            return self._wrapping.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:
            raise ConfigurationError(
                f"a wrapped data key is damaged, or was not wrapped for this use (key {key_id})"
            ) from error

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes bound to this key and `purpose`."""
        return derive(self._key, b"mini-pacs " + purpose.encode())


def _key_id(key: bytes) -> str:
    return hmac.digest(key, b"mini-pacs key id", "sha256").hex()[:16]


def _parse_key_file(content: bytes, path: Path) -> bytes:
    problem = ConfigurationError(f"{path} is not a mini-pacs key file, or it was changed; bring it back from its backup")
    try:
        lines = [line.strip() for line in content.decode("ascii").splitlines()]
        pairs = [line.split(": ", 1) for line in lines if line and not line.startswith("#")]
        values = dict(pairs)
        body = "".join(f"{name}: {values[name]}\n" for name in ("mini-pacs-key", "key-id", "key"))
        key = base64.b64decode(values["key"], validate=True)
        checksum = values["checksum"]
    except (UnicodeDecodeError, ValueError, KeyError, binascii.Error) as error:
        raise problem from error
    if values["mini-pacs-key"] != "1":
        raise ConfigurationError(f"{path} has a key file version that this release does not know")
    if checksum != sha256(body.encode()).hexdigest()[:8] or len(key) != 32 or values["key-id"] != _key_id(key):
        raise problem
    return key


def sync_folder(folder: Path) -> None:
    """Make a new or renamed name in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class KeyRing:
    """The wrapped data keys, one a study, in a small SQLite file that several processes share."""

    def __init__(self, path: Path, provider: KeyProvider) -> None:
        """Use the ring at `path`; `create` and `open` are the ways in."""
        self._path = path
        self._provider = provider
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._version = -1
        self._by_id: OrderedDict[int, bytes] = OrderedDict()
        self._by_study: OrderedDict[str, int] = OrderedDict()
        self._secret = b""

    @classmethod
    def create(cls, path: Path, provider: KeyProvider) -> "KeyRing":
        """Make the ring if it is not there, then open it; two processes may do so at once."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = not path.exists()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        ring = cls(path, provider)
        with ring._transaction() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS ring (one INTEGER PRIMARY KEY, version INTEGER, key_id TEXT, wrapped BLOB)"
            )
            connection.execute(
                "CREATE TABLE IF NOT EXISTS study_key "
                "(id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE, key_id TEXT NOT NULL, wrapped BLOB NOT NULL)"
            )
            if connection.execute("SELECT one FROM ring").fetchone() is None:
                wrapped = provider.wrap(secrets.token_bytes(32), _RING_CONTEXT)
                connection.execute("INSERT INTO ring VALUES (1, 1, ?, ?)", (provider.key_id, wrapped))
        if new:
            sync_folder(path.parent)
        ring._unlock()
        return ring

    @classmethod
    def open(cls, path: Path, provider: KeyProvider) -> "KeyRing":
        """Open the ring.

        Raises `ConfigurationError` if it is missing, or `provider` does not hold the key it was made with.
        """
        if not path.exists():
            raise ConfigurationError(
                f"the key ring {path} is missing; without it no record can be read: bring it back from its backup"
            )
        ring = cls(path, provider)
        ring._unlock()
        return ring

    def for_study(self, study_instance_uid: str) -> tuple[int, bytes]:
        """Return id and data key of a study; made if it has none, and durable before this returns."""
        with self._lock:
            self._forget_if_changed()
            key_id = self._by_study.get(study_instance_uid)
            if key_id is not None and (key := self._by_id.get(key_id)) is not None:
                return key_id, key
            name = self._name(study_instance_uid)
            row = self._one("SELECT id, key_id, wrapped FROM study_key WHERE name = ?", name)
            if row is None:
                wrapped = self._provider.wrap(secrets.token_bytes(32), _STUDY_CONTEXT + name)
                with self._transaction() as connection:
                    connection.execute(
                        "INSERT OR IGNORE INTO study_key (name, key_id, wrapped) VALUES (?, ?, ?)",
                        (name, self._provider.key_id, wrapped),
                    )
                # Another process may have been first: what the table holds is the key, not what we made.
                row = self._one("SELECT id, key_id, wrapped FROM study_key WHERE name = ?", name)
                if row is None:
                    raise Unavailable("the study's key was forgotten while it was made")
            key = self._provider.unwrap(row[1], row[2], _STUDY_CONTEXT + name)
            self._remember(row[0], key)
            self._by_study[study_instance_uid] = row[0]
            while len(self._by_study) > _CACHED_KEYS:
                self._by_study.popitem(last=False)
            return row[0], key

    def key(self, study_key_id: int) -> bytes:
        """Return a data key by its id. Raises `IntegrityError` if it is not in the ring (any more)."""
        with self._lock:
            self._forget_if_changed()
            known = self._by_id.get(study_key_id)
            if known is not None:
                return known
            row = self._one("SELECT name, key_id, wrapped FROM study_key WHERE id = ?", study_key_id)
            if row is None:
                raise IntegrityError(
                    f"study key {study_key_id} is not in the key ring: the study was forgotten, or the ring is older"
                )
            key = self._provider.unwrap(row[1], row[2], _STUDY_CONTEXT + row[0])
            self._remember(study_key_id, key)
            return key

    def forget(self, study_instance_uid: str) -> bool:
        """Destroy a study's key; nothing of the study can be read again. Returns whether there was one."""
        with self._lock:
            with self._transaction() as connection:
                name = self._name(study_instance_uid)
                forgotten = connection.execute("DELETE FROM study_key WHERE name = ?", (name,)).rowcount > 0
            self._by_id.clear()
            self._by_study.clear()
            return forgotten

    def rewrap(self, new: KeyProvider) -> int:
        """Wrap every key with `new`, all or none, and use it from now on. Returns how many study keys were wrapped anew."""
        with self._lock:
            with self._transaction() as connection:
                rows = connection.execute("SELECT id, name, key_id, wrapped FROM study_key").fetchall()
                for number, name, key_id, wrapped in rows:
                    key = self._provider.unwrap(key_id, wrapped, _STUDY_CONTEXT + name)
                    connection.execute(
                        "UPDATE study_key SET key_id = ?, wrapped = ? WHERE id = ?",
                        (new.key_id, new.wrap(key, _STUDY_CONTEXT + name), number),
                    )
                connection.execute(
                    "UPDATE ring SET key_id = ?, wrapped = ?", (new.key_id, new.wrap(self._secret, _RING_CONTEXT))
                )
            self._provider = new
            return len(rows)

    def close(self) -> None:
        """Close the file and drop every key from memory."""
        with self._lock:
            self._by_id.clear()
            self._by_study.clear()
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _name(self, study_instance_uid: str) -> bytes:
        return hmac.digest(self._secret, study_instance_uid.encode(), "sha256")

    def _remember(self, study_key_id: int, key: bytes) -> None:
        self._by_id[study_key_id] = key
        while len(self._by_id) > _CACHED_KEYS:
            self._by_id.popitem(last=False)

    def _unlock(self) -> None:
        try:
            row = self._one("SELECT version, key_id, wrapped FROM ring")
        except Unavailable as error:
            raise ConfigurationError(f"{self._path} is not a key ring; bring it back from its backup") from error
        if row is None or row[0] != 1:
            raise ConfigurationError(f"{self._path} is not a key ring that this release knows")
        self._secret = self._provider.unwrap(row[1], row[2], _RING_CONTEXT)

    def _forget_if_changed(self) -> None:
        # Another process may have forgotten a study: what it committed must not live on in our memory.
        (version,) = self._one("PRAGMA data_version") or (-1,)
        if version != self._version:
            self._by_id.clear()
            self._by_study.clear()
            self._version = version

    def _connect(self) -> sqlite3.Connection:
        # SQLite connections must not be carried over a fork.
        if self._connection is None or self._process != os.getpid():
            connection = sqlite3.connect(self._path, timeout=10.0, isolation_level=None, check_same_thread=False)
            # A rollback journal, not WAL: a forgotten key would live on in the WAL until a checkpoint.
            for pragma in ("journal_mode=DELETE", "synchronous=EXTRA", "secure_delete=ON"):
                connection.execute(f"PRAGMA {pragma}")
            self._connection, self._process = connection, os.getpid()
        return self._connection

    def _one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        with self._lock, _sqlite_errors(self._path):
            row: tuple[Any, ...] | None = self._connect().execute(statement, values).fetchone()
            return row

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _sqlite_errors(self._path):
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if error.sqlite_errorname in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC"):
            raise OutOfResources("no room for the key ring") from error
        raise Unavailable(f"the key ring {path.name} cannot be used now ({error.sqlite_errorname})") from error
