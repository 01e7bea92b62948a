"""A whole `pacs serve` in a subprocess, on free ports, in a home of its own; and the processes it consists of."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil


def free_port() -> int:
    """Return a port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One `pacs serve`; `pacs(…)` runs a command against the same home."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.dicom_port = free_port()
        self.web_port = free_port()
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("PACS_")} | {
            "PACS_HOME": str(home),
            "PACS_DICOM_PORT": str(self.dicom_port),
            "PACS_WEB_PORT": str(self.web_port),
            "PACS_PROCESSING_SETTLE_S": "1",
            "PACS_PROCESSING_STUDY_SETTLE_S": "1",
            "PACS_PROCESSING_QUIET_S": "4",
            "PACS_PROCESSING_LEASE_S": "5",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.output = home.parent / f"{home.name}.out"

    def start(self, *, wait_s: float = 90) -> "Server":
        """Start it and wait until `pacs health` says that all is ready."""
        with self.output.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pacs", "serve"], env=self.environment, stdout=sink, stderr=sink
            )
        ready = self.pacs("health", "--wait", str(wait_s), check=False)
        if ready.returncode:
            said = self.output.read_text(errors="replace")
            self.kill()
            raise AssertionError(f"not ready: {ready.stdout} {ready.stderr} {said}")
        return self

    def pacs(self, *words: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a `pacs` command against this home."""
        done = subprocess.run(
            [sys.executable, "-m", "pacs", *words], env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        assert not check or done.returncode == 0, f"pacs {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def rows(self, *words: str, check: bool = True, timeout: float = 300) -> list[dict[str, Any]]:
        """Run a `pacs` command with --json and return its objects."""
        done = self.pacs(*words, "--json", check=check, timeout=timeout)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def processes(self) -> list[psutil.Process]:
        """Return the supervisor and everything it has started."""
        assert self.process is not None
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, *, only_supervisor: bool = False) -> None:
        """kill -9: of the supervisor alone, or of every process, at once."""
        assert self.process is not None
        for one in self.processes()[: 1 if only_supervisor else None]:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait(10)

    def stop(self, *, timeout_s: float = 60) -> int:
        """SIGTERM, and wait for the end; return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def running(home: Path, **environment: str) -> Iterator[Server]:
    """Serve `home` for a `with` block; nothing is left afterwards."""
    server = Server(home, **environment)
    try:
        yield server.start()
    finally:
        if server.process is not None:
            left = server.processes()
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                server.kill()
            gone_by(left, 5)


def gone_by(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait at most so long for all to end; return those still there (zombies do not count)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = [one for one in processes if _is_at_work(one)]
        if not left:
            return []
        time.sleep(0.1)
    return left


def _is_at_work(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
