"""Pixel Data that is too large for memory: split, compressed and sent frame by frame, a few frames at a time.

The counterpart of `frames.py` for `BulkElement` on the way in and `LazyFrames` on the way out. How many frames are worked on at
once is bounded by their bytes (`Window`); compressed frames go to the scratch, because a record's table of chunks comes before
its first chunk.
"""

import struct
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from pacs.codec import lossless
from pacs.codec.decode import Array
from pacs.codec.frames import LARGEST_VALUE, SEQUENCE_END, Split, encapsulated_head
from pacs.codec.image import RLE, VIDEO, Image
from pacs.dicom import fragments
from pacs.dicom.elements import element
from pacs.model.bulk import LARGEST_FRAME, Bulk, LazyFrames, Slice
from pacs.model.errors import IntegrityError, NotTranscodable
from pacs.model.instance import Buffer
from pacs.ports import Scratch

_R = TypeVar("_R")
LARGE_BYTES = 32 << 20
"""Native Pixel Data longer than this is not made as a whole."""
MOST_FRAMES = 1 << 18
"""Frames of a large object whose places are held in memory; with more of them Pixel Data stays in one piece."""
_WINDOW_BYTES = 32 << 20
WAY_OUT_BYTES = 8 << 20
"""Frames ahead of a receiver: many may be served at once, and be slow."""
_ITEM = struct.Struct("<HHI")
_GIVE_UP_AFTER = 64


class Window:
    """Applies a function to frame after frame on several cores, with few of them in memory."""

    def __init__(self, pool: ThreadPoolExecutor, cores: threading.BoundedSemaphore, count: int) -> None:
        self._pool = pool
        self._cores = cores
        self._most = 2 * count

    def each(
        self, function: Callable[[int], _R], count: int, frame_bytes: int, room_bytes: int = _WINDOW_BYTES
    ) -> Iterator[_R]:
        """Yield `function(0)`, `function(1)`, …; at most as many ahead as have room."""

        def capped(index: int) -> _R:
            with self._cores:
                return function(index)

        ahead = max(1, min(self._most, room_bytes // max(1, frame_bytes)))
        waiting: deque[Future[_R]] = deque()
        try:
            for index in range(count):
                waiting.append(self._pool.submit(capped, index))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


@dataclass(frozen=True, slots=True)
class Stream:
    """A data set made while it is written; may be gone through again. `size_bytes` is None where it is not known before."""

    begin: Callable[[], Iterator[Buffer]] = field(repr=False)
    size_bytes: int | None

    def __iter__(self) -> Iterator[Buffer]:
        return self.begin()


def split_native(value: Bulk, image: Image) -> Split:
    """Cut native Pixel Data into frames, like `frames.split_native`; packed where a frame or their number is too large."""
    size, bits, count = len(value), image.frame_bits, image.number_of_frames
    total = (bits * count + 7) // 8
    padded = size == total + 1 and total % 2 == 1 and bytes(value.read(total, 1)) == b"\0"
    frame_bytes = bits // 8
    fits = bits and not bits % 8 and (size == total or padded) and frame_bytes <= LARGEST_FRAME and count <= MOST_FRAMES
    if not fits:
        kept = Slice(value, 0, total) if padded and count == 1 else value
        return Split(LazyFrames.pieces(kept), True, bits if bits < 1 << 32 else 0)
    return Split(LazyFrames(count, lambda index: value.read(index * frame_bytes, frame_bytes), lambda _: frame_bytes))


def split_encapsulated(
    value: Bulk, number_of_frames: int, transfer_syntax_uid: str, extended_offsets: Sequence[int] = ()
) -> Split:
    """Cut an item stream into one code stream a frame, like `frames.split_encapsulated`."""
    if transfer_syntax_uid in VIDEO:
        return Split(LazyFrames.pieces(value), True)
    found, _ = fragments.bulk_items(value)
    groups = fragments.bulk_by_frame(
        found, number_of_frames, one_each=transfer_syntax_uid == RLE, extended_offsets=extended_offsets
    )
    if groups is None or any(sum(map(len, group)) > LARGEST_FRAME for group in groups):
        return Split(LazyFrames.pieces(value), True)
    known = groups

    def read(index: int) -> Buffer:
        return fragments.unpadded(fragments.whole(known[index]))

    sizes = array("Q", (sum(map(len, group)) - _padding(group[-1]) for group in known))
    return Split(LazyFrames(len(sizes), read, sizes.__getitem__))


def _padding(last: Slice) -> int:
    end = last.read(max(0, len(last) - 4), min(4, len(last)))
    return len(end) - len(fragments.unpadded(end))


def compressed(
    frames: LazyFrames,
    image: Image,
    window: Window,
    scratch: Scratch,
    encode: Callable[[Buffer, Image], bytes],
    decode: Callable[[bytes, Image], Array],
    prove_every: int,
) -> LazyFrames | None:
    """Return all frames compressed, in the scratch; None if one of them cannot be, or it does not pay."""
    frame_bytes = frames.size_of(0)

    def one(index: int) -> bytes | None:
        prove = index % prove_every == 0
        return lossless.compressed(frames[index], image, encode, decode, prove=prove, at_any_size=True)

    made, places = scratch.new(), array("Q", [0])
    for count, stream in enumerate(window.each(one, len(frames), frame_bytes), 1):
        if stream is None or (count % _GIVE_UP_AFTER == 0 and len(made) >= count * frame_bytes):
            return None
        made.append(stream)
        places.append(len(made))
    if len(made) >= frames.size_bytes:
        return None

    def size_of(index: int) -> int:
        return int(places[index + 1] - places[index])

    return LazyFrames(len(frames), lambda index: made.read(int(places[index]), size_of(index)), size_of)


def native_element(frames: LazyFrames, pixel_vr: str) -> tuple[list[Buffer], int]:
    """Return head and padding of native Pixel Data, and its length. Raises `NotTranscodable` where it is too long."""
    length = frames.size_bytes
    if length > LARGEST_VALUE:
        raise NotTranscodable("native Pixel Data would be longer than 4 GiB; accept a compressed transfer syntax")
    odd = length % 2
    return [struct.pack("<HH2sHI", 0x7FE0, 0x0010, pixel_vr.encode("ascii"), 0, length + odd), bytes(odd)], length


def encapsulated_element(frames: LazyFrames) -> tuple[bytes, int]:
    """Return what goes before the first fragment, and the bytes of all that follow, the delimiter with them.

    With a Basic Offset Table; where 32 bits do not suffice, an Extended Offset Table instead (PS3.3 C.7.6.3.1.8).
    """
    sizes = array("Q", map(frames.size_of, range(len(frames))))
    offsets, position = array("Q"), 0
    for size in sizes:
        if size > LARGEST_VALUE - 1:
            raise NotTranscodable("a frame would be longer than a fragment can be")
        offsets.append(position)
        position += 8 + size + size % 2
    before, table = b"", b""
    if len(offsets) and offsets[-1] <= 0xFFFFFFFF:
        table = struct.pack(f"<{len(offsets)}I", *offsets)
    elif len(offsets):
        lengths = array("Q", (size + size % 2 for size in sizes))
        before = b"".join(
            bytes(element(tag, "OV", struct.pack(f"<{len(numbers)}Q", *numbers)).encoded)
            for tag, numbers in ((0x7FE00001, offsets), (0x7FE00002, lengths))
        )
    head = before + encapsulated_head() + _ITEM.pack(0xFFFE, 0xE000, len(table)) + table
    return head, position + len(SEQUENCE_END)


def fragments_of(streams: Iterator[Buffer]) -> Iterator[Buffer]:
    """Yield one fragment a code stream, and the delimiter."""
    for stream in streams:
        odd = len(stream) % 2
        yield _ITEM.pack(0xFFFE, 0xE000, len(stream) + odd)
        yield stream
        if odd:
            yield b"\0"
    yield SEQUENCE_END


def decoded(
    frames: LazyFrames, image: Image, window: Window, decode: Callable[[Buffer, Image], tuple[Array, Image]]
) -> "Native":
    """Return compressed frames as native ones, each decoded when it is read; the first is decoded now, to see the colours."""
    first, image_then = decode(frames[0], image)
    size = first.nbytes

    def one(index: int) -> Buffer:
        array_of, _ = decode(frames[index], image)
        if array_of.nbytes != size:
            raise IntegrityError("a frame is of another size than the first")
        return array_of.tobytes()

    return Native(LazyFrames(len(frames), one, lambda _: size), image_then, window)


@dataclass(frozen=True, slots=True)
class Native:
    """Native frames of a large object, and the attributes that describe them."""

    frames: LazyFrames
    image: Image
    window: Window

    def __iter__(self) -> Iterator[Buffer]:
        return self.window.each(self.frames.__getitem__, len(self.frames), self.frames.size_of(0), WAY_OUT_BYTES)
