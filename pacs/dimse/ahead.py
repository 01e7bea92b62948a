"""Data sets for sub-operations, made ready while the ones before them are on their way.

Opening and, where the receiver wants another transfer syntax, decoding take as long as sending; so the next few instances are
prepared on other cores. How far ahead is bounded in instances and in bytes, for one receiver and, with what arrives, for all of
them. Nothing is prepared twice unless the receiver changed its mind about transfer syntaxes in between.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from pacs import retrieve as way_out
from pacs.archive import Archive
from pacs.codec.outgoing import DataSetParts
from pacs.model.instance import InstanceKey, Stored
from pacs.reidentify import Originals

LOOK_AHEAD = 4
LOOK_AHEAD_BYTES = 64 << 20
"""As stored; decoded it may be several times as much."""
Ways = Callable[[str], tuple[str, ...]]
"""Returns the transfer syntaxes that the receiver accepted for a SOP Class."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to send, and under which SOP Instance UID."""

    parts: DataSetParts = field(repr=False)
    sop_instance_uid: str


class Ahead:
    """Prepares instances in the order in which they will be asked for."""

    def __init__(
        self, archive: Archive, order: Sequence[Stored], originals: Originals | None, prefers: Sequence[str] = ()
    ) -> None:
        self._archive = archive
        self._order = list(order)
        self._originals = originals
        self._prefers = tuple(prefers)
        self._room = archive.intake
        # What restores identities serves one thread; then nothing is prepared ahead.
        self._look_ahead = LOOK_AHEAD if originals is None else 0
        self._pool = ThreadPoolExecutor(2 if originals is None else 1, thread_name_prefix="ahead")
        self._coming: dict[InstanceKey, tuple[tuple[str, ...], Future[Prepared], int]] = {}
        self._next = 0

    def take(self, stored: Stored, ways: Ways, meanwhile: Callable[[], None]) -> Prepared:
        """Return an instance ready to be sent; `meanwhile` is called now and then while it is not. Raises `ArchiveError`."""
        accepted = ways(stored.sop_class_uid)
        before, future, size_bytes = self._coming.pop(stored.key, ((), None, 0))
        self._room.give(size_bytes)
        if future is None or before != accepted:
            future = self._pool.submit(self._prepare, stored, accepted)
        while not future.done() and not wait([future], timeout=0.5).done:
            meanwhile()
        self._fill(stored, ways)
        return future.result()

    def close(self) -> None:
        """Forget what was prepared in vain."""
        for *_, size_bytes in self._coming.values():
            self._room.give(size_bytes)
        self._coming.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self, stored: Stored, ways: Ways) -> None:
        """Start on what comes after `stored`."""
        while self._next < len(self._order) and self._order[self._next].key != stored.key:
            self._next += 1
        size_bytes = 0
        for one in self._order[self._next + 1 : self._next + 1 + self._look_ahead]:
            size_bytes += one.location.size_bytes
            if size_bytes > LOOK_AHEAD_BYTES:
                return
            accepted = ways(one.sop_class_uid)
            if one.key not in self._coming and accepted:
                if not self._room.take(one.location.size_bytes):
                    return
                future = self._pool.submit(self._prepare, one, accepted)
                self._coming[one.key] = (accepted, future, one.location.size_bytes)

    def _prepare(self, stored: Stored, accepted: tuple[str, ...]) -> Prepared:
        parts = way_out.data_set(self._archive, stored, accepted, self._originals, self._prefers)
        key = stored.key if self._originals is None else self._originals.key(stored)
        return Prepared(parts, key.sop_instance_uid)
