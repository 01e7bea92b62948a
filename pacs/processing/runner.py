"""Runs one job: claim, inputs out of the archive, the processor in an isolated process, results back in.

The row is the truth. A job is claimed by a lease that a thread renews; whoever loses the lease drops what it has, and results
become visible in the same transaction that ends the job, so that a second delivery, a crash or a zombie changes nothing.
Reasons that people read hold class and place of an error, never a message that may quote values.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.uid import ExplicitVRLittleEndian

from pacs.archive import Archive
from pacs.ingest import ingest_derived
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotFound, NotTranscodable, Unavailable
from pacs.model.instance import Origin, Received, Stored
from pacs.model.job import Claim, Job, JobState
from pacs.processing import wire
from pacs.processing.api import ParameterError, Spec
from pacs.retrieve import data_set

log = get_logger(__name__)
TERM_GRACE_S = 2.0
_LONGEST_BACKOFF_S = 3600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `retry` where the failure may pass."""

    state: JobState
    reason: str = ""
    retry: bool = False
    received: Sequence[Received] = field(default_factory=tuple, repr=False)


class LeaseLost(Exception):
    """Somebody else has the job, or it was cancelled: what is here is no longer wanted."""


class Stopped(Exception):
    """The worker is to end; the job goes back."""


def run_job(
    archive: Archive,
    registry: Mapping[str, Spec],
    job_id: str,
    *,
    worker: str,
    stop: threading.Event | None = None,
) -> JobState | None:
    """Claim and run one job; returns its state afterwards, None where it was not ours to take or to end."""
    settings = archive.settings.processing
    jobs = archive.index.jobs
    claim = Claim(job_id, f"{worker}-{uuid.uuid4()}")
    job = jobs.claim(job_id, claim.owner, settings.lease_s)
    if job is None:
        return None
    started = time.monotonic()
    log.info("job_started", job_id=job_id, processor=job.processor, attempt=job.attempt)
    try:
        with _Heartbeat(archive, claim) as heartbeat:
            outcome = _attempt(archive, registry.get(job.processor), job, claim, heartbeat, stop or threading.Event())
    except (LeaseLost, NotFound):
        log.warning("job_lease_lost", job_id=job_id, processor=job.processor)
        return None
    except Stopped:
        jobs.fail(claim, "the worker was stopped", retry_in_s=0.0)
        return JobState.QUEUED
    state = _end(archive, job, claim, outcome)
    log.info(
        "job_ended",
        job_id=job_id,
        processor=job.processor,
        job_state=state,
        reason=outcome.reason,
        duration_ms=round(1000 * (time.monotonic() - started)),
    )
    return state


def _attempt(
    archive: Archive, spec: Spec | None, job: Job, claim: Claim, heartbeat: "_Heartbeat", stop: threading.Event
) -> Outcome:
    if spec is None or spec.version != job.version:
        return Outcome(JobState.FAILED, f"processor {job.processor} {job.version} is not installed here")
    try:
        parameters = spec.bind(job.parameters)
        inputs = _inputs(archive, job)
        if not inputs:
            return Outcome(JobState.SKIPPED, "its input is no longer in the archive")
        outcome = _isolated(archive, spec, job, parameters, inputs, claim, heartbeat, stop)
        if outcome.state is JobState.SUCCEEDED and outcome.received:
            heartbeat.check()
            ingest_derived(archive, outcome.received, finishing=claim)
        return outcome
    except ParameterError as error:
        return Outcome(JobState.FAILED, str(error))
    except (Unavailable, OSError) as error:
        return Outcome(JobState.FAILED, f"{type(error).__name__} in the archive", retry=True)
    except NotFound:
        raise
    except ArchiveError as error:
        return Outcome(JobState.FAILED, f"{type(error).__name__}: the results were refused by the archive")


def _end(archive: Archive, job: Job, claim: Claim, outcome: Outcome) -> JobState:
    jobs, settings = archive.index.jobs, archive.settings.processing
    if outcome.state is JobState.SUCCEEDED:
        if not outcome.received:
            jobs.succeed(claim, outcome.reason or "nothing to add")
    elif outcome.state is JobState.SKIPPED:
        jobs.skip(claim, outcome.reason)
    elif outcome.retry and job.attempt < settings.attempts:
        wait_s = min(settings.backoff_s * 2 ** (job.attempt - 1), _LONGEST_BACKOFF_S)
        jobs.fail(claim, outcome.reason, retry_in_s=wait_s)
        return JobState.QUEUED
    else:
        jobs.fail(claim, outcome.reason, retry_in_s=None)
    return outcome.state


def _inputs(archive: Archive, job: Job) -> list[list[Stored]]:
    """The instances of each input series, in the order of the job."""
    found = archive.index.locate(
        study_instance_uids=[job.study_instance_uid], series_instance_uids=list(job.series_instance_uids)
    )
    series: dict[str, list[Stored]] = {uid: [] for uid in job.series_instance_uids}
    for one in found:
        series[one.key.series_instance_uid].append(one)
    return [instances for instances in series.values() if instances]


def _isolated(
    archive: Archive,
    spec: Spec,
    job: Job,
    parameters: Mapping[str, object],
    inputs: Sequence[Sequence[Stored]],
    claim: Claim,
    heartbeat: "_Heartbeat",
    stop: threading.Event,
) -> Outcome:
    settings = archive.settings.processing
    timeout_s = min(settings.timeout_s, spec.timeout_s or settings.timeout_s)
    head = {
        "processor": spec.name,
        "module": spec.module,
        "path": spec.path,
        "job_key": job.job_key,
        "parameters": dict(parameters),
        "series": len(inputs),
        "memory_mb": min(settings.memory_mb, spec.memory_mb or settings.memory_mb),
        "cpu_s": timeout_s * (os.cpu_count() or 1),
    }
    deadline = time.monotonic() + timeout_s
    with _child() as (process, write_end, reader):
        try:
            wire.write(write_end, head)
            for number, instances in enumerate(inputs):
                for stored in instances:
                    _check(heartbeat, stop)
                    _send(archive, write_end, number, stored)
            wire.write(write_end, {"end": True})
        except wire.Closed:
            pass  # it has ended early; why, it says below
        return _listen(archive, process, reader, claim, job, heartbeat, stop, deadline, timeout_s)


def _send(archive: Archive, write_end: int, number: int, stored: Stored) -> None:
    try:
        parts = data_set(archive, stored, [ExplicitVRLittleEndian])
    except NotTranscodable:
        parts = data_set(archive, stored)
    wire.write(write_end, {"series": number, "transfer_syntax_uid": str(parts.transfer_syntax_uid)}, parts.buffers)


def _listen(
    archive: Archive,
    process: "subprocess.Popen[bytes]",
    reader: wire.Reader,
    claim: Claim,
    job: Job,
    heartbeat: "_Heartbeat",
    stop: threading.Event,
    deadline: float,
    timeout_s: float,
) -> Outcome:
    received: list[Received] = []
    while True:
        _check(heartbeat, stop)
        if time.monotonic() >= deadline:
            return Outcome(JobState.FAILED, f"took longer than {timeout_s:g} s and was ended")
        if not reader.wait(min(0.5, deadline - time.monotonic())):
            continue
        try:
            message, payload = reader.read(deadline)
        except wire.TimedOut:
            continue
        except wire.Closed:
            return _died(process)
        if "progress" in message:
            archive.index.jobs.progress(claim, float(message["progress"]), str(message.get("note", ""))[:80])
        elif "output" in message:
            received.append(
                Received(
                    data_set=payload,
                    transfer_syntax_uid=ExplicitVRLittleEndian,
                    origin=Origin.PROCESSOR,
                    source=f"{job.processor} {job.version}",
                    sop_class_uid=str(message["output"]["sop_class_uid"]),
                    sop_instance_uid=str(message["output"]["sop_instance_uid"]),
                    association=job.job_id,
                )
            )
        elif "done" in message:
            return Outcome(JobState.SUCCEEDED, received=received)
        elif "skip" in message:
            return Outcome(JobState.SKIPPED, str(message["skip"]))
        elif "invalid" in message:
            return Outcome(JobState.FAILED, f"results are not valid: {'; '.join(map(str, message['invalid']))}"[:1000])
        else:
            reason = f"{message.get('error', 'unknown error')} at {message.get('place', '')}"
            return Outcome(JobState.FAILED, reason, retry=bool(message.get("transient")))


def _died(process: "subprocess.Popen[bytes]") -> Outcome:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(TERM_GRACE_S)
    code = process.returncode
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        # SIGKILL that is not ours is the kernel's, short of memory: another time there may be more.
        return Outcome(JobState.FAILED, f"its process was ended by {name}", retry=name == "SIGKILL")
    return Outcome(JobState.FAILED, f"its process ended without a result (exit code {code})")


def _check(heartbeat: "_Heartbeat", stop: threading.Event) -> None:
    heartbeat.check()
    if stop.is_set():
        raise Stopped


@contextlib.contextmanager
def _child() -> Iterator[tuple["subprocess.Popen[bytes]", int, wire.Reader]]:
    """Start the isolated process; on leaving, nothing of its process group is left."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    life_read, life_write = os.pipe()
    ours, theirs = [in_write, out_read, life_write], [in_read, out_write, life_read]
    try:
        with tempfile.TemporaryDirectory(prefix="pacs-job-") as folder:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-m", "pacs.processing.isolated", *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=theirs,
                cwd=folder,
                env=_environment(folder),
            )
            for descriptor in theirs:
                os.close(descriptor)
            theirs.clear()
            try:
                yield process, in_write, wire.Reader(out_read)
            finally:
                # The watcher goes by this, too; killing the group also ends what the processor itself may have started.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.wait()
    finally:
        for descriptor in (*ours, *theirs):
            os.close(descriptor)


def _environment(folder: str) -> dict[str, str]:
    """What the isolated process sees of the environment: nothing of ours, so no setting and no secret."""
    kept = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", *THREAD_VARIABLES)
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return {**environment, "HOME": folder, "TMPDIR": folder}


THREAD_VARIABLES = (
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
"""Read by native libraries when they are loaded; the worker sets them before anything is imported."""


class _Heartbeat:
    """Renews the lease in a thread of its own; `check` raises `LeaseLost` once it could not."""

    def __init__(self, archive: Archive, claim: Claim) -> None:
        self._jobs = archive.index.jobs
        self._lease_s = archive.settings.processing.lease_s
        self._claim = claim
        self._done = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "_Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=5)

    def check(self) -> None:
        """Raise `LeaseLost` where the job is no longer ours."""
        if self._lost.is_set():
            raise LeaseLost

    def _beat(self) -> None:
        held_until = time.monotonic() + self._lease_s
        while not self._done.wait(self._lease_s / 3):
            try:
                renewed = self._jobs.renew(self._claim, self._lease_s)
            except Exception as error:
                # A database that is away for a moment must not cost the job; a lease that has run out has.
                log.exception("lease_not_renewed", error)
                renewed = time.monotonic() < held_until
            else:
                held_until = time.monotonic() + self._lease_s
            if not renewed and not self._done.is_set():
                self._lost.set()
                return
