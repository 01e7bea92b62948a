"""The SQLite file of the identity vault: one connection a process, which waits for the disk only where it is asked to.

Tables and pragmas are here and nowhere else. What the rows hold is sealed before it comes here (`vault_seals.py`), and what
makes a commit durable is the journal beside (`journal.py`, docs/adr/0015).
"""

import contextlib
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pacs.model.errors import OutOfResources, Unavailable
from pacs.store.providers import sync_folder
from pacs.store.vault_rows import Row

NAME = "vault.db"
_TABLES = """
CREATE TABLE IF NOT EXISTS vault (one INTEGER PRIMARY KEY, version INTEGER, key_id TEXT, wrapped BLOB);
CREATE TABLE IF NOT EXISTS record (name BLOB PRIMARY KEY, level INTEGER, parent BLOB, sealed BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ix_record_parent ON record (parent);
CREATE TABLE IF NOT EXISTS found (digest BLOB, name BLOB, PRIMARY KEY (digest, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (writer TEXT PRIMARY KEY, generation INTEGER);
"""


class VaultFile:
    """The file in one folder; safe to share between threads, and between processes."""

    def __init__(self, folder: Path) -> None:
        """Use the file in `folder`, which is opened with the first question."""
        self.path = folder / NAME
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    @classmethod
    def create(cls, folder: Path, key_id: str, wrapped: bytes) -> None:
        """Make the file if it is not there; two processes may do so at once, and one that looks sees all of it or nothing."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as beside:
            made = cls(Path(beside))
            os.close(os.open(made.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with sqlite_errors():
                connection = made.connect()
                for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "BEGIN IMMEDIATE"):
                    connection.execute(statement)
                for statement in filter(str.strip, _TABLES.split(";")):
                    connection.execute(statement)
                connection.execute("INSERT INTO vault VALUES (1, 1, ?, ?)", (key_id, wrapped))
                connection.execute("COMMIT")
            # Closing brings everything into the one file, which then gets its name at once, unless another was quicker.
            made.close()
            with contextlib.suppress(FileExistsError):
                os.link(made.path, folder / NAME)
        sync_folder(folder)

    def connect(self) -> sqlite3.Connection:
        """Return this process's connection: SQLite connections must not be carried over a fork."""
        if self._connection is None or self._process != os.getpid():
            connection = sqlite3.connect(self.path, timeout=10.0, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous=NORMAL")
            self._connection, self._process = connection, os.getpid()
        return self._connection

    def one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """Return the first row of an answer."""
        with self.lock, sqlite_errors():
            row: tuple[Any, ...] | None = self.connect().execute(statement, values).fetchone()
            return row

    def all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return every row of an answer."""
        with self.lock, sqlite_errors():
            return self.connect().execute(statement, values).fetchall()

    @contextmanager
    def transaction(self, failed: Callable[[], object] = lambda: None) -> Iterator[sqlite3.Connection]:
        """Hold a write transaction; where it does not end well, `failed` is called behind its rollback.

        Raises `OutOfResources`, `Unavailable`.
        """
        with self.lock, sqlite_errors():
            connection = self.connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                failed()
                raise

    def settle(self, writer: str) -> None:
        """Make every commit so far durable: one that waits takes all before it along, in the one write-ahead log."""
        with self.lock, sqlite_errors():
            # SQLite does not let go of a PRAGMA within a transaction.
            self.connect().execute("PRAGMA synchronous=FULL")
            try:
                with self.transaction() as connection:
                    connection.execute("UPDATE log SET generation = generation WHERE writer = ?", (writer,))
            finally:
                self.connect().execute("PRAGMA synchronous=NORMAL")

    @contextmanager
    def overwriting(self) -> Iterator[None]:
        """Have deleted rows overwritten and every commit wait for the disk; behind it the write-ahead log is emptied."""
        with self.lock, sqlite_errors():
            for pragma in ("secure_delete=ON", "synchronous=FULL"):
                self.connect().execute(f"PRAGMA {pragma}")
            yield
            for pragma in ("synchronous=NORMAL", "wal_checkpoint(TRUNCATE)"):
                self.connect().execute(f"PRAGMA {pragma}").fetchall()

    # --- what every transaction needs --------------------------------------------------------------------------------------

    def write(self, rows: list[Row], digests: list[tuple[bytes, bytes]]) -> None:
        """Write rows and what they can be found by; those that are there stay. The caller is in a transaction."""
        connection = self.connect()
        connection.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?)", rows)
        connection.executemany("INSERT OR IGNORE INTO found VALUES (?, ?)", digests)

    def generation_of(self, log: str) -> int:
        """Return which generation of a log counts."""
        row = self.connect().execute("SELECT generation FROM log WHERE writer = ?", (log,)).fetchone()
        return int(row[0]) if row else 0

    def begin_log(self, log: str, generation: int) -> None:
        """Note which generation of a log counts from this transaction on."""
        self.connect().execute("INSERT OR REPLACE INTO log VALUES (?, ?)", (log, generation))

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None


@contextmanager
def sqlite_errors() -> Iterator[None]:
    """Say what SQLite says in our words."""
    try:
        yield
    except sqlite3.Error as error:
        if error.sqlite_errorname in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC"):
            raise OutOfResources("no room for the identity vault") from error
        raise Unavailable(f"the identity vault cannot be used now ({error.sqlite_errorname})") from error
