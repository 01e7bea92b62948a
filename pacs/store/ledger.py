"""Which segments are in the bucket, and what of them was given up since: a small SQLite file beside the segments.

It can be lost: the bucket's own listing and the notes beside its segments say the same (`TieredStore.begin`).
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs.model.errors import OutOfResources, Unavailable
from pacs.model.instance import Location

FILE = "shipped.db"
SENDING, SHIPPED, FOUND = "sending", "shipped", "found"
"""A segment's state: its upload was begun; the copy was read back and compared; it was found in the bucket, not sent by us."""
_TABLES = """
CREATE TABLE IF NOT EXISTS segment (container TEXT PRIMARY KEY, state TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, changed_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS given_up (container TEXT, offset INTEGER, size_bytes INTEGER NOT NULL, told INTEGER NOT NULL,
    PRIMARY KEY (container, offset)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Copy:
    """A segment's copy in the bucket. `sha256` is empty where nobody has computed it yet."""

    container: str
    state: str
    size_bytes: int
    sha256: str
    changed_at: float


class Ledger:
    """Safe for threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    def copies(self) -> dict[str, Copy]:
        """Return every copy that can be read, by its segment's name."""
        rows = self._all("SELECT * FROM segment WHERE state != ? ORDER BY container", SENDING)
        return {row[0]: Copy(*row) for row in rows}

    def copy(self, container: str) -> Copy | None:
        """Return the copy of one segment, one that is being sent as well."""
        rows = self._all("SELECT * FROM segment WHERE container = ?", container)
        return Copy(*rows[0]) if rows else None

    def write(self, container: str, state: str, size_bytes: int = 0, sha256: str = "") -> None:
        """Note the state of a segment's copy; durable on return."""
        row = (container, state, size_bytes, sha256, time.time())
        self._do("INSERT OR REPLACE INTO segment VALUES (?, ?, ?, ?, ?)", *row)

    def touch(self, container: str) -> None:
        """Note that nothing of a segment is needed from now on."""
        self._do("UPDATE segment SET changed_at = ? WHERE container = ?", time.time(), container)

    def remove(self, container: str, *, given_up: bool) -> None:
        """Forget a segment's copy; with `given_up` also what was given up of the segment, because there is none any more."""
        self._do("DELETE FROM segment WHERE container = ?", container)
        if given_up:
            self._do("DELETE FROM given_up WHERE container = ?", container)

    def give_up(self, *places: Location, told: bool = False) -> None:
        """Note that records are no more; durable on return."""
        for place in places:
            row = (place.container, place.offset, place.size_bytes, int(told))
            self._do("INSERT OR IGNORE INTO given_up VALUES (?, ?, ?, ?)", *row)

    def is_given_up(self, place: Location) -> bool:
        """Tell whether a record is no more."""
        return bool(self._all("SELECT 1 FROM given_up WHERE container = ? AND offset = ?", place.container, place.offset))

    def given_up(self, container: str) -> dict[int, int]:
        """Return offset and size of what was given up of a segment."""
        return dict(self._all("SELECT offset, size_bytes FROM given_up WHERE container = ?", container))

    def untold(self) -> list[str]:
        """Return the segments in the bucket that lack a note there of what was given up since."""
        statement = "SELECT DISTINCT container FROM given_up JOIN segment USING (container) WHERE NOT told AND state != ?"
        return [row[0] for row in self._all(statement, SENDING)]

    def told(self, container: str, offsets: list[int]) -> None:
        """Note that the bucket knows what was given up."""
        for offset in offsets:
            self._do("UPDATE given_up SET told = 1 WHERE container = ? AND offset = ?", container, offset)

    def last_number(self, writer: str) -> int:
        """Return the highest number of a writer's segments in the bucket, 0 if there is none."""
        # The name ends with a hyphen, eight digits and ".seg"; the rest of it is the writer's.
        numbers = self._all(
            "SELECT substr(container, -12, 8) FROM segment WHERE substr(container, 1, length(container) - 13) = ?", writer
        )
        return max((int(row[0]) for row in numbers), default=0)

    def note(self, **values: str) -> None:
        """Keep a few words for those who ask how it goes."""
        for name, value in values.items():
            self._do("INSERT OR REPLACE INTO note VALUES (?, ?)", name, value)

    def notes(self) -> dict[str, str]:
        """Return what was noted."""
        return dict(self._all("SELECT name, value FROM note"))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._connected() as connection:
            return connection.execute(statement, values).fetchall()

    def _do(self, statement: str, *values: object) -> None:
        with self._connected() as connection:
            connection.execute(statement, values)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                # A connection must not be carried over a fork.
                if self._connection is None or self._process != os.getpid():
                    descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    os.close(descriptor)
                    connection = sqlite3.connect(self._path, timeout=10.0, isolation_level=None, check_same_thread=False)
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute("PRAGMA synchronous=FULL")
                    connection.executescript(_TABLES)
                    self._connection, self._process = connection, os.getpid()
                yield self._connection
            except sqlite3.Error as error:
                if error.sqlite_errorname == "SQLITE_FULL":
                    raise OutOfResources("no room for the list of segments in the bucket") from error
                raise Unavailable(f"the list of segments in the bucket cannot be used ({error.sqlite_errorname})") from error
