"""`pacs serve`: start every process, keep it running, and take all of them along when it ends.

Children are the bundled broker and the same commands that run a scaled-out site (`pacs scp`, `pacs web`, `pacs schedule`,
`pacs worker`). Each runs under `guard.py`, so that nothing survives the supervisor, even on kill -9.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError
from pacs.model.job import SEND
from pacs.settings import Settings
from pacs.supervisor import broker

log = get_logger(__name__)
GUARD = Path(__file__).with_name("guard.py")
GRACE_S = 3.0
"""Seconds between SIGTERM and SIGKILL when the supervisor has died: nothing may be left after five."""
BAD_CONFIGURATION = 78
"""Exit code by which a child says that starting it again is useless (EX_CONFIG of sysexits.h)."""
LOG_LIMIT_BYTES = 16 << 20


@dataclass
class Child:
    """One supervised process. `stop_s` is how long it may take to finish its work when asked to stop."""

    name: str
    command: list[str]
    stop_s: float
    process: subprocess.Popen[bytes] | None = None
    leash: int = -1
    failures: int = 0
    due: float = 0.0
    started: float = 0.0


class Supervisor:
    """Starts the children of one home and keeps them running until told to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._lock: IO[str] | None = None
        self._children: list[Child] = []
        self._environment: dict[str, str] = {}

    def claim(self) -> None:
        """Take the home and make sure that its ports are free. Raises `ConfigurationError`."""
        path = self._settings.home / "run" / "supervisor.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = path.open("a")
        except OSError as error:
            raise ConfigurationError(
                f"cannot use the home {self._settings.home} ({error.strerror}); set PACS_HOME to a folder of yours"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(f"another server is running in the home {self._settings.home}") from error
        for what, host, port in (
            ("DICOM", self._settings.dicom.host, self._settings.dicom.port),
            ("web", self._settings.web.host, self._settings.web.port),
        ):
            check_port(what, host, port)

    def run(self, *, on_ready: Callable[[], None]) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        self._children = self._plan()
        try:
            for child in self._children:
                self._start(child)
            return self._watch(on_ready)
        finally:
            self._end()

    def _plan(self) -> list[Child]:
        settings = self._settings
        pacs = [sys.executable, "-m", "pacs"]
        self._environment = {**os.environ, "PACS_HOME": str(settings.home)}
        children = []
        if settings.processing.enabled and not settings.broker.url:
            path = broker.socket_path(settings.home)
            path.unlink(missing_ok=True)
            children.append(Child("broker", broker.command(path), 3.0))
            self._environment["PACS_BROKER_URL"] = broker.url(path)
        children.append(Child("scp", [*pacs, "scp"], settings.dicom.drain_s + 5))
        children.append(Child("web", [*pacs, "web"], 10.0))
        # Also where nothing is processed: it tends the store, and sends what is closed to the bucket.
        children.append(Child("schedule", [*pacs, "schedule"], 5.0))
        if settings.processing.enabled:
            wanted = settings.processing.queues.replace(",", " ").split()
            others = ",".join(one for one in wanted if one != SEND)
            # Sending waits for other machines; beside the jobs it keeps none of them waiting, nor they it.
            if others:
                children.append(Child("worker", [*pacs, "worker", "--queues", others], 10.0))
            if SEND in wanted:
                children.append(Child("sender", [*pacs, "worker", "--queues", SEND], 10.0))
        return children

    def _start(self, child: Child) -> None:
        read_end, child.leash = os.pipe()
        path = self._settings.home / "logs" / f"{child.name}.log"
        if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as sink:
            child.process = subprocess.Popen(
                [sys.executable, "-I", str(GUARD), str(read_end), str(GRACE_S), "--", *child.command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                pass_fds=(read_end,),
                env=self._environment,
            )
        os.close(read_end)
        child.started = time.monotonic()
        log.info("child_started", process=child.name, pid=child.process.pid)

    def _watch(self, on_ready: Callable[[], None]) -> int:
        ready = False
        while not self._stop.wait(0.1 if not ready else 0.5):
            for child in self._children:
                code = child.process.poll() if child.process else None
                if child.process is not None and code is not None:
                    self._ended(child, code)
                    if code == BAD_CONFIGURATION:
                        last = _last_line(self._settings.home / "logs" / f"{child.name}.log")
                        print(
                            last or f"pacs {child.name} cannot start; see {self._settings.home}/logs/{child.name}.log",
                            file=sys.stderr,
                        )
                        return 1
                if child.process is None and time.monotonic() >= child.due:
                    self._start(child)
            if not ready and self._answers():
                ready = True
                on_ready()
        return 0

    def _ended(self, child: Child, code: int) -> None:
        os.close(child.leash)
        child.process = None
        if time.monotonic() - child.started > 60:
            child.failures = 0
        wait = min(30.0, 2.0**child.failures / 2)
        child.failures += 1
        child.due = time.monotonic() + wait
        log.warning("child_ended", process=child.name, exit_code=code, retry_in_s=wait)

    def _answers(self) -> bool:
        return all(
            answers(host, port)
            for host, port in (
                (self._settings.dicom.host, self._settings.dicom.port),
                (self._settings.web.host, self._settings.web.port),
            )
        )

    def _end(self) -> None:
        # The doors close first, so that nothing new arrives; the broker, which only rings, goes last.
        running = [child for child in self._children if child.process is not None]
        for group in ([c for c in running if c.name != "broker"], [c for c in running if c.name == "broker"]):
            deadlines = {}
            for child in group:
                assert child.process is not None
                child.process.send_signal(signal.SIGTERM)
                deadlines[child.name] = time.monotonic() + child.stop_s
            for child in group:
                assert child.process is not None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.1, deadlines[child.name] - time.monotonic()))
                # Whoever is still there loses the leash: the guard ends the whole group.
                os.close(child.leash)
                child.process.wait(GRACE_S + 2)
        log.info("supervisor_ended")


def check_port(what: str, host: str, port: int) -> None:
    """Raise `ConfigurationError` if `host`:`port` cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            name = {"DICOM": "PACS_DICOM_PORT", "web": "PACS_WEB_PORT"}[what]
            raise ConfigurationError(
                f"cannot listen on {host}:{port} for {what} ({error.strerror}); end what uses it or set {name}"
            ) from error


def answers(host: str, port: int) -> bool:
    """True if something accepts a connection there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
