"""The encrypted scratch: where a data set lies that is too large for memory while it is taken in.

Nothing identified may touch the disk in the clear, and nothing may be left of it after a crash. So a scratch file has no name
(it is unlinked before its first byte), and its bytes are sealed in chunks by AES-256-GCM under a random key that only this
process's memory knows. `Intake` shares out the memory that all objects of a process may take while they arrive; who gets
none, or is too large, goes to the scratch.
"""

import contextlib
import errno
import os
import secrets
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.model.bulk import Buffer, Content
from pacs.model.errors import IntegrityError, OutOfResources, Unavailable

CHUNK_BYTES = 256 << 10
_SEALED_BYTES = CHUNK_BYTES + 16
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HUGE_BYTES = 1 << 30
_FLOOR_EVERY = 16
"""Chunks between two looks at the free disk."""


class Scratch:
    """A folder for files without names. Several processes may share it."""

    def __init__(self, folder: Path, *, floor_bytes: int) -> None:
        self._folder = folder
        self._floor_bytes = floor_bytes

    def new(self) -> "ScratchFile":
        """Return an empty file. Raises `OutOfResources` or `Unavailable`."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix="scratch-", dir=self._folder)
            Path(name).unlink()
        except OSError as error:
            raise _told(error) from error
        return ScratchFile(self, descriptor)

    def check_floor(self) -> None:
        """Raise `OutOfResources` where the disk is nearly full."""
        status = os.statvfs(self._folder)
        floor = min(self._floor_bytes, status.f_blocks * status.f_frsize // 20)
        if status.f_bavail * status.f_frsize - _FLOOR_EVERY * CHUNK_BYTES < floor:
            raise OutOfResources(f"less than {floor >> 20} MiB of disk would be free")


class ScratchFile:
    """Bytes that are appended once and read by range; see `pacs.model.bulk.Bulk`. Reading is safe for threads."""

    def __init__(self, scratch: Scratch, descriptor: int) -> None:
        self._scratch = scratch
        self._descriptor = descriptor
        self._cipher = AESGCM(secrets.token_bytes(32))
        self._chunks = 0
        self._tail = bytearray()
        self._sealed = bytearray(_SEALED_BYTES)
        self._last: tuple[int, bytes] = (-1, b"")

    def __len__(self) -> int:
        return self._chunks * CHUNK_BYTES + len(self._tail)

    def append(self, data: Buffer) -> None:
        """Append bytes. Raises `OutOfResources` where the disk is full or nearly so."""
        view = memoryview(data).cast("B")
        while len(view):
            piece = view[: CHUNK_BYTES - len(self._tail)]
            if len(piece) == CHUNK_BYTES:
                self._write(piece)
            else:
                self._tail += piece
                if len(self._tail) == CHUNK_BYTES:
                    self._write(self._tail)
                    self._tail = bytearray()
            view = view[len(piece) :]

    def extend(self, buffers: Iterable[Buffer]) -> None:
        """Append one after another."""
        for buffer in buffers:
            self.append(buffer)

    def read(self, offset: int, length: int) -> bytearray:
        """Return bytes, authenticated. Raises `IntegrityError` where they reach beyond the end or were changed."""
        if offset < 0 or length < 0 or offset + length > len(self):
            raise IntegrityError("a span reaches beyond the scratch")
        found = bytearray(length)
        done = 0
        while done < length:
            number, begin = divmod(offset + done, CHUNK_BYTES)
            plain = self._open(number) if number < self._chunks else self._tail
            count = min(length - done, len(plain) - begin)
            found[done : done + count] = memoryview(plain)[begin : begin + count]
            done += count
        return found

    def close(self) -> None:
        """Give the room back; closing twice is harmless."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _write(self, chunk: Buffer) -> None:
        try:
            if self._chunks % _FLOOR_EVERY == 0:
                self._scratch.check_floor()
            self._cipher.encrypt_into(_nonce(self._chunks), chunk, None, self._sealed)
            view, at = memoryview(self._sealed), self._chunks * _SEALED_BYTES
            while len(view):
                count = os.pwrite(self._descriptor, view, at)
                view, at = view[count:], at + count
        except OSError as error:
            raise _told(error) from error
        self._chunks += 1

    def _open(self, number: int) -> bytes:
        known, plain = self._last
        if known == number:
            return plain
        sealed = os.pread(self._descriptor, _SEALED_BYTES, number * _SEALED_BYTES)
        try:
            plain = self._cipher.decrypt(_nonce(number), sealed, None)
        except InvalidTag as error:
            raise IntegrityError("the scratch was changed, or the disk is failing") from error
        self._last = number, plain
        return plain


class Intake:
    """What objects of one process may hold in memory while they arrive and are taken in, and the scratch for the others.

    Parameters
    ----------
    large_bytes : int
        An object longer than this goes to the scratch.
    memory_bytes : int
        All others together; who comes when nothing is left goes to the scratch too.
    """

    def __init__(self, scratch: Scratch, *, large_bytes: int, memory_bytes: int) -> None:
        self.scratch = scratch
        self.large_bytes = large_bytes
        self._memory_bytes = memory_bytes
        self._used = 0
        # What is dropped gives back in whatever thread collects it, which may hold the lock just then.
        self._lock = threading.RLock()
        self._turns = (threading.Lock(), threading.Lock())

    def take(self, size_bytes: int) -> bool:
        """Reserve memory; False if that is more than is left."""
        with self._lock:
            if self._used + size_bytes > self._memory_bytes:
                return False
            self._used += size_bytes
            return True

    def give(self, size_bytes: int) -> None:
        """Give a reservation back."""
        with self._lock:
            self._used -= size_bytes

    @contextmanager
    def turn(self, content: Content) -> Iterator[None]:
        """Wait until no other large object is being worked on, and keep others waiting; what is in memory never waits.

        The huge ones, which take minutes, wait for each other only.
        """
        if isinstance(content, bytes | bytearray | memoryview):
            yield
            return
        with self._turns[len(content) > _HUGE_BYTES]:
            yield

    def release(self, content: Content | None) -> None:
        """Give back what an `Arriving` handed out: its reservation, or its place in the scratch."""
        if isinstance(content, ScratchFile):
            content.close()
        elif isinstance(content, bytearray):
            self.give(len(content))


class Arriving:
    """One object on its way in: in memory while it is small and there is room, in the scratch from then on."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._held = bytearray()
        self._spilled: ScratchFile | None = None

    def __len__(self) -> int:
        return len(self._held) if self._spilled is None else len(self._spilled)

    def __iadd__(self, data: Buffer) -> "Arriving":
        """Append. Raises `OutOfResources` where it had to go to the scratch and the disk is full."""
        if self._spilled is None:
            size = len(data)
            if len(self._held) + size <= self._intake.large_bytes and self._intake.take(size):
                self._held += data
                return self
            self._spilled = self._intake.scratch.new()
            self._spilled.append(self._held)
            self._intake.give(len(self._held))
            self._held = bytearray()
        self._spilled.append(data)
        return self

    def extend(self, data: Buffer) -> None:
        """Append, as `+=` does."""
        self += data

    @property
    def spilled(self) -> bool:
        """Whether it lies in the scratch."""
        return self._spilled is not None

    def content(self) -> "bytearray | ScratchFile":
        """Hand the object out; from now on it is for `Intake.release` to give back."""
        held, spilled = self._held, self._spilled
        self._held, self._spilled = bytearray(), None
        return held if spilled is None else spilled

    def clear(self) -> None:
        """Forget it."""
        self._intake.release(self.content())

    def __del__(self) -> None:
        self.clear()


class OpenFile:
    """A file somebody else keeps, as a bulk."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size

    def __len__(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file. Raises `IntegrityError` where it has become shorter."""
        data = os.pread(self._descriptor, length, offset)
        while 0 < len(data) < length:
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        if len(data) != length:
            raise IntegrityError("a file has become shorter while it was read")
        return data

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self._descriptor)


def _nonce(number: int) -> bytes:
    return number.to_bytes(4, "little") + bytes(8)


def _told(error: OSError) -> OutOfResources | Unavailable:
    if error.errno in _NO_ROOM:
        return OutOfResources("no room on the disk for a large object on its way in")
    return Unavailable(f"the scratch cannot be written ({errno.errorcode.get(error.errno or 0, 'unknown')})")
