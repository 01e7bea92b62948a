"""Pixel Data into frames, and frames into Pixel Data (PS3.5 8.1, 8.2 and A.4). Nothing is decoded here.

What cannot be cut into frames with certainty stays in one piece ("packed"), exactly as it was received.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from pacs.codec.image import RLE, VIDEO, Image
from pacs.model.errors import NotTranscodable
from pacs.model.instance import Buffer

_ITEM = struct.Struct("<HHI")
_SEQUENCE_END = _ITEM.pack(0xFFFE, 0xE0DD, 0)
_LARGEST = 0xFFFFFFFE
# JPEG and JPEG-LS begin with SOI and another marker, JPEG 2000 and HTJ2K with SOC and SIZ.
_STREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")


@dataclass(frozen=True, slots=True)
class Split:
    """Pixel Data in frames; see `Encoded` for `packed` and `frame_bits`."""

    frames: tuple[Buffer, ...] = field(repr=False)
    packed: bool = False
    frame_bits: int = 0


def split_native(value: Buffer, image: Image) -> Split:
    """Cut native Pixel Data into frames without padding.

    Packed where frames do not end on a byte, or the length is not what the attributes promise.
    """
    view = memoryview(value).cast("B")
    bits, count = image.frame_bits, image.number_of_frames
    total = (bits * count + 7) // 8
    known = bits if bits < 1 << 32 else 0
    padded = len(view) == total + 1 and total % 2 == 1 and view[-1] == 0
    if bits == 0 or not (len(view) == total or padded):
        return Split((value,), True, known)
    if count == 1:
        return Split((view[:total],))
    if bits % 8:
        return Split((value,), True, known)
    size = bits // 8
    return Split(tuple(view[at : at + size] for at in range(0, total, size)))


def split_encapsulated(
    stream: Buffer,
    number_of_frames: int,
    transfer_syntax_uid: str,
    extended_offsets: Sequence[int] = (),
) -> Split:
    """Cut an item stream (offset table and fragments, without delimiter) into one code stream a frame, without padding.

    Tried in turn: one frame; a fragment a frame; the Extended Offset Table (PS3.3 C.7.6.3.1.8); the Basic Offset Table; where a
    code stream begins. Packed if none fits, and for video.
    """
    whole = Split((stream,), True)
    found = _items(stream)
    if found is None or len(found) < 2 or transfer_syntax_uid in VIDEO:
        return whole
    offsets, fragments = _offset_table(found[0][1]), found[1:]
    # Offsets count from the item that follows the table (PS3.5 A.4).
    origin = fragments[0][0]
    places = [position - origin for position, _ in fragments]
    data = [fragment for _, fragment in fragments]
    if number_of_frames == 1:
        groups = [data]
    elif len(data) == number_of_frames:
        groups = [[fragment] for fragment in data]
    elif transfer_syntax_uid == RLE:
        # PS3.5 A.4.2: one fragment a frame; anything else is not ours to guess at.
        return whole
    else:
        starts = [index for index, fragment in enumerate(data) if bytes(fragment[:4]).startswith(_STREAM_STARTS)]
        for candidate in (_indices(places, extended_offsets), _indices(places, offsets), starts):
            if len(candidate) == number_of_frames and candidate[0] == 0 and candidate == sorted(set(candidate)):
                break
        else:
            return whole
        groups = [data[begin:end] for begin, end in zip(candidate, [*candidate[1:], len(data)], strict=True)]
    return Split(tuple(_unpadded(group[0] if len(group) == 1 else b"".join(group)) for group in groups))


def native_element(frames: Sequence[Buffer], pixel_vr: str) -> list[Buffer]:
    """Return Pixel Data with native frames, Explicit VR Little Endian, as buffers.

    Raises `NotTranscodable` if the value is longer than a native one can be.
    """
    length = sum(memoryview(frame).nbytes for frame in frames)
    if length > _LARGEST:
        raise NotTranscodable("native Pixel Data would be longer than 4 GiB")
    odd = length % 2
    head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, pixel_vr.encode("ascii"), 0, length + odd)
    return [head, *frames, b"\0"] if odd else [head, *frames]


def encapsulated_element(frames: Sequence[Buffer]) -> list[Buffer]:
    """Return Pixel Data with one fragment a frame and a Basic Offset Table, as buffers (PS3.5 A.4)."""
    sizes = [memoryview(frame).nbytes for frame in frames]
    offsets, position = [], 0
    for size in sizes:
        offsets.append(position)
        position += 8 + size + size % 2
    # The table has 32-bit offsets; where they do not suffice it stays empty.
    table = struct.pack(f"<{len(offsets)}I", *offsets) if offsets[-1] <= 0xFFFFFFFF else b""
    buffers: list[Buffer] = [_encapsulated_head() + _ITEM.pack(0xFFFE, 0xE000, len(table)) + table]
    for size, frame in zip(sizes, frames, strict=True):
        if size > _LARGEST - 1:
            raise NotTranscodable("a frame would be longer than a fragment can be")
        buffers += (_ITEM.pack(0xFFFE, 0xE000, size + size % 2), frame)
        if size % 2:
            buffers.append(b"\0")
    return [*buffers, _SEQUENCE_END]


def packed_element(stream: Buffer) -> list[Buffer]:
    """Return Pixel Data with an item stream as it was received."""
    return [_encapsulated_head(), stream, _SEQUENCE_END]


def _encapsulated_head() -> bytes:
    return struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)


def _items(stream: Buffer) -> list[tuple[int, memoryview]] | None:
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


def _offset_table(value: memoryview) -> list[int]:
    return [int(offset) for (offset,) in struct.iter_unpack("<I", value)] if len(value) % 4 == 0 else []


def _indices(places: Sequence[int], offsets: Sequence[int]) -> list[int]:
    """Return which fragments begin at `offsets`; nothing if one of them does not."""
    index = {place: number for number, place in enumerate(places)}
    found = [index[offset] for offset in offsets if offset in index]
    return found if len(found) == len(offsets) else []


def _unpadded(stream: Buffer) -> Buffer:
    # PS3.5 A.4: a fragment is padded to even length; behind the end marker of JPEG and JPEG 2000 a zero can only be that.
    return stream[:-1] if len(stream) % 2 == 0 and bytes(stream[-3:]) == b"\xff\xd9\0" else stream
