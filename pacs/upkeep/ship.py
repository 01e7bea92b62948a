"""Send what is closed to the bucket, again and again, in the scheduler's process; and say how it goes to whoever asks.

While the bucket is away nothing is lost and nothing waits: segments stay here until the disk's floor, and the next try comes
later each time. What the bucket lacks of what was sent (its listing is looked at every hour) is sent again.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, IntegrityError, Unavailable
from pacs.store import sending
from pacs.store.tiers import TieredStore

log = get_logger(__name__)
LONGEST_WAIT_S = 300.0
LOOK_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How it goes. `away_since` is 0.0 unless the last try failed; `failure` says why."""

    sent: int
    sent_bytes: int
    waiting: int
    waiting_bytes: int
    away_since: float
    failure: str


class Shipper:
    """One pass after another."""

    def __init__(self, archive: Archive) -> None:
        self._settings = archive.settings.store
        self._home = archive.settings.home
        self._tiers = tiers_of(archive)
        self._make_durable = archive.index.upkeep.make_durable
        self._failed = 0
        self._not_before = 0.0
        self._looked_at = -LOOK_EVERY_S
        self.every_s = max(0.2, min(5.0, self._settings.ship_after_s / 2))

    def tick(self) -> None:
        """Close what is old, send what is closed, let go of what is not needed here."""
        self._tiers.local.turn_over_idle(self._settings.ship_after_s)
        if time.monotonic() >= self._not_before:
            try:
                with _alone(self._tiers):
                    self.send()
            except Unavailable as error:
                self._away(error)
            else:
                self._failed = 0
        self._make_room()

    def send(self) -> int:
        """Send everything that waits; returns how many segments. Raises `Unavailable` where the bucket is away."""
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._tiers.begin()
            self._looked_at = time.monotonic()
        count, refused = 0, ""
        for container in sending.waiting(self._tiers):
            try:
                count += sending.send(self._tiers, container)
            except IntegrityError as error:
                log.error("segment_not_sent", segment=container)
                refused = str(error)
        for container in self._tiers.ledger.untold():
            self._tiers.tell(container)
        if self._failed:
            log.info("bucket_back", count=count)
        if count or self._failed or refused or "failure" not in self._tiers.ledger.notes():
            self._tiers.ledger.note(failure=refused, away_since="0")
        return count

    def _away(self, error: Unavailable) -> None:
        self._failed += 1
        wait_s = min(LONGEST_WAIT_S, self.every_s * 2**self._failed)
        self._not_before = time.monotonic() + wait_s
        if self._failed == 1:
            self._tiers.ledger.note(away_since=str(time.time()))
        self._tiers.ledger.note(failure=str(error))
        log.warning("bucket_away", attempt=self._failed, retry_in_s=wait_s)

    def _make_room(self) -> None:
        status = os.statvfs(self._home / "store")
        total = status.f_blocks * status.f_frsize
        floor = min(self._settings.floor_mb << 20, total // 20)
        # Ahead of the floor, so that nothing is refused while a copy is let go: a segment of each of several writers.
        wanted = min(2 * floor + 4 * (self._settings.segment_mb << 20), total // 5)
        try:
            keep = self._settings.cache_mb << 20
            sending.make_room(self._tiers, keep_bytes=keep, free_bytes=wanted, before=self._make_durable)
        except Unavailable:
            return  # nobody can say whether the other copy is there


def tiers_of(archive: Archive) -> TieredStore:
    """Return both places. Raises `ArchiveError` without a bucket."""
    if archive.tiers is None:
        raise ArchiveError("no bucket is configured (store.url)")
    return archive.tiers


def standing(tiers: TieredStore) -> Standing:
    """Say how it goes, without asking the bucket."""
    notes, copies = tiers.ledger.notes(), tiers.ledger.copies()
    waiting = set(sending.waiting(tiers))
    return Standing(
        sent=len(copies),
        sent_bytes=sum(one.size_bytes for one in copies.values()),
        waiting=len(waiting),
        waiting_bytes=sum(one.size_bytes for one in tiers.local.segments() if one.container in waiting),
        away_since=float(notes.get("away_since", "0")),
        failure=notes.get("failure", ""),
    )


def said(now: Standing) -> str:
    """Return a line about it for people."""
    line = f"{now.sent} segments sent, {now.waiting} wait ({now.waiting_bytes >> 20} MiB)"
    if now.away_since:
        return f"AWAY for {time.time() - now.away_since:.0f} s ({now.failure}); {line}"
    return f"WARNING: {now.failure}; {line}" if now.failure else line


@contextmanager
def _alone(tiers: TieredStore) -> Iterator[None]:
    """Hold the lock of whoever sends. Raises `Unavailable` while another does."""
    path = tiers.local.folder / "shipping.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable("another process is sending segments") from error
        yield
    finally:
        os.close(descriptor)


def send_now(archive: Archive) -> int:
    """Send all that can be sent, once; returns how many segments. Raises `Unavailable`."""
    shipper = Shipper(archive)
    tiers = tiers_of(archive)
    with _alone(tiers):
        tiers.local.turn_over_idle(0.0)
        return shipper.send()
