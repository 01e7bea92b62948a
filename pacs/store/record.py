"""The layout of a sealed record without any key: head, chunk table, trailer (docs/format.md, section 1).

Pure functions. `envelope.py` seals and opens by it; `segments.py` walks by it. What is here can be said of a record by anyone.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from uuid import UUID

from pacs.model.errors import IntegrityError
from pacs.model.instance import Buffer

MAGIC = b"\x89mPACS\n\x1a"
MARK = b"\nmPACS.\n"
VERSION = 1
PREFIX = struct.Struct("<8sHBBIQ16sQIII")
ROW = struct.Struct("<BBBBIQ")
TRAILER = struct.Struct("<8sII")
CHECKSUM = struct.Struct("<I")
PREFIX_BYTES = PREFIX.size + CHECKSUM.size
STATE_OFFSET = 11
LIVE, GIVEN_UP = 0, 0xDE
PACKED, OW = 1, 2
ENTRY, HEADER, FRAME = 0, 1, 2
AS_IS, ZLIB, PACKED_BITS = 0, 1, 2
TAG_BYTES = 16
PART_BYTES = 1 << 20
MAXIMUM_CHUNKS = 1 << 24
LARGE_BYTES = 32 << 20
"""A record longer than this is written, read and checked piece by piece, and lies in a container of its own."""
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row of the chunk table; `index` is its place."""

    index: int
    kind: int
    coding: int
    last: bool
    length: int
    offset: int


@dataclass(frozen=True, slots=True)
class Head:
    """A parsed head. `digest` is what every chunk is bound to."""

    object_id: UUID
    study_key_id: int
    length: int
    state: int
    packed: bool
    pixel_vr: str
    frames: int
    frame_bits: int
    table: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @property
    def chunks(self) -> int:
        """Number of rows in the chunk table."""
        return len(self.table) // ROW.size

    def row(self, index: int) -> Chunk:
        """Return one row of the table."""
        kind, coding, last, _, length, offset = ROW.unpack_from(self.table, index * ROW.size)
        return Chunk(index, kind, coding, bool(last), length, offset)

    def item(self, number: int) -> list[Chunk]:
        """Return the rows of item `number`: 0 the index entry, 1 the header, 2 the first frame.

        Raises `IntegrityError` if there is no such item.
        """
        lasts = self.table[2 :: ROW.size]
        if 0 not in lasts:
            # One part an item is the rule; then the row is found without looking at the others.
            return [self.row(number)] if number < len(lasts) else _missing(number)
        found: list[Chunk] = []
        at = 0
        for index, last in enumerate(lasts):
            if at == number:
                found.append(self.row(index))
            if last:
                at += 1
            if at > number:
                return found
        return _missing(number)

    @property
    def items(self) -> int:
        """Number of items: the index entry, the header and the frames."""
        return self.chunks - self.table[2 :: ROW.size].count(0)


def _missing(number: int) -> list[Chunk]:
    raise IntegrityError(f"the record has no item {number}")


def build_head(
    object_id: UUID,
    study_key_id: int,
    parts: list[tuple[int, int, bool, int]],
    *,
    packed: bool,
    pixel_vr: str,
    frames: int,
    frame_bits: int,
) -> bytes:
    """Return prefix and chunk table for `parts` = (kind, coding, last, plain bytes)."""
    first = PREFIX_BYTES + len(parts) * ROW.size
    offsets = list(accumulate((plain + TAG_BYTES for *_, plain in parts), initial=first))
    table = b"".join(
        ROW.pack(kind, coding, last, 0, plain + TAG_BYTES, offset)
        for (kind, coding, last, plain), offset in zip(parts, offsets, strict=False)
    )
    flags = (PACKED if packed else 0) | (OW if pixel_vr == "OW" else 0)
    length = offsets[-1] + TRAILER.size
    prefix = PREFIX.pack(MAGIC, VERSION, flags, LIVE, len(parts), length, object_id.bytes, study_key_id, frames, frame_bits, 0)
    return prefix + CHECKSUM.pack(zlib.crc32(table, zlib.crc32(prefix))) + table


def head_bytes(start: Buffer) -> int:
    """Return how many bytes the head has, from the first `PREFIX_BYTES`; 0 if no record starts here."""
    if len(start) < PREFIX_BYTES or bytes(start[:8]) != MAGIC:
        return 0
    chunks = int.from_bytes(start[12:16], "little")
    return PREFIX_BYTES + chunks * ROW.size if 2 <= chunks <= MAXIMUM_CHUNKS else 0


def parse_head(head: Buffer) -> Head:
    """Parse prefix and chunk table; `head` may go on behind them.

    Raises `IntegrityError` if this is not the head of a record of a version we know, or it was damaged.
    """
    size = head_bytes(head)
    if size == 0:
        raise IntegrityError("no record starts here")
    if len(head) < size:
        raise IntegrityError("the record's head is cut short")
    magic, version, flags, state, chunks, length, object_id, key_id, frames, frame_bits, reserved = PREFIX.unpack_from(head)
    live = PREFIX.pack(magic, version, flags, LIVE, chunks, length, object_id, key_id, frames, frame_bits, reserved)
    table = bytes(head[PREFIX_BYTES:size])
    checksum = bytes(head[PREFIX.size : PREFIX_BYTES])
    if checksum != CHECKSUM.pack(zlib.crc32(table, zlib.crc32(live))):
        raise IntegrityError("the record's head is damaged")
    if version != VERSION:
        raise IntegrityError(f"the record has format version {version}, which this release does not know")
    if state not in (LIVE, GIVEN_UP):
        raise IntegrityError("the record's state is damaged")
    _, _, last, _, sealed, offset = ROW.unpack_from(table, (chunks - 1) * ROW.size)
    if offset + sealed + TRAILER.size != length or not last:
        raise IntegrityError("the record's chunk table is damaged")
    return Head(
        object_id=UUID(bytes=object_id),
        study_key_id=key_id,
        length=length,
        state=state,
        packed=bool(flags & PACKED),
        pixel_vr="OW" if flags & OW else "OB",
        frames=frames,
        frame_bits=frame_bits,
        table=table,
        digest=sha256(live + checksum + table).digest(),
    )


def trailer(body_checksum: int) -> bytes:
    """Return the commit mark."""
    return TRAILER.pack(MARK, body_checksum, 0)


def opening_bytes(head: Head) -> int:
    """Return how many bytes a record has up to and with its index entry."""
    entry = head.item(0)[-1]
    return entry.offset + entry.length


def is_complete_by(read: Callable[[int, int], Buffer], length: int) -> bool:
    """Say the same as `is_complete` of a record that is read in blocks: `read(offset, count)`."""
    mark, checksum, reserved = TRAILER.unpack(read(length - TRAILER.size, TRAILER.size))
    if mark != MARK or reserved:
        return False
    body, crc = length - TRAILER.size, 0
    for offset in range(0, body, _BLOCK_BYTES):
        block = read(offset, min(_BLOCK_BYTES, body - offset))
        if offset == 0:
            # The state byte changes when a record is given up; it counts as live.
            crc = zlib.crc32(b"\0", zlib.crc32(block[:STATE_OFFSET]))
            block = memoryview(block)[STATE_OFFSET + 1 :]
        crc = zlib.crc32(block, crc)
    return bool(checksum == crc)


def is_complete(record: Buffer) -> bool:
    """Say without any key whether `record` was written to its end and has not changed by accident since."""
    with memoryview(record) as view:
        mark, checksum, reserved = TRAILER.unpack_from(view, len(view) - TRAILER.size)
        if mark != MARK or reserved:
            return False
        # The state byte changes when a record is given up; it counts as live.
        crc = zlib.crc32(b"\x00", zlib.crc32(view[:STATE_OFFSET]))
        return bool(checksum == zlib.crc32(view[STATE_OFFSET + 1 : -TRAILER.size], crc))
