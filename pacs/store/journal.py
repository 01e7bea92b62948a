"""A writer's append log beside a database that does not wait for the disk: one fdatasync, and a replay after a power cut.

It knows neither keys nor rows: an entry is a payload behind a head with its length, its checksum and the *generation* of the
log (docs/format.md, section 5). The owner keeps the generation that counts in its database. Whoever makes that database durable
raises it: all that the log holds is obsolete then, and it begins anew at its start without a byte of it being erased.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pacs.model.errors import OutOfResources, Unavailable
from pacs.store.providers import sync_folder

LOG_BYTES = 4 << 20
_MAGIC = b"mPIV"
_ENTRY = struct.Struct("<4sIQI")


class Journal:
    """The log of one writer. Its owner holds a lock, and a write transaction of the database, whenever it calls."""

    def __init__(self, folder: Path, writer: str) -> None:
        """Log in `folder` under the name `writer`, or, where another process has that log, under one like it."""
        self._folder = folder
        self._writer = writer
        self._file = -1
        self.name = ""
        self.generation = 0
        self.position = 0

    @property
    def is_open(self) -> bool:
        """Tell whether a log is held."""
        return self._file >= 0

    def open(self, generation_of: Callable[[str], int]) -> list[bytes]:
        """Take the first log of our name that no other process holds; its space is there before it is needed.

        Parameters
        ----------
        generation_of : callable
            Says which generation of the log of a name counts.

        Returns
        -------
        list of bytes
            The payloads that it holds: after a power cut the database may be older than the log of our predecessor.

        Raises
        ------
        OutOfResources
            There is no room for it.
        Unavailable
            Too many processes write under one name.
        """
        for number in range(1000):
            name = self._writer if not number else f"{self._writer}.{number}"
            try:
                file = os.open(self._folder / f"{name}.log", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise _no_room() from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            try:
                self._fill(file)
            except OSError as error:
                os.close(file)
                raise _no_room() from error
            self._file, self.name = file, name
            self.generation = generation_of(name)
            held = list(entries(os.pread(file, LOG_BYTES, 0), self.generation))
            self.position = sum(_ENTRY.size + len(payload) for payload in held)
            return held
        raise Unavailable("too many processes write the identity vault under one name")

    def append(self, payload: bytes) -> bool:
        """Append one entry, still without waiting for the disk; false where the log is full. Raises `OutOfResources`."""
        entry = _ENTRY.pack(_MAGIC, len(payload), self.generation, zlib.crc32(payload)) + payload
        if self.position + len(entry) > LOG_BYTES:
            return False
        try:
            written = os.pwrite(self._file, entry, self.position)
        except OSError as error:
            raise _no_room() from error
        if written != len(entry):
            raise _no_room()
        self.position += len(entry)
        return True

    def begin_anew(self, generation: int) -> None:
        """Go on at the start, under another generation: what is in the log counts no more."""
        self.generation, self.position = generation, 0

    def sync(self) -> None:
        """Make what was appended durable."""
        if self.is_open:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Let go of the log; it is found anew where it stands when it is opened again."""
        if self.is_open:
            os.close(self._file)
            self._file = -1

    def _fill(self, file: int) -> None:
        missing = LOG_BYTES - os.fstat(file).st_size
        if missing > 0:
            # Written, not only reserved: fdatasync of an overwrite need not wait for the file system's journal.
            os.pwrite(file, bytes(missing), LOG_BYTES - missing)
            os.fsync(file)
            sync_folder(self._folder)


def logs(folder: Path) -> list[Path]:
    """Return the logs of all writers of a folder; the stem of each is its name."""
    return sorted(folder.glob("*.log"))


def payloads(path: Path, generation: int) -> list[bytes]:
    """Return what a log holds that counts."""
    with path.open("rb") as file:
        return list(entries(file.read(LOG_BYTES), generation))


def overwrite(path: Path, generation: int) -> None:
    """Overwrite a log with zeros, durably, unless its writer has begun the generation that counts.

    Nobody may append meanwhile.
    """
    with path.open("r+b") as file:
        head = file.read(_ENTRY.size)
        if len(head) == _ENTRY.size and _ENTRY.unpack(head)[2] == generation:
            return
        file.seek(0)
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())


def entries(content: bytes, generation: int) -> Iterator[bytes]:
    """Yield the payloads of one generation of a log; a torn one ends it."""
    position = 0
    while position + _ENTRY.size <= len(content):
        magic, length, written_in, checksum = _ENTRY.unpack_from(content, position)
        position += _ENTRY.size
        payload = content[position : position + length]
        if magic != _MAGIC or written_in != generation or len(payload) != length or zlib.crc32(payload) != checksum:
            return
        yield payload
        position += length


def _no_room() -> OutOfResources:
    return OutOfResources("no room for the log of the identity vault")
