"""The worklist: what is scheduled, for modalities that ask (PS3.4 Annex K). Identities here are the hospital's own.

An item is one Scheduled Procedure Step with its Requested Procedure and patient. It lies sealed in the index and is found by
keyed digests of station, modality, day, patient and order; the rest is matched after it was opened. Who may ask is the
door's to say.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from pacs.archive import Archive
from pacs.model.errors import NotUnderstood
from pacs.model.sealed import Kind
from pacs.model.worklist import WorklistRow
from pacs.ports import Clock
from pacs.workflow import matching
from pacs.workflow.attributes import Attributes, items, key, make, parse, text, with_values

OFFERED = ("scheduled", "started")
"""States of items that modalities get to see."""
_STEP = "ScheduledProcedureStepSequence"
_MOST_DAYS = 62
STEP_KEYWORDS = frozenset(
    """
    ScheduledStationAETitle ScheduledProcedureStepStartDate ScheduledProcedureStepStartTime Modality
    ScheduledPerformingPhysicianName ScheduledProcedureStepDescription ScheduledProtocolCodeSequence ScheduledProcedureStepID
    ScheduledStationName ScheduledProcedureStepLocation PreMedication RequestedContrastAgent ScheduledProcedureStepStatus
    CommentsOnTheScheduledProcedureStep ScheduledProcedureStepEndDate ScheduledProcedureStepEndTime
    """.split()
)
"""Attributes that stand within the step, so that a short item may name them flat."""
_REQUIRED = ("PatientName", "PatientID")
_REQUIRED_IN_STEP = ("ScheduledStationAETitle", "ScheduledProcedureStepStartDate", "Modality")
# PS3.4 Table K.6-1: return keys of Type 2 are there, empty if need be.
_EMPTY = (
    "AccessionNumber RequestingPhysician ReferringPhysicianName AdmissionID CurrentPatientLocation PatientBirthDate PatientSex "
    "PatientWeight ConfidentialityConstraintOnPatientDataDescription PatientState PregnancyStatus MedicalAlerts Allergies "
    "SpecialNeeds ReferencedStudySequence ReferencedPatientSequence RequestedProcedurePriority PatientTransportArrangements"
).split()
_STATUS = {"scheduled": "SCHEDULED", "started": "STARTED", "completed": "COMPLETED", "discontinued": "DISCONTINUED"}


@dataclass(frozen=True, slots=True)
class Item:
    """A worklist item, opened."""

    item_id: str
    state: str
    data_set: Attributes

    @property
    def step(self) -> Attributes:
        """Its Scheduled Procedure Step."""
        return items(self.data_set, _STEP)[0]


class Worklist:
    """The worklist of one archive."""

    def __init__(self, archive: Archive, clock: Clock = time.time) -> None:
        self._archive = archive
        self._rows = archive.index.worklist
        self._clock = clock

    def add(self, given: Any, *, station: str = "") -> list[str]:
        """Keep what one order schedules, an item for each of its steps; returns their ids.

        Parameters
        ----------
        given : mapping
            A data set in the DICOM JSON Model, or keyword -> value, where attributes of the step may stand flat.
        station : str
            Scheduled Station AE Title where the order names none.

        Raises
        ------
        NotUnderstood
            An attribute is not known or not valid, or one that modalities need is missing; the message names it.
        """
        made = [completed(one, station, self._archive.notes.digest) for one in steps(data_set(given))]
        self.expire()
        return [self._put(one) for one in made]

    def find(self, keys: Mapping[str, Any]) -> Iterator[Attributes]:
        """Yield what matches the keys of a query, each with the attributes that it asks for (PS3.4 K.4.1, K.6.1).

        Raises `InvalidQuery`.
        """
        matching.check(keys)
        limit = self._last_day()
        for row in self._rows.candidates(self._wanted(keys), OFFERED):
            item = self._opened(row)
            if not _is_over(item, limit) and matching.matches(keys, item.data_set):
                yield matching.answer(keys, item.data_set)

    def items(self) -> list[Item]:
        """Return all items, by the day and time of their step."""
        self.expire()
        return sorted((self._opened(row) for row in self._rows.candidates()), key=_when)

    def remove(self, item_id: str) -> None:
        """Take an item off the worklist. Raises `NotFound`."""
        self._rows.get(item_id)
        self._rows.remove([item_id])

    def withdraw(self, order: Mapping[str, str]) -> int:
        """Take off the worklist what an order had scheduled, by accession number, or requested procedure; how many it was."""
        for keyword in ("AccessionNumber", "RequestedProcedureID"):
            if order.get(keyword):
                found = self._rows.candidates([[self._archive.notes.digest(keyword, order[keyword])]])
                return self._rows.remove([row.item_id for row in found])
        return 0

    def mark(self, state: str, *, study_instance_uid: str, step_id: str) -> int:
        """Say what has become of a scheduled step that a modality names (PS3.4 F.7.2.1); how many items it was."""
        wanted = [[self._archive.notes.digest("StudyInstanceUID", study_instance_uid)]]
        if step_id:
            wanted.append([self._archive.notes.digest("ScheduledProcedureStepID", step_id)])
        return self._rows.mark([row.item_id for row in self._rows.candidates(wanted)], state)

    def expire(self) -> int:
        """Forget items whose day is long past; returns how many."""
        limit = self._last_day()
        over = [row.item_id for row in self._rows.candidates() if _is_over(self._opened(row), limit)]
        return self._rows.remove(over)

    def _last_day(self) -> str:
        days = self._archive.settings.dicom.worklist_days
        return f"{datetime.fromtimestamp(self._clock(), UTC) - timedelta(days=days):%Y%m%d}"

    def _put(self, made: Attributes) -> str:
        notes = self._archive.notes
        # What names an order's step; it comes again when the order is changed.
        step = items(made, _STEP)[0]
        named = [text(made, one) for one in ("PatientID", "AccessionNumber", "RequestedProcedureID")]
        item_id = notes.digest("worklist item", *named, text(step, "ScheduledProcedureStepID"))[:16]
        key_id, sealed = notes.seal(Kind.WORKLIST, item_id, orjson.dumps(made))
        digests = [
            notes.digest(keyword, said)
            for where, keywords in ((made, _FOUND_BY), (step, _FOUND_BY_STEP))
            for keyword in keywords
            if (said := text(where, keyword))
        ]
        self._rows.put(item_id, key_id, sealed, digests)
        return item_id

    def _opened(self, row: WorklistRow) -> Item:
        found = orjson.loads(self._archive.notes.open(Kind.WORKLIST, row.item_id, row.key_id, row.sealed))
        step = with_values(items(found, _STEP)[0], {"ScheduledProcedureStepStatus": _STATUS[row.state]})
        return Item(row.item_id, row.state, {**found, key(_STEP): {"vr": "SQ", "Value": [step]}})

    def _wanted(self, keys: Mapping[str, Any]) -> list[list[str]]:
        """Return digests that candidates must have: of keys that ask for one value, and of days."""
        digest = self._archive.notes.digest
        step = (items(keys, _STEP) or [{}])[0]
        wanted = []
        for where, keywords in ((keys, _FOUND_BY), (step, _FOUND_BY_STEP)):
            for keyword in keywords:
                said = matching.single(where, keyword)
                if said and keyword != "ScheduledProcedureStepStartDate":
                    wanted.append([digest(keyword, said)])
        days = matching.days(step, "ScheduledProcedureStepStartDate", _MOST_DAYS)
        if days:
            wanted.append([digest("ScheduledProcedureStepStartDate", day) for day in days])
        return wanted


_FOUND_BY = ("PatientID", "AccessionNumber", "RequestedProcedureID", "StudyInstanceUID")
_FOUND_BY_STEP = ("ScheduledStationAETitle", "Modality", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepID")


def data_set(given: Any) -> Attributes:
    """Return the data set that somebody gave, in either form. Raises `NotUnderstood`."""
    if not isinstance(given, Mapping) or not given:
        raise NotUnderstood("a worklist item is a JSON object")
    if all(len(name) == 8 and name.isalnum() and name[0] in "0123456789" for name in given):
        return parse(given)
    flat = {keyword: value for keyword, value in given.items() if keyword in STEP_KEYWORDS}
    rest = {keyword: value for keyword, value in given.items() if keyword not in STEP_KEYWORDS}
    if flat:
        if _STEP in rest:
            raise NotUnderstood(f"give attributes of the step flat or within {_STEP}, not both")
        rest[_STEP] = [flat]
    return make(rest)


def steps(order: Attributes) -> list[Attributes]:
    """Return one data set for each Scheduled Procedure Step. Raises `NotUnderstood` where there is none."""
    found = items(order, _STEP)
    if not found:
        raise NotUnderstood(f"{_STEP} is missing or empty")
    return [dict(sorted({**order, key(_STEP): {"vr": "SQ", "Value": [one]}}.items())) for one in found]


def completed(order: Attributes, station: str, digest: Any) -> Attributes:
    """Return an item with all that PS3.4 Table K.6-1 asks to return. Raises `NotUnderstood`, naming what is missing."""
    step = items(order, _STEP)[0]
    if station and not text(step, "ScheduledStationAETitle"):
        step = with_values(step, {"ScheduledStationAETitle": station})
    missing = [one for one in _REQUIRED if not text(order, one)] + [one for one in _REQUIRED_IN_STEP if not text(step, one)]
    if missing:
        raise NotUnderstood(f"{', '.join(missing)} is missing; a modality needs it (PS3.4 Table K.6-1)")
    order_id = text(order, "AccessionNumber")[:16] or text(order, "RequestedProcedureID")
    step_id = text(step, "ScheduledProcedureStepID") or order_id or digest("step", *_names(order, step))[:16]
    procedure_id = text(order, "RequestedProcedureID") or order_id or step_id
    what = text(step, "ScheduledProcedureStepDescription") or text(order, "RequestedProcedureDescription")
    what = what or f"{text(step, 'Modality')} examination"
    uid = text(order, "StudyInstanceUID")
    if not uid:
        # The same order must keep its study when it comes again (PS3.5 B.2: a UID made of a 128-bit number).
        number = int(digest("study", text(order, "PatientID"), text(order, "AccessionNumber"), procedure_id)[:32], 16)
        uid = f"2.25.{number}"
    step = with_values(
        step,
        {
            "ScheduledProcedureStepStartTime": text(step, "ScheduledProcedureStepStartTime") or "000000",
            "ScheduledProcedureStepID": step_id,
            "ScheduledProcedureStepDescription": what,
        },
    )
    for keyword in ("ScheduledPerformingPhysicianName", "ScheduledStationName", "ScheduledProcedureStepLocation"):
        step = {**make({keyword: None}), **step}
    given = {
        "StudyInstanceUID": uid,
        "RequestedProcedureID": procedure_id,
        "RequestedProcedureDescription": text(order, "RequestedProcedureDescription") or what,
    }
    whole = {**make(dict.fromkeys(_EMPTY)), **with_values(order, given)}
    whole[key(_STEP)] = {"vr": "SQ", "Value": [dict(sorted(step.items()))]}
    return dict(sorted(whole.items()))


def summary(item: Item) -> dict[str, str]:
    """Return what people see of an item in a list."""
    rows: Sequence[tuple[str, Mapping[str, Any], str]] = (
        ("date", item.step, "ScheduledProcedureStepStartDate"),
        ("time", item.step, "ScheduledProcedureStepStartTime"),
        ("station", item.step, "ScheduledStationAETitle"),
        ("modality", item.step, "Modality"),
        ("patient_name", item.data_set, "PatientName"),
        ("patient_id", item.data_set, "PatientID"),
        ("accession_number", item.data_set, "AccessionNumber"),
        ("description", item.step, "ScheduledProcedureStepDescription"),
    )
    return {"item_id": item.item_id, "state": item.state, **{name: text(where, keyword) for name, where, keyword in rows}}


def _names(order: Attributes, step: Attributes) -> tuple[str, ...]:
    return (
        text(order, "PatientID"),
        *(
            text(step, one)
            for one in (*_REQUIRED_IN_STEP, "ScheduledProcedureStepStartTime", "ScheduledProcedureStepDescription")
        ),
    )


def _when(item: Item) -> tuple[str, str, str]:
    step = item.step
    return text(step, "ScheduledProcedureStepStartDate"), text(step, "ScheduledProcedureStepStartTime"), item.item_id


def _is_over(item: Item, last_day: str) -> bool:
    return text(item.step, "ScheduledProcedureStepStartDate") < last_day
