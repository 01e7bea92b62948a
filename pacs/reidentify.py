"""Original identities, for those who may have them: queries by what the hospital knows, and objects as the hospital sent them.

Stands between the doors and the vault; who may ask is the door's to say. What was not kept (private elements, cleaned pixels,
elements above the vault's limits) stays as it is in the archive. An object that a processor made gets patient and study back,
and refers to the originals; its own series and instance UID and its dates remain ours.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pacs.archive import Archive
from pacs.deid import exchange
from pacs.deid.restore import restored, with_uids
from pacs.dicom import values
from pacs.dicom.dictionary import keyword_of, vr_of
from pacs.dicom.elements import join, walk
from pacs.index import attributes as keys
from pacs.index.compare import matches
from pacs.model.errors import NotAuthorized
from pacs.model.instance import InstanceKey, Stored
from pacs.model.query import AnyOf, Level, Match, Query, Single
from pacs.store.vault import Identity, Vault

_STUDY_UID, _SERIES_UID, _SOP_UID, _FRAME_OF_REFERENCE = 0x0020000D, 0x0020000E, 0x00080018, 0x00200052
_SAME = frozenset(
    """
    Modality ModalitiesInStudy SOPClassesInStudy SOPClassUID SeriesNumber InstanceNumber NumberOfFrames Rows Columns
    BitsAllocated BitsStored SamplesPerPixel PhotometricInterpretation PixelRepresentation
    """.split()
)
"""Keys that no policy changes: the index matches them by itself."""
_UIDS = {"StudyInstanceUID": Level.STUDY, "SeriesInstanceUID": Level.SERIES, "SOPInstanceUID": Level.IMAGE}
_BY_UID = {Level.STUDY: "study_instance_uid", Level.SERIES: "series_instance_uid", Level.IMAGE: "sop_instance_uid"}


@dataclass
class Originals:
    """Gives instances their originals back; remembers what belongs to a study for as long as it lives."""

    archive: Archive
    _uids: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    _taken: dict[InstanceKey, Mapping[int, bytes] | None] = field(default_factory=dict, repr=False)

    def key(self, stored: Stored) -> InstanceKey:
        """Return the UIDs under which the hospital knows an instance."""
        taken = self._of(stored)
        if taken is None:
            taken = self._of_study(stored)
        own = stored.key
        return InstanceKey(
            _uid(taken, _STUDY_UID) or own.study_instance_uid,
            _uid(taken, _SERIES_UID) or own.series_instance_uid,
            _uid(taken, _SOP_UID) or own.sop_instance_uid,
        )

    def header(self, stored: Stored, head: bytes) -> bytes:
        """Return the data set without Pixel Data as it was sent, but for what was not kept."""
        elements = walk(head)
        taken = self._of(stored)
        if taken is None:
            study = stored.key.study_instance_uid
            if study not in self._uids:
                self._uids[study] = self._uids_of(study)
            elements = with_uids(elements, self._uids[study])
            taken = {tag: value for tag, value in self._of_study(stored).items() if tag != values.SPECIFIC_CHARACTER_SET}
        return b"".join(join(restored(elements, taken)))

    def _of(self, stored: Stored) -> Mapping[int, bytes] | None:
        if stored.key not in self._taken:
            found = vault_of(self.archive).of_instance(stored.key.sop_instance_uid, stored.received_digest or stored.digest)
            if len(self._taken) > 64:
                self._taken.clear()
            self._taken[stored.key] = None if found is None else found.taken
        return self._taken[stored.key]

    def _of_study(self, stored: Stored) -> Mapping[int, bytes]:
        found = vault_of(self.archive).of_study(stored.key.study_instance_uid)
        return {} if found is None else found.taken

    def _uids_of(self, study_instance_uid: str) -> dict[str, str]:
        """Return pseudonym -> original of every UID of a study that something made here may refer to."""
        vault = vault_of(self.archive)
        study = vault.of_study(study_instance_uid)
        if study is None:
            return {}
        found: dict[str, str] = {}
        for series in vault.below(study.found):
            for one in itertools.chain((study, series), vault.below(series.found)):
                for tag, level in ((_STUDY_UID, Level.STUDY), (_SERIES_UID, Level.SERIES), (_SOP_UID, Level.IMAGE)):
                    pseudonym, original = getattr(one.found, _BY_UID[level]), _uid(one.taken, tag)
                    if pseudonym and original:
                        found[pseudonym] = original
                frame = _uid(one.taken, _FRAME_OF_REFERENCE)
                if frame:
                    found[self.archive.deidentifier.pseudonymous_uid(frame)] = frame
        return found


class SealedIdentity(Originals):
    """Leaves instances de-identified, and adds their identity encrypted for one recipient (`pacs.deid.exchange`)."""

    def __init__(self, archive: Archive, certificate: Path) -> None:
        super().__init__(archive)
        self._certificate = exchange.recipient(certificate)

    def key(self, stored: Stored) -> InstanceKey:
        """Return the archive's own UIDs: they stay."""
        return stored.key

    def header(self, stored: Stored, head: bytes) -> bytes:
        """Return the de-identified data set with the Encrypted Attributes Sequence; without it, where nothing was taken."""
        taken = self._of(stored)
        if not taken:
            return head
        sealed = exchange.encrypted(taken, self._certificate)
        return b"".join(join(restored(walk(head), {sealed.tag: bytes(sealed.encoded)})))


def vault_of(archive: Archive) -> Vault:
    """Return the vault. Raises `NotAuthorized` where this archive keeps none."""
    if archive.vault is None:
        raise NotAuthorized("this archive keeps no identities (deid.vault = false)")
    return archive.vault


def locate(
    archive: Archive,
    *,
    patient_ids: Collection[str] = (),
    study_instance_uids: Collection[str] = (),
    series_instance_uids: Collection[str] = (),
    sop_instance_uids: Collection[str] = (),
) -> list[Stored]:
    """Return the instances that are in every given list of original identifiers; see `Index.locate`."""
    wanted: dict[str, list[str]] = {}
    for name, level, given in (
        ("patient_ids", Level.PATIENT, patient_ids),
        ("study_instance_uids", Level.STUDY, study_instance_uids),
        ("series_instance_uids", Level.SERIES, series_instance_uids),
        ("sop_instance_uids", Level.IMAGE, sop_instance_uids),
    ):
        if given:
            wanted[name] = sorted({one for value in given for one in _pseudonyms(archive, level, value)})
            if not wanted[name]:
                return []
    return archive.index.locate(
        patient_ids=wanted.get("patient_ids", ()),
        study_instance_uids=wanted.get("study_instance_uids", ()),
        series_instance_uids=wanted.get("series_instance_uids", ()),
        sop_instance_uids=wanted.get("sop_instance_uids", ()),
    )


def search(archive: Archive, query: Query) -> Iterator[dict[str, str]]:
    """Answer a query that asks by original values with original values; see `Index.search`.

    Patient ID, Accession Number, Patient's Name and UIDs are looked up in the vault; what else was changed (dates,
    descriptions) is compared after it was restored, which reads every study that is left. The order is that of the archive.
    """
    vault_of(archive)
    inside: dict[str, Match] = {}
    afterwards: dict[str, Match] = {}
    for keyword, match in query.matches.items():
        if keyword in _SAME:
            inside[keyword] = match
            continue
        afterwards[keyword] = match
        narrowed = _narrowed(archive, keyword, match)
        if narrowed is None:
            continue
        target, found = narrowed
        before = inside.get(target)
        if isinstance(before, AnyOf):
            found = AnyOf(tuple(one for one in found.values if one in before.values))
        inside[target] = found
    rows = archive.index.search(replace(query, matches=inside, limit=None, offset=0))
    return _answers(archive, rows, query, afterwards)


def count(archive: Archive, query: Query) -> int:
    """Return how many answers a query has without its limit and offset."""
    return sum(1 for _ in search(archive, replace(query, limit=None, offset=0)))


def _answers(
    archive: Archive, rows: Iterator[dict[str, str]], query: Query, afterwards: Mapping[str, Match]
) -> Iterator[dict[str, str]]:
    originals = (_restored(archive, row, query.level) for row in rows)
    kept = (row for row in originals if all(matches(keyword, row.get(keyword, ""), one) for keyword, one in afterwards.items()))
    end = None if query.limit is None else query.offset + query.limit
    yield from itertools.islice(kept, query.offset, end)


def _narrowed(archive: Archive, keyword: str, match: Match) -> tuple[str, AnyOf] | None:
    """Return which key of the index an exact match on an original value restricts, and to what."""
    given = (match.value,) if isinstance(match, Single) else match.values if isinstance(match, AnyOf) else ()
    if not given:
        return None
    if keyword in _UIDS:
        return keyword, AnyOf(tuple(one for value in given for one in _pseudonyms(archive, _UIDS[keyword], value)))
    if keyword == "PatientID":
        return keyword, AnyOf(tuple(one for value in given for one in _pseudonyms(archive, Level.PATIENT, value)))
    vault = vault_of(archive)
    if keyword == "PatientName":
        return "PatientID", AnyOf(tuple(one.found.patient_id for value in given for one in vault.find("name", value)))
    if keyword == "AccessionNumber":
        studies = {one.found.study_instance_uid for value in given for one in vault.find("accession", value)}
        return "StudyInstanceUID", AnyOf(tuple(sorted(studies)))
    return None


def _pseudonyms(archive: Archive, level: Level, original: str) -> list[str]:
    """Return under which names the archive knows `original`; what was made here has no other name than its own."""
    vault = vault_of(archive)
    if level is Level.PATIENT:
        return sorted({one.found.patient_id for one in vault.find("id", original)})
    found = sorted({getattr(one.found, _BY_UID[level]) for one in vault.find("uid", original) if one.found.level is level})
    return found or [original]


def _restored(archive: Archive, row: dict[str, str], level: Level) -> dict[str, str]:
    """Return an answer with the original values of its level and those above."""
    found = _nearest(archive, row, level)
    if found is None:
        return row
    elements = [one for value in found.taken.values() if value for one in walk(value)]
    elements.sort(key=lambda one: one.tag)
    charsets = values.charset(elements)
    answer = dict(row)
    for tag, value in found.taken.items():
        keyword = keyword_of(tag)
        own = keys.level_of(keyword) if keyword else None
        if own is None or keys.LEVELS.index(own) > keys.LEVELS.index(level) or keyword == "SpecificCharacterSet":
            continue
        if not value:
            answer.pop(keyword, None)
            continue
        one = next(one for one in elements if one.tag == tag)
        if one.vr != "SQ" and one.vr == vr_of(tag):
            answer[keyword] = "\\".join(values.strings(one, charsets))
    return answer


def _nearest(archive: Archive, row: Mapping[str, str], level: Level) -> Identity | None:
    """Return what the vault knows of the entity of an answer, or else of what it belongs to."""
    vault = vault_of(archive)
    for wanted in reversed(keys.LEVELS[: keys.LEVELS.index(level) + 1]):
        name = row.get("PatientID", "") if wanted is Level.PATIENT else row.get(_KEYWORD[wanted], "")
        for one in vault.under(name) if name else ():
            if one.found.level is wanted and (
                wanted is not Level.SERIES or one.found.study_instance_uid == row.get("StudyInstanceUID")
            ):
                return one
    return None


_KEYWORD = {level: keyword for keyword, level in _UIDS.items()}


def _uid(taken: Mapping[int, bytes], tag: int) -> str:
    encoded = taken.get(tag, b"")
    return encoded[8:].decode("ascii", "replace").strip("\0 ") if encoded else ""
