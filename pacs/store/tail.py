"""The end of the segment that is being written, zero-filled ahead (docs/format.md, section 2)."""

import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path

from pacs.logs import get_logger
from pacs.model.instance import Buffer, Location
from pacs.store.keys import sync_folder
from pacs.store.walk import ALIGNMENT, HEADER, SCAN_BYTES, aligned, walk, write

log = get_logger(__name__)
LARGEST_STEP = 8 << 20
SMALLEST_STEP = 64 << 10
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Tail:
    """The segment that is being written. `end` is where the next record goes; up to `filled` the file is written with zeros."""

    def __init__(self, container: str, number: int, descriptor: int, end: int, filled: int) -> None:
        self.container = container
        self.number = number
        self.descriptor = descriptor
        self.end = end
        self.filled = filled
        self.begun_at = time.monotonic()

    @classmethod
    def create(cls, folder: Path, writer: str, number: int) -> "Tail":
        """Begin a segment; its name is durable on return."""
        container = f"{writer}-{number:08}.seg"
        path = folder / container
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write(descriptor, HEADER, 0)
            os.fsync(descriptor)
            sync_folder(folder)
        except BaseException:
            os.close(descriptor)
            path.unlink()
            raise
        return cls(container, number, descriptor, ALIGNMENT, ALIGNMENT)

    @classmethod
    def reopen(cls, folder: Path, writer: str, number: int, from_offset: int = 0) -> "Tail":
        """Go on with a segment after a stop or a crash; torn bytes behind the last complete record become zeros.

        What lies before `from_offset`, the end of a record or 0, is known to be whole, and not read.
        """
        container = f"{writer}-{number:08}.seg"
        descriptor = os.open(folder / container, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.pread(descriptor, len(HEADER), 0) != HEADER:
                # A crash between creation and the first sync: there is nothing in it yet.
                write(descriptor, HEADER, 0)
            end = max(ALIGNMENT, aligned(from_offset))
            for location, _ in walk(descriptor, container, end):
                end = aligned(location.offset + location.size_bytes)
            torn = _zero(descriptor, end)
            if torn:
                log.warning("torn_records_trimmed", segment=container, size_bytes=torn)
            os.fdatasync(descriptor)
            return cls(container, number, descriptor, end, max(end, os.fstat(descriptor).st_size))
        except BaseException:
            os.close(descriptor)
            raise

    def append(self, record: Iterable[Buffer], size_bytes: int, free_bytes: int) -> Location:
        """Write one record behind the last; not durable yet."""
        if self.end == ALIGNMENT:
            self.begun_at = time.monotonic()
        location = Location(self.container, self.end, size_bytes)
        needed = aligned(self.end + size_bytes)
        if needed > self.filled:
            self._fill(needed, free_bytes)
        position = self.end
        self.end = needed
        for piece in record:
            position += write(self.descriptor, piece, position)
        return location

    def rewind(self, end: int) -> None:
        """Take everything from `end` back, durably, and give its room back too."""
        self.end = end
        self.cut()

    def cut(self) -> None:
        """Cut the zeros behind the last record off."""
        os.ftruncate(self.descriptor, self.end)
        self.filled = self.end
        os.fdatasync(self.descriptor)

    def close(self) -> None:
        """Close the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _fill(self, needed: int, free_bytes: int) -> None:
        # Steps follow the room that is left, so that four writers and a database share even a small disk.
        step = min(LARGEST_STEP, max(SMALLEST_STEP, free_bytes // 16))
        zeros = bytes(1 << 20)
        target = needed if needed - self.filled > step else self.filled + step
        try:
            while self.filled < target:
                self.filled += write(self.descriptor, memoryview(zeros)[: target - self.filled], self.filled)
        except OSError as error:
            self.filled = max(self.filled, os.fstat(self.descriptor).st_size)
            if error.errno not in NO_ROOM or self.filled < needed:
                raise
        os.fdatasync(self.descriptor)


def _zero(descriptor: int, begin: int) -> int:
    """Make the file zero from `begin` to its end; return how many blocks' bytes were not."""
    size = os.fstat(descriptor).st_size
    changed = 0
    zeros = bytes(SCAN_BYTES)
    for offset in range(begin, size, SCAN_BYTES):
        block = os.pread(descriptor, SCAN_BYTES, offset)
        if block.count(0) != len(block):
            changed += len(block)
            write(descriptor, memoryview(zeros)[: len(block)], offset)
    return changed
