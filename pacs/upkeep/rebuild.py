"""Write the index anew from what the records say of themselves: sources, versions, held and derived instances.

Jobs are listed again as far as they left results; what was recalled (`recalls.json`, see `recalls`) is hidden again before
anything is shown. Not in the records, and so not restored: jobs without a result, events, peers, tokens, labels, the worklist
and performed steps, where faces were cut, and which AE title an instance came by.
Everything counts as processed; ask for a processor again where its results are missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pacs import recalls
from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, ConfigurationError
from pacs.model.instance import IndexEntry, Location, Origin
from pacs.model.job import Made, MadeBy
from pacs.model.lifecycle import PROTECTED

log = get_logger(__name__)
COMPLETION = "rebuilt from the records"
_GROUP = 256


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found. `unreadable` records have no key (forgotten), or are damaged."""

    instances: int
    copies: int
    unreadable: int


def rebuild(archive: Archive, on_record: Callable[[int], object] | None = None) -> Rebuilt:
    """Fill an empty index. Raises `ConfigurationError` if it is not empty."""
    if not archive.index.upkeep.is_empty():
        raise ConfigurationError("the index is not empty; a rebuild is for one that was lost: move index.db away first")
    recalls.kept(archive.settings.home)  # what cannot be read is told before the work, not after
    restored = copies = unreadable = 0
    made: list[Made] = []
    # Sources first: what was made here has fewer attributes, and the first value of an attribute wins.
    for derived in (False, True):
        group: list[tuple[IndexEntry, Location]] = []
        for found in _entries(archive, derived):
            if found is None:
                unreadable += not derived
                continue
            group.append(found)
            if derived:
                made.append(_made(found[0]))
            if len(group) == _GROUP:
                restored, copies = _write(archive, group, restored, copies, on_record)
        restored, copies = _write(archive, group, restored, copies, on_record)
    _renumber(archive)
    archive.index.lineage.restore(made)
    recalls.settle(archive)
    archive.index.upkeep.settle_all(COMPLETION)
    if archive.settings.store.retain:
        # Labels are in no record: what was protected or committed is not known any more, so nothing may go by a rule.
        for study in archive.index.studies():
            archive.index.lifecycle.label(study.study_instance_uid, PROTECTED, "the index was rebuilt: labels are not known")
    for quarantine_id in archive.quarantine.files():
        _list_again(archive, quarantine_id)
    log.info("index_rebuilt", records=restored, failed=unreadable)
    return Rebuilt(restored, copies, unreadable)


def _made(entry: IndexEntry) -> Made:
    """Return what a result says of its job; one from before results told that names its processor and version all the same."""
    key, by = entry.key, entry.made_by
    if by is None:
        processor, _, version = entry.source.partition(" ")
        unknown = f"of {key.series_instance_uid}"
        by = MadeBy(unknown, unknown, processor, version, "", "", "", "", {}, ())
    return Made(key.study_instance_uid, key.series_instance_uid, by, entry.at)


def _entries(archive: Archive, derived: bool) -> Iterator[tuple[IndexEntry, Location] | None]:
    first: list[tuple[float, str]] = []
    for container in archive.objects.containers():
        at = next((entry.at for entry in _open_all(archive, container) if not isinstance(entry, ArchiveError)), 0.0)
        first.append((at, container))
    # Writers ran side by side; the order in which their segments began is near enough for attributes, and exact within one.
    for _, container in sorted(first):
        for location, record in archive.objects.records(container):
            entry = _open(archive, record)
            if isinstance(entry, ArchiveError):
                yield None
            elif (entry.origin is Origin.PROCESSOR) == derived:
                yield entry, location


def _open_all(archive: Archive, container: str) -> Iterator[IndexEntry | ArchiveError]:
    for _, record in archive.objects.records(container):
        yield _open(archive, record)


def _open(archive: Archive, record: bytes) -> IndexEntry | ArchiveError:
    try:
        return archive.sealer.open_entry(record)
    except ArchiveError as error:
        return error


def _write(
    archive: Archive,
    group: list[tuple[IndexEntry, Location]],
    restored: int,
    copies: int,
    on_record: Callable[[int], object] | None,
) -> tuple[int, int]:
    stored = archive.index.upkeep.restore(group)
    fresh = sum(one.fresh for one in stored)
    if on_record is not None:
        on_record(len(stored))
    group.clear()
    return restored + fresh, copies + len(stored) - fresh


def _renumber(archive: Archive) -> None:
    """Number versions by the time at which they were sealed: their segments may have been read in another order."""
    newest = archive.settings.store.conflict == "replace"
    several = dict.fromkeys(row.sop_instance_uid for row in archive.index.upkeep.versions())
    for uid in several:
        sealed = []
        for row in archive.index.upkeep.rows_of(uid):
            entry = archive.sealer.open_entry(archive.sealer.beginning(row.stored.location, archive.objects))
            sealed.append((entry.at, row.stored.version, row.stored.location))
        archive.index.upkeep.renumber(
            uid, [location for _, _, location in sorted(sealed, key=lambda one: one[:2])], newest=newest
        )


def _list_again(archive: Archive, quarantine_id: str) -> None:
    try:
        received = archive.quarantine.open(quarantine_id)
    except ArchiveError:
        return
    archive.index.quarantine.add(
        quarantine_id, "Quarantined", "listed again by a rebuild", received.origin.value, len(received.data_set)
    )
