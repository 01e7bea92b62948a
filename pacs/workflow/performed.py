"""Performed procedure steps: what a modality says it is doing and has done (PS3.4 Annex F).

A step is kept sealed under a pseudonym of its UID, and names patients as the hospital does. When it has ended, the instances
that it lists settle their series as soon as they are here. The worklist's item that it performs follows its state.
"""

import time
import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from pacs.archive import Archive
from pacs.model.errors import InvalidValue, MissingAttribute, MissingValue, NoLongerUpdatable, Unavailable
from pacs.model.performed import COMPLETED, DISCONTINUED, IN_PROGRESS, PerformedRow
from pacs.model.sealed import Kind
from pacs.ports import Clock
from pacs.workflow.attributes import Attributes, items, key, text, values, without
from pacs.workflow.worklist import Worklist

_STATES = {"IN PROGRESS": IN_PROGRESS, "COMPLETED": COMPLETED, "DISCONTINUED": DISCONTINUED}
_STATUS = "PerformedProcedureStepStatus"
_SCHEDULED = "ScheduledStepAttributesSequence"
# PS3.4 Table F.7.2-1: Type 1 of N-CREATE, and those of the final state.
_REQUIRED = (
    "PerformedProcedureStepID",
    "PerformedStationAETitle",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "Modality",
)
_FINAL = ("PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime")
_SERIES_FINAL = ("PerformedSeriesSequence",)
# What N-SET may not change; some modalities send it again all the same, and lose nothing by our passing it over.
_FIXED = (
    "SOPClassUID SOPInstanceUID PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex ReferencedPatientSequence "
    "ScheduledStepAttributesSequence PerformedProcedureStepID PerformedStationAETitle PerformedStationName PerformedLocation "
    "PerformedProcedureStepStartDate PerformedProcedureStepStartTime Modality StudyID"
).split()
_TRIES = 5


class Performed:
    """The performed procedure steps of one archive."""

    def __init__(self, archive: Archive, clock: Clock = time.time) -> None:
        self._archive = archive
        self._rows = archive.index.performed
        self._clock = clock

    def create(self, sop_instance_uid: str, given: Attributes, ae_title: str) -> str:
        """Begin a step (N-CREATE); returns its UID, made where none was given.

        Raises `DuplicateInstance`, `MissingAttribute`, `MissingValue`, `InvalidValue`.
        """
        _demand(given, (_STATUS, *_REQUIRED, _SCHEDULED))
        if text(given, _STATUS) != "IN PROGRESS":
            raise InvalidValue("a performed procedure step begins IN PROGRESS")
        for step in items(given, _SCHEDULED):
            _demand(step, ("StudyInstanceUID",))
        self._rows.expire(self._clock() - 86400.0 * max(self._archive.settings.dicom.worklist_days, 2.0))
        uid = sop_instance_uid or f"2.25.{uuid.uuid4().int}"
        own = self._archive.deidentifier.pseudonymous_uid(uid)
        study = self._archive.deidentifier.pseudonymous_uid(text(items(given, _SCHEDULED)[0], "StudyInstanceUID"))
        self._rows.add(own, ae_title, study, *self._sealed(own, given))
        self._tell_worklist(given, "started")
        return uid

    def change(self, sop_instance_uid: str, given: Attributes) -> None:
        """Change a step (N-SET): what it acquires, and its end.

        Raises `NotFound`, `NoLongerUpdatable` for one that has ended, `InvalidValue`, `MissingAttribute`, `MissingValue`.
        """
        own = self._archive.deidentifier.pseudonymous_uid(sop_instance_uid)
        for _ in range(_TRIES):
            row = self._rows.get(own)
            if row.state != IN_PROGRESS:
                raise NoLongerUpdatable("Performed Procedure Step Object may no longer be updated")
            merged = {**self._opened(row), **without(given, _FIXED)}
            state = _STATES.get(text(merged, _STATUS))
            if state is None:
                raise InvalidValue("Performed Procedure Step Status is none of its Defined Terms")
            if state == COMPLETED:
                _demand(merged, (*_FINAL, *_SERIES_FINAL))
            acquired = self._acquired(merged) if state != IN_PROGRESS else {}
            if self._rows.change(row, state, *self._sealed(own, merged), acquired, f"performed procedure step {state}"):
                if state != IN_PROGRESS:
                    self._tell_worklist(merged, state)
                return
        raise Unavailable("the performed procedure step is being changed by somebody else")

    def get(self, sop_instance_uid: str) -> Attributes:
        """Return a step as the modality told it (N-GET). Raises `NotFound`."""
        return self._opened(self._rows.get(self._archive.deidentifier.pseudonymous_uid(sop_instance_uid)))

    def _sealed(self, own: str, data_set: Attributes) -> tuple[str, bytes]:
        return self._archive.notes.seal(Kind.PERFORMED, own, orjson.dumps(dict(sorted(data_set.items()))))

    def _opened(self, row: PerformedRow) -> Attributes:
        opened: Attributes = orjson.loads(self._archive.notes.open(Kind.PERFORMED, row.step_uid, row.key_id, row.sealed))
        return opened

    def _acquired(self, data_set: Attributes) -> dict[str, list[str]]:
        """Return Series Instance UID -> SOP Instance UIDs of what a step lists, under the archive's own UIDs."""
        pseudonym = self._archive.deidentifier.pseudonymous_uid
        found: dict[str, list[str]] = {}
        for series in items(data_set, "PerformedSeriesSequence"):
            uid = text(series, "SeriesInstanceUID")
            listed = [
                text(one, "ReferencedSOPInstanceUID")
                for keyword in ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")
                for one in items(series, keyword)
            ]
            if uid:
                found.setdefault(pseudonym(uid), []).extend(pseudonym(one) for one in listed if one)
        return found

    def _tell_worklist(self, data_set: Attributes, state: str) -> None:
        worklist = Worklist(self._archive)
        for step in items(data_set, _SCHEDULED):
            study, step_id = text(step, "StudyInstanceUID"), text(step, "ScheduledProcedureStepID")
            if study:
                worklist.mark(state, study_instance_uid=study, step_id=step_id)


def _demand(data_set: Mapping[str, Any], keywords: tuple[str, ...]) -> None:
    """Raise where an attribute of Type 1 is missing or empty; the message names it."""
    for keyword in keywords:
        if key(keyword) not in data_set:
            raise MissingAttribute(f"{keyword} is missing")
        if all(one in ("", None) for one in values(data_set, keyword)):
            raise MissingValue(f"{keyword} is empty")
