"""One job, really run in its isolated process: results, refusals, retries, limits, and who dies with whom."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import psutil
import pytest
from whole import gone_by

from pacs.archive import Archive
from pacs.committer import Committer
from pacs.ingest import ingest
from pacs.model.errors import OutOfResources
from pacs.model.instance import Location, Sealed
from pacs.model.job import Claim, Job, JobState
from pacs.ports import ObjectStore
from pacs.processing.child import child
from pacs.processing.registry import discover
from pacs.processing.runner import run_job
from pacs.processing.schedule import ask
from pacs.retrieve import data_set

NAP = f"300.{os.getpid()}"
"""Seconds, and a mark of this run: another on the same machine may be asleep as well."""

PLUGIN = '''
import os, signal, time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
import numpy as np
from pacs.processing import Choice, Images, NotApplicable, Run, Series, Transient, processor

@processor("probe", version="1", makes=("CT",))
def probe(series: Series, run: Run, *, what: str = "copy") -> Iterator[Images]:
    """Do what the test wants."""
    run.progress(0.25, "begun")
    if what == "refuse":
        raise NotApplicable("not for this")
    if what == "transient":
        raise Transient("Quillfeather is busy")
    if what == "bug":
        raise RuntimeError("value of Quillfeather")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        os._exit(3)
    if what == "memory":
        np.ones((1 << 33,), np.uint8)
    if what == "sleep":
        os.system("sleep NAP &")
        time.sleep(300)
    if what == "file":
        Path("pixels.raw").write_bytes(series.stored(0).tobytes())
    if what == "environment":
        found = [name for name in os.environ if name.startswith("PACS_")]
        if found or os.listdir("."):
            raise RuntimeError
    if what == "wrong":
        yield Images([series.stored(0)], like=series.datasets[:1], description="x", attributes={"ImageType": ""})
    if what == "nothing":
        return
    yield Images([series.stored(i) + 1 for i in range(len(series))], like=series.datasets, description="plus one")
'''


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "processors"
    folder.mkdir(parents=True)
    (folder / "probe.py").write_text(PLUGIN.replace("NAP", NAP))
    return tmp_path / "home"


@pytest.fixture
def archive(home: Path) -> Iterator[Archive]:
    with making.archive(home, processing__attempts=2, processing__backoff_s=7.0, processing__lease_s=3.0) as opened:
        for one in making.ct_series(2):
            ingest(opened, making.received(one))
        opened.index.end_association("a1")
        yield opened


def job_for(archive: Archive, what: str) -> str:
    study = archive.index.studies()[0].study_instance_uid
    series = next(one for one in archive.index.series_of(study) if not one.derived)
    spec = discover(archive.settings.plugins_path)["probe"]
    made = ask(archive.index, spec, {"what": what}, study, [series.series_instance_uid])
    assert made is not None
    return made


def run(archive: Archive, job_id: str, stop: threading.Event | None = None) -> Job:
    run_job(archive, discover(archive.settings.plugins_path), job_id, worker="test", stop=stop)
    return archive.index.jobs.get(job_id)


def test_x6_results_become_visible_with_the_end_of_the_job(archive: Archive) -> None:
    """The derived series is in the study, its pixels are the processor's, and nothing identifies the patient."""
    job = run(archive, job_for(archive, "copy"))

    assert job.state is JobState.SUCCEEDED
    assert job.progress == 1.0
    derived = archive.index.locate(series_instance_uids=list(job.output_series_instance_uids))
    sources = archive.index.locate(series_instance_uids=list(job.series_instance_uids))
    assert len(derived) == 2
    assert derived[0].key.study_instance_uid == sources[0].key.study_instance_uid
    for before, after in zip(sources, derived, strict=True):
        old = b"".join(data_set(archive, before, ["1.2.840.10008.1.2.1"]).buffers)
        new = b"".join(data_set(archive, after, ["1.2.840.10008.1.2.1"]).buffers)
        assert not any(word.encode() in new for word in making.PLANTED)
        assert len(new) > 64 * 64 * 2
        assert old[-64 * 64 * 2 :] != new[-64 * 64 * 2 :]


def test_a_second_delivery_changes_nothing(archive: Archive) -> None:
    """A message that comes again finds no job to claim."""
    job_id = job_for(archive, "copy")
    run(archive, job_id)
    before = archive.index.summary()["instances"]

    assert run_job(archive, discover(archive.settings.plugins_path), job_id, worker="other") is None
    assert archive.index.summary()["instances"] == before


def test_running_again_makes_the_same_objects(archive: Archive) -> None:
    """Asked for once more, the job stores nothing new: its objects are byte-identical."""
    job_id = job_for(archive, "copy")
    run(archive, job_id)
    before = archive.index.summary()["instances"]
    archive.index.jobs.again(job_id)

    job = run(archive, job_id)

    assert job.state is JobState.SUCCEEDED
    assert archive.index.summary()["instances"] == before


@pytest.mark.parametrize(
    ("what", "state", "reason"),
    [
        ("refuse", JobState.SKIPPED, "not for this"),
        ("nothing", JobState.SUCCEEDED, "nothing to add"),
        ("bug", JobState.FAILED, "RuntimeError at probe.py:"),
        ("crash", JobState.FAILED, "its process was ended by SIGSEGV"),
        ("exit", JobState.FAILED, "its process ended without a result (exit code 3)"),
        ("memory", JobState.FAILED, "MemoryError at"),
        ("file", JobState.FAILED, "FileWriteForbidden at probe.py:"),
        ("wrong", JobState.FAILED, "results are not valid: ct-image: ImageType is empty"),
        ("environment", JobState.SUCCEEDED, ""),
    ],
)
def test_every_end_is_told(archive: Archive, what: str, state: JobState, reason: str) -> None:
    """Refusals, bugs, crashes, too much memory, files and invalid results: a state and a reason, never a value."""
    job = run(archive, job_for(archive, what))

    assert job.state is state
    assert reason in job.reason
    assert "Quillfeather" not in job.reason
    if state is not JobState.SUCCEEDED:
        assert archive.index.summary()["derived_series"] == 0


def test_what_may_pass_is_tried_again_later_and_not_for_ever(archive: Archive) -> None:
    """A transient failure is queued with back-off until the attempts are spent."""
    job_id = job_for(archive, "transient")

    first = run(archive, job_id)
    assert (first.state, first.attempt) == (JobState.QUEUED, 1)
    assert archive.index.jobs.due(time.time()) == []
    assert archive.index.jobs.due(time.time() + 8) != []
    _make_due(archive)

    second = run(archive, job_id)
    assert (second.state, second.attempt) == (JobState.FAILED, 2)
    assert "Transient at probe.py" in second.reason


def test_a_full_disk_is_waited_out(archive: Archive) -> None:
    """No room in the archive is not the job's fault: it is tried again, however often, until there is room."""
    job_id = job_for(archive, "copy")
    full = replace(archive, committer=Committer(FullDisk(archive.objects), archive.index))  # type: ignore[arg-type]
    for attempt in (1, 2, 3):
        job = run(full, job_id)
        assert (job.state, job.attempt, job.reason) == (JobState.QUEUED, attempt, "OutOfResources in the archive")
        _make_due(archive)

    assert run(archive, job_id).state is JobState.SUCCEEDED


class FullDisk:
    """An object store with room for nothing."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def put(self, group: Sequence[Sealed]) -> list[Location]:
        raise OutOfResources("no room")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


def test_a_job_that_takes_too_long_is_ended_with_all_it_started(archive: Archive) -> None:
    """The wall clock ends the process group, grandchildren too."""
    hasty = replace(archive, settings=making.settings(archive.settings.home, processing__timeout_s=5.0))

    job = run(hasty, job_for(archive, "sleep"))

    assert job.state is JobState.FAILED
    assert job.reason == "took longer than 5 s and was ended"
    assert _sleepers() == []


def test_a_stopped_worker_gives_its_job_back(archive: Archive) -> None:
    """The row is queued at once, not when the lease has run out."""
    job_id = job_for(archive, "sleep")
    stop = threading.Event()
    threading.Timer(4, stop.set).start()

    job = run(archive, job_id, stop)

    assert job.state is JobState.QUEUED
    assert job.reason == "the worker was stopped"
    assert _sleepers() == []


def test_a_cancelled_job_is_dropped(archive: Archive) -> None:
    """Cancelling takes the lease away; the worker ends the process and stores nothing."""
    job_id = job_for(archive, "sleep")
    threading.Timer(4, lambda: archive.index.jobs.cancel(job_id)).start()

    job = run(archive, job_id)

    assert job.state is JobState.CANCELLED
    assert _sleepers() == []


def test_a_claim_that_was_lost_stores_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker finished it meanwhile: the results of the late one do not become visible."""
    job_id = job_for(archive, "copy")
    claim = archive.index.jobs.claim

    def stolen(job_id: str, owner: str, lease_s: float) -> Job | None:
        job = claim(job_id, owner, lease_s)
        archive.index.jobs.succeed(Claim(job_id, owner), "by another")
        return job

    monkeypatch.setattr(archive.index.jobs, "claim", stolen)

    assert run_job(archive, discover(archive.settings.plugins_path), job_id, worker="late") is None
    assert archive.index.summary()["derived_series"] == 0


def test_the_isolated_process_dies_with_its_worker(archive: Archive) -> None:
    """kill -9 of the worker leaves nothing running, however busy the processor is."""
    job_id = job_for(archive, "sleep")
    code = (
        "import sys; sys.path.insert(0, sys.argv[3]); import making; from pathlib import Path;"
        "from pacs.archive import Archive; from pacs.processing.registry import discover;"
        "from pacs.processing.runner import run_job;"
        "s = making.settings(Path(sys.argv[1])); a = Archive.open(s, writer='w');"
        "run_job(a, discover(s.plugins_path), sys.argv[2], worker='w')"
    )
    tests = str(Path(__file__).resolve().parents[1])
    worker = subprocess.Popen([sys.executable, "-c", code, str(archive.settings.home), job_id, tests])
    deadline = time.monotonic() + 40
    while not _sleepers():
        assert time.monotonic() < deadline and worker.poll() is None
        time.sleep(0.1)
    below = psutil.Process(worker.pid).children(recursive=True)
    assert below

    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()

    assert gone_by(below, 10) == []
    assert _sleepers() == []


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read by /proc")
def test_the_nursery_holds_no_secret(archive: Archive) -> None:
    """What isolated processes are forked from has nothing of ours in its environment, and no key in its memory."""
    run(archive, job_for(archive, "copy"))
    (nursery,) = (one for one in psutil.Process().children() if "pacs.processing.nursery" in one.cmdline())
    secrets = [archive.ring._secret, *archive.ring._by_id.values()]

    assert not any(name.startswith("PACS_") for name in nursery.environ())
    assert len(secrets) > 1
    for secret in secrets:
        assert _in_memory(os.getpid(), secret), "the search finds what is there"
        assert not _in_memory(nursery.pid, secret)


def test_the_nursery_comes_again(archive: Archive) -> None:
    """Ended by accident, it is started anew for the next job."""
    run(archive, job_for(archive, "nothing"))
    (nursery,) = (one for one in psutil.Process().children() if "pacs.processing.nursery" in one.cmdline())
    nursery.kill()
    nursery.wait()

    assert run(archive, job_for(archive, "copy")).state is JobState.SUCCEEDED


def test_a_start_is_quick(archive: Archive) -> None:
    """From the second job on, a process that has imported everything is there within a quarter of a second."""
    with child() as (first, _, _):
        assert first.pid
    took = []
    for _ in range(5):
        started = time.monotonic()
        with child() as (process, _, _):
            assert process.pid
            took.append(time.monotonic() - started)

    assert min(took) < 0.25


def _in_memory(pid: int, secret: bytes) -> bool:
    """Whether bytes stand in what a process may write to (its own heap, stacks and data)."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            low, high = (int(one, 16) for one in span.split("-"))
            if rights.startswith("rw") and "[vvar]" not in line:
                memory.seek(low)
                try:
                    if secret in memory.read(high - low):
                        return True
                except OSError:
                    continue
    return False


def _make_due(archive: Archive) -> None:
    """Let the back-off pass: the index's clock is moved forward."""
    connections = archive.index.jobs._connections
    ahead = connections.clock() + 60
    object.__setattr__(connections, "clock", lambda: ahead)


def _sleepers() -> list[int]:
    found = []
    for one in psutil.process_iter(["cmdline"]):
        if one.info["cmdline"] == ["sleep", NAP]:
            found.append(one.pid)
    return found
