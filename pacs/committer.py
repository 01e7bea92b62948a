"""Group commit: whoever waits at the same moment shares one fdatasync and one transaction.

Stands between the rooms and `archive.py`. Success is said only after both the records and the rows are durable: the record
first, because bytes without a row are replayed at the next start, and a row without its bytes would be a lie.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from pacs.index.database import Index
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, InstanceConflict, IntegrityError, OutOfResources
from pacs.model.instance import Arrival, IndexEntry, Location, Origin, Stored
from pacs.model.job import Claim
from pacs.ports import ObjectStore
from pacs.store.envelope import Sealer
from pacs.store.record import LARGE_BYTES
from pacs.store.vault import Vault

log = get_logger(__name__)
_Waiting = tuple[Arrival, "Future[Stored]"]


def replay(
    objects: ObjectStore,
    sealer: Sealer,
    index: Index,
    container: str,
    *,
    otherwise: Callable[[IndexEntry, Location], bool] = lambda entry, location: False,
) -> int:
    """Write the rows of the last records of a container that have none, and return how many.

    Objects that a job made are left out: they become visible with the job's end, and the job runs again to the same bytes.
    `otherwise` is asked about a record that has a row already, and says whether it restored something.
    """
    restored = 0
    for location, record in objects.records(container, index.high_water(container)):
        try:
            entry = sealer.open_entry(record)
        except IntegrityError:
            # Never acknowledged, or damaged since: `pacs verify` names it; it must not stop the start.
            log.error("record_unreadable", location_container=container)
            continue
        if entry.origin is not Origin.PROCESSOR:
            restored += index.restore(entry, location) or otherwise(entry, location)
    return restored


class Committer:
    """Writes arrivals in groups of at most `group_size`, in one thread of its own."""

    def __init__(self, objects: ObjectStore, index: Index, vault: Vault | None = None, *, group_size: int = 64) -> None:
        self._objects = objects
        self._vault = vault
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="vault")
        self._index = index
        self._group_size = group_size
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def commit(self, arrival: Arrival) -> Stored:
        """Commit one arrival together with whatever else is waiting; durable on return.

        A large record is written first, by the caller's own thread: only its rows join the group.
        """
        if arrival.sealed.size_bytes > LARGE_BYTES:
            arrival = replace(arrival, location=self._objects.put_alone(arrival.sealed))
        self._start()
        future: Future[Stored] = Future()
        self._waiting.put((arrival, future))
        return future.result()

    def commit_all(self, arrivals: Sequence[Arrival], *, finishing: Claim | None = None) -> list[Stored]:
        """Commit `arrivals` in one transaction, all or none; with `finishing`, that job's end is in the same transaction.

        Raises `NotFound` if the claim is no longer valid; then nothing becomes visible.
        """
        with self._lock:
            locations = self._put(arrivals)
            try:
                stored = self._index.add(list(zip(arrivals, locations, strict=True)), finishing=finishing)
            except ArchiveError:
                # The index refused before it committed. After any other error the outcome is unknown (a connection can break
                # behind a COMMIT): the records stay, and the next start replays those that have no rows.
                for location in locations:
                    self._objects.delete(location)
                raise
            for one, location in zip(stored, locations, strict=True):
                if not one.fresh:
                    self._objects.delete(location)
            return stored

    def close(self) -> None:
        """Finish what is waiting, then stop."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
        self._beside.shutdown()

    def _put(self, arrivals: Sequence[Arrival]) -> list[Location]:
        """Write the records, and what was taken from them into the vault; both are durable on return, or nothing counts.

        Side by side, because each waits for the disk (docs/adr/0015). A crash between the two leaves a row of the vault without
        a record, or a record that a resend gives its row (`pacs.ingest`).
        """
        taken = [(one.encoded.key, one.encoded.digest, one.taken) for one in arrivals if one.taken is not None]
        kept = self._beside.submit(self._vault.keep, taken) if self._vault is not None and taken else None
        try:
            put = iter(self._objects.put([one.sealed for one in arrivals if one.location is None]))
            locations = [one.location or next(put) for one in arrivals]
        finally:
            failure = kept.exception() if kept is not None else None
        if failure is not None:
            for location in locations:
                self._objects.delete(location)
            raise failure
        return locations

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            first = self._waiting.get()
            if first is None:
                return
            group, ended = [first], False
            while len(group) < self._group_size:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                    break
                group.append(following)
            self._commit_group(group)
            if ended:
                return

    def _commit_group(self, group: list[_Waiting]) -> None:
        try:
            stored = self.commit_all([arrival for arrival, _ in group])
        except (OutOfResources, InstanceConflict) as error:
            # A small object may still fit where the group did not; nobody fails for another's size, or another's conflict.
            if len(group) == 1:
                group[0][1].set_exception(error)
            else:
                for one in group:
                    self._commit_group([one])
        except BaseException as error:
            log.exception("commit_failed", error, count=len(group))
            for _, future in group:
                future.set_exception(error)
        else:
            for (_, future), result in zip(group, stored, strict=True):
                future.set_result(result)
