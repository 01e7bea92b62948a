"""Encapsulated Pixel Data as items: its offset table, its fragments, and which of them make a frame (PS3.5 A.4)."""

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeVar

from pacs.model.bulk import Bulk, Slice
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Buffer

T = TypeVar("T")
MOST_FRAGMENTS = 1 << 18
"""Fragments of a large object; their places are held in memory."""

_ITEM = struct.Struct("<HHI")
# JPEG and JPEG-LS begin with SOI and another marker, JPEG 2000 and HTJ2K with SOC and SIZ.
_STREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")


def items(stream: Buffer) -> list[tuple[int, memoryview]] | None:
    """Return (position, value) of every item, or None if the stream is not made of items."""
    view = memoryview(stream).cast("B")
    found, position = [], 0
    while position + 8 <= len(view):
        group, number, length = _ITEM.unpack_from(view, position)
        if (group, number) != (0xFFFE, 0xE000) or position + 8 + length > len(view):
            return None
        found.append((position, view[position + 8 : position + 8 + length]))
        position += 8 + length
    return found if position == len(view) else None


def bulk_items(stream: Bulk, position: int = 0) -> tuple[list[tuple[int, Slice]], int]:
    """Return (position, value) of every item from `position` on, and where the items end: with the bulk, or a delimiter.

    Raises `NotUnderstood` where there is anything but items, or more of them than this archive takes.
    """
    size = len(stream)
    found: list[tuple[int, Slice]] = []
    while position + 8 <= size:
        group, number, length = _ITEM.unpack(stream.read(position, 8))
        if (group, number) == (0xFFFE, 0xE0DD):
            return found, position
        if (group, number) != (0xFFFE, 0xE000) or position + 8 + length > size:
            raise NotUnderstood("encapsulated Pixel Data holds something other than fragments")
        if len(found) > MOST_FRAGMENTS:
            raise NotUnderstood(f"encapsulated Pixel Data has more than {MOST_FRAGMENTS} fragments")
        found.append((position, Slice(stream, position + 8, length)))
        position += 8 + length
    if position != size:
        raise NotUnderstood("encapsulated Pixel Data ends within the head of a fragment")
    return found, position


def whole(slices: Sequence[Slice]) -> Buffer:
    """Read the fragments of one frame into one code stream."""
    if len(slices) == 1:
        return slices[0].read(0, len(slices[0]))
    return b"".join(one.read(0, len(one)) for one in slices)


class ItemStream:
    """A bulk like `item_stream`, one fragment a frame, whose frames are made when they are read."""

    def __init__(self, sizes: Sequence[int], frame: Callable[[int], Buffer]) -> None:
        self._sizes = sizes
        self._frame = frame
        steps = [8 + size + size % 2 for size in sizes]
        places = list(accumulate(steps, initial=0))
        last = places[-2] if len(places) > 1 else 0
        table = struct.pack(f"<{len(sizes)}I", *places[:-1]) if sizes and last <= 0xFFFFFFFF else b""
        self._head = _ITEM.pack(0xFFFE, 0xE000, len(table)) + table
        self._places = [len(self._head) + place for place in places]
        self._last: tuple[int, Buffer] = (-1, b"")

    def __len__(self) -> int:
        return self._places[-1]

    def read(self, offset: int, length: int) -> Buffer:
        """Return bytes of the stream."""
        end, found = min(offset + length, len(self)), bytearray()
        while offset < end:
            if offset < len(self._head):
                piece: Buffer = memoryview(self._head)[offset:end]
            else:
                index = bisect_right(self._places, offset) - 1
                within, size = offset - self._places[index], self._sizes[index]
                stop = end - self._places[index]
                if within < 8:
                    piece = _ITEM.pack(0xFFFE, 0xE000, size + size % 2)[within:stop]
                elif within < 8 + size:
                    piece = memoryview(self._made(index))[within - 8 : stop - 8]
                else:
                    piece = b"\0"
            found += piece
            offset += len(piece)
        return found

    def _made(self, index: int) -> Buffer:
        known, frame = self._last
        if known != index:
            frame = self._frame(index)
            self._last = index, frame
        return frame


def _begins(fragment: memoryview) -> bytes:
    return bytes(fragment[:4])


def bulk_by_frame(
    found: Sequence[tuple[int, Slice]], number_of_frames: int, *, one_each: bool, extended_offsets: Sequence[int]
) -> list[list[Slice]] | None:
    """Return the fragments of each frame of a large object, like `by_frame`."""
    if not found:
        return None
    table = memoryview(whole([found[0][1]]))
    return _grouped(
        table, found[1:], number_of_frames, one_each, extended_offsets, lambda one: bytes(one.read(0, min(4, len(one))))
    )


def by_frame(
    found: Sequence[tuple[int, memoryview]],
    number_of_frames: int,
    *,
    one_each: bool = False,
    extended_offsets: Sequence[int] = (),
) -> list[list[memoryview]] | None:
    """Return the fragments of each frame, None where they cannot be told apart; `found` begins with the offset table.

    Tried in turn: one frame; a fragment a frame; the Extended Offset Table (PS3.3 C.7.6.3.1.8); the Basic Offset Table; where a
    code stream begins. With `one_each` (RLE) nothing but the first two is right.
    """
    return _grouped(found[0][1], found[1:], number_of_frames, one_each, extended_offsets, _begins) if found else None


def _grouped(
    table: memoryview,
    fragments: Sequence[tuple[int, T]],
    number_of_frames: int,
    one_each: bool,
    extended_offsets: Sequence[int],
    begins: Callable[[T], bytes],
) -> list[list[T]] | None:
    if not fragments:
        return None
    # Offsets count from the item that follows the table (PS3.5 A.4).
    origin = fragments[0][0]
    places = [position - origin for position, _ in fragments]
    data = [fragment for _, fragment in fragments]
    if number_of_frames == 1:
        return [data]
    if len(data) == number_of_frames:
        return [[fragment] for fragment in data]
    if one_each:
        return None
    ways: tuple[Callable[[], list[int]], ...] = (
        lambda: _indices(places, extended_offsets),
        lambda: _indices(places, _offset_table(table)),
        lambda: [index for index, fragment in enumerate(data) if begins(fragment).startswith(_STREAM_STARTS)],
    )
    for way in ways:
        candidate = way()
        if len(candidate) == number_of_frames and candidate[0] == 0 and candidate == sorted(set(candidate)):
            return [data[begin:end] for begin, end in zip(candidate, [*candidate[1:], len(data)], strict=True)]
    return None


def unpadded(stream: Buffer) -> Buffer:
    """Return a code stream without the zero that makes its length even."""
    # PS3.5 A.4: a fragment is padded to even length; behind the end marker of JPEG and JPEG 2000 a zero can only be that.
    return stream[:-1] if len(stream) % 2 == 0 and bytes(stream[-3:]) == b"\xff\xd9\0" else stream


def item_stream(frames: Sequence[Buffer]) -> bytes:
    """Return one fragment a frame behind a Basic Offset Table, which is empty where 32 bits do not suffice."""
    sizes = [len(frame) + len(frame) % 2 for frame in frames]
    offsets, position = [], 0
    for size in sizes:
        offsets.append(position)
        position += 8 + size
    table = struct.pack(f"<{len(offsets)}I", *offsets) if offsets and offsets[-1] <= 0xFFFFFFFF else b""
    parts: list[Buffer] = [_ITEM.pack(0xFFFE, 0xE000, len(table)), table]
    for size, frame in zip(sizes, frames, strict=True):
        parts += (_ITEM.pack(0xFFFE, 0xE000, size), frame, b"\0" * (size - len(frame)))
    return b"".join(parts)


def _offset_table(value: memoryview) -> list[int]:
    return [int(offset) for (offset,) in struct.iter_unpack("<I", value)] if len(value) % 4 == 0 else []


def _indices(places: Sequence[int], offsets: Sequence[int]) -> list[int]:
    """Return which fragments begin at `offsets`; nothing if one of them does not."""
    index = {place: number for number, place in enumerate(places)}
    found = [index[offset] for offset in offsets if offset in index]
    return found if len(found) == len(offsets) else []
