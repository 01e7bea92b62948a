"""Processing jobs as Unified Procedure Steps (PS3.4 Annex CC): standard clients find, ask for, steer and follow them.

The job row is the workitem; what a job lacks (the UID and labels that its creator chose) lies sealed beside it. A workitem is
created by naming a processor as its workitem code and series as its input. Our own workers perform it, unless a client claims
it first. Everything here names patients as the archive does.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from pacs.archive import Archive
from pacs.model.errors import DuplicateInstance, InvalidValue, MissingAttribute, NotFound
from pacs.model.job import Claim, Job, JobState
from pacs.model.query import AnyOf, Level, Query
from pacs.model.sealed import Kind
from pacs.model.workitem import (
    CANCELED,
    COMPLETED,
    IN_PROGRESS,
    SCHEDULED,
    Notice,
    Problem,
    WorkitemRefused,
    WorkitemRow,
)
from pacs.processing.api import ParameterError, Spec
from pacs.processing.planning import new_job, study_inputs
from pacs.processing.registry import discover
from pacs.workflow import matching
from pacs.workflow.attributes import Attributes, items, key, text
from pacs.workflow.described import PATIENT, described, own_job_id, own_uid, parameters, plain, state_of

EVERY_WORKITEM = "1.2.840.10008.5.1.4.34.5"
"""UPS Global Subscription SOP Instance (PS3.4 CC.2.3.2)."""
_KEPT = frozenset(
    key(keyword)
    for keyword in (
        "ProcedureStepLabel WorklistLabel ScheduledProcedureStepPriority ScheduledProcedureStepStartDateTime "
        "ExpectedCompletionDateTime ScheduledProcedureStepExpirationDateTime ScheduledWorkitemCodeSequence "
        "ScheduledProcessingParametersSequence ScheduledStationNameCodeSequence ScheduledStationClassCodeSequence"
    ).split()
)
"""What a workitem keeps of what its creator said; patient and study are the archive's to name."""
_SET = frozenset(
    key(keyword) for keyword in ("ProcedureStepLabel", "WorklistLabel", "UnifiedProcedureStepPerformedProcedureSequence")
)
_OURS = frozenset(
    key(keyword)
    for keyword in (
        "ProcedureStepState InputReadinessState InputInformationSequence TransactionUID SOPClassUID SOPInstanceUID "
        "SpecificCharacterSet ScheduledProcedureStepModificationDateTime StudyInstanceUID"
    ).split()
)
"""Said at creation and answered by us; that is no modification."""
_PRIORITIES = {"STAT": 1, "HIGH": 2, "MEDIUM": 5, "LOW": 8}
_EXTERNAL = "ups:"
_AT_ONCE = 100


_JOB_STATES = {
    SCHEDULED: (JobState.QUEUED,),
    IN_PROGRESS: (JobState.QUEUED, JobState.RUNNING),
    COMPLETED: (JobState.SUCCEEDED, JobState.SKIPPED, JobState.RECALLED, JobState.SUPERSEDED),
    CANCELED: (JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED),
}


@lru_cache(maxsize=4)
def processors(plugins: Path) -> dict[str, Spec]:
    """Return the processors there are; read once a process, and only when somebody asks for one."""
    return discover(plugins)


class Workitems:
    """The workitems of one archive."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._rows = archive.index.workitems
        self._jobs = archive.index.jobs

    # --- to be found ---------------------------------------------------------------------------------------------------

    def find(self, keys: Mapping[str, Any]) -> Iterator[Attributes]:
        """Yield what matches, newest first, each with the attributes that were asked for (PS3.4 CC.2.8).

        Raises `InvalidQuery`.
        """
        matching.check(keys)
        uid, state = matching.single(keys, "SOPInstanceUID"), matching.single(keys, "ProcedureStepState")
        if uid:
            try:
                jobs = [self._job(uid)]
            except WorkitemRefused:
                return
        else:
            jobs = self._jobs.list(_JOB_STATES.get(state, ()) if state else None, limit=None)
        if state:
            jobs = [job for job in jobs if state_of(job) == state]
        for start in range(0, len(jobs), _AT_ONCE):
            for found in self._described(jobs[start : start + _AT_ONCE], frozenset(keys)):
                if matching.matches(keys, found):
                    yield matching.answer(keys, found)

    def get(self, uid: str) -> Attributes:
        """Return a workitem. Raises `WorkitemRefused` where there is none."""
        return next(self._described([self._job(uid)], None))

    def uid_of(self, job_id: str) -> str:
        """Return the SOP Instance UID of a job."""
        row = self._rows.of([job_id]).get(job_id)
        return own_uid(job_id) if row is None else str(self._opened(row)["uid"])

    def state(self, job_id: str) -> tuple[str, float, str]:
        """Return Procedure Step State, progress (0.0 to 1.0) and reason of a job."""
        job = self._jobs.get(job_id)
        return state_of(job), job.progress, plain(job.reason, 1024)

    # --- to be asked for -----------------------------------------------------------------------------------------------

    def create(self, uid: str, given: Attributes) -> tuple[str, Notice | None]:
        """Make the job that a workitem asks for; returns its UID, and a remark where not all was kept as it was said.

        Raises `WorkitemRefused`, `DuplicateInstance`, `MissingAttribute`, `InvalidValue`.
        """
        archive = self._archive
        if text(given, "ProcedureStepState") != SCHEDULED:
            raise WorkitemRefused(Problem.NOT_SCHEDULED)
        uid = uid or f"2.25.{uuid.uuid4().int}"
        digest = archive.notes.digest("workitem", uid)
        if self._rows.named(digest) is not None or self._exists(uid):
            raise DuplicateInstance("there is a workitem of this UID already")
        spec = self._spec(given)
        study, series = self._inputs(spec, given)
        try:
            job = new_job(archive.index, spec, parameters(given), study, series, rule="workitem", completion="asked for")
        except ParameterError as error:
            raise InvalidValue(str(error)) from None
        # Each workitem is a job of its own, also where the same was asked for before.
        unique = sha256(f"{job.job_key} {digest}".encode()).hexdigest()
        priority = _PRIORITIES.get(text(given, "ScheduledProcedureStepPriority"), 5)
        made = self._jobs.add([replace(job, job_key=unique, step=digest[:16], priority=priority)])
        if not made:
            raise InvalidValue(f"{spec.name} {spec.version} was recalled; nothing is made by it")
        kept = {name: element for name, element in given.items() if name in _KEPT}
        try:
            self._rows.add(made[0], digest, *self._sealed(made[0], {"uid": uid, "data_set": kept}))
        except DuplicateInstance:
            self._jobs.cancel(made[0])
            raise
        dropped = any(element.get("Value") for name, element in given.items() if name not in _KEPT | _OURS)
        return uid, Notice.MODIFIED if dropped else None

    # --- to be steered -------------------------------------------------------------------------------------------------

    def change(self, uid: str, given: Attributes) -> None:
        """Change labels, or while it is performed elsewhere tell its progress and results (N-SET, PS3.4 CC.2.6).

        Raises `WorkitemRefused`.
        """
        job = self._job(uid)
        now = state_of(job)
        if now in (COMPLETED, CANCELED):
            raise WorkitemRefused(Problem.NO_LONGER_UPDATABLE)
        if now == IN_PROGRESS:
            claim = self._claim(job, given)
            for progress in items(given, "ProcedureStepProgressInformationSequence"):
                said = text(progress, "ProcedureStepProgress")
                if said:
                    self._jobs.progress(claim, float(said) / 100.0)
        row = self._rows.of([job.job_id]).get(job.job_id)
        before: dict[str, Any] = self._opened(row) if row is not None else {"uid": uid, "data_set": {}}
        changed = {name: element for name, element in given.items() if name in _SET}
        if changed:
            told: Attributes = before["data_set"]
            content = {"uid": before["uid"], "data_set": {**told, **changed}}
            digest = self._archive.notes.digest("workitem", str(before["uid"]))
            self._rows.change(job.job_id, digest, *self._sealed(job.job_id, content))

    def move(self, uid: str, given: Attributes) -> Notice | None:
        """Change the state (PS3.4 CC.2.1, Table CC.1.1-2): claim with a Transaction UID, complete or cancel what was claimed.

        Raises `WorkitemRefused`.
        """
        job, wanted = self._job(uid), text(given, "ProcedureStepState")
        now = state_of(job)
        if wanted == SCHEDULED:
            raise WorkitemRefused(Problem.ONLY_SCHEDULED_BY_CREATE)
        if wanted not in (IN_PROGRESS, COMPLETED, CANCELED):
            raise InvalidValue("Procedure Step State is none of its Defined Terms")
        if now == wanted and now in (COMPLETED, CANCELED):
            return Notice.WAS_COMPLETED if now == COMPLETED else Notice.WAS_CANCELED
        if now in (COMPLETED, CANCELED):
            raise WorkitemRefused(Problem.NO_LONGER_UPDATABLE)
        if wanted == IN_PROGRESS:
            if now == IN_PROGRESS:
                raise WorkitemRefused(Problem.ALREADY_IN_PROGRESS)
            owner, lease_s = self._owner(given), self._archive.settings.processing.timeout_s
            if self._jobs.claim(job.job_id, owner, lease_s) is None:
                raise WorkitemRefused(Problem.ALREADY_IN_PROGRESS)
            return None
        if now == SCHEDULED:
            raise WorkitemRefused(Problem.NOT_IN_PROGRESS)
        claim = self._claim(job, given)
        if wanted == CANCELED:
            self._jobs.cancel(job.job_id)
        elif not self._jobs.succeed(claim, output=self._performed(job)):
            raise WorkitemRefused(Problem.WRONG_TRANSACTION)
        return None

    def cancel(self, uid: str, by: str) -> Notice | None:
        """Ask that a workitem be cancelled (PS3.4 CC.2.2): ours at once; who performs it elsewhere is asked by an event.

        Raises `WorkitemRefused`.
        """
        job = self._job(uid)
        now = state_of(job)
        if now == COMPLETED:
            raise WorkitemRefused(Problem.ALREADY_COMPLETED)
        if now == CANCELED:
            return Notice.WAS_CANCELED
        if self._rows.owner(job.job_id).startswith(_EXTERNAL):
            self._rows.ask_cancel(job.job_id, by)
        else:
            self._jobs.cancel(job.job_id)
        return None

    def subscribe(self, uid: str, ae_title: str) -> None:
        """Let a peer follow a workitem, or all of them (PS3.4 CC.2.3). Raises `WorkitemRefused`."""
        if self._archive.index.peers.get(ae_title) is None:
            raise WorkitemRefused(Problem.UNKNOWN_RECEIVER)
        if uid == EVERY_WORKITEM:
            self._rows.subscribe(ae_title, "", also_open=True)
        else:
            self._rows.subscribe(ae_title, self._job(uid).job_id)

    def unsubscribe(self, uid: str, ae_title: str, *, suspend: bool = False) -> None:
        """End a subscription; of all workitems both to what is and what comes, or with `suspend` to what comes only.

        Raises `WorkitemRefused`.
        """
        if suspend and uid != EVERY_WORKITEM:
            raise WorkitemRefused(Problem.NOT_APPROPRIATE)
        if suspend:
            self._rows.suspend(ae_title)
        else:
            self._rows.unsubscribe(ae_title, None if uid == EVERY_WORKITEM else self._job(uid).job_id)

    # --- inside --------------------------------------------------------------------------------------------------------

    def _job(self, uid: str) -> Job:
        job_id = self._rows.named(self._archive.notes.digest("workitem", uid)) or own_job_id(uid)
        try:
            return self._jobs.get(job_id)
        except NotFound:
            raise WorkitemRefused(Problem.UNKNOWN) from None

    def _exists(self, uid: str) -> bool:
        try:
            self._job(uid)
        except WorkitemRefused:
            return False
        return True

    def _owner(self, given: Attributes) -> str:
        transaction = text(given, "TransactionUID")
        if not transaction:
            raise WorkitemRefused(Problem.WRONG_TRANSACTION)
        return _EXTERNAL + self._archive.notes.digest("transaction", transaction)

    def _claim(self, job: Job, given: Attributes) -> Claim:
        """Return the claim that a Transaction UID proves, its lease renewed."""
        claim = Claim(job.job_id, self._owner(given))
        if not self._jobs.renew(claim, self._archive.settings.processing.timeout_s):
            raise WorkitemRefused(Problem.WRONG_TRANSACTION)
        return claim

    def _performed(self, job: Job) -> list[str]:
        """Return the series that a performer elsewhere says it made and that are here, if it has said all it must."""
        row = self._rows.of([job.job_id]).get(job.job_id)
        told = self._opened(row)["data_set"] if row is not None else {}
        found = items(told, "UnifiedProcedureStepPerformedProcedureSequence")
        needed = ("PerformedProcedureStepStartDateTime", "PerformedProcedureStepEndDateTime")
        if not found or not all(text(found[0], one) for one in needed):
            raise WorkitemRefused(Problem.NOT_FINAL)
        made = [text(one, "SeriesInstanceUID") for one in items(found[0], "OutputInformationSequence")]
        return sorted({stored.series_instance_uid for uid in made if uid for stored in self._located(uid)})

    def _located(self, series_instance_uid: str) -> list[Any]:
        """Return keys of a series, which a client may know by its original UID."""
        pseudonym = self._archive.deidentifier.pseudonymous_uid(series_instance_uid)
        found = self._archive.index.locate(series_instance_uids=[series_instance_uid, pseudonym])
        return [one.key for one in found[:1]]

    def _spec(self, given: Attributes) -> Spec:
        codes = items(given, "ScheduledWorkitemCodeSequence")
        if not codes:
            raise MissingAttribute("ScheduledWorkitemCodeSequence is missing: it names the processor")
        name = text(codes[0], "CodeValue") or text(codes[0], "LongCodeValue")
        spec = processors(self._archive.settings.plugins_path).get(name)
        if spec is None:
            raise InvalidValue("Scheduled Workitem Code names no processor; `pacs processors list` names them")
        return spec

    def _inputs(self, spec: Spec, given: Attributes) -> tuple[str, tuple[str, ...]]:
        """Return the study and the series that a workitem is about, under the archive's own UIDs."""
        asked = items(given, "InputInformationSequence")
        if not asked:
            raise MissingAttribute("InputInformationSequence is missing: it names the series")
        studies: set[str] = set()
        series: list[str] = []
        for one in asked:
            uid = text(one, "SeriesInstanceUID")
            found = self._located(uid) if uid else []
            if uid and not found:
                raise InvalidValue("an input series is not here")
            studies |= {stored.study_instance_uid for stored in found}
            series += [stored.series_instance_uid for stored in found]
            if not uid and spec.level == "study":
                studies.add(self._study(text(one, "StudyInstanceUID")))
        if len(studies) != 1:
            raise InvalidValue("the inputs of a workitem are series of one study")
        study = studies.pop()
        inputs = tuple(dict.fromkeys(series)) or study_inputs(self._archive.index, spec, study)
        if not inputs or (spec.level == "series" and len(inputs) != 1):
            raise InvalidValue(f"{spec.name} works on one {spec.level}")
        return study, inputs

    def _study(self, uid: str) -> str:
        pseudonym = self._archive.deidentifier.pseudonymous_uid(uid) if uid else ""
        found = self._archive.index.locate(study_instance_uids=[uid, pseudonym]) if uid else []
        if not found:
            raise InvalidValue("an input study is not here")
        return found[0].key.study_instance_uid

    def _described(self, jobs: Sequence[Job], only: frozenset[str] | None) -> Iterator[Attributes]:
        """Yield jobs as workitems, with all attributes or `only` these."""
        lacking = self._rows.of([job.job_id for job in jobs])
        studies: dict[str, dict[str, str]] = {}
        if only is None or only & {key(keyword) for keyword in PATIENT}:
            uids = tuple(sorted({job.study_instance_uid for job in jobs}))
            found = self._archive.index.search(Query(Level.STUDY, {"StudyInstanceUID": AnyOf(uids)}, return_keys=PATIENT))
            studies = {row["StudyInstanceUID"]: row for row in found}
        ae_title = self._archive.settings.dicom.ae_title
        for job in jobs:
            row = lacking.get(job.job_id)
            opened: dict[str, Any] = {"uid": own_uid(job.job_id), "data_set": {}} if row is None else self._opened(row)
            study = studies.get(job.study_instance_uid, {})
            yield {**described(job, str(opened["uid"]), study, ae_title, only), **opened["data_set"]}

    def _sealed(self, job_id: str, content: Mapping[str, Any]) -> tuple[str, bytes]:
        return self._archive.notes.seal(Kind.WORKITEM, job_id, orjson.dumps(content))

    def _opened(self, row: WorkitemRow) -> dict[str, Any]:
        opened: dict[str, Any] = orjson.loads(self._archive.notes.open(Kind.WORKITEM, row.job_id, row.key_id, row.sealed))
        return opened
