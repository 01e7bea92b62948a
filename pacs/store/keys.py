"""The key ring: one random data key a study, wrapped by a key-encryption key (docs/format.md, section 3.2).

Forgetting a study's key makes it unreadable in every copy of every segment; a new key-encryption key re-wraps the ring and
touches no record. Where the key-encryption key comes from is told in `pacs.store.providers`.
"""

import contextlib
import hmac
import os
import secrets
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pacs.model.errors import ConfigurationError, IntegrityError, OutOfResources, Unavailable
from pacs.ports import KeyProvider
from pacs.store.providers import FileKeyProvider, derive, sync_folder

__all__ = ["FileKeyProvider", "KeyRing", "derive", "sync_folder"]

_RING_CONTEXT = b"mini-pacs ring"
_STUDY_CONTEXT = b"mini-pacs study key "
_CACHED_KEYS = 4096


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

    @property
    def provider(self) -> KeyProvider:
        """What wraps the keys of this ring."""
        return self._provider

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
                with self._transaction() as connection:
                    # Under the lock of the transaction: a rotation moves the ring first, so no new key gets the old lock.
                    key_id_in_force, wrapped = self._wrap_in_force(connection, secrets.token_bytes(32), _STUDY_CONTEXT + name)
                    connection.execute(
                        "INSERT OR IGNORE INTO study_key (name, key_id, wrapped) VALUES (?, ?, ?)",
                        (name, key_id_in_force, wrapped),
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

    def rewrap(self, new: KeyProvider, *, batch: int = 1000, on_progress: Callable[[int], object] | None = None) -> int:
        """Wrap every key with `new`'s key and use it from now on; returns how many study keys were wrapped anew.

        The ring's own row moves first, so that whoever makes a study key meanwhile wraps it with the new key too; then the
        study keys follow, `batch` of them a transaction. Cut short, it is resumed by calling it again; until it has ended,
        both keys are needed.
        """
        done = 0
        with self._lock:
            with self._transaction() as connection:
                (key_id,) = connection.execute("SELECT key_id FROM ring").fetchone()
                if key_id != new.key_id:
                    connection.execute(
                        "UPDATE ring SET key_id = ?, wrapped = ?", (new.key_id, new.wrap(self._secret, _RING_CONTEXT))
                    )
            while True:
                with self._transaction() as connection:
                    rows = connection.execute(
                        "SELECT id, name, key_id, wrapped FROM study_key WHERE key_id != ? ORDER BY id LIMIT ?",
                        (new.key_id, batch),
                    ).fetchall()
                    for number, name, old_id, wrapped in rows:
                        key = self._provider.unwrap(old_id, wrapped, _STUDY_CONTEXT + name)
                        connection.execute(
                            "UPDATE study_key SET key_id = ?, wrapped = ? WHERE id = ?",
                            (new.key_id, new.wrap(key, _STUDY_CONTEXT + name), number),
                        )
                done += len(rows)
                if on_progress is not None:
                    on_progress(done)
                if len(rows) < batch:
                    break
            self._provider = new
            return done

    def wrapped_with(self) -> dict[str, int]:
        """Return how many keys each key-encryption key wraps, the ring's own secret counted."""
        with self._lock, _sqlite_errors(self._path):
            both = "SELECT key_id FROM study_key UNION ALL SELECT key_id FROM ring"
            return dict(self._connect().execute(f"SELECT key_id, count(*) FROM ({both}) GROUP BY key_id").fetchall())

    def holds(self, study_key_id: int) -> bool:
        """Tell whether a study key is still there."""
        return self._one("SELECT 1 FROM study_key WHERE id = ?", study_key_id) is not None

    def size(self) -> int:
        """Return how many study keys there are."""
        (count,) = self._one("SELECT count(*) FROM study_key") or (0,)
        return int(count)

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the ring, its keys as wrapped as they are here, to a new file."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with self._lock, _sqlite_errors(self._path), contextlib.closing(sqlite3.connect(path)) as copy:
            self._connect().backup(copy)

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
        self._provider.use(row[1])

    def _wrap_in_force(self, connection: sqlite3.Connection, key: bytes, context: bytes) -> tuple[str, bytes]:
        (in_force,) = connection.execute("SELECT key_id FROM ring").fetchone()
        while True:
            key_id, wrapped = self._provider.wrap_named(key, context)
            if key_id == in_force:
                return key_id, wrapped
            self._provider.use(in_force)

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
