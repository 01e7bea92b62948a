"""Encapsulated Pixel Data as items: its offset table, its fragments, and which of them make a frame (PS3.5 A.4)."""

import struct
from collections.abc import Sequence

from pacs.model.instance import Buffer

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
    if len(found) < 2:
        return None
    offsets, fragments = _offset_table(found[0][1]), found[1:]
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
    starts = [index for index, fragment in enumerate(data) if bytes(fragment[:4]).startswith(_STREAM_STARTS)]
    for candidate in (_indices(places, extended_offsets), _indices(places, offsets), starts):
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
