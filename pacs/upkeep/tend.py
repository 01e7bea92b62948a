"""Upkeep beside serving, in the scheduler's process: check records by their age, compress what came in a hurry, compact,
forget what retention rules say, and finish what was cut short.

It never hurries: at most `store.scrub_mb_s` are read, and whatever goes wrong is logged and tried again later. What it finds is
an error in the log and an event; `pacs verify` tells the whole story.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, ConfigurationError, Unavailable
from pacs.model.upkeep import Finding, RecordRow
from pacs.settings import Settings
from pacs.upkeep import forget, retention
from pacs.upkeep.compact import compact
from pacs.upkeep.compress import compress
from pacs.upkeep.repair import OtherPlace, repair_row
from pacs.upkeep.ship import Shipper
from pacs.upkeep.verify import check_row

log = get_logger(__name__)
TICK_S = 5.0
COMPACT_EVERY_S = 600.0
COMPRESS_S = 30.0
RETAIN_EVERY_S = 3600.0
DAY_S = 86400.0
_AT_ONCE = 32


class Tender:
    """One pass after another over what is due."""

    every_s = TICK_S

    def __init__(self, archive: Archive, stop: threading.Event | None = None) -> None:
        self._archive = archive
        self._stop = stop or threading.Event()
        self._other = OtherPlace(archive.tiers) if archive.tiers is not None else None
        self._compacted_at = time.monotonic()
        self._retained_at = -RETAIN_EVERY_S

    def scrub(self, seconds: float) -> int:
        """Check the records that were not checked for the longest time, as many as `seconds` allow; returns how many."""
        settings, now = self._archive.settings.store, time.time()
        if settings.scrub_days <= 0:
            return 0
        room = settings.scrub_mb_s * (1 << 20) * seconds
        period_s = settings.scrub_days * DAY_S
        checked = []
        # What has just been stored was proven then; its turn comes with the others'.
        for row in self._archive.index.upkeep.due(now - period_s, now - min(period_s, DAY_S), _AT_ONCE):
            if room <= 0:
                break
            room -= row.stored.location.size_bytes
            try:
                finding = check_row(self._archive, row, deep=True)
                if finding is not None and self._archive.index.upkeep.row_at(row.stored.location) is not None:
                    self._found(finding, row)
            except Unavailable:
                break  # the bucket is away: its records' turn comes again
            checked.append(row.pk)
        self._archive.index.upkeep.checked(checked)
        return len(checked)

    def _found(self, finding: Finding, row: RecordRow) -> None:
        """Repair from the other place where there is one; otherwise say loudly what is damaged."""
        if self._other is not None and repair_row(self._archive, row, [self._other]):
            log.warning("record_repaired", kind=finding.kind, sop_instance_uid=finding.sop_instance_uid)
            self._archive.index.upkeep.alarm(finding, row.stored.key, event="record_repaired")
            return
        log.error("record_damaged", kind=finding.kind, sop_instance_uid=finding.sop_instance_uid)
        self._archive.index.upkeep.alarm(finding, row.stored.key)

    def tick(self) -> None:
        """Do what is due."""
        forget.resume(self._archive)
        if time.monotonic() - self._retained_at >= RETAIN_EVERY_S:
            self._retained_at = time.monotonic()
            retention.by_itself(self._archive)
        self.scrub(TICK_S)
        compress(self._archive, until=time.monotonic() + COMPRESS_S, stop=self._stop)
        below = self._archive.settings.store.compact_below
        if below > 0 and time.monotonic() - self._compacted_at >= COMPACT_EVERY_S:
            self._compacted_at = time.monotonic()
            try:
                compact(self._archive, below=below)
            except Unavailable:
                log.info("compaction_waits")


@contextmanager
def tending(settings: Settings) -> Iterator[None]:
    """Tend the archive of these settings in threads of their own for a `with` block."""
    stop = threading.Event()
    # Whoever sends to a bucket may wait for it for minutes; checks and compaction go on beside.
    makers: dict[str, Callable[[Archive], Tender | Shipper]] = {"upkeep": partial(Tender, stop=stop)}
    if settings.store.url:
        makers["shipping"] = Shipper
    threads = [
        threading.Thread(target=_run, args=(settings, name, make, stop), name=name, daemon=True)
        for name, make in makers.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def _run(settings: Settings, name: str, make: Callable[[Archive], Tender | Shipper], stop: threading.Event) -> None:
    while not stop.wait(TICK_S if name == "upkeep" else 0.5):
        try:
            with Archive.opened(settings, writer=name) as archive:
                tender = make(archive)
                tender.tick()
                while not stop.wait(tender.every_s):
                    tender.tick()
        except ConfigurationError as error:
            log.error("upkeep_cannot_run", reason=str(error))
            return
        except ArchiveError as error:
            log.warning("upkeep_waits", error=type(error).__name__)
        except Exception as error:
            log.exception("upkeep_failed", error)
