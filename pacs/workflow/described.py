"""A job as the data set of a Unified Procedure Step (PS3.4 Table CC.2.5-3), and what a data set says of a job; pure."""

import uuid
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import Any

from pacs.dicom import dicomjson
from pacs.model.job import Job, JobState
from pacs.model.workitem import CANCELED, COMPLETED, IN_PROGRESS, SCHEDULED
from pacs.workflow.attributes import Attributes, items, key, make, text

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
"""The SOP Class of every workitem, whichever service speaks of it (PS3.4 CC.3)."""
SCHEME = "99MINIPACS"
PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AccessionNumber")


def state_of(job: Job) -> str:
    """Return the Procedure Step State of a job. One that waits for another try goes on, as a workitem never goes back."""
    if job.state is JobState.QUEUED:
        return IN_PROGRESS if job.attempt else SCHEDULED
    if job.state is JobState.RUNNING:
        return IN_PROGRESS
    if job.state is JobState.SUPERSEDED:
        return COMPLETED if job.started_at else CANCELED
    return COMPLETED if job.state in (JobState.SUCCEEDED, JobState.SKIPPED, JobState.RECALLED) else CANCELED


def described(job: Job, uid: str, study: Mapping[str, str], ae_title: str, only: Container[str] | None = None) -> Attributes:
    """Return a job as a workitem (PS3.4 Table CC.2.5-3); `only` some of its attributes, as eight hexadecimal digits.

    `study` are the attributes of the job's study, as the index has them.
    """
    state = state_of(job)
    changed = max(one for one in (job.created_at, job.started_at, job.finished_at) if one is not None)
    given: dict[str, Any] = {
        "SOPClassUID": UPS_PUSH,
        "SOPInstanceUID": uid,
        "StudyInstanceUID": job.study_instance_uid,
        "ReferencedRequestSequence": None,
        "ScheduledProcedureStepPriority": "HIGH" if job.priority < 4 else "MEDIUM" if job.priority < 7 else "LOW",
        "ScheduledProcedureStepModificationDateTime": _moment(changed),
        "ScheduledProcedureStepStartDateTime": _moment(job.created_at),
        "ProcedureStepLabel": job.processor,
        "WorklistLabel": plain(job.rule or job.queue, 64),
        "ScheduledStationNameCodeSequence": None,
        "ScheduledWorkitemCodeSequence": [_code(job.processor, f"{job.processor} {job.version}")],
        "ScheduledProcessingParametersSequence": [_parameter(name, value) for name, value in job.parameters.items()],
        "InputReadinessState": "READY",
        "InputInformationSequence": [_instances(job.study_instance_uid, one, ae_title) for one in job.series_instance_uids],
        "ProcedureStepState": state,
    }
    if state != SCHEDULED:
        given |= {
            "ProcedureStepProgressInformationSequence": [_progress(job, state)],
            "UnifiedProcedureStepPerformedProcedureSequence": [_performed(job, ae_title)] if job.started_at else None,
        }
    made = make({keyword: value for keyword, value in given.items() if only is None or key(keyword) in only})
    # Patients as the archive holds them, valid or not.
    made |= dicomjson.attributes_to_json({keyword: study.get(keyword, "") for keyword in PATIENT})
    return dict(sorted(made.items()))


def _progress(job: Job, state: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "ProcedureStepProgress": round(job.progress * 100, 1),
        "ProcedureStepProgressDescription": plain(job.note if state == IN_PROGRESS else job.reason, 1024),
    }
    if state == CANCELED:
        told |= {
            "ProcedureStepCancellationDateTime": _moment(job.finished_at),
            "ReasonForCancellation": plain(job.reason, 1024),
        }
    return told


def _performed(job: Job, ae_title: str) -> dict[str, Any]:
    return {
        "PerformedStationNameCodeSequence": [_code(ae_title, "this archive")],
        "PerformedWorkitemCodeSequence": [_code(job.processor, f"{job.processor} {job.version}")],
        "PerformedProcedureStepStartDateTime": _moment(job.started_at),
        "PerformedProcedureStepEndDateTime": _moment(job.finished_at),
        "OutputInformationSequence": [
            _instances(job.study_instance_uid, one, ae_title) for one in job.output_series_instance_uids
        ],
    }


def own_uid(job_id: str) -> str:
    """Return the UID of a job that was not created as a workitem (PS3.5 B.2); its id is a UUID."""
    return f"2.25.{uuid.UUID(job_id).int}"


def own_job_id(uid: str) -> str:
    """Return the id of the job that has this UID, "" where it cannot be one."""
    number = uid.removeprefix("2.25.")
    return str(uuid.UUID(int=int(number))) if number.isdecimal() and len(number) < 40 and int(number) < 1 << 128 else ""


def plain(said: str, most: int) -> str:
    """Return text of ours as any VR takes it."""
    return "".join(one if one.isprintable() and one != "\\" else " " for one in said)[:most].strip()


def _moment(seconds: float | None) -> str:
    """Return a time as DT in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d%H%M%S}+0000" if seconds else ""


def _code(value: str, meaning: str) -> dict[str, str]:
    # PS3.3 Table 8.8-1: a Code Value has at most 16 characters, a Long Code Value more.
    return {
        "CodeValue" if len(value) <= 16 else "LongCodeValue": value,
        "CodingSchemeDesignator": SCHEME,
        "CodeMeaning": plain(meaning, 64),
    }


def _parameter(name: str, value: Any) -> dict[str, Any]:
    return {"ValueType": "TEXT", "ConceptNameCodeSequence": [_code(name, name)], "TextValue": plain(str(value), 10240)}


def parameters(given: Attributes) -> dict[str, Any]:
    """Return the parameters of a processor: content items whose concept name is the parameter's (PS3.3 C.30.1)."""
    found: dict[str, Any] = {}
    for one in items(given, "ScheduledProcessingParametersSequence"):
        names = items(one, "ConceptNameCodeSequence")
        measured = items(one, "MeasuredValueSequence")
        if names:
            name = text(names[0], "CodeValue") or text(names[0], "LongCodeValue")
            number = text(one, "NumericValue") or (text(measured[0], "NumericValue") if measured else "")
            found[name] = text(one, "TextValue") or number
    return found


def _instances(study: str, series: str, ae_title: str) -> dict[str, Any]:
    return {
        "TypeOfInstances": "DICOM",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "ReferencedSOPSequence": None,
        "DICOMRetrievalSequence": [{"RetrieveAETitle": ae_title}],
    }
