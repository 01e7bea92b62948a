"""Reading a segment from end to end: complete records, those given up, and damage between them (docs/format.md, section 2).

A torn record is told from a complete one by its commit mark; behind one that is damaged the next begins at a multiple of
`ALIGNMENT`.
"""

import os
from collections.abc import Iterator
from typing import Protocol

from pacs.model.errors import IntegrityError
from pacs.model.instance import Buffer, Location
from pacs.model.upkeep import DAMAGE, GIVEN_UP, RECORD, Piece
from pacs.store import record as layout

ALIGNMENT = 512
HEADER = b"\x89mPACSS\n" + (1).to_bytes(2, "little") + ALIGNMENT.to_bytes(2, "little") + bytes(ALIGNMENT - 12)
SCAN_BYTES = 1 << 20


class Placed(Protocol):
    """Bytes that can be read at any place, as `os.pread` does: at most `length` of them, fewer at the end."""

    size_bytes: int

    def pread(self, length: int, offset: int) -> bytes: ...


Source = int | Placed
"""A segment being walked: an open file, or one that lies elsewhere."""


def survey(source: Source, container: str) -> Iterator[Piece]:
    """Name every stretch of a segment that is not zero: records, those given up, and damage."""
    if read(source, ALIGNMENT, 0) != HEADER:
        yield Piece(DAMAGE, Location(container, 0, ALIGNMENT))
    offset, size = ALIGNMENT, _size(source)
    while offset < size:
        head = _complete_at(source, offset, size)
        if head is None:
            following = _next_magic(source, offset + ALIGNMENT, size)
            yield from _damage(source, container, offset, following)
            offset = following
            continue
        location = Location(container, offset, head.length)
        if head.state == layout.LIVE:
            yield Piece(RECORD, location, read(source, _held_bytes(head), offset))
        else:
            yield Piece(GIVEN_UP, location)
        offset = aligned(offset + head.length)
        yield from _damage(source, container, location.offset + head.length, min(offset, size))


def live_records(source: Source, container: str, from_offset: int = 0) -> Iterator[tuple[Location, bytes]]:
    """Yield the complete records of a segment that were not given up."""
    for location, head in walk(source, container, from_offset):
        if head.state == layout.LIVE:
            yield location, read(source, _held_bytes(head), location.offset)


def walk(source: Source, container: str, from_offset: int) -> Iterator[tuple[Location, layout.Head]]:
    """Find complete records, also behind a torn or damaged one."""
    offset = max(ALIGNMENT, aligned(from_offset))
    size = _size(source)
    while offset < size:
        head = _complete_at(source, offset, size)
        if head is None:
            offset = _next_magic(source, offset + ALIGNMENT, size)
            continue
        yield Location(container, offset, head.length), head
        offset = aligned(offset + head.length)


def _complete_at(source: Source, offset: int, size: int) -> layout.Head | None:
    start = pread(source, layout.PREFIX_BYTES, offset)
    head_bytes = layout.head_bytes(start)
    if not head_bytes or offset + head_bytes > size:
        return None
    try:
        head = layout.parse_head(pread(source, head_bytes, offset))
    except IntegrityError:
        return None
    if offset + head.length > size:
        return None
    if head.state == layout.GIVEN_UP:
        return head
    if head.length > layout.LARGE_BYTES:
        whole = layout.is_complete_by(lambda at, count: read(source, count, offset + at), head.length)
        return head if whole else None
    return head if layout.is_complete(read(source, head.length, offset)) else None


def _held_bytes(head: layout.Head) -> int:
    """Return how much of a record is read at once: all of it, or the beginning of a large one."""
    return head.length if head.length <= layout.LARGE_BYTES else layout.opening_bytes(head)


def _next_magic(source: Source, offset: int, size: int) -> int:
    while offset < size:
        block = pread(source, SCAN_BYTES, offset)
        at = block.find(layout.MAGIC)
        while at >= 0 and at % ALIGNMENT:
            at = block.find(layout.MAGIC, at + 1)
        if at >= 0:
            return offset + at
        offset += SCAN_BYTES
    return size


def _damage(source: Source, container: str, begin: int, end: int) -> Iterator[Piece]:
    """Yield the stretch from `begin` to `end` as damage unless it is zero throughout."""
    for offset in range(begin, end, SCAN_BYTES):
        block = pread(source, min(SCAN_BYTES, end - offset), offset)
        if block.count(0) != len(block):
            yield Piece(DAMAGE, Location(container, begin, end - begin))
            return


def write(descriptor: int, data: Buffer, offset: int) -> int:
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
    return done


def pread(source: Source, length: int, offset: int) -> bytes:
    return os.pread(source, length, offset) if isinstance(source, int) else source.pread(length, offset)


def _size(source: Source) -> int:
    return os.fstat(source).st_size if isinstance(source, int) else source.size_bytes


def read(source: Source, length: int, offset: int) -> bytes:
    data = pread(source, length, offset)
    while 0 < len(data) < length:
        # Linux reads at most 2 GiB at once.
        more = pread(source, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
