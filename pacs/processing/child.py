"""The isolated process of a job, from the worker's side: started, watched, and gone with all that belongs to it.

What forks it is `pacs.processing.nursery`, what runs in it `isolated`; who talks to it is `runner` (processors) or `cleaning`
(held images).
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.instance import Received
from pacs.model.job import Claim, JobState
from pacs.processing import wire

log = get_logger(__name__)
_GONE_S = 30.0
"""How long the end of a killed process is waited for; what comes after it (a container that is stopped) takes its time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `retry` where the failure may pass; `blameless` where it is the archive's, and tries do not count.

    `ended` where the job's row says already how it ended; `retry_in_s`, in how long, where that is known.
    """

    state: JobState
    reason: str = ""
    retry: bool = False
    blameless: bool = False
    ended: bool = False
    retry_in_s: float | None = None
    received: Sequence[Received] = field(default_factory=tuple, repr=False)


class LeaseLost(Exception):
    """Somebody else has the job, or it was cancelled: what is here is no longer wanted."""


class Stopped(Exception):
    """The worker is to end; the job goes back."""


def died(process: "Child") -> Outcome:
    """Return what to say of a process that ended without saying anything."""
    code = process.wait(_GONE_S)
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        # SIGKILL that is not ours is the kernel's, short of memory: another time there may be more.
        return Outcome(JobState.FAILED, f"its process was ended by {name}", retry=name == "SIGKILL")
    if code is None:
        # Who watched over it died first, and with that it: nothing is known against the processor.
        return Outcome(JobState.FAILED, "its process was ended together with its keeper", retry=True)
    return Outcome(JobState.FAILED, f"its process ended without a result (exit code {code})")


def check(heartbeat: "Heartbeat | None", stop: threading.Event | None) -> None:
    """Raise `LeaseLost` or `Stopped` where there is no use in going on."""
    if heartbeat is not None:
        heartbeat.check()
    if stop is not None and stop.is_set():
        raise Stopped


class Child:
    """The isolated process of a job, as its worker sees it; `returncode` is negative for a signal, None while it runs."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._said = b""
        self._closed = False
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        """Its process id; waits until it has been forked, 0 where it never was."""
        while b"\n" not in self._said and not self._closed:
            self._listen(None)
        first = self._said.partition(b"\n")[0]
        return int(first) if first else 0

    def wait(self, timeout_s: float) -> int | None:
        """Return how it ended, None where it has not within `timeout_s`."""
        until = time.monotonic() + timeout_s
        while self.returncode is None and not self._closed and (left := until - time.monotonic()) > 0:
            self._listen(left)
        return self.returncode

    def _listen(self, timeout_s: float | None) -> None:
        if not select.select([self._status], [], [], timeout_s)[0]:
            return
        more = os.read(self._status, 64)
        self._closed = not more
        self._said += more
        if self._said.count(b"\n") > 1:
            self.returncode = int(self._said.split(b"\n")[1])


@contextlib.contextmanager
def child(*, afterwards: Sequence[Sequence[str]] = (), folder: str | None = None) -> Iterator[tuple[Child, int, wire.Reader]]:
    """Start the isolated process; on leaving, nothing of its process group is left.

    `afterwards` are commands that end what is not in its group (a container); they run however it ends, and whoever has died.
    `folder` is where its own folder is made: in memory for a job with files, else the one for temporary files.
    """
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    life_read, life_write = os.pipe()
    status_read, status_write = os.pipe()
    ours, theirs = [in_write, out_read, status_read], [in_read, out_write, life_read, status_write]
    own = tempfile.mkdtemp(prefix="pacs-job-", dir=folder)
    try:
        try:
            _Nursery.fork({"folder": own, "afterwards": [list(one) for one in afterwards]}, theirs)
        except BaseException:
            os.close(life_write)
            raise
        for descriptor in theirs:
            os.close(descriptor)
        theirs.clear()
        process = Child(status_read)
        try:
            yield process, in_write, wire.Reader(out_read)
        finally:
            os.close(life_write)  # its keeper goes by this
            process.wait(_GONE_S)
    finally:
        for descriptor in (*ours, *theirs):
            os.close(descriptor)
        shutil.rmtree(own, ignore_errors=True)


class _Nursery:
    """The nursery of this process: started when it is first needed, and again where it has died."""

    _lock = threading.Lock()
    _control: socket.socket | None = None
    _process: "subprocess.Popen[bytes] | None" = None
    _owner = 0

    @classmethod
    def fork(cls, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Have a process forked that reads, writes, lives by and reports through `descriptors`."""
        data = json.dumps(request).encode()
        with cls._lock:
            for last in (False, True):
                control = cls._started()
                try:
                    socket.send_fds(control, [data], descriptors)
                    return
                except OSError:
                    cls._drop()
                    if last:
                        raise

    @classmethod
    def start(cls) -> None:
        """Start it before it is needed."""
        with cls._lock:
            cls._started()

    @classmethod
    def _started(cls) -> socket.socket:
        if cls._control is not None and cls._owner == os.getpid() and cls._process is not None and cls._process.poll() is None:
            return cls._control
        cls._drop()
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM)
        with there:
            cls._process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-m", "pacs.processing.nursery", str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        cls._control, cls._owner = here, os.getpid()
        return here

    @classmethod
    def _drop(cls) -> None:
        if cls._control is not None:
            cls._control.close()  # it ends when nobody asks any more
        if cls._process is not None and cls._owner == os.getpid():
            cls._process.kill()
            cls._process.wait()
        cls._control = cls._process = None


def warm_up() -> None:
    """Start what isolated processes are forked from, so that the first job does not wait for its imports."""
    _Nursery.start()


def _environment() -> dict[str, str]:
    """What isolated processes see of the environment: nothing of ours, so no setting and no secret."""
    kept = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", *THREAD_VARIABLES)
    return {name: os.environ[name] for name in kept if name in os.environ}


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
