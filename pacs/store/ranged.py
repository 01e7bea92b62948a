"""Parts of objects in a bucket: one segment walked window by window, or spans out of many through a small cache.

What is kept in memory is sealed, as it is in the bucket.
"""

import threading
from collections import OrderedDict

from pacs.ports import Bucket

BLOCK_BYTES = 1 << 20
CACHE_BYTES = 48 << 20
_LARGE_BYTES = 8 << 20


class PlacedObject:
    """A segment in a bucket, read from its beginning to its end a window at a time."""

    def __init__(self, bucket: Bucket, name: str, size_bytes: int) -> None:
        self._bucket = bucket
        self._name = name
        self.size_bytes = size_bytes
        self._begin = 0
        self._window = b""

    def pread(self, length: int, offset: int) -> bytes:
        """Return at most `length` bytes from `offset`."""
        length = min(length, self.size_bytes - offset)
        if length <= 0:
            return b""
        at = offset - self._begin
        if not 0 <= at <= at + length <= len(self._window):
            self._window = self._bucket.read(self._name, (offset, min(max(length, _LARGE_BYTES), self.size_bytes - offset)))
            self._begin, at = offset, 0
        return self._window[at : at + length]


class Blocks:
    """Ranged reads in blocks of 1 MiB, the latest kept: they are sealed, so memory may hold them. Safe for threads."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def read(self, name: str, size_bytes: int, offset: int, length: int) -> bytes:
        """Return a span of an object of `size_bytes`, less where it ends before; what is large is not kept."""
        length = max(0, min(length, size_bytes - offset))
        if length == 0:
            return b""
        if length > _LARGE_BYTES:
            return self._bucket.read(name, (offset, length))
        first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
        blocks = {number: self._known(name, number) for number in range(first, last + 1)}
        missing = [number for number, block in blocks.items() if block is None]
        if missing:
            begin, end = missing[0] * BLOCK_BYTES, min((missing[-1] + 1) * BLOCK_BYTES, size_bytes)
            data = self._bucket.read(name, (begin, end - begin))
            for number in range(missing[0], missing[-1] + 1):
                at = (number - missing[0]) * BLOCK_BYTES
                blocks[number] = data[at : at + BLOCK_BYTES]
                self._keep(name, number, data[at : at + BLOCK_BYTES])
        whole = b"".join(block or b"" for block in blocks.values())
        return whole[offset - first * BLOCK_BYTES :][:length]

    def forget(self, name: str) -> None:
        """Forget what is kept of an object."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == name]:
                del self._kept[key]

    def _known(self, name: str, number: int) -> bytes | None:
        with self._lock:
            if (name, number) in self._kept:
                self._kept.move_to_end((name, number))
            return self._kept.get((name, number))

    def _keep(self, name: str, number: int, block: bytes) -> None:
        with self._lock:
            self._kept[name, number] = block
            while len(self._kept) * BLOCK_BYTES > CACHE_BYTES:
                self._kept.popitem(last=False)
