"""kill -9 of worker, broker and server at random points over many jobs: each ends with exactly one current result."""

import random
import threading
import time
from collections import Counter
from pathlib import Path

import making
import psutil
import pytest
from whole import Server

from pacs.dimse import outbound
from pacs.index.database import Index
from pacs.model.errors import ArchiveError
from pacs.model.job import JobState
from pacs.sweep import prepare

PLUGIN = '''
import time
from pacs.processing import Images, Series, processor

@processor("plus", version="1", makes=("CT",), when={"Modality": "CT"})
def plus(series: Series, *, seconds: float = 0.5):
    """Every value one more, slowly."""
    time.sleep(seconds)
    yield Images([series.stored(i) + 1 for i in range(len(series))], like=series.datasets, description="plus")
'''
RULES = '[[rule]]\nname = "plus"\nrun = [{ use = "plus" }]\n'
SEED = 20261122


@pytest.mark.timeout(3600)
def test_every_job_ends_with_one_current_result(tmp_path: Path, long_run: bool) -> None:
    """Images arrive while processes are killed; afterwards every series has one current result, whole, and none is doubled."""
    points, jobs = (50, 40) if long_run else (4, 6)
    home = tmp_path / "home"
    prepare(making.settings(home))
    (home / "processors").mkdir(exist_ok=True)
    (home / "processors" / "plus.py").write_text(PLUGIN)
    (home / "rules.toml").write_text(RULES)
    server = Server(home, PACS_PROCESSING_ATTEMPTS="1000", PACS_PROCESSING_BACKOFF_S="0.5", PACS_PROCESSING_CONCURRENCY="2")
    modality = Modality(tmp_path, jobs, server.start().dicom_port)
    chance = random.Random(SEED)
    killed: Counter[str] = Counter()
    index = Index.open(f"sqlite:///{home / 'index.db'}")
    try:
        modality.thread.start()
        for point in range(points):
            # Images come as long as points do, so that the last point finds work as the first one does.
            modality.allowed = 1 + (point + 1) * jobs // points
            until_at_work(index, 20.0)
            time.sleep(chance.uniform(0.0, 1.5))
            killed[kill(server, chance)] += 1
        modality.allowed = jobs
        modality.thread.join(120)
        assert not modality.thread.is_alive(), "the modality could not send everything"
        server.pacs("jobs", "--wait", "--timeout", "600", timeout=660)
        listed = server.rows("jobs")
        stored = server.rows("studies")
    finally:
        modality.allowed = -1
        index.close()
        if server.process is not None and server.process.poll() is None:
            server.stop()
    assert sum(killed.values()) == points
    assert set(killed) == {"worker", "broker", "server"} or not long_run, killed
    assert {job["state"] for job in listed} <= {"succeeded", "superseded"}, listed
    current = Counter(job["series_instance_uid"] for job in listed if job["state"] == "succeeded")
    assert len(current) == jobs and set(current.values()) == {1}, current
    for job in listed:
        assert len(job["output_series_instance_uids"]) <= 1
        assert job["state"] == "superseded" or len(job["output_series_instance_uids"]) == 1
    made = sum(len(job["output_series_instance_uids"]) for job in listed)
    assert sum(one["derived_series"] for one in stored) == made, "a result without its job, or the other way round"
    partial = made - jobs  # jobs over one of two images, whose sender was cut off; superseded when the other came
    assert sum(one["instances"] for one in stored) == 2 * jobs + 2 * jobs + partial


def until_at_work(index: Index, seconds: float) -> None:
    """Wait until a job runs, so that most points lie within one; not for long, so that others lie between two."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not index.jobs.list(states=[JobState.RUNNING], limit=1):
        time.sleep(0.05)


class Modality:
    """Sends `count` series of two images, each until it is told that both are stored."""

    def __init__(self, folder: Path, count: int, port: int) -> None:
        self.allowed = 0
        self._port = port
        self._series = []
        for number in range(count):
            images = [making.dataset(series_uid=f"1.2.826.0.1.{number + 1}", instance=2 * number + i) for i in (1, 2)]
            self._series.append(making.write_files(folder / "modality" / str(number), images))
        self.thread = threading.Thread(target=self._send, daemon=True)

    def _send(self) -> None:
        for number, files in enumerate(self._series):
            while True:
                if self.allowed < 0:
                    return
                if number < self.allowed:
                    try:
                        sent = outbound.send(files, "127.0.0.1", self._port, "MINIPACS", calling="SCANNER", timeout_s=10)
                        if sent.stored == 2:
                            break
                    except (ArchiveError, OSError):
                        pass
                time.sleep(0.1)


def kill(server: Server, chance: random.Random) -> str:
    """kill -9 one process of the worker, the broker, or everything at once; all of it is started again."""
    words = {one: " ".join(_command(one)) for one in server.processes()}
    workers = [one for one, said in words.items() if "guard.py" not in said and _works(one, said, words)]
    brokers = [one for one, said in words.items() if "guard.py" not in said and "broker.sock" in said]
    found = {"worker": workers, "broker": brokers}
    (target,) = chance.choices(["worker", "broker", "server"], [6, 3, 1])
    if target == "server":
        server.kill()
        server.start()
        return target
    # One that has died often waits a while before its next start; then it is the other's turn.
    target = target if found[target] else "worker" if workers else "broker"
    if found[target]:
        chance.choice(found[target]).kill()
    return target


def _works(one: psutil.Process, said: str, words: dict[psutil.Process, str]) -> bool:
    """Whether it is the worker, a child of its pool, or one of their isolated processes."""
    if said.endswith("pacs worker"):
        return True
    try:
        above = [words.get(parent, "") for parent in one.parents()]
        return any(command.endswith("pacs worker") and "guard.py" not in command for command in above)
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
