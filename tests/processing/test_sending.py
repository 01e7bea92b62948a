"""Sending as a job: to a real SCP over DIMSE and to a real DICOMweb server; retried, with the peer's identity policy."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import making
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, DEFAULT_TRANSFER_SYNTAXES, evt
from pynetdicom.sop_class import CTImageStorage
from serving import Served, free_port, run

from pacs.archive import Archive
from pacs.ingest import ingest, ingest_derived
from pacs.model.errors import ConfigurationError, NotFound
from pacs.model.instance import Origin
from pacs.model.job import Job, JobState
from pacs.model.peer import Peer, described
from pacs.model.query import Level, Query
from pacs.processing import sending
from pacs.processing.routes import parse_routes
from pacs.processing.runner import run_job
from pacs.processing.schedule import Scheduler
from pacs.worker import CARRIERS

ROUTES = """
[[route]]
name = "CT to research"
peer = "SINK"
what = "source"
where = { Modality = "CT" }

[[route]]
name = "results"
peer = "OTHER"
what = "derived"
"""


@dataclass
class Sink:
    """What a storage SCP received, and what it answers."""

    port: int = 0
    answer: int = 0
    came: list[Any] = field(default_factory=list)
    came_as: set[str] = field(default_factory=set)


@contextmanager
def sink(port: int = 0, answer: int = 0, syntaxes: Sequence[str] = DEFAULT_TRANSFER_SYNTAXES) -> Iterator[Sink]:
    """A storage SCP of pynetdicom."""
    ae = AE(ae_title="SINK")
    ae.add_supported_context(CTImageStorage, list(syntaxes))
    found = Sink(port, answer)

    def store(event: Any) -> int:
        found.came.append(event.dataset)
        found.came_as.add(str(event.context.transfer_syntax))
        return found.answer

    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    found.port = server.server_address[1]
    try:
        yield found
    finally:
        server.shutdown()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An archive that holds a complete series of three images."""
    immediately = {"processing__settle_s": 0.0, "processing__study_settle_s": 0.0, "processing__backoff_s": 7.0}
    with making.archive(tmp_path / "home", dicom__send_attempts=3, **immediately) as opened:
        for one in making.ct_series(3):
            ingest(opened, making.received(one, association="a1"))
        opened.index.end_association("a1")
        yield opened


def series_of(archive: Archive) -> tuple[str, str]:
    (row,) = archive.index.search(Query(Level.SERIES))
    return row["StudyInstanceUID"], row["SeriesInstanceUID"]


def sent(archive: Archive, ae_title: str = "SINK") -> Job:
    """Queue the series for a peer and run the job once."""
    study, series = series_of(archive)
    job_id = sending.schedule(archive.index, ae_title, study, [series])
    assert job_id is not None
    run_job(archive, {}, job_id, worker="test", carriers=CARRIERS)
    return archive.index.jobs.get(job_id)


class Bell:
    """Keeps what it was rung for."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, str]] = []

    def ring(self, job_id: str, queue: str) -> None:
        """Note it."""
        self.rung.append((job_id, queue))


def scheduler(archive: Archive, routes: str) -> Scheduler:
    made = Scheduler(archive.index, {}, (), Bell(), archive.settings.processing, lambda: 1e11)
    made.routes = parse_routes(routes)
    return made


@dataclass
class Lane:
    """A clock that a test moves, a bell, and a scheduler of sends; what is rung for can be run."""

    archive: Archive
    now: float = 2e9
    bell: Bell = field(default_factory=Bell)

    def __post_init__(self) -> None:
        self.archive.index._connections.clock = lambda: self.now
        self.scheduler = Scheduler(
            self.archive.index, {}, (), self.bell, self.archive.settings.processing, lambda: self.now, send_attempts=3
        )

    def queue(self, ae_title: str, count: int, first: int = 0) -> list[str]:
        """Queue the sending of `count` series, each of one image, to a peer."""
        made = []
        for number in range(first, first + count):
            uid = f"{making.SERIES_UID}.{len(ae_title)}.{number}"
            one = making.dataset(instance=100 + number + 10 * len(ae_title), series_uid=uid)
            key = ingest(self.archive, making.received(one)).key
            made.append(sending.schedule(self.archive.index, ae_title, key.study_instance_uid, [key.series_instance_uid]))
        return [job_id for job_id in made if job_id is not None]

    def tick(self, after_s: float = 0.0) -> list[str]:
        """Let time pass, and return which jobs were announced."""
        self.now += after_s
        self.bell.rung.clear()
        self.scheduler.tick()
        return [job_id for job_id, _ in self.bell.rung]

    def run(self, job_id: str) -> Job:
        """Do a job as a worker would."""
        run_job(self.archive, {}, job_id, worker="test", carriers=CARRIERS)
        return self.job(job_id)

    def job(self, job_id: str) -> Job:
        return self.archive.index.jobs.get(job_id)


def test_a_series_goes_to_a_peer_under_its_new_identity(archive: Archive) -> None:
    """All of it, by C-STORE; the job says how many arrived where."""
    with sink() as peer:
        archive.index.peers.add(Peer("SINK", "127.0.0.1", peer.port))
        job = sent(archive)

    assert (job.state, job.reason, job.progress) == (JobState.SUCCEEDED, "3 instances at SINK", 1.0)
    assert len(peer.came) == 3
    assert not any(word in str(ds) for ds in peer.came for word in making.PLANTED)


def test_a_peer_gets_the_transfer_syntax_that_it_prefers(archive: Archive) -> None:
    """The first that can be made and that it accepts, before what is stored; a preference for video makes nothing fail."""
    video, jpeg_ls = "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.80"
    with sink(syntaxes=[video, jpeg_ls, ExplicitVRLittleEndian]) as peer:
        archive.index.peers.add(described("SINK", "127.0.0.1", peer.port, prefers=[video, jpeg_ls]))
        job = sent(archive)

    assert job.state is JobState.SUCCEEDED
    assert peer.came_as == {jpeg_ls}


def test_a_peer_that_may_see_originals_gets_them_and_the_audit_says_so(archive: Archive) -> None:
    """Identity policy `original`: name, UIDs and all; noted before the first instance goes."""
    with sink() as peer:
        archive.index.peers.add(Peer("SINK", "127.0.0.1", peer.port, identity="original"))
        job = sent(archive)

    assert job.state is JobState.SUCCEEDED
    assert {str(ds.PatientName) for ds in peer.came} == {making.PATIENT_NAME}
    assert {ds.StudyInstanceUID for ds in peer.came} == {making.STUDY_UID}
    noted = [dict(one.detail) for one in archive.index.events(limit=1000) if one.kind == "identity_restored"]
    assert [(one["operation"], one["receiver"], one["count"]) for one in noted] == [("send", "SINK", 3)]


def test_a_peer_that_is_away_gets_it_later_with_growing_waits(archive: Archive) -> None:
    """Queued again with 7 s, then 14 s; once it is there the job succeeds; the rows survive a restart by themselves."""
    port = free_port()
    archive.index.peers.add(Peer("SINK", "127.0.0.1", port))
    job = sent(archive)
    assert (job.state, job.attempt) == (JobState.QUEUED, 1)
    assert "does not answer" in job.reason
    now = archive.index._connections.clock

    assert archive.index.jobs.due(now() + 6) == []
    assert [one for one, _ in archive.index.jobs.due(now() + 8)] == [job.job_id]
    archive.index._connections.clock = lambda: now() + 8
    run_job(archive, {}, job.job_id, worker="test", carriers=CARRIERS)
    assert archive.index.jobs.due(now() + 8 + 13) == []
    archive.index._connections.clock = lambda: now() + 8 + 15
    with sink(port) as peer:
        run_job(archive, {}, job.job_id, worker="test", carriers=CARRIERS)

    assert archive.index.jobs.get(job.job_id).state is JobState.SUCCEEDED
    assert len(peer.came) == 3


def test_one_back_off_for_all_that_waits_for_a_peer_until_it_comes_back(archive: Archive) -> None:
    """The first that cannot reach it puts all off, also what is queued later; one tries; when that gets through, all go."""
    lane, port = Lane(archive), free_port()
    with sink() as there:
        archive.index.peers.add(Peer("SINK", "127.0.0.1", port))
        archive.index.peers.add(Peer("OTHER", "127.0.0.1", there.port))
        waiting, (other,) = lane.queue("SINK", 4), lane.queue("OTHER", 1)
        announced = lane.tick()
        assert len(set(announced) & set(waiting)) == 2, "half of processing.senders, so that a slow peer does not fill the lane"
        assert other in announced and {queue for _, queue in lane.bell.rung} == {"send"}

        lane.run(announced[0])
        assert lane.run(other).state is JobState.SUCCEEDED, "another peer does not wait"

    assert {(lane.job(one).state, lane.job(one).due_at) for one in waiting} == {(JobState.QUEUED, lane.now + 7)}
    assert all("does not answer" in lane.job(one).reason for one in waiting)
    waiting += lane.queue("SINK", 1, first=7)
    assert lane.tick(5) == []
    assert lane.job(waiting[-1]).due_at == lane.now + 2, "what comes later waits with the others"

    (trying,) = lane.tick(3)
    lane.run(trying)
    away = archive.index.away.list()["SINK"]
    assert (away.tries, away.until) == (2, lane.now + 14)
    assert lane.tick(13) == []
    (trying,) = lane.tick(2)
    with sink(port) as back:
        lane.run(trying)
        assert archive.index.away.list() == {}
        while left := lane.tick(2):
            for job_id in left:
                lane.run(job_id)

    assert {lane.job(one).state for one in waiting} == {JobState.SUCCEEDED}
    assert len(back.came) == 5


def test_a_try_counts_for_all_that_wait(archive: Archive) -> None:
    """They are given up together, after `dicom.send_attempts`, and not one after another; what came later has tries left."""
    lane = Lane(archive)
    archive.index.peers.add(Peer("SINK", "127.0.0.1", free_port()))
    waiting = lane.queue("SINK", 3)
    for _ in range(2):
        lane.run(lane.tick(4000)[0])
    late = lane.queue("SINK", 1, first=7)[0]

    lane.run(lane.tick(4000)[0])

    assert {lane.job(one).state for one in waiting} == {JobState.FAILED}
    assert all("does not answer" in lane.job(one).reason for one in waiting)
    assert (lane.job(late).state, lane.job(late).attempt) == (JobState.QUEUED, 1)
    failed = [one for one in archive.index.events(limit=1000) if one.kind == "job_failed"]
    assert len(failed) == 3


def test_what_was_mended_is_tried_at_once(archive: Archive) -> None:
    """A peer that was given another address, or answers an echo, does not have to wait for its next try."""
    lane = Lane(archive)
    archive.index.peers.add(Peer("SINK", "127.0.0.1", free_port()))
    (job_id,) = lane.queue("SINK", 1)
    lane.run(job_id)
    assert lane.tick(1) == []

    archive.index.away.reached("SINK")
    assert lane.tick() == [job_id]
    lane.run(job_id)
    with sink() as peer:
        archive.index.peers.add(Peer("SINK", "127.0.0.1", peer.port))
        assert lane.tick() == [job_id]
        assert lane.run(job_id).state is JobState.SUCCEEDED


def test_a_peer_that_never_comes_back_is_given_up(archive: Archive) -> None:
    """After `dicom.send_attempts` tries the job has failed, with the reason."""
    archive.index.peers.add(Peer("SINK", "127.0.0.1", free_port()))
    job, now = sent(archive), archive.index._connections.clock
    for number in range(1, 3):
        archive.index._connections.clock = lambda number=number: now() + number * 4000
        run_job(archive, {}, job.job_id, worker="test", carriers=CARRIERS)

    ended = archive.index.jobs.get(job.job_id)
    assert (ended.state, ended.attempt) == (JobState.FAILED, 3)
    assert "does not answer" in ended.reason


@pytest.mark.parametrize(("answer", "state"), [(0xA700, JobState.QUEUED), (0xC000, JobState.FAILED)])
def test_what_the_peer_refuses_for_good_is_not_sent_again(archive: Archive, answer: int, state: JobState) -> None:
    """Out of resources may pass; cannot understand will not. Either way every instance was tried."""
    with sink(answer=answer) as peer:
        archive.index.peers.add(Peer("SINK", "127.0.0.1", peer.port))
        job = sent(archive)

    assert (job.state, len(peer.came)) == (state, 3)
    assert ("3 not delivered" if answer == 0xA700 else "3 refused with C000") in job.reason


def test_a_job_that_was_cancelled_stops_in_the_middle(archive: Archive) -> None:
    """The worker that lost its lease sends no further instance."""
    stop = threading.Event()
    with sink() as peer:
        archive.index.peers.add(Peer("SINK", "127.0.0.1", peer.port))
        study, series = series_of(archive)
        job_id = sending.schedule(archive.index, "SINK", study, [series])
        assert job_id is not None
        stop.set()
        run_job(archive, {}, job_id, worker="test", stop=stop, carriers=CARRIERS)

    assert peer.came == []
    assert archive.index.jobs.get(job_id).state is JobState.QUEUED


def test_a_dicomweb_server_is_a_peer_too(archive: Archive, tmp_path: Path) -> None:
    """STOW-RS to another archive of this kind, streamed in one request; it holds the same number of images."""
    served: Iterator[Served] = run(making.settings(tmp_path / "there", web__port=free_port(), dicom__port=free_port()))
    there = next(served)
    try:
        archive.index.peers.add(Peer("WEB", "127.0.0.1", there.settings.web.port, url=there.dicomweb))
        job = sent(archive, "WEB")
        with Archive.opened(there.settings, writer="cli") as other:
            arrived = list(other.index.search(Query(Level.IMAGE), include_held=True))
    finally:
        served.close()

    assert (job.state, job.reason) == (JobState.SUCCEEDED, "3 instances at WEB")
    assert len(arrived) == 3


def test_a_dicomweb_server_that_is_away_is_tried_again(archive: Archive) -> None:
    """As over DIMSE."""
    port = free_port()
    archive.index.peers.add(Peer("WEB", "127.0.0.1", port, url=f"http://127.0.0.1:{port}/dicom-web"))

    job = sent(archive, "WEB")

    assert job.state is JobState.QUEUED
    assert "does not answer" in job.reason


def test_routes_send_what_is_complete_once(archive: Archive) -> None:
    """One job for the series that came, none for the route of results; a second look makes none."""
    archive.index.peers.add(Peer("SINK", "127.0.0.1", free_port()))
    scheduled = scheduler(archive, ROUTES)
    scheduled.tick()
    scheduled.tick()

    (job,) = archive.index.jobs.list()
    assert (job.processor, job.rule) == ("send:SINK", "route CT to research")
    assert job.series_instance_uids == (series_of(archive)[1],)
    assert archive.index.pending() == 0


def test_routes_send_what_was_derived(archive: Archive) -> None:
    """A series that a job has made goes to the route of results, and wakes no rule."""
    before = scheduler(archive, "")
    before.tick()
    before.tick()
    study, _ = series_of(archive)
    nobody = {"patient_id": "", "patient_name": ""}
    derived = making.dataset(instance=50, study_uid=study, series_uid=f"{making.SERIES_UID}.50", **nobody)
    ingest_derived(archive, [making.received(derived, origin=Origin.PROCESSOR)], finishing=None)
    assert archive.index.pending() == 1

    scheduler(archive, ROUTES).tick()

    (job,) = archive.index.jobs.list()
    assert (job.processor, job.rule, job.completion) == ("send:OTHER", "route results", "made here")
    assert archive.index.pending() == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[route]]\nname = "a"\n', "peer must be a text"),
        ('[[route]]\nname = "a"\npeer = "B"\nwhen = "now"\n', "unknown key when"),
        ('[[route]]\nname = "a"\npeer = "B"\nwhat = "some"\n', "what must be one of"),
        ('[[route]]\nname = "a"\npeer = "B"\nwhere = { Modalty = "CT" }\n', "Modalty"),
        ('[[route]]\nname = "a"\npeer = "B"\n[[route]]\nname = "a"\npeer = "C"\n', "another route"),
        ("[[rule]]\n", r"only \[\[route\]\] tables"),
    ],
)
def test_a_wrong_route_is_told_by_name(text: str, says: str) -> None:
    """Name and key, so that it can be mended."""
    with pytest.raises(ConfigurationError, match=says):
        parse_routes(text)


def test_nothing_is_queued_for_a_peer_that_is_not_there(archive: Archive) -> None:
    """The message says how to add it."""
    study, series = series_of(archive)

    with pytest.raises(NotFound, match="pacs peers add"):
        sending.schedule(archive.index, "NOBODY", study, [series])


def test_a_send_whose_workers_died_three_times_is_tried_again(archive: Archive) -> None:
    """As often as `dicom.send_attempts` says, not as seldom as `processing.attempts` does."""
    archive.index.peers.add(Peer("SINK", "127.0.0.1", 104))
    job_id = sending.schedule(archive.index, "SINK", series_of(archive)[0], [series_of(archive)[1]])
    assert job_id is not None
    now = [1e11]
    archive.index._connections.clock = lambda: now[0]
    patient = Scheduler(archive.index, {}, (), Bell(), archive.settings.processing, lambda: now[0], send_attempts=5)
    for attempt in range(1, 6):
        patient.tick()
        claimed = archive.index.jobs.claim(job_id, f"w{attempt}", 30)
        assert claimed is not None and claimed.attempt == attempt
        now[0] += 31
    patient.tick()

    assert archive.index.jobs.get(job_id).state is JobState.FAILED
