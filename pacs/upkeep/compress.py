"""Compress what came in a hurry: native pixels, packed for the while, become HTJ2K Lossless, proven exact as on arrival.

Write the new record, one fdatasync, then all rows in one transaction: a crash leaves one form or both, never none. The old
record stays for those that read it just then, and goes with its segment (`pacs.upkeep.compact`).
"""

import contextlib
import os
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, IntegrityError, NotFound, OutOfResources
from pacs.model.instance import Encoded, Location, Sealed
from pacs.model.upkeep import RecordRow

log = get_logger(__name__)
REST_S = 10.0
"""What has come within so many seconds may still be wanted as it is, by processors first of all."""
_BATCH_RECORDS = 16
_BATCH_BYTES = 64 << 20
_LOWEST_PRIORITY = 19


def compress(archive: Archive, *, until: float, rest_s: float = REST_S, stop: threading.Event | None = None) -> int:
    """Compress deferred records, the oldest first, until `until` (monotonic seconds) or `stop`; returns how many."""
    done = 0
    # Only the pixels are done at the lowest priority: a transaction that others wait for must not be kept from the processor.
    with ThreadPoolExecutor(1, thread_name_prefix="compress", initializer=_lower_priority) as pool:
        while time.monotonic() < until and not (stop is not None and stop.is_set()):
            rows = archive.index.upkeep.deferred(time.time() - rest_s, _BATCH_RECORDS)
            if not rows:
                break
            done += _compress(archive, rows, pool)
    if done:
        log.info("records_compressed", records=done)
    return done


def _lower_priority() -> None:
    """Let this thread and those that it starts have only what others leave of the processors (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


def _compress(archive: Archive, rows: list[RecordRow], pool: Executor) -> int:
    made: list[tuple[RecordRow, Encoded, Sealed]] = []
    size_bytes = 0
    for row in rows:
        if size_bytes > _BATCH_BYTES:
            break
        size_bytes += row.stored.location.size_bytes
        again = pool.submit(_again, archive, row).result()
        if again is None:
            archive.index.upkeep.keep_native(row)
        else:
            made.append((row, *again))
    if not made:
        return 0
    locations = archive.objects.put([sealed for _, _, sealed in made])
    moves = [(row, encoded, location) for (row, encoded, _), location in zip(made, locations, strict=True)]
    try:
        moved = archive.index.upkeep.compressed(moves)
    except OutOfResources:
        _give_up(archive, locations)
        raise
    _give_up(archive, [location for location, taken in zip(locations, moved, strict=True) if not taken])
    return sum(moved)


def _again(archive: Archive, row: RecordRow) -> tuple[Encoded, Sealed] | None:
    """Return an instance in the archive's form; None if its pixels do not become smaller, or cannot be read."""
    stored = row.stored
    try:
        entry = archive.sealer.open_entry(archive.objects.get(stored.location))
        header, frames = archive.sealer.open(stored, archive.objects)
    except (IntegrityError, NotFound):
        # Damaged, forgotten or gone meanwhile: `pacs verify` names it; it is not looked at again.
        log.error("record_not_compressed", sop_instance_uid=stored.key.sop_instance_uid)
        return None
    encoded = archive.codec.compress(stored.key, stored.sop_class_uid, header, frames, stored.digest)
    if encoded.transfer_syntax_uid == stored.transfer_syntax_uid:
        return None
    return encoded, archive.sealer.reseal(encoded, stored.study_key_id, entry)


def _give_up(archive: Archive, locations: list[Location]) -> None:
    for location in locations:
        with contextlib.suppress(ArchiveError):
            archive.objects.delete(location)
