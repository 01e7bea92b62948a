"""Is what is stored what was written? Reads every byte of every segment, and holds rows and records against each other.

The plain check needs no pixel: each record is whole by its checksum, its entry opens with its study's key, and says what its
row says. The deep one opens every chunk, decodes every frame, and computes the digest anew where that can be done.
"""

import time
from collections.abc import Callable, Iterator

from pacs.archive import Archive
from pacs.index.upkeep import image_attributes
from pacs.model.bulk import blocks
from pacs.model.errors import ArchiveError, ConfigurationError, IntegrityError, NotFound, Unavailable
from pacs.model.instance import IndexEntry, Location, Origin
from pacs.model.upkeep import DAMAGE, RECORD, Finding, Piece, RecordRow
from pacs.store import record as layout
from pacs.store.bucket import digest_of
from pacs.store.tiers import FOLDER, TieredStore

IN_FLIGHT_S = 300.0
"""A record without a row is on its way for so long: its group may be waiting for the database."""
SETTLE_S = 1.0
"""A writer that is in the middle of a group has ended it by then."""


def verify(
    archive: Archive, *, deep: bool = False, on_record: Callable[[int], object] | None = None, now: float | None = None
) -> Iterator[Finding]:
    """Yield everything that is wrong; nothing is changed. Safe while the archive serves.

    Parameters
    ----------
    deep : bool
        Open every chunk, decode every frame, compare digests.
    on_record : callable, optional
        Told the size of every record that was read.
    """
    newest = {one.container for one in archive.objects.segments() if one.newest}
    for container in sorted({*archive.objects.containers(), *archive.index.upkeep.containers()}):
        try:
            yield from _Container(archive, container, deep, on_record, now or time.time()).findings(container in newest)
            if archive.tiers is not None:
                yield from _other_copy(archive.tiers, container, deep)
        except Unavailable as error:
            yield Finding("unreachable", str(error), "", container)
    yield from _quarantine(archive, deep)


def check_record(archive: Archive, row: RecordRow, record: bytes, *, deep: bool) -> Finding | None:
    """Hold one record against its row; None if all is well. Of a large one, known to be whole, the beginning is enough."""
    uid, place = row.stored.key.sop_instance_uid, row.stored.location

    def found(kind: str, detail: str) -> Finding:
        return Finding(kind, detail, uid, place.container, place.offset)

    whole = place.size_bytes > layout.LARGE_BYTES or layout.is_complete(record)
    if not layout.head_bytes(record) or not whole:
        return found("corrupt", "the record's checksum does not fit")
    try:
        entry = archive.sealer.open_entry(record)
        wrong = _differences(entry, row)
        if wrong:
            return found("index_mismatch", f"record and index differ in {', '.join(wrong)}")
        if deep:
            header, frames = archive.sealer.open(row.stored, archive.objects)
            stored = row.stored
            archive.codec.check(header, frames, stored.transfer_syntax_uid, stored.digest, repeatable=entry.repeatable)
    except ConfigurationError as error:
        return found("unreadable_key", str(error))
    except (IntegrityError, NotFound) as error:
        if not archive.ring.holds(row.stored.study_key_id):
            return found("unreadable_key", "the study's key is not in the key ring: it was forgotten, or the ring is older")
        return found("corrupt", str(error))
    return None


def check_row(archive: Archive, row: RecordRow, *, deep: bool) -> Finding | None:
    """Read the record that a row points to, and check it; None if all is well."""
    place = row.stored.location
    try:
        record = _whole(archive, place)
    except NotFound as error:
        return Finding("missing", str(error), row.stored.key.sop_instance_uid, place.container, place.offset)
    except IntegrityError as error:
        return Finding("corrupt", str(error), row.stored.key.sop_instance_uid, place.container, place.offset)
    return check_record(archive, row, record, deep=deep)


def _whole(archive: Archive, place: Location) -> bytes:
    """Return a record, or the beginning of a large one after reading it through. Raises `IntegrityError` if that is torn."""
    if place.size_bytes <= layout.LARGE_BYTES:
        return archive.objects.get(place)
    if not layout.is_complete_by(lambda offset, count: archive.objects.get(place, (offset, count)), place.size_bytes):
        raise IntegrityError("the record's checksum does not fit")
    return archive.sealer.beginning(place, archive.objects)


class _Container:
    """One segment being checked."""

    def __init__(
        self, archive: Archive, container: str, deep: bool, on_record: Callable[[int], object] | None, now: float
    ) -> None:
        self._archive = archive
        self._container = container
        self._deep = deep
        self._on_record = on_record or (lambda _: None)
        self._now = now

    def findings(self, newest: bool) -> Iterator[Finding]:
        archive = self._archive
        rows = {row.stored.location.offset: row for row in archive.index.upkeep.rows_in(self._container)}
        damaged: list[Piece] = []
        try:
            for piece in archive.objects.survey(self._container):
                if piece.kind == DAMAGE:
                    damaged.append(piece)
                elif piece.kind == RECORD:
                    row = rows.pop(piece.location.offset, None) or archive.index.upkeep.row_at(piece.location)
                    self._on_record(piece.location.size_bytes)
                    finding = check_record(archive, row, piece.record, deep=self._deep) if row else self._orphan(piece)
                    # It may have been moved, cleaned or forgotten while we looked.
                    if finding is not None and (row is None or self._is_still(row)):
                        yield finding
        except NotFound:
            pass
        claimed: set[int] = set()
        for row in rows.values():
            if self._is_still(row):
                yield from self._unseen(row, damaged, claimed)
        for piece in damaged:
            if piece.location.offset not in claimed and not (newest and self._is_being_written(piece)):
                yield Finding("damaged", _EXTENT.format(piece.location.size_bytes), "", self._container, piece.location.offset)

    def _unseen(self, row: RecordRow, damaged: list[Piece], claimed: set[int]) -> Iterator[Finding]:
        """A row at whose place no complete record was found."""
        place = row.stored.location
        for piece in damaged:
            if piece.location.offset <= place.offset < piece.location.offset + piece.location.size_bytes:
                claimed.add(piece.location.offset)
                uid = row.stored.key.sop_instance_uid
                yield Finding("corrupt", "no complete record lies there any more", uid, self._container, place.offset)
                return
        finding = check_row(self._archive, row, deep=self._deep)
        if finding is not None:
            yield finding

    def _orphan(self, piece: Piece) -> Finding | None:
        place = piece.location

        def found(detail: str, uid: str = "") -> Finding:
            return Finding("orphan", detail, uid, place.container, place.offset)

        try:
            entry = self._archive.sealer.open_entry(piece.record)
        except ArchiveError:
            return found("a record that nobody can open, and no row points to")
        if self._archive.index.equal(entry.key.sop_instance_uid, entry.digest) is not None:
            return None  # a copy that was moved away: its segment goes with the next compaction
        if self._now - entry.at < IN_FLIGHT_S:
            return None
        if entry.origin is Origin.PROCESSOR:
            return found("a record of a job that did not end; the next compaction takes it", entry.key.sop_instance_uid)
        return found("a record without a row; the next start of `pacs serve` writes it", entry.key.sop_instance_uid)

    def _is_still(self, row: RecordRow) -> bool:
        here = self._archive.index.upkeep.row_at(row.stored.location)
        return here is not None and here.pk == row.pk

    def _is_being_written(self, piece: Piece) -> bool:
        """Look at the same place again: a group that is being written has ended by then, damage stays as it is."""
        time.sleep(SETTLE_S)
        return piece not in list(self._archive.objects.survey(self._container))


def _other_copy(tiers: TieredStore, container: str, deep: bool) -> Iterator[Finding]:
    """Hold the bucket's copy of a segment that is here against what was sent: by name and size, deep by its digest."""
    copy = tiers.ledger.copies().get(container)
    if copy is None or not tiers.local.holds(container):
        return  # not sent yet; or read whole just now
    name = f"{FOLDER}/{container}"
    try:
        if len(tiers.bucket.read(name, (copy.size_bytes - 1, 2))) != 1:
            yield Finding("copy", "the bucket's copy has another size than what was sent", "", container)
        elif deep and copy.sha256 and digest_of(tiers.bucket, name) != (copy.sha256, copy.size_bytes):
            yield Finding("copy", "the bucket's copy is not what was sent", "", container)
    except NotFound:
        yield Finding("copy", "the bucket has no copy any more", "", container)


_EXTENT = "{} bytes are neither a record nor zero, and no row points there"


def _differences(entry: IndexEntry, row: RecordRow) -> list[str]:
    stored = row.stored
    pairs = {
        "UIDs": (entry.key, stored.key),
        "SOP Class": (entry.sop_class_uid, stored.sop_class_uid),
        "transfer syntax": (entry.transfer_syntax_uid, stored.transfer_syntax_uid),
        "digest": (entry.digest, stored.digest),
        "frames": (entry.number_of_frames, stored.number_of_frames),
        "study key": (entry.study_key_id, stored.study_key_id),
        "attributes": (image_attributes(entry), dict(stored.attributes)),
    }
    return [name for name, (record, index) in pairs.items() if record != index]


def _quarantine(archive: Archive, deep: bool) -> Iterator[Finding]:
    listed = {row.quarantine_id for row in archive.index.quarantine.list()}
    files = set(archive.quarantine.files())
    for quarantine_id in sorted(listed - files):
        if quarantine_id not in archive.quarantine.files():
            yield Finding("quarantine", f"the quarantined object {quarantine_id} has no file")
    for quarantine_id in sorted(files):
        if quarantine_id not in listed and quarantine_id not in {row.quarantine_id for row in archive.index.quarantine.list()}:
            yield Finding("quarantine", f"the quarantined object {quarantine_id} is not listed")
        if deep:
            try:
                for _ in blocks(archive.quarantine.open(quarantine_id).data_set):
                    pass
            except NotFound:
                continue
            except ArchiveError as error:
                yield Finding("quarantine", f"the quarantined object {quarantine_id}: {error}")
