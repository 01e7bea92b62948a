"""A real worker, a real broker: from a committed series to derived objects, through kill -9 and a broker that was away."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import making
import psutil
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage
from whole import gone_by

from pacs import worker as worker_module
from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError, Unavailable
from pacs.model.job import JobState
from pacs.model.peer import Peer
from pacs.processing import sending
from pacs.processing.schedule import run_scheduler
from pacs.queue import CeleryQueue, broker_url, make_app
from pacs.settings import Settings, as_environment, load
from pacs.supervisor import broker

PLUGIN = '''
import time
from collections.abc import Iterator
from pacs.processing import Images, Series, processor

@processor("slow", version="1", makes=("CT",))
def slow(series: Series, *, seconds: float = 0.0) -> Iterator[Images]:
    """Copy, after a while."""
    time.sleep(seconds)
    yield Images([series.stored(i) for i in range(len(series))], like=series.datasets, description="copy")
'''


def rules(seconds: float) -> str:
    return f'[[rule]]\nname = "all"\nwhere = {{ Modality = "CT" }}\nrun = [{{ use = "slow", seconds = {seconds} }}]\n'


class Workshop:
    """Broker, scheduler and worker of one home, started and killed as a test wants."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stop = threading.Event()
        self.scheduler = threading.Thread(target=run_scheduler, args=(settings, self.stop))
        self.broker: subprocess.Popen[bytes] | None = None
        self.worker: subprocess.Popen[bytes] | None = None

    def start_broker(self) -> None:
        path = Path(self.settings.broker.url.partition("://")[2])
        path.unlink(missing_ok=True)
        self.broker = subprocess.Popen(broker.command(path), stdout=subprocess.DEVNULL)
        until(path.exists)

    def start_worker(self, queues: str = "") -> None:
        environment = {**os.environ, **as_environment(self.settings)}
        code = "from pacs.settings import load; from pacs import logs, worker; logs.configure(); "
        code += f"worker.main(load(), {queues!r})"
        self.worker = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)

    def kill_worker(self) -> list[psutil.Process]:
        assert self.worker is not None
        below = psutil.Process(self.worker.pid).children(recursive=True)
        os.killpg(self.worker.pid, signal.SIGKILL)
        self.worker.wait()
        return below

    def end(self) -> None:
        self.stop.set()
        if self.scheduler.is_alive():
            self.scheduler.join(20)
        for process in (self.worker, self.broker):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL) if process is self.worker else process.kill()
                    process.wait()


@pytest.fixture
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    home = tmp_path_factory.mktemp("w") / "h"
    with making.archive(
        home,
        processing__settle_s=0.0,
        processing__study_settle_s=0.0,
        processing__lease_s=3.0,
        processing__backoff_s=0.5,
        processing__concurrency=1,
        broker__url=broker.url(broker.socket_path(home)),
    ) as opened:
        (home / "processors" / "slow.py").write_text(PLUGIN)
        yield opened


@pytest.fixture
def workshop(archive: Archive) -> Iterator[Workshop]:
    shop = Workshop(archive.settings)
    yield shop
    shop.end()


def bring(archive: Archive, series_uid: str = making.SERIES_UID) -> None:
    for one in making.ct_series(2, series_uid=series_uid):
        one.SOPInstanceUID = f"{series_uid}.{one.InstanceNumber}"
        ingest(archive, making.received(one))
    archive.index.end_association("a1")


def until(holds: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def states(archive: Archive) -> list[JobState]:
    return [job.state for job in archive.index.jobs.list()]


def test_a_series_becomes_a_derived_series_by_itself(archive: Archive, workshop: Workshop) -> None:
    """Arrival, rule, bell, worker, result; the broker comes last and nothing was lost meanwhile. TERM ends it cleanly."""
    (archive.settings.home / "rules.toml").write_text(rules(0))
    bring(archive)
    workshop.scheduler.start()
    workshop.start_worker()
    until(lambda: states(archive) == [JobState.QUEUED])

    workshop.start_broker()

    until(lambda: states(archive) == [JobState.SUCCEEDED])
    assert archive.index.summary()["derived_series"] == 1
    assert workshop.worker is not None
    below = psutil.Process(workshop.worker.pid).children(recursive=True)
    workshop.worker.terminate()
    assert workshop.worker.wait(20) == 0
    assert gone_by(below, 10) == []


def test_a_killed_worker_costs_time_and_nothing_else(archive: Archive, workshop: Workshop) -> None:
    """kill -9 in the middle of a job: nothing is left running, and the next worker finishes it, once."""
    (archive.settings.home / "rules.toml").write_text(rules(3))
    workshop.start_broker()
    workshop.start_worker()
    workshop.scheduler.start()
    bring(archive)
    until(lambda: states(archive) == [JobState.RUNNING])
    time.sleep(1)

    below = workshop.kill_worker()

    assert len(below) >= 2
    assert gone_by(below, 10) == []
    workshop.start_worker()
    until(lambda: states(archive) == [JobState.SUCCEEDED])
    assert archive.index.jobs.list()[0].attempt == 2
    assert archive.index.summary()["instances"] == 4


def test_a_broker_that_was_away_when_a_job_ended_is_found_again(archive: Archive, workshop: Workshop) -> None:
    """With every place taken the worker listens to nobody, and notices only when it acknowledges: then it connects again."""
    (archive.settings.home / "rules.toml").write_text(rules(3))
    workshop.start_broker()
    workshop.start_worker()
    workshop.scheduler.start()
    bring(archive)
    until(lambda: states(archive) == [JobState.RUNNING])
    time.sleep(0.5)

    for ended in (1, 2):
        assert workshop.broker is not None
        workshop.broker.kill()
        workshop.broker.wait()
        until(lambda ended=ended: states(archive).count(JobState.SUCCEEDED) == ended)
        time.sleep(1)
        workshop.start_broker()
        bring(archive, f"1.2.826.0.1.3680043.8.498.7{ended}")
        until(lambda: JobState.RUNNING in states(archive))
        time.sleep(0.5)

    until(lambda: states(archive) == [JobState.SUCCEEDED] * 3)


def test_sends_have_a_lane_of_their_own(archive: Archive, workshop: Workshop) -> None:
    """A worker of sends does them at once, past one that hangs, and while jobs wait for a worker of their own."""
    (archive.settings.home / "rules.toml").write_text(rules(0))
    came: list[str] = []
    ae = AE(ae_title="SINK")
    ae.add_supported_context(CTImageStorage)
    handlers = [(evt.EVT_C_STORE, lambda event: came.append(event.dataset.SOPInstanceUID) or 0)]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        receiver = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        try:
            archive.index.peers.add(Peer("SINK", "127.0.0.1", receiver.server_address[1]))
            archive.index.peers.add(Peer("SILENT", "127.0.0.1", silent.getsockname()[1]))
            bring(archive)
            study = archive.index.studies()[0].study_instance_uid
            inputs = [archive.index.series_of(study)[0].series_instance_uid]
            hangs = sending.schedule(archive.index, "SILENT", study, inputs)
            sent = sending.schedule(archive.index, "SINK", study, inputs)
            assert hangs is not None and sent is not None
            workshop.start_broker()
            workshop.scheduler.start()
            workshop.start_worker("send")
            until(lambda: archive.index.jobs.get(sent).state is JobState.SUCCEEDED)
        finally:
            receiver.shutdown()
        assert len(came) == 2
        assert archive.index.jobs.get(hangs).state is JobState.RUNNING
        (processed,) = archive.index.jobs.list(processor="slow")
        assert processed.state is JobState.QUEUED, "no worker takes its queue"


def test_a_broker_that_is_away_is_unavailable_at_once(tmp_path: Path) -> None:
    """Ringing does not hang and does not retry by itself: the rows wait."""
    queue = CeleryQueue(broker_url("", tmp_path))
    started = time.monotonic()

    with pytest.raises(Unavailable):
        queue.ring("job", "cpu")

    assert time.monotonic() - started < 5
    queue.close()


def test_an_unknown_transport_is_refused() -> None:
    """Brokers that lose what is in flight, or do not exist, are a configuration error."""
    with pytest.raises(ConfigurationError, match=r"broker\.url"):
        make_app("filesystem://")


def test_pool_children_read_the_same_settings(tmp_path: Path) -> None:
    """Settings survive the environment."""
    settings = making.settings(tmp_path, processing__lease_s=3.5, processing__enabled=False, broker__url="redis://x:1/0")

    assert load(environment=as_environment(settings), home=tmp_path) == settings


def test_a_worker_takes_the_queues_of_its_setting() -> None:
    """A machine with a GPU may take its jobs alone; a queue that is none is refused."""
    assert worker_module._queues("gpu") == ["gpu"]
    assert worker_module._queues("cpu, heavy") == ["cpu", "heavy"]
    for wrong in ("", "fast"):
        with pytest.raises(ConfigurationError, match=r"processing\.queues"):
            worker_module._queues(wrong)
