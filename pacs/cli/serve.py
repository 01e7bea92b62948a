"""`pacs serve` and the processes it starts: scp, web, schedule, worker. And `pacs health`, which asks whether all are ready."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.panel import Panel
from rich.table import Table

from pacs import __version__, logs
from pacs.cli.console import Json, emit, err, one_line_errors, out
from pacs.model.errors import ConfigurationError
from pacs.model.peer import Echoed, Peer
from pacs.settings import DicomSettings, Settings, load
from pacs.supervisor import BAD_CONFIGURATION, Supervisor

if TYPE_CHECKING:
    from pacs.archive import Archive

LINK_LIFETIME_S = 3600.0


def serve() -> None:
    """Start everything: DICOM, web, scheduler, worker and the bundled broker. Stop with Ctrl-C or SIGTERM.

    The home is made on first use (PACS_HOME, or your user data folder): settings, keys, database, store.
    """
    from pacs.archive import Archive
    from pacs.sweep import prepare, recover

    with one_line_errors():
        settings = load()
        logs.configure(settings.logs.level if not err.is_terminal else "warning", "serve")
        supervisor = Supervisor(settings)
        supervisor.claim()
        new = prepare(settings)
        write_rules(settings)
        with Archive.opened(settings, writer="serve") as archive:
            recover(archive)
            archive.index.jobs.undispatch_all()
            key_id = archive.image_key_id
        code = supervisor.run(on_ready=lambda: _panel(settings, key_id, new))
    raise typer.Exit(code)


def write_rules(settings: Settings) -> None:
    """Write the default rules on first use."""
    from pacs.processing.rules import DEFAULT_RULES

    if not settings.rules_path.exists():
        settings.rules_path.write_text(DEFAULT_RULES, encoding="utf-8")


def scp() -> None:
    """Run the DICOM server alone (one of the processes of `pacs serve`), with its receivers."""
    from pacs.archive import Archive
    from pacs.dimse import receivers
    from pacs.dimse.server import serve as serve_dimse

    stop = _stopper()
    with _child("scp") as settings:
        if receivers.wanted(settings) > 1:
            receivers.serve(settings, stop=stop)
        else:
            with Archive.opened(settings, writer="scp") as archive:
                serve_dimse(archive, ready=None, stop=stop)


def web() -> None:
    """Run the web server alone (one of the processes of `pacs serve`)."""
    from pacs.web.server import serve as serve_web

    def echo(settings: DicomSettings, peer: Peer) -> Echoed:
        from pacs.dimse import scu

        return scu.verify(settings, peer)

    with _child("web") as settings:
        serve_web(settings, echo=echo)


def schedule() -> None:
    """Run the scheduler alone: it makes jobs of what is complete, rings workers, and tends the store (one of `pacs serve`)."""
    from pacs.upkeep.tend import tending

    stop = _stopper()
    with _child("schedule") as settings, tending(settings):
        if not settings.processing.enabled:
            stop.wait()
            return
        from pacs.processing.schedule import run_scheduler

        write_rules(settings)
        run_scheduler(settings, stop)


def worker(
    queues: Annotated[
        str,
        typer.Option(
            metavar="QUEUE,QUEUE",
            help="Take jobs from these queues, not those of processing.queues; with `send` alone it only sends to peers.",
        ),
    ] = "",
) -> None:
    """Run a worker alone; start as many as you like, on any machine that reaches database, broker and store."""
    from pacs.worker import main

    with _child("sender" if queues == "send" else "worker") as settings:
        main(settings, queues)


def health(
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", help="Keep asking until ready, at most so long.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Ask the running server whether all of it is ready; exit code 0 if so."""
    with one_line_errors():
        settings = load()
    deadline = time.monotonic() + wait
    while True:
        ready, report = _ask(settings)
        if ready or time.monotonic() >= deadline:
            break
        time.sleep(0.25)
    if as_json:
        emit([{"ready": ready, **report}])
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, check in report.get("checks", {}).items():
            table.add_row("[green]ready[/]" if check.get("ready") else "[red]not ready[/]", name, str(check.get("detail", "")))
        (out if ready else err).print(table if report.get("checks") else report.get("error", "no answer"))
    if not ready:
        raise typer.Exit(1)


def link(as_json: Json = False) -> None:
    """Print a new one-time link to sign in to the web pages with."""
    from pacs.cli.console import open_archive

    with open_archive("cli") as (settings, archive):
        url = sign_in_link(settings, archive)
    emit([{"url": url}]) if as_json else out.print(url, soft_wrap=True, highlight=False)


def sign_in_link(settings: Settings, archive: "Archive") -> str:
    """Return a fresh one-time sign-in link."""
    return f"{web_url(settings)}/sign-in/{archive.index.access.new_link(LINK_LIFETIME_S)}"


def web_url(settings: Settings) -> str:
    """Return the address under which this machine reaches the web server."""
    if settings.web.public_url:
        return settings.web.public_url.rstrip("/")
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.web.host, settings.web.host)
    return f"http://{host}:{settings.web.port}"


def _panel(settings: Settings, key_id: str, new: bool) -> None:
    from pacs.archive import Archive

    with Archive.opened(settings, writer="serve") as archive:
        url = sign_in_link(settings, archive)
        lonely = archive.keys.unexported()
    # Asked in a process of its own: the supervisor lives long, and need not hold every processor's libraries.
    listing = [sys.executable, "-m", "pacs", "processors", "list", "--json"]
    environment = {**os.environ, "PACS_HOME": str(settings.home)}
    found = subprocess.run(listing, env=environment, capture_output=True, text=True)
    names = ", ".join(f"{row['name']} {row['version']}" for row in map(json.loads, found.stdout.splitlines()))
    lines = Table(box=None, show_header=False, pad_edge=False)
    lines.add_row("DICOM", f"{settings.dicom.ae_title} at {settings.dicom.host}:{settings.dicom.port}")
    lines.add_row("Web", f"{url}  (one-time sign-in; `pacs link` prints another)")
    lines.add_row("Home", f"{settings.home}{' (new)' if new else ''}")
    warning = "  NEVER EXPORTED: say `pacs keys export`, and keep it apart from the data" if lonely else ""
    lines.add_row("Key", f"{key_id}{warning}")
    lines.add_row("Policy", settings.deid.policy)
    lines.add_row("Processors", names if settings.processing.enabled else "off (processing.enabled = false)")
    if out.is_terminal:
        out.print(Panel(lines, title=f"mini-pacs {__version__} is ready", subtitle="research use, not a medical device"))
    else:
        # A narrow or absent terminal must not cut the link in two.
        print(f"mini-pacs {__version__} is ready (research use, not a medical device)")
        for name, value in zip(lines.columns[0].cells, lines.columns[1].cells, strict=True):
            print(f"  {name!s:<11}{value}")
        sys.stdout.flush()


class _child:
    """Configure a child process's logs, and end with the code that says restarting is useless where it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Settings:
        try:
            settings = load()
        except ConfigurationError as error:
            print(f"pacs {self._name}: {error}", file=sys.stderr)
            raise typer.Exit(BAD_CONFIGURATION) from error
        logs.configure(settings.logs.level, self._name)
        return settings

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ConfigurationError):
            print(f"pacs {self._name}: {error}", file=sys.stderr)
            raise typer.Exit(BAD_CONFIGURATION) from error


def _stopper() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _ask(settings: Settings) -> tuple[bool, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{web_url(settings)}/readyz", timeout=5) as answer:
            return True, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            try:
                return False, json.load(error)
            except ValueError:
                return False, {"error": f"{web_url(settings)}/readyz answered {error.code}"}
    except (OSError, ValueError):
        return False, {"error": f"nothing answers at {web_url(settings)}; is `pacs serve` running?"}
