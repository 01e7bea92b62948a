"""`pacs demo`: the whole journey of a study in a temporary home, checked step by step against what is known of it.

A phantom PET/CT study with a planted identity is sent to the real C-STORE port; the jobs it wakes are waited for; it is found
and brought back over DICOM; and the disk is searched for what must not be there.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pacs.cli.console import Json, err, fail, one_line_errors, out, show
from pacs.cli.serve import sign_in_link
from pacs.settings import Settings, load

START_TIMEOUT_S = 90.0


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running, to look at in the browser; Ctrl-C ends it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show that all of it works, here, now: send, de-identify, store, process, query, retrieve. Takes about a minute."""
    from pacs.cli.journey import journey

    folder = Path(tempfile.mkdtemp(prefix="pacs-demo-"))
    try:
        with _server(folder) as (settings, server):
            with one_line_errors():
                findings = list(journey(settings, folder))
            rows = [{"check": one.check, "ok": one.ok, "detail": one.detail} for one in findings]
            if as_json:
                show(rows, columns={}, as_json=True, empty="")
            else:
                marked = [{**row, "ok": "[green]holds[/]" if row["ok"] else "[bold red]FAILS[/]"} for row in rows]
                show(marked, columns={"ok": "", "check": "Check", "detail": "What was seen"}, as_json=False, empty="")
            failed = sum(not one.ok for one in findings)
            if keep:
                _keep(settings, server)
        if failed:
            raise fail(f"{failed} of {len(findings)} checks do not hold")
        err.print(f"All {len(findings)} checks hold.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _server(folder: Path) -> Iterator[tuple[Settings, subprocess.Popen[bytes]]]:
    """Start `pacs serve` in a home of its own, on free ports; end it afterwards."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PACS_")}
    environment |= {
        "PACS_HOME": str(folder / "home"),
        "PACS_DICOM_PORT": str(free_port()),
        "PACS_WEB_PORT": str(free_port()),
        "PACS_PROCESSING_SETTLE_S": "1",
        "PACS_PROCESSING_STUDY_SETTLE_S": "1",
    }
    with (folder / "serve.log").open("wb") as sink:
        server = subprocess.Popen([sys.executable, "-m", "pacs", "serve"], env=environment, stdout=sink, stderr=sink)
        try:
            _wait_until_ready(environment, server, folder)
            yield load(folder / "home", environment), server
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_port() -> int:
    """Return a port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(environment: dict[str, str], server: subprocess.Popen[bytes], folder: Path) -> None:
    with err.status("Starting the archive in a temporary home …"):
        health = subprocess.run(
            [sys.executable, "-m", "pacs", "health", "--wait", str(START_TIMEOUT_S)],
            env=environment,
            capture_output=True,
            text=True,
        )
    if health.returncode or server.poll() is not None:
        said = (folder / "serve.log").read_text(errors="replace").strip()
        raise fail(f"the server did not become ready: {health.stderr.strip()} {said}")


def _keep(settings: Settings, server: subprocess.Popen[bytes]) -> None:
    from pacs.archive import Archive

    with Archive.opened(settings, writer="cli") as archive:
        out.print(f"Look at it: {sign_in_link(settings, archive)}", soft_wrap=True, highlight=False)
    out.print("Ctrl-C ends the server and removes everything.")
    try:
        server.wait()
    except KeyboardInterrupt:
        err.print("Ending.")
