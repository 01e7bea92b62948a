"""Pixel Data into frames, and frames into Pixel Data (PS3.5 8.1, 8.2 and A.4). Nothing is decoded here.

What cannot be cut into frames with certainty stays in one piece ("packed"), exactly as it was received.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from pacs.codec.image import RLE, VIDEO, Image
from pacs.dicom import fragments
from pacs.model.errors import NotTranscodable
from pacs.model.instance import Buffer

_ITEM = struct.Struct("<HHI")
SEQUENCE_END = _ITEM.pack(0xFFFE, 0xE0DD, 0)
LARGEST_VALUE = 0xFFFFFFFE
"""Bytes of the longest value with a length of its own (PS3.5 7.1.1)."""


@dataclass(frozen=True, slots=True)
class Split:
    """Pixel Data in frames; see `Encoded` for `packed` and `frame_bits`."""

    frames: Sequence[Buffer] = field(repr=False)
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

    See `pacs.dicom.fragments.by_frame`. Packed if they cannot be told apart, and for video.
    """
    found = fragments.items(stream)
    if found is None or transfer_syntax_uid in VIDEO:
        return Split((stream,), True)
    # PS3.5 A.4.2: RLE has one fragment a frame; anything else is not ours to guess at.
    groups = fragments.by_frame(found, number_of_frames, one_each=transfer_syntax_uid == RLE, extended_offsets=extended_offsets)
    if groups is None:
        return Split((stream,), True)
    return Split(tuple(fragments.unpadded(group[0] if len(group) == 1 else b"".join(group)) for group in groups))


def native_element(frames: Sequence[Buffer], pixel_vr: str) -> list[Buffer]:
    """Return Pixel Data with native frames, Explicit VR Little Endian, as buffers.

    Raises `NotTranscodable` if the value is longer than a native one can be.
    """
    length = sum(memoryview(frame).nbytes for frame in frames)
    if length > LARGEST_VALUE:
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
    buffers: list[Buffer] = [encapsulated_head() + _ITEM.pack(0xFFFE, 0xE000, len(table)) + table]
    for size, frame in zip(sizes, frames, strict=True):
        if size > LARGEST_VALUE - 1:
            raise NotTranscodable("a frame would be longer than a fragment can be")
        buffers += (_ITEM.pack(0xFFFE, 0xE000, size + size % 2), frame)
        if size % 2:
            buffers.append(b"\0")
    return [*buffers, SEQUENCE_END]


def packed_element(pieces: Sequence[Buffer]) -> list[Buffer]:
    """Return Pixel Data with an item stream as it was received."""
    return [encapsulated_head(), *pieces, SEQUENCE_END]


def encapsulated_head() -> bytes:
    """Return the head of encapsulated Pixel Data."""
    return struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
