"""The isolated process of a job, from the worker's side: started, watched, and gone with all that belongs to it.

What runs in it is `pacs.processing.isolated`; who talks to it is `runner` (processors) or `cleaning` (held images).
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.instance import Received
from pacs.model.job import Claim, JobState
from pacs.processing import wire

log = get_logger(__name__)
TERM_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `retry` where the failure may pass; `blameless` where it is the archive's, and tries do not count.

    `ended` where the job's row says already how it ended.
    """

    state: JobState
    reason: str = ""
    retry: bool = False
    blameless: bool = False
    ended: bool = False
    received: Sequence[Received] = field(default_factory=tuple, repr=False)


class LeaseLost(Exception):
    """Somebody else has the job, or it was cancelled: what is here is no longer wanted."""


class Stopped(Exception):
    """The worker is to end; the job goes back."""


def died(process: "subprocess.Popen[bytes]") -> Outcome:
    """Return what to say of a process that ended without saying anything."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(TERM_GRACE_S)
    code = process.returncode
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        # SIGKILL that is not ours is the kernel's, short of memory: another time there may be more.
        return Outcome(JobState.FAILED, f"its process was ended by {name}", retry=name == "SIGKILL")
    return Outcome(JobState.FAILED, f"its process ended without a result (exit code {code})")


def check(heartbeat: "Heartbeat", stop: threading.Event) -> None:
    """Raise `LeaseLost` or `Stopped` where there is no use in going on."""
    heartbeat.check()
    if stop.is_set():
        raise Stopped


@contextlib.contextmanager
def child() -> Iterator[tuple["subprocess.Popen[bytes]", int, wire.Reader]]:
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


class Heartbeat:
    """Renews the lease in a thread of its own; `check` raises `LeaseLost` once it could not."""

    def __init__(self, archive: Archive, claim: Claim) -> None:
        self._jobs = archive.index.jobs
        self._lease_s = archive.settings.processing.lease_s
        self._claim = claim
        self._done = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
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
