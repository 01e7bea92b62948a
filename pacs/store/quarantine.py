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
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pacs.model.errors import IntegrityError, NotFound, OutOfResources
from pacs.model.instance import Buffer, Origin, Received
from pacs.ports import KeyProvider
from pacs.store.keys import sync_folder
from pacs.store.record import PART_BYTES, TAG_BYTES

MAGIC = b"\x89mPACSQ\n"
_PREFIX = struct.Struct("<8sHHI16s16sI")
_LENGTH = struct.Struct("<I")
_ABANDONED_S = 3600.0
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
            content = self._file(quarantine_id).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"there is no quarantined object {quarantine_id}") from error
        about, data_set = self._unseal(content, uuid.UUID(quarantine_id))
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
            content = path.read_bytes()
        except FileNotFoundError:
            return False
        if self._key_id_of(content) == self._provider.key_id:
            return False
        about, data_set = self._unseal(content, uuid.UUID(quarantine_id))
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

    def _replace(self, path: Path, quarantine_id: uuid.UUID, about: dict[str, str], data_set: Buffer) -> int:
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
            raise IntegrityError("a quarantined object was changed or cut short") from error

    def _write(self, path: Path, quarantine_id: uuid.UUID, about: dict[str, str], data_set: Buffer) -> int:
        data = memoryview(data_set).cast("B")
        parts = [memoryview(json.dumps(about).encode("ascii"))]
        parts += [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]
        key = secrets.token_bytes(32)
        key_id, wrapped = self._provider.wrap_named(key, _context(quarantine_id))
        prefix = _PREFIX.pack(MAGIC, 1, 0, len(parts), quarantine_id.bytes, key_id.encode("ascii"), len(wrapped))
        head = prefix + wrapped
        cipher = AESGCM(key)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(head)
            for number, part in enumerate(parts):
                file.write(_LENGTH.pack(len(part) + TAG_BYTES))
                file.write(cipher.encrypt(_nonce(number), part, _bound(head, number)))
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def _unseal(self, content: bytes, quarantine_id: uuid.UUID) -> tuple[dict[str, str], bytes]:
        try:
            magic, version, _, count, named, key_id, wrapped_bytes = _PREFIX.unpack_from(content)
            if magic != MAGIC or version != 1 or named != quarantine_id.bytes:
                raise IntegrityError("the file is not this quarantined object")
            head = content[: _PREFIX.size + wrapped_bytes]
            key = self._provider.unwrap(key_id.decode("ascii"), head[_PREFIX.size :], _context(quarantine_id))
            cipher = AESGCM(key)
            position, plain = len(head), []
            for number in range(count):
                (length,) = _LENGTH.unpack_from(content, position)
                position += _LENGTH.size
                plain.append(cipher.decrypt(_nonce(number), content[position : position + length], _bound(head, number)))
                position += length
        except (struct.error, InvalidTag, UnicodeDecodeError, ValueError) as error:
            raise IntegrityError("a quarantined object was changed or cut short") from error
        if position != len(content):
            raise IntegrityError("a quarantined object was changed or cut short")
        about: dict[str, str] = json.loads(plain[0])
        return about, b"".join(plain[1:])


def _context(quarantine_id: uuid.UUID) -> bytes:
    return b"mini-pacs quarantine " + quarantine_id.bytes


def _nonce(number: int) -> bytes:
    return number.to_bytes(4, "little") + bytes(8)


def _bound(head: bytes, number: int) -> bytes:
    return b"mini-pacs quarantine 1" + head + number.to_bytes(4, "little")
