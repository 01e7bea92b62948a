"""Unified Procedure Steps as SCP (PS3.4 Annex CC): jobs found, asked for, steered and followed with pynetdicom."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import making
import pausing
import pytest
from dimse.door import Door, opened, stored
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)

from pacs.dimse.watch import Watcher
from pacs.model.job import Claim, NewJob
from pacs.model.peer import Peer
from pacs.processing.registry import discover
from pacs.processing.runner import run_job
from pacs.workflow.workitems import EVERY_WORKITEM

PUSH, PULL, WATCH = UnifiedProcedureStepPush, UnifiedProcedureStepPull, UnifiedProcedureStepWatch
STUDY = "1.2.840.90.1"
TRANSACTION = "2.25.4711"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door whose archive holds a CT series of three."""
    with making.archive(tmp_path_factory.mktemp("home"), dicom__port=0) as archive, opened(archive) as door:
        images = making.ct_series(3, study_uid=STUDY, series_uid=f"{STUDY}.1", frame=making.pixels(16, 16))
        assert set(stored(door, *images)) == {0}
        yield door


def step(series: str = f"{STUDY}.1", processor: str = "quality-control", **changed: Any) -> Dataset:
    """Return what asks for a processor; the series under the UID that its sender knows."""
    ds = Dataset()
    ds.ScheduledProcedureStepPriority, ds.ProcedureStepLabel, ds.WorklistLabel = "HIGH", "Check it", "Mine"
    ds.ProcedureStepState, ds.InputReadinessState = "SCHEDULED", "READY"
    ds.ScheduledProcedureStepStartDateTime = "20261122101500"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = processor, "99MINIPACS", "processor"
    ds.ScheduledWorkitemCodeSequence = Items([code])
    one = Dataset()
    one.TypeOfInstances, one.StudyInstanceUID, one.SeriesInstanceUID = "DICOM", STUDY, series
    ds.InputInformationSequence = Items([one])
    for keyword, value in changed.items():
        setattr(ds, keyword, value)
    return ds


@contextmanager
def associated(door: Door, calling: str = "CLIENT") -> Iterator[Any]:
    """Open an association for all services of workitems."""
    ae = AE(ae_title=calling)
    for one in (PUSH, PULL, WATCH, UnifiedProcedureStepQuery):
        ae.add_requested_context(one)
    association = pausing.associate(ae, "127.0.0.1", door.port, ae_title="MINIPACS")
    assert association.is_established
    yield association
    association.release()


def create(door: Door, uid: str, ds: Dataset, calling: str = "CLIENT") -> Dataset:
    """N-CREATE; returns the status data set."""
    with associated(door, calling) as association:
        status, _ = association.send_n_create(ds, PUSH, uid)
        return status  # type: ignore[no-any-return]


def act(door: Door, uid: str, action: int, service: str, calling: str = "CLIENT", **given: Any) -> int:
    """N-ACTION; returns the status."""
    ds = Dataset()
    for keyword, value in given.items():
        setattr(ds, keyword, value)
    with associated(door, calling) as association:
        # An empty data set pynetdicom announces, and does not send.
        status, _ = association.send_n_action(ds if given else None, action, PUSH, uid, meta_uid=service)
        return int(status.Status)


def move(door: Door, uid: str, state: str, transaction: str = TRANSACTION) -> int:
    """Change the state; returns the status."""
    return act(door, uid, 1, PULL, ProcedureStepState=state, TransactionUID=transaction)


def get(door: Door, uid: str) -> Dataset:
    """N-GET of everything."""
    with associated(door) as association:
        status, ds = association.send_n_get([], PUSH, uid, meta_uid=PULL)
        assert status.Status == 0
        return ds  # type: ignore[no-any-return]


def put(door: Door, uid: str, ds: Dataset) -> int:
    """N-SET; returns the status."""
    with associated(door) as association:
        status, _ = association.send_n_set(ds, PUSH, uid, meta_uid=PULL)
        return int(status.Status)


def find(door: Door, **keys: str) -> list[Dataset]:
    """C-FIND of the pull service, with the state and label of each answer."""
    ds = Dataset()
    ds.SOPInstanceUID = ds.ProcedureStepState = ds.ProcedureStepLabel = ds.PatientID = ""
    ds.ScheduledWorkitemCodeSequence = Items([Dataset()])
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    with associated(door) as association:
        answers = list(association.send_c_find(ds, PULL))
    assert answers[-1][0].Status == 0
    return [found for status, found in answers if status.Status == 0xFF00]


def work(door: Door, uid: str, *, fail: str = "") -> str:
    """Be the worker that does the job of a workitem; returns its id."""
    jobs = door.archive.index.jobs
    job = next(
        one for one in jobs.list(limit=None) if door.archive.index.workitems.of([one.job_id]) and named(door, one.job_id) == uid
    )
    assert jobs.claim(job.job_id, "worker", 60) is not None
    claim = Claim(job.job_id, "worker")
    assert jobs.fail(claim, fail, retry_in_s=None) if fail else jobs.succeed(claim)
    return job.job_id


def named(door: Door, job_id: str) -> str:
    """Return the UID of a job."""
    return Watcher(door.archive)._workitems.uid_of(job_id)


def test_a_processor_is_asked_for_by_its_code_on_series_that_the_client_knows(filled: Door) -> None:
    """N-CREATE makes a job, N-GET shows it with the archive's names, C-FIND finds it by state; it ends as the job does."""
    uid = "1.2.840.90.100"
    assert create(filled, uid, step()).Status == 0

    (job,) = filled.archive.index.jobs.list()
    made = get(filled, uid)
    assert (job.processor, job.priority, made.ProcedureStepState, made.ProcedureStepLabel) == (
        "quality-control",
        2,
        "SCHEDULED",
        "Check it",
    )
    assert made.InputInformationSequence[0].SeriesInstanceUID == job.series_instance_uids[0] != f"{STUDY}.1"
    assert making.PATIENT_NAME.split("^")[0] not in str(made.PatientName) and made.PatientID
    assert made.SOPClassUID == PUSH
    (found,) = find(filled, ProcedureStepState="SCHEDULED")
    assert (found.SOPInstanceUID, found.ScheduledWorkitemCodeSequence[0].CodeValue) == (uid, "quality-control")

    assert run_job(filled.archive, discover(), job.job_id, worker="test") == "succeeded"
    done = get(filled, uid)
    assert done.ProcedureStepState == "COMPLETED"
    output = done.UnifiedProcedureStepPerformedProcedureSequence[0].OutputInformationSequence[0]
    assert [output.SeriesInstanceUID] == list(filled.archive.index.jobs.get(job.job_id).output_series_instance_uids)
    assert done.ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 100
    assert (
        done.UnifiedProcedureStepPerformedProcedureSequence[0].PerformedWorkitemCodeSequence[0].CodeValue == "quality-control"
    )
    assert find(filled, ProcedureStepState="SCHEDULED") == []


def test_parameters_come_as_content_items_and_each_workitem_is_a_job(filled: Door) -> None:
    """A parameter by its name; the same asked for twice under two UIDs is done twice; a long name is a Long Code Value."""
    parameter, name = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "amount", "99MINIPACS", "amount"
    spec = step_parameters("enhance")[0]
    name.CodeValue = spec
    parameter.ValueType, parameter.ConceptNameCodeSequence, parameter.TextValue = (
        "TEXT",
        Items([name]),
        default_of("enhance", spec),
    )
    before = len(filled.archive.index.jobs.list(limit=None))

    for number in (1, 2):
        ds = step(processor="enhance", ScheduledProcessingParametersSequence=Items([parameter]))
        assert create(filled, f"1.2.840.90.11{number}", ds).Status == 0
    long_code = step(processor="")
    del long_code.ScheduledWorkitemCodeSequence[0].CodeValue
    long_code.ScheduledWorkitemCodeSequence[0].LongCodeValue = "nodule-candidates"
    assert create(filled, "1.2.840.90.113", long_code).Status == 0

    assert len(filled.archive.index.jobs.list(limit=None)) == before + 3
    assert str(filled.archive.index.jobs.list()[1].parameters[spec]) == default_of("enhance", spec)
    assert {str(one.ProcedureStepState) for one in find(filled, ProcedureStepLabel="Check it")} >= {"SCHEDULED"}


def step_parameters(processor: str) -> Sequence[str]:
    """Return the names of a processor's parameters."""
    return [one.name for one in discover()[processor].parameters]


def default_of(processor: str, name: str) -> str:
    """Return the default of a parameter as text."""
    return str(discover()[processor].bind()[name])


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, 0xC309),
        ({"processor": "no-such-thing"}, 0x0106),
        ({"series": "1.2.840.90.404"}, 0x0106),
        ({"ScheduledWorkitemCodeSequence": Items()}, 0x0120),
        ({"InputInformationSequence": Items()}, 0x0120),
        ({"processor": "petct-fusion", "series": "1.2.840.90.404"}, 0x0106),
    ],
)
def test_what_cannot_be_done_is_not_created(filled: Door, changed: dict[str, Any], code: int) -> None:
    """The status says why; no job is made."""
    before = len(filled.archive.index.jobs.list(limit=None))

    assert create(filled, "1.2.840.90.120", step(**changed)).Status == code
    assert len(filled.archive.index.jobs.list(limit=None)) == before


def test_the_same_uid_twice_is_0111_and_a_patient_of_ones_own_b300(filled: Door) -> None:
    """What the archive does not keep as it was said makes a warning; it names the patient itself."""
    assert create(filled, "1.2.840.90.130", step(PatientName="Quillfeather^Otto")).Status == 0xB300
    assert create(filled, "1.2.840.90.130", step()).Status == 0x0111
    assert "Quill" not in str(get(filled, "1.2.840.90.130").PatientName)


def test_a_client_claims_performs_and_completes(filled: Door) -> None:
    """States, the Transaction UID and final requirements as PS3.4 Table CC.1.1-2 says; progress is seen meanwhile."""
    uid = "1.2.840.90.140"
    assert create(filled, uid, step()).Status == 0
    assert move(filled, uid, "COMPLETED") == 0xC310
    assert move(filled, uid, "IN PROGRESS", "") == 0xC301
    assert move(filled, uid, "IN PROGRESS") == 0
    assert move(filled, uid, "IN PROGRESS") == 0xC302
    assert move(filled, uid, "SCHEDULED") == 0xC303
    assert move(filled, uid, "COMPLETED", "2.25.1") == 0xC301
    assert move(filled, uid, "COMPLETED") == 0xC304

    change, progress, performed = Dataset(), Dataset(), Dataset()
    change.TransactionUID = "2.25.1"
    progress.ProcedureStepProgress = "40"
    change.ProcedureStepProgressInformationSequence = Items([progress])
    assert put(filled, uid, change) == 0xC301
    change.TransactionUID = TRANSACTION
    assert put(filled, uid, change) == 0
    assert get(filled, uid).ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 40
    performed.PerformedProcedureStepStartDateTime, performed.PerformedProcedureStepEndDateTime = (
        "20261122101500",
        "20261122101600",
    )
    change.UnifiedProcedureStepPerformedProcedureSequence = Items([performed])
    assert put(filled, uid, change) == 0

    assert move(filled, uid, "COMPLETED") == 0
    assert move(filled, uid, "COMPLETED") == 0xB306
    assert move(filled, uid, "CANCELED") == 0xC300
    assert put(filled, uid, change) == 0xC300
    assert get(filled, uid).ProcedureStepState == "COMPLETED"


def test_what_is_ours_is_cancelled_at_once(filled: Door) -> None:
    """By anybody who may; a cancelled one says so, a completed one cannot be."""
    for uid in ("1.2.840.90.150", "1.2.840.90.151"):
        assert create(filled, uid, step()).Status == 0
    work(filled, "1.2.840.90.151")

    assert act(filled, "1.2.840.90.150", 2, PUSH) == 0
    assert act(filled, "1.2.840.90.150", 2, WATCH) == 0xB304
    assert act(filled, "1.2.840.90.151", 2, PUSH) == 0xC311
    cancelled = get(filled, "1.2.840.90.150")
    assert cancelled.ProcedureStepState == "CANCELED"
    assert cancelled.ProcedureStepProgressInformationSequence[0].ReasonForCancellation == "cancelled"


def test_unknown_ones_and_wrong_operations_are_refused(filled: Door) -> None:
    """C307; an operation that a service does not have is 0211; a peer that may not is 0124."""
    filled.archive.index.peers.add(Peer("SENDER", "127.0.0.1", 104, may=frozenset({"store"})))

    assert move(filled, "1.2.840.90.404", "IN PROGRESS") == 0xC307
    assert act(filled, "1.2.840.90.404", 1, PUSH) == 0x0211
    assert act(filled, EVERY_WORKITEM, 3, WATCH, ReceivingAE="NOBODY", DeletionLock="FALSE") == 0xC308
    assert create(filled, "1.2.840.90.160", step(), calling="SENDER").Status == 0x0124


def test_every_job_is_a_workitem_whoever_asked_for_it(filled: Door) -> None:
    """A rule's job has a UID made of its own, under which it can be found, read and cancelled."""
    series = filled.archive.index.jobs.list()[0].series_instance_uids
    study = filled.archive.index.jobs.list()[0].study_instance_uid
    new = NewJob("unique", "mip", "1.0.0", {"slab_mm": 10}, "slabs", "heavy", study, series, "association released")
    (job_id,) = filled.archive.index.jobs.add([new])
    uid = named(filled, job_id)

    (found,) = find(filled, SOPInstanceUID=uid)
    whole = get(filled, uid)

    assert (uid[:5], found.ProcedureStepLabel, whole.WorklistLabel) == ("2.25.", "mip", "slabs")
    assert whole.ScheduledProcessingParametersSequence[0].TextValue == "10"
    assert act(filled, uid, 2, PUSH) == 0
    assert filled.archive.index.jobs.get(job_id).state == "cancelled"


def test_nothing_of_the_client_lies_in_the_clear(filled: Door) -> None:
    """Neither its UID nor its labels, which may name anybody."""
    assert create(filled, "1.2.840.90.7755331", step(ProcedureStepLabel="For Oberhuber")).Status == 0

    content = b"".join(path.read_bytes() for path in filled.archive.settings.home.glob("index.db*"))
    assert len(content) > 100_000 and b"7755331" not in content and b"Oberhuber" not in content


@dataclass
class Follower:
    """A client that takes event reports: (UID, event type, state or progress)."""

    port: int
    told: list[tuple[str, int, str]] = field(default_factory=list)


@contextmanager
def follower(title: str) -> Iterator[Follower]:
    """Listen for events with pynetdicom."""
    made = Follower(0)

    def take(event: evt.Event) -> tuple[int, None]:
        ds = event.event_information
        said = ds.get("ProcedureStepState", ds.get("RequestingAE", ""))
        if "ProcedureStepProgressInformationSequence" in ds:
            said = str(ds.ProcedureStepProgressInformationSequence[0].ProcedureStepProgress)
        made.told.append((str(event.request.AffectedSOPInstanceUID), int(event.event_type), str(said)))
        return 0, None

    ae = AE(ae_title=title)
    ae.add_supported_context(UnifiedProcedureStepEvent, scu_role=False, scp_role=True)
    listening = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)])
    made.port = listening.server_address[1]
    try:
        yield made
    finally:
        listening.shutdown()


def test_a_follower_is_told_each_state_in_its_order(filled: Door) -> None:
    """At once the state there is, then progress and the end, also states that nobody looked at; then no more."""
    watcher, uid = Watcher(filled.archive), "1.2.840.90.170"
    with follower("FOLLOWER") as found:
        filled.archive.index.peers.add(Peer("FOLLOWER", "127.0.0.1", found.port))
        for one in (uid, "1.2.840.90.171"):
            assert create(filled, one, step()).Status == 0
            assert act(filled, one, 3, WATCH, ReceivingAE="FOLLOWER", DeletionLock="FALSE") == 0
        watcher.turn()
        assert found.told == [(uid, 1, "SCHEDULED"), ("1.2.840.90.171", 1, "SCHEDULED")]

        found.told.clear()
        assert move(filled, uid, "IN PROGRESS") == 0
        change, progress = Dataset(), Dataset()
        progress.ProcedureStepProgress = "50"
        change.TransactionUID, change.ProcedureStepProgressInformationSequence = TRANSACTION, Items([progress])
        assert put(filled, uid, change) == 0
        assert act(filled, uid, 2, PUSH, calling="BOSS") == 0
        work(filled, "1.2.840.90.171")
        watcher.turn()

        assert [one[1:] for one in found.told if one[0] == uid] == [(1, "IN PROGRESS"), (3, "50"), (2, "BOSS")]
        assert [one[1:] for one in found.told if one[0] != uid] == [(1, "IN PROGRESS"), (1, "COMPLETED")]
        assert watcher.turn() == 0
        assert act(filled, uid, 4, WATCH, ReceivingAE="FOLLOWER") == 0
        assert move(filled, uid, "CANCELED") == 0
        assert watcher.turn() == 0


def test_who_follows_all_is_told_of_new_ones_until_it_suspends(filled: Door) -> None:
    """The well-known instance; suspended, what it follows already goes on."""
    watcher = Watcher(filled.archive)
    with follower("ALLEARS") as found:
        filled.archive.index.peers.add(Peer("ALLEARS", "127.0.0.1", found.port))
        assert act(filled, EVERY_WORKITEM, 3, WATCH, ReceivingAE="ALLEARS", DeletionLock="FALSE") == 0
        watcher.turn()
        assert create(filled, "1.2.840.90.180", step()).Status == 0
        watcher.turn()
        assert act(filled, EVERY_WORKITEM, 5, WATCH, ReceivingAE="ALLEARS") == 0
        assert create(filled, "1.2.840.90.181", step()).Status == 0
        work(filled, "1.2.840.90.180", fail="it broke")
        watcher.turn()

        mine = [one for one in found.told if one[0].startswith("1.2.840.90.18")]
        assert mine == [("1.2.840.90.180", 1, "SCHEDULED"), ("1.2.840.90.180", 1, "CANCELED")]
        assert act(filled, EVERY_WORKITEM, 4, WATCH, ReceivingAE="ALLEARS") == 0
        assert [one for one in filled.archive.index.workitems.subscriptions() if one.ae_title == "ALLEARS"] == []


def test_a_follower_that_is_away_is_told_later_and_one_that_is_gone_never(filled: Door) -> None:
    """Longer waits each time; the state is the one of then. A peer that was removed is forgotten."""
    now = [time.time()]
    watcher = Watcher(filled.archive, lambda: now[0])
    with follower("SLEEPER") as found:
        port = found.port
    filled.archive.index.peers.add(Peer("SLEEPER", "127.0.0.1", port))
    assert create(filled, "1.2.840.90.190", step()).Status == 0
    assert act(filled, "1.2.840.90.190", 3, WATCH, ReceivingAE="SLEEPER", DeletionLock="FALSE") == 0
    waits = []
    for _ in range(3):
        watcher.turn()
        waits.append(watcher._resting["SLEEPER"][1])
        now[0] += waits[-1]
    assert waits == [5.0, 10.0, 20.0]

    with follower("SLEEPER") as found:
        filled.archive.index.peers.add(Peer("SLEEPER", "127.0.0.1", found.port))
        watcher.turn()
    assert found.told == [("1.2.840.90.190", 1, "SCHEDULED")]
    filled.archive.index.peers.remove("SLEEPER")
    work(filled, "1.2.840.90.190")
    watcher.turn()
    assert [one for one in filled.archive.index.workitems.subscriptions() if one.ae_title == "SLEEPER"] == []
