"""Bytes that are too many for memory: read by range, one stretch at a time.

A large data set lies in the encrypted scratch (`store/scratch.py`), in a file, or in the quarantine; whoever works on it knows
only `Bulk`. The views here change where bytes lie or what they are while they are read, and hold nothing themselves.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, overload

Buffer = bytes | bytearray | memoryview
BLOCK_BYTES = 1 << 20
LARGEST_FRAME = 48 << 20
"""Bytes of a frame of a large object that is still worked on in memory, as a whole."""


class Bulk(Protocol):
    """A value of known length that is never in memory as a whole."""

    def __len__(self) -> int:
        """Number of bytes."""

    def read(self, offset: int, length: int) -> Buffer:
        """Return `length` bytes from `offset`. Raises `IntegrityError` where they are not there (any more)."""


Content = Buffer | Bulk
"""A data set, in memory or not."""


def blocks(content: Content, size: int = BLOCK_BYTES) -> Iterator[Buffer]:
    """Yield the bytes one after another, `size` at a time; what is in memory as it is."""
    if isinstance(content, bytes | bytearray | memoryview):
        yield content
        return
    for offset in range(0, len(content), size):
        yield content.read(offset, min(size, len(content) - offset))


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of a bulk."""

    bulk: Bulk = field(repr=False)
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self, offset: int, length: int) -> Buffer:
        """Return bytes of the stretch."""
        return self.bulk.read(self.offset + offset, max(0, min(length, self.length - offset)))


@dataclass(frozen=True, slots=True)
class Mapped:
    """A bulk of units of `unit` bytes, each changed while it is read."""

    bulk: Bulk = field(repr=False)
    unit: int
    change: Callable[[Buffer], Buffer]

    def __len__(self) -> int:
        return len(self.bulk)

    def read(self, offset: int, length: int) -> Buffer:
        """Return changed bytes."""
        begin = offset - offset % self.unit
        end = min(len(self.bulk), -(-(offset + length) // self.unit) * self.unit)
        changed = self.change(self.bulk.read(begin, end - begin))
        return memoryview(changed)[offset - begin : offset - begin + length]


class LazyFrames(Sequence[Buffer]):
    """Frames (or consecutive pieces of packed Pixel Data) that are read when they are asked for, and not kept.

    Parameters
    ----------
    count : int
        How many there are.
    read : callable
        Returns frame `index`, 0 the first; safe to call from several threads.
    size_of : callable
        Returns the bytes of frame `index` without reading it where that is known.
    """

    def __init__(self, count: int, read: Callable[[int], Buffer], size_of: Callable[[int], int]) -> None:
        self._count = count
        self._read = read
        self.size_of = size_of

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Buffer: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Buffer]: ...

    def __getitem__(self, index: int | slice) -> Buffer | Sequence[Buffer]:
        if isinstance(index, slice):
            return [self._read(one) for one in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._read(index)

    @property
    def size_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(map(self.size_of, range(self._count)))

    @classmethod
    def pieces(cls, bulk: Bulk, size: int = BLOCK_BYTES) -> "LazyFrames":
        """Return a bulk in consecutive pieces of `size` bytes, the last one shorter."""
        total = len(bulk)

        def size_of(index: int) -> int:
            return min(size, total - index * size)

        return cls(-(-total // size), lambda index: bulk.read(index * size, size_of(index)), size_of)


class Joined:
    """Frames of one size, one after another, as a bulk; the frame that was read last is kept."""

    def __init__(self, frames: LazyFrames) -> None:
        self._frames = frames
        self._step = max(1, frames.size_of(0))
        self._size = frames.size_bytes
        self._last: tuple[int, Buffer] = (-1, b"")

    def __len__(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> Buffer:
        """Return bytes of the frames."""
        found, end = bytearray(), min(offset + length, self._size)
        while offset < end:
            index, begin = divmod(offset, self._step)
            known, frame = self._last
            if known != index:
                frame = self._frames[index]
                self._last = index, frame
            piece = memoryview(frame)[begin : begin + end - offset]
            found += piece
            offset += len(piece)
        return found
