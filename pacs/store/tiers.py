"""Segments here and in a bucket: written here first, sent away whole when they are closed, read from where they are.

Implements `pacs.ports.ObjectStore` over a `SegmentStore` and a `Bucket`. A record's place (segment, offset, length) is the same
in both, so no row changes when a segment is sent or its local copy goes. What is given up later is noted in the ledger, and
beside the segment in the bucket. Whoever sends is `pacs.upkeep.ship`; nothing here waits for the bucket on the way in.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError, IntegrityError, NotFound
from pacs.model.instance import Buffer, Location, Sealed
from pacs.model.upkeep import DAMAGE, GIVEN_UP, RECORD, Piece, Segment
from pacs.ports import Bucket
from pacs.store import bucket as buckets
from pacs.store import record as layout
from pacs.store.ledger import FOUND, SENDING, SHIPPED, Copy, Ledger
from pacs.store.ranged import Blocks, PlacedObject
from pacs.store.segments import SegmentStore
from pacs.store.walk import live_records, survey

log = get_logger(__name__)
FOLDER, NOTES = "segments", "given-up"
_TICK_S = 5.0


@dataclass(frozen=True, slots=True)
class Begun:
    """What the bucket's listing said: segments that nobody knew, and those that are neither there nor here."""

    found: int
    lost: int


class TieredStore:
    """An object store of which the older part lies in a bucket."""

    def __init__(self, local: SegmentStore, bucket: Bucket, ledger: Ledger, *, owner: str, turn_over_s: float) -> None:
        """Read and write through `local` and `bucket`.

        Parameters
        ----------
        owner : str
            Name of this archive in the bucket; a prefix that bears another is not used.
        turn_over_s : float
            A segment that has held records for so long is closed, full or not, so that it can be sent.
        """
        self.local = local
        self.bucket = bucket
        self.ledger = ledger
        self._owner = owner
        self._turn_over_s = turn_over_s
        self._blocks = Blocks(bucket)
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None
        self._starting = threading.Lock()

    # --- records --------------------------------------------------------------------------------------------------------

    def put(self, group: Sequence[Sealed]) -> list[Location]:
        """Write a group here; every record is durable on return."""
        self._keep_house()
        return self.local.put(group)

    def put_alone(self, sealed: Sealed) -> Location:
        """Write one large record here, piece by piece; durable on return."""
        self._keep_house()
        return self.local.put_alone(sealed)

    def get(self, location: Location, span: tuple[int, int] | None = None) -> bytes:
        """Return the record, or `span` within it. Raises `NotFound`; `Unavailable` while the bucket that has it is away."""
        self._keep_house()
        if self.local.holds(location.container):
            try:
                return self.local.get(location, span)
            except NotFound:
                if self.local.holds(location.container):
                    raise
        return self.read_copy(location, span)

    def read_copy(self, location: Location, span: tuple[int, int] | None = None) -> bytes:
        """Return the record, or `span` within it, as the bucket has it; raises as `get` does."""
        copy = self._copy(location.container)
        offset, length = span or (0, location.size_bytes)
        if offset < 0 or length < 0 or offset + length > location.size_bytes:
            raise IntegrityError("a span reaches beyond its record")
        if self.ledger.is_given_up(location):
            raise NotFound("no record lies there")
        data = self._blocks.read(f"{FOLDER}/{copy.container}", copy.size_bytes, location.offset + offset, length)
        if len(data) != length:
            raise IntegrityError("a segment ends within a record")
        if offset == 0 and length > layout.STATE_OFFSET and not _is_live(data):
            raise NotFound("no record lies there")
        return data

    def delete(self, location: Location) -> None:
        """Give the record up, here at once, in the bucket by a note; its room there comes back with a compaction."""
        # Noted first and always: the segment may be on its way at this very moment.
        if self.local.holds(location.container) or self.ledger.copy(location.container) is not None:
            self.ledger.give_up(location)
            self.local.delete(location)

    def copy(self, locations: Sequence[Location]) -> list[Location]:
        """Write copies of records here."""
        if all(location.size_bytes <= layout.LARGE_BYTES for location in locations):
            return self.bring([self.get(location) for location in locations])
        self._keep_house()
        return [place for location in locations for place in self._copy_one(location)]

    def _copy_one(self, location: Location) -> list[Location]:
        if location.size_bytes <= layout.LARGE_BYTES:
            return self.copy([location])
        return [self.bring_alone(lambda offset, count: self.get(location, (offset, count)), location.size_bytes)]

    def bring(self, records: Sequence[Buffer]) -> list[Location]:
        """Write records here that come from another copy."""
        self._keep_house()
        return self.local.bring(records)

    def bring_alone(self, read: Callable[[int, int], Buffer], size_bytes: int) -> Location:
        """Write a large record here that `read(offset, count)` gives."""
        self._keep_house()
        return self.local.bring_alone(read, size_bytes)

    def mend(self, location: Location, record: Buffer) -> None:
        """Write a record over its damaged self, here. Raises `NotFound` where the segment is in the bucket only."""
        if self.ledger.is_given_up(location):
            raise NotFound("the record was given up")
        self.local.mend(location, record)

    # --- segments -------------------------------------------------------------------------------------------------------

    def containers(self, *, local: bool = False) -> list[str]:
        """Return every segment; with `local` those here, and those found in the bucket that nobody has walked."""
        here = self.local.containers()
        copies = self.ledger.copies()
        return sorted({*here, *(name for name, copy in copies.items() if not local or copy.state == FOUND)})

    def records(self, container: str, from_offset: int = 0) -> Iterator[tuple[Location, bytes]]:
        """Walk the complete records of a segment, wherever it is."""
        if self.local.holds(container):
            yield from self.local.records(container, from_offset)
            return
        gone = self.ledger.given_up(container)
        for location, record in live_records(self._placed(container), container, from_offset):
            if location.offset not in gone:
                yield location, record

    def survey(self, container: str) -> Iterator[Piece]:
        """Name every stretch of a segment that is not zero, wherever it is."""
        yield from self.local.survey(container) if self.local.holds(container) else self.survey_copy(container)

    def survey_copy(self, container: str) -> Iterator[Piece]:
        """Name every stretch of a segment's copy in the bucket. Raises `NotFound`."""
        gone = self.ledger.given_up(container)
        for piece in survey(self._placed(container), container):
            place = piece.location
            if piece.kind in (RECORD, DAMAGE) and place.offset in gone:
                yield Piece(GIVEN_UP, Location(container, place.offset, gone[place.offset]))
            else:
                yield piece

    def segments(self) -> list[Segment]:
        """Return what there is to say of each segment without reading it."""
        here = self.local.segments()
        held = {one.container for one in here}
        away = (copy for copy in self.ledger.copies().values() if copy.container not in held)
        return here + [Segment(copy.container, copy.size_bytes, copy.changed_at, False) for copy in away]

    def trim(self, container: str, from_offset: int) -> None:
        """Turn torn bytes behind the last record into zeros, if nobody writes there; `from_offset` as in `records`."""
        self.local.trim(container, from_offset)

    def retire(self, container: str) -> None:
        """Note that nothing of a segment is needed from now on."""
        self.ledger.touch(container)
        self.local.retire(container)

    def drop(self, container: str) -> None:
        """Remove a segment of which nothing is needed, here and there."""
        if any(one.newest for one in self.local.segments() if one.container == container):
            raise ConfigurationError(f"{container} is the newest segment of its writer")
        self.local.path(container)
        if self.ledger.copy(container) is not None:
            self.bucket.delete(f"{FOLDER}/{container}")
            self.bucket.delete(f"{NOTES}/{container}")
            self.ledger.remove(container, given_up=True)
            self._blocks.forget(f"{FOLDER}/{container}")
        self.local.drop(container)

    def close(self) -> None:
        """Release files; what was put stays."""
        self._stop.set()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()
            self._keeper, self._stop = None, threading.Event()
        self.local.close()
        self.ledger.close()

    # --- the two places held against each other ---------------------------------------------------------------------------

    def claim(self) -> None:
        """Make sure that the bucket keeps what it is given, and is ours. Raises as `begin` does."""
        buckets.claim(self.bucket, self._owner)

    def was_claimed(self) -> bool:
        """Tell whether that was done before."""
        return self.ledger.notes().get("claimed") == self._owner

    def begin(self, *, settle: bool = False) -> Begun:
        """Claim the bucket, and hold its listing against the ledger: each knows what the other may have lost.

        With `settle`, before anybody writes, segments that a backup brought back half full make way for their whole.

        Raises
        ------
        ConfigurationError
            The bucket cannot be trusted, is another archive's, or holds nothing of what was sent.
        Unavailable
            It does not answer.
        """
        self.claim()
        listed = {name.removeprefix(f"{FOLDER}/"): size for name, size in self.bucket.list(FOLDER).items()}
        known, here = self.ledger.copies(), set(self.local.containers())
        lost = [name for name in known if name not in listed and name not in here]
        if lost and not listed.keys() & known.keys():
            raise ConfigurationError(
                f"store.url names a bucket that holds none of the {len(lost)} segments that were sent: is it the right one?"
            )
        for name in known.keys() & here - listed.keys():
            self.ledger.remove(name, given_up=False)  # sent again by the next pass
        for name in lost:
            log.error("segment_missing", segment=name)
        found = [name for name in listed if name not in known and name not in here]
        if settle:
            found += [name for name in sorted(here & listed.keys()) if self._is_half(name, listed[name])]
        for name in found:
            self.local.discard(name)
            self.ledger.give_up(*self._noted(name), told=True)
            self.ledger.write(name, FOUND, listed[name])
        self.ledger.note(claimed=self._owner)
        return Begun(len(found), len(lost))

    def _is_half(self, container: str, size_bytes: int) -> bool:
        """Tell whether what is here of a segment is an older state of what is in the bucket."""
        copy = self.ledger.copy(container)
        if copy is not None and (copy.state == SENDING or self.local.path(container).stat().st_size == size_bytes):
            return False
        name = f"{FOLDER}/{container}"
        for location, record in self.local.records(container):
            there = self.bucket.read(name, (location.offset, len(record)))
            given_up = there[:8] == layout.MAGIC and there[layout.STATE_OFFSET] == layout.GIVEN_UP
            if there != record and not given_up:
                log.error("segment_differs", segment=container)
                return False
        return True

    def walked(self) -> None:
        """Note that the records of all segments that were found in the bucket have their rows."""
        for copy in self.ledger.copies().values():
            if copy.state == FOUND:
                self.ledger.write(copy.container, SHIPPED, copy.size_bytes, copy.sha256)

    def tell(self, container: str) -> None:
        """Write beside a segment in the bucket what was given up of it since it was sent."""
        gone = self.ledger.given_up(container)
        self.bucket.replace(f"{NOTES}/{container}", json.dumps(sorted(gone.items())).encode("ascii"))
        self.ledger.told(container, list(gone))

    def _noted(self, container: str) -> list[Location]:
        try:
            noted = json.loads(self.bucket.read(f"{NOTES}/{container}"))
        except NotFound:
            return []
        return [Location(container, int(offset), int(size)) for offset, size in noted]

    def _placed(self, container: str) -> PlacedObject:
        return PlacedObject(self.bucket, f"{FOLDER}/{container}", self._copy(container).size_bytes)

    def _copy(self, container: str) -> Copy:
        copy = self.ledger.copy(container)
        if copy is None or copy.state == SENDING:
            raise NotFound(f"there is no segment {container!r}")
        return copy

    def _keep_house(self) -> None:
        """Start, once, the thread that closes segments by age and lets go of files that went to the bucket."""
        if self._keeper is None:
            with self._starting:
                if self._keeper is None and not self._stop.is_set():
                    self._keeper = threading.Thread(target=self._house, name="segments", daemon=True)
                    self._keeper.start()

    def _house(self) -> None:
        while not self._stop.wait(min(_TICK_S, max(0.05, self._turn_over_s / 2))):
            try:
                self.local.turn_over(self._turn_over_s)
                self.local.let_go()
            except OSError as error:
                log.warning("segment_not_closed", error=type(error).__name__)


def _is_live(start: bytes) -> bool:
    """Tell a record's beginning from that of one that was given up before its segment was sent, and from anything else."""
    return start[:8] == layout.MAGIC and start[layout.STATE_OFFSET] != layout.GIVEN_UP
