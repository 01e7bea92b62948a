"""A large record in a segment of its own, written piece by piece beside the append log (docs/format.md, section 2.4).

It has another name until it is durable, so that nobody takes it for a segment before it is whole, and a crash leaves a file
that the next start removes. The log goes on meanwhile: a large record holds nobody up.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pacs.model.instance import Buffer
from pacs.store.keys import sync_folder

SUFFIX = ".large"
_NAME = re.compile(r"(?P<writer>.+)\.large-(?P<number>[0-9]{8})\.(seg|part)")
_SYNC_BYTES = 64 << 20
"""So much is written before the disk is asked to keep up: a record in one piece would stall everybody's next fdatasync."""


@dataclass(frozen=True, slots=True)
class Lone:
    """A file for one record; its writer's lock is held, so that nobody takes it for abandoned."""

    folder: Path
    stem: str

    def write(self, opening: bytes, record: Iterable[Buffer], size_bytes: int, check_floor: Callable[[], None]) -> str:
        """Write header and record and make them durable; return the segment's name. Nothing is left where that fails."""
        path = self.folder / f"{self.stem}.part"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                at = _written(descriptor, opening, 0)
                synced = 0
                for piece in record:
                    at += _written(descriptor, piece, at)
                    if at - synced > _SYNC_BYTES:
                        os.fdatasync(descriptor)
                        check_floor()
                        synced = at
                assert at == len(opening) + size_bytes, "a record has another length than its head says"
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.rename(path.with_suffix(".seg"))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        sync_folder(self.folder)
        return f"{self.stem}.seg"


def next_file(folder: Path, writer: str, last_elsewhere: Callable[[str], int]) -> Lone:
    """Return the next file of a writer, whose name is taken from now on. The caller holds the writer's lock."""
    numbers = [
        int(match["number"])
        for match in (_NAME.fullmatch(path.name) for path in folder.iterdir())
        if match is not None and match["writer"] == writer
    ]
    number = max(*numbers, last_elsewhere(f"{writer}{SUFFIX}"), 0) + 1
    lone = Lone(folder, f"{writer}{SUFFIX}-{number:08}")
    os.close(os.open(folder / f"{lone.stem}.part", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return lone


def sweep(folder: Path) -> None:
    """Remove what writers that have died left unfinished."""
    for path in folder.glob(f"*{SUFFIX}-*.part"):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        descriptor = os.open(folder / f"{match['writer']}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def _written(descriptor: int, data: Buffer, offset: int) -> int:
    view, done = memoryview(data).cast("B"), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
    return done
