"""The quarantine: objects that could not be made safe, as received, each in a sealed file (docs/format.md, section 4).

They identify patients, so they never touch the disk in the clear, and each has its own key wrapped by the key-encryption key:
to discard one is to lose its key with its file.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.model.bulk import Buffer, Bulk, Content, blocks
from pacs.model.errors import IntegrityError, NotFound, OutOfResources
from pacs.model.instance import Origin, Received
from pacs.ports import KeyProvider
from pacs.store.keys import sync_folder
from pacs.store.record import LARGE_BYTES, PART_BYTES, TAG_BYTES
from pacs.store.scratch import OpenFile

MAGIC = b"\x89mPACSQ\n"
_PREFIX = struct.Struct("<8sHHI16s16sI")
_LENGTH = struct.Struct("<I")
_ABANDONED_S = 3600.0
_FLOOR_EVERY = 64
_CHANGED = "a quarantined object was changed or cut short"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class QuarantineRows(Protocol):
    """The rows that list what is here; the index keeps them."""

    def add(self, quarantine_id: str, kind: str, reason: str, origin: str, size_bytes: int) -> Any:
        """List an object; its file is durable already."""

    def remove(self, quarantine_id: str) -> Any:
        """Take an object off the list."""


class Quarantine:
    """Keeps received objects sealed in `path`, and lists them in `rows`."""

    def __init__(self, path: Path, provider: KeyProvider, rows: QuarantineRows, *, floor_bytes: int) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._provider = provider
        self._rows = rows
        self._floor_bytes = floor_bytes
        self._sweep()

    def keep(self, received: Received, kind: str, reason: str) -> str:
        """Seal one object and list it; durable on return. Returns its id. Raises `OutOfResources`."""
        quarantine_id = uuid.uuid4()
        self._check_floor(len(received.data_set))
        path = self._file(str(quarantine_id))
        # While a rotation puts another key in force nothing is sealed: no object gets the old key behind its back.
        with self.locked(exclusive=False):
            self._provider.refresh()
            size_bytes = self._replace(path, quarantine_id, self._about(received, kind, reason), received.data_set)
        try:
            self._rows.add(str(quarantine_id), kind, reason, str(received.origin), size_bytes)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return str(quarantine_id)

    def open(self, quarantine_id: str) -> Received:
        """Return an object as it was received. Raises `NotFound`, or `IntegrityError` if its file was changed."""
        try:
            file = OpenFile(self._file(quarantine_id))
        except FileNotFoundError as error:
            raise NotFound(f"there is no quarantined object {quarantine_id}") from error
        about, data_set = self._unseal(file, uuid.UUID(quarantine_id))
        return Received(
            data_set=data_set,
            transfer_syntax_uid=about["transfer_syntax_uid"],
            origin=Origin(about["origin"]),
            source=about["source"],
            sop_class_uid=about["sop_class_uid"],
            sop_instance_uid=about["sop_instance_uid"],
            association=about["association"],
        )

    def reseal(self, quarantine_id: str) -> bool:
        """Seal an object anew under the key in force, if it is under another; durable on return. Returns whether it was."""
        path = self._file(quarantine_id)
        try:
            file = OpenFile(path)
        except FileNotFoundError:
            return False
        if self._key_id_of(bytes(file.read(0, min(_PREFIX.size, len(file))))) == self._provider.key_id:
            return False
        about, data_set = self._unseal(file, uuid.UUID(quarantine_id))
        self._replace(path, uuid.UUID(quarantine_id), about, data_set)
        return True

    def wrapped_with(self) -> dict[str, int]:
        """Return how many objects each key-encryption key seals."""
        counts: dict[str, int] = {}
        for quarantine_id in self.files():
            with contextlib.suppress(FileNotFoundError), self._file(quarantine_id).open("rb") as file:
                key_id = self._key_id_of(file.read(_PREFIX.size))
                counts[key_id] = counts.get(key_id, 0) + 1
        return counts

    @contextmanager
    def locked(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the lock that those who seal share, and that who changes the key has alone."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def discard(self, quarantine_id: str) -> None:
        """Destroy an object; discarding twice is harmless."""
        path = self._file(quarantine_id)
        path.unlink(missing_ok=True)
        sync_folder(self._path)
        self._rows.remove(quarantine_id)

    def files(self) -> list[str]:
        """Return the ids of all objects that have a file, listed or not."""
        return sorted(path.stem for path in self._path.glob("*.sealed"))

    def _sweep(self) -> None:
        """Remove what a crash left half written; never acknowledged, and old enough that nobody writes it any more."""
        for path in self._path.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def _file(self, quarantine_id: str) -> Path:
        try:
            name = str(uuid.UUID(quarantine_id))
        except ValueError as error:
            raise NotFound("a quarantine id is a UUID") from error
        return self._path / f"{name}.sealed"

    def _check_floor(self, size_bytes: int) -> None:
        status = os.statvfs(self._path)
        floor = min(self._floor_bytes, status.f_blocks * status.f_frsize // 20)
        if status.f_bavail * status.f_frsize - size_bytes < floor:
            raise OutOfResources(f"less than {floor >> 20} MiB of disk would be free")

    def _replace(self, path: Path, quarantine_id: uuid.UUID, about: dict[str, str], data_set: Content) -> int:
        temporary = path.with_suffix(".part")
        try:
            size_bytes = self._write(temporary, quarantine_id, about, data_set)
            temporary.rename(path)
            sync_folder(self._path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno in _NO_ROOM:
                raise OutOfResources("no room on the disk for the quarantine") from error
            raise
        return size_bytes

    @staticmethod
    def _about(received: Received, kind: str, reason: str) -> dict[str, str]:
        return {
            "transfer_syntax_uid": received.transfer_syntax_uid,
            "origin": str(received.origin),
            "source": received.source,
            "sop_class_uid": received.sop_class_uid,
            "sop_instance_uid": received.sop_instance_uid,
            "association": received.association,
            "kind": kind,
            "reason": reason,
        }

    @staticmethod
    def _key_id_of(content: bytes) -> str:
        try:
            return str(_PREFIX.unpack_from(content)[5].decode("ascii"))
        except (struct.error, UnicodeDecodeError) as error:
            raise IntegrityError(_CHANGED) from error

    def _write(self, path: Path, quarantine_id: uuid.UUID, about: dict[str, str], data_set: Content) -> int:
        count = 1 + -(-len(data_set) // PART_BYTES)
        key = secrets.token_bytes(32)
        key_id, wrapped = self._provider.wrap_named(key, _context(quarantine_id))
        prefix = _PREFIX.pack(MAGIC, 1, 0, count, quarantine_id.bytes, key_id.encode("ascii"), len(wrapped))
        head = prefix + wrapped
        cipher = AESGCM(key)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(head)
            for number, part in enumerate(chain([json.dumps(about).encode("ascii")], _parts(data_set))):
                file.write(_LENGTH.pack(len(part) + TAG_BYTES))
                file.write(cipher.encrypt(_nonce(number), part, _bound(head, number)))
                if number % _FLOOR_EVERY == 0:
                    self._check_floor(PART_BYTES)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def _unseal(self, file: OpenFile, quarantine_id: uuid.UUID) -> tuple[dict[str, str], Buffer | Bulk]:
        """Return what is said of an object, and its data set: in memory, or opened part by part if it is large."""
        try:
            fixed = file.read(0, min(_PREFIX.size, len(file)))
            magic, version, _, count, named, key_id, wrapped_bytes = _PREFIX.unpack(fixed)
            if magic != MAGIC or version != 1 or named != quarantine_id.bytes:
                raise IntegrityError("the file is not this quarantined object")
            head = file.read(0, _PREFIX.size + wrapped_bytes)
            key = self._provider.unwrap(key_id.decode("ascii"), head[_PREFIX.size :], _context(quarantine_id))
            (length,) = _LENGTH.unpack(file.read(len(head), _LENGTH.size))
            cipher = AESGCM(key)
            opened = _Opened(file, cipher, head, count, len(head) + _LENGTH.size + length)
            sealed = file.read(len(head) + _LENGTH.size, length)
            about: dict[str, str] = json.loads(cipher.decrypt(_nonce(0), sealed, _bound(head, 0)))
            whole = opened if len(opened) > LARGE_BYTES else opened.read(0, len(opened))
        except (struct.error, InvalidTag, UnicodeDecodeError, ValueError) as error:
            raise IntegrityError(_CHANGED) from error
        return about, whole


class _Opened:
    """The data set of a quarantined object, opened where it is read. All parts but the last have `PART_BYTES`."""

    def __init__(self, file: OpenFile, cipher: AESGCM, head: bytes, count: int, begin: int) -> None:
        self._file = file
        self._cipher = cipher
        self._head = head
        self._begin = begin
        self._size = len(file) - begin - (count - 1) * (_LENGTH.size + TAG_BYTES)
        self._last: tuple[int, bytes] = (-1, b"")
        if count < 1 or -(-self._size // PART_BYTES) != count - 1:
            raise IntegrityError(_CHANGED)

    def __len__(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the data set. Raises `IntegrityError`."""
        if not 0 <= offset <= offset + length <= self._size:
            raise IntegrityError(_CHANGED)
        parts = range(offset // PART_BYTES, -(-(offset + length) // PART_BYTES))
        plain = b"".join([self._part(number) for number in parts])
        return plain[offset - parts.start * PART_BYTES :][:length] if length else b""

    def _part(self, number: int) -> bytes:
        known, plain = self._last
        if known == number:
            return plain
        at = self._begin + number * (_LENGTH.size + PART_BYTES + TAG_BYTES)
        size = min(PART_BYTES, self._size - number * PART_BYTES) + TAG_BYTES
        (length,) = _LENGTH.unpack(self._file.read(at, _LENGTH.size))
        try:
            sealed = self._file.read(at + _LENGTH.size, size)
            plain = self._cipher.decrypt(_nonce(number + 1), sealed, _bound(self._head, number + 1))
        except InvalidTag as error:
            raise IntegrityError(_CHANGED) from error
        if length != size:
            raise IntegrityError(_CHANGED)
        self._last = number, plain
        return plain


def _parts(data_set: Content) -> Iterator[Buffer]:
    if isinstance(data_set, bytes | bytearray | memoryview):
        view = memoryview(data_set).cast("B")
        yield from (view[at : at + PART_BYTES] for at in range(0, len(view), PART_BYTES))
    else:
        yield from blocks(data_set, PART_BYTES)


def _context(quarantine_id: uuid.UUID) -> bytes:
    return b"mini-pacs quarantine " + quarantine_id.bytes


def _nonce(number: int) -> bytes:
    return number.to_bytes(4, "little") + bytes(8)


def _bound(head: bytes, number: int) -> bytes:
    return b"mini-pacs quarantine 1" + head + number.to_bytes(4, "little")
