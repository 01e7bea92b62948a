"""Take what is missing or damaged from another copy: the bucket, or a backup in a folder or a bucket.

A candidate counts only if it is whole, opens with its study's key, and says what its row says; after it was put in place it is
read back, decoded, and its digest compared. Where its segment is here the record is written over its damaged self; otherwise
it goes into the own segment and its row follows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, IntegrityError, NotFound
from pacs.model.instance import Location
from pacs.model.upkeep import Finding, RecordRow
from pacs.ports import Bucket
from pacs.store import record as layout
from pacs.store import sending
from pacs.store.ranged import PlacedObject
from pacs.store.tiers import TieredStore
from pacs.store.walk import live_records
from pacs.upkeep.verify import check_record, check_row, verify

log = get_logger(__name__)
IN_PLACE, MOVED, SENT_AGAIN, LEFT = "put in place", "put into another segment", "sent again", "left as it is"


Read = Callable[[int, int], bytes]
"""Another copy of a record: returns `count` bytes of it from `offset`."""


class Copies(Protocol):
    """Where another copy of a record may be."""

    def of(self, archive: Archive, row: RecordRow) -> Iterator[Read]:
        """Yield candidates; none has been looked at yet."""


@dataclass(frozen=True, slots=True)
class OtherPlace:
    """The bucket's copy of a segment that is here as well."""

    tiers: TieredStore

    def of(self, archive: Archive, row: RecordRow) -> Iterator[Read]:
        """Yield the record as the bucket has it."""
        yield lambda offset, count: self.tiers.read_copy(row.stored.location, (offset, count))


class Backup:
    """A backup's copies of segments, found by name; where records were moved since, by what they say of themselves."""

    def __init__(self, bucket: Bucket, files: dict[str, tuple[str, int]]) -> None:
        """Read from `bucket`; `files` gives object and size of each segment by its name."""
        self._bucket = bucket
        self._files = files
        self._entries: dict[tuple[str, bytes], Location] | None = None

    def of(self, archive: Archive, row: RecordRow) -> Iterator[Read]:
        """Yield what lies at the record's place in the backup, then what is the same instance elsewhere in it."""
        place = row.stored.location
        yield from self._at(place)
        if self._entries is None:
            self._entries = dict(self._walk(archive))
        other = self._entries.get((row.stored.key.sop_instance_uid, row.stored.digest))
        if other is not None and other != place:
            yield from self._at(other)

    def _at(self, place: Location) -> Iterator[Read]:
        if place.container in self._files:
            name, _ = self._files[place.container]
            yield lambda offset, count: self._bucket.read(name, (place.offset + offset, count))

    def _walk(self, archive: Archive) -> Iterator[tuple[tuple[str, bytes], Location]]:
        for container, (name, size) in self._files.items():
            try:
                for location, record in live_records(PlacedObject(self._bucket, name, size), container):
                    try:
                        entry = archive.sealer.open_entry(record)
                    except ArchiveError:
                        continue
                    yield (entry.key.sop_instance_uid, entry.digest), location
            except NotFound:
                continue


@dataclass(frozen=True, slots=True)
class Repair:
    """A finding, and what became of it: IN_PLACE, MOVED, SENT_AGAIN, or LEFT."""

    finding: Finding
    outcome: str


def repair(
    archive: Archive,
    copies: Sequence[Copies] = (),
    *,
    deep: bool = False,
    on_record: Callable[[int], object] | None = None,
) -> Iterator[Repair]:
    """Verify everything, and put right what another copy allows; the bucket, if there is one, is asked before `copies`."""
    if archive.tiers is not None:
        copies = [OtherPlace(archive.tiers), *copies]
    for finding in list(verify(archive, deep=deep, on_record=on_record)):
        outcome = LEFT
        if finding.kind in ("missing", "corrupt") and finding.sop_instance_uid:
            row = archive.index.upkeep.row_at(Location(finding.container, finding.offset, 0))
            # Gone: forgotten or moved since it was found.
            outcome = repair_row(archive, row, copies) or LEFT if row is not None else MOVED
        elif finding.kind == "copy" and archive.tiers is not None and archive.tiers.local.holds(finding.container):
            outcome = SENT_AGAIN if sending.send_again(archive.tiers, finding.container) else LEFT
        if outcome != LEFT:
            log.info("record_repaired", kind=finding.kind, sop_instance_uid=finding.sop_instance_uid, outcome=outcome)
        yield Repair(finding, outcome)


def repair_row(archive: Archive, row: RecordRow, copies: Sequence[Copies]) -> str:
    """Take one record from the first copy that is good; returns what was done, "" where none is."""
    for one in copies:
        for read in one.of(archive, row):
            try:
                if _is_good(archive, row, read):
                    done = _put_in_place(archive, row, read) or _put_elsewhere(archive, row, read)
                    if done:
                        return done
            except (NotFound, IntegrityError):
                continue  # it has no such segment, or not that far
    return ""


def _is_good(archive: Archive, row: RecordRow, read: Read) -> bool:
    size = row.stored.location.size_bytes
    if size <= layout.LARGE_BYTES:
        return check_record(archive, row, read(0, size), deep=False) is None
    if not layout.is_complete_by(read, size):
        return False
    head = layout.parse_head(read(0, layout.head_bytes(read(0, layout.PREFIX_BYTES))))
    return check_record(archive, row, read(0, layout.opening_bytes(head)), deep=False) is None


def _put_in_place(archive: Archive, row: RecordRow, read: Read) -> str:
    size = row.stored.location.size_bytes
    if size > layout.LARGE_BYTES:
        return ""  # never in memory as a whole
    try:
        archive.objects.mend(row.stored.location, read(0, size))
    except (NotFound, IntegrityError, OSError):
        return ""  # its segment is not here, or the disk does not take it
    return IN_PLACE if check_row(archive, row, deep=True) is None else ""


def _put_elsewhere(archive: Archive, row: RecordRow, read: Read) -> str:
    size = row.stored.location.size_bytes
    if size <= layout.LARGE_BYTES:
        (location,) = archive.objects.bring([read(0, size)])
    else:
        location = archive.objects.bring_alone(read, size)
    there = replace(row, stored=replace(row.stored, location=location))
    if check_row(archive, there, deep=True) is None and archive.index.upkeep.move([(row, location)])[0]:
        archive.objects.delete(row.stored.location)
        return MOVED
    archive.objects.delete(location)
    return ""
