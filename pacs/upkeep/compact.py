"""Give the room of what was deleted back: rewrite the live records of a segment of which little is left.

Copy, one fdatasync, all rows in one transaction; the old segment goes when readers have had time. A crash at any point leaves
records that are needed in one place or two, never in none: what no row points to is found by the next pass.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, IntegrityError, NotFound, OutOfResources, Unavailable
from pacs.model.instance import Origin
from pacs.model.upkeep import DAMAGE, RECORD, Piece, RecordRow, Segment

log = get_logger(__name__)
GRACE_S = 900.0
"""Readers of another process may hold the place of a record for so long: a C-MOVE of a large study."""
AT_REST_S = 60.0
ABANDONED_S = 3600.0
_BATCH_RECORDS = 64
_BATCH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Compaction:
    """What one pass did. `waiting` segments have nothing live any more, and go when readers have had time."""

    moved: int
    rewritten: int
    dropped: int
    waiting: int
    freed_bytes: int


def compact(archive: Archive, *, below: float, grace_s: float = GRACE_S, at_rest_s: float = AT_REST_S) -> Compaction:
    """Rewrite segments of which less than the share `below` is live; remove those of which nothing is.

    Raises `Unavailable` where another compaction or a backup is at work.
    """
    with segments_held(archive.settings.home, exclusive=True):
        return _Pass(archive, below, grace_s, at_rest_s).run()


@contextmanager
def segments_held(home: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the lock under which segments may go away; a backup shares it, so that none goes while it copies."""
    descriptor = os.open(home / "store" / "compaction.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable("a compaction or a backup is at work; try again when it has ended") from error
        yield
    finally:
        os.close(descriptor)


class _Pass:
    def __init__(self, archive: Archive, below: float, grace_s: float, at_rest_s: float) -> None:
        self._archive = archive
        self._below = below
        self._grace_s = grace_s
        self._at_rest_s = at_rest_s
        self._moved = self._rewritten = self._dropped = self._waiting = self._freed = 0

    def run(self) -> Compaction:
        objects = self._archive.objects
        for segment in objects.segments():
            idle_s = time.time() - segment.changed_at
            if segment.newest or idle_s < self._at_rest_s:
                continue
            live = self._archive.index.upkeep.containers().get(segment.container, 0)
            if live and live < self._below * segment.size_bytes:
                self._rewrite(segment)
                live = self._archive.index.upkeep.containers().get(segment.container, 0)
                # From here on its time of change says since when nothing of it is needed.
                objects.retire(segment.container)
                idle_s = 0.0
            if not live and idle_s < self._grace_s:
                self._waiting += 1
            elif not live and not self._is_needed(segment):
                objects.drop(segment.container)
                self._dropped += 1
                self._freed += segment.size_bytes
        done = Compaction(self._moved, self._rewritten, self._dropped, self._waiting, self._freed)
        if self._moved or self._dropped:
            log.info("segments_compacted", records=self._moved, count=self._dropped, size_bytes=self._freed)
        return done

    def _rewrite(self, segment: Segment) -> None:
        rows = self._archive.index.upkeep.rows_in(segment.container)
        self._rewritten += 1
        while rows:
            batch, size = [rows.pop(0)], 0
            while rows and len(batch) < _BATCH_RECORDS and size < _BATCH_BYTES:
                size += rows[0].stored.location.size_bytes
                batch.append(rows.pop(0))
            try:
                self._move(batch)
            except (IntegrityError, NotFound):
                for row in batch:
                    self._move_alone(row)

    def _move_alone(self, row: RecordRow) -> None:
        try:
            self._move([row])
        except (IntegrityError, NotFound):
            # Damaged, or gone meanwhile: it stays where it is, and `pacs verify` names it.
            log.error("record_not_moved", sop_instance_uid=row.stored.key.sop_instance_uid)

    def _move(self, batch: Sequence[RecordRow]) -> None:
        objects = self._archive.objects
        copies = objects.copy([row.stored.location for row in batch])
        try:
            moved = self._archive.index.upkeep.move(list(zip(batch, copies, strict=True)))
        except OutOfResources:
            for copy in copies:
                objects.delete(copy)
            raise
        for copy, taken in zip(copies, moved, strict=True):
            if taken:
                self._moved += 1
            else:
                objects.delete(copy)

    def _is_needed(self, segment: Segment) -> bool:
        try:
            return any(self._piece_is_needed(piece) for piece in self._archive.objects.survey(segment.container))
        except NotFound:
            return False  # gone already; dropping it again ends what was cut short

    def _piece_is_needed(self, piece: Piece) -> bool:
        if piece.kind == DAMAGE:
            return True  # kept for whoever repairs it; `pacs verify` names it
        if piece.kind != RECORD:
            return False
        if self._archive.index.upkeep.row_at(piece.location) is not None:
            return True
        try:
            entry = self._archive.sealer.open_entry(piece.record)
        except ArchiveError:
            # Without its key it is noise: the study was forgotten.
            return self._archive.ring.holds(int.from_bytes(piece.record[40:48], "little"))
        if self._archive.index.equal(entry.key.sop_instance_uid, entry.digest) is not None:
            return False
        return entry.origin is not Origin.PROCESSOR or time.time() - entry.at < ABANDONED_S
