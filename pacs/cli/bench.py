"""`pacs bench`: this archive and Debian's Orthanc under the same load, in one run, on loopback.

Figures of different machines, or of different runs on a busy one, say little; the ratio of two servers in one run does. Rounds
are interleaved, every server begins each round empty; medians are shown, the server's CPU time beside the wall time.
Ours de-identifies, encrypts and indexes durably, and compresses without loss: at once for one sender, a little later for
several (the price of that stands on a line of its own). Orthanc stores what it gets.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, out, show

UID_LENGTH = 44
EXPLICIT = "1.2.840.10008.1.2.1"
HTJ2K = "1.2.840.10008.1.2.4.201"
ASSOCIATIONS = (1, 4, 8)
COMPRESSING_S = 120.0


@dataclass
class Contender:
    """One server under test, running."""

    name: str
    called: str
    port: int
    process: subprocess.Popen[bytes]
    stored_syntax: str
    environment: dict[str, str] = field(default_factory=dict)

    def deferred(self) -> int:
        """Return how many of its images wait to be compressed."""
        if not self.environment:
            return 0
        path = Path(self.environment["PACS_HOME"]) / "index.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return int(connection.execute("SELECT count(*) FROM instance WHERE deferred").fetchone()[0])

    def cpu_s(self) -> float:
        """Return user and system seconds of all its processes so far, those that have ended among them."""
        import psutil

        total = 0.0
        top = psutil.Process(self.process.pid)
        for one in (top, *top.children(recursive=True)):
            try:
                times = one.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def study_uid(self, sent: str) -> str:
        """Return the UID under which the server has the study that was sent as `sent`; ours is the one it holds last."""
        if not self.environment:
            return sent
        listing = [sys.executable, "-m", "pacs", "studies", "--json"]
        rows = subprocess.run(listing, env=self.environment, capture_output=True, text=True, check=True).stdout.splitlines()
        studies = sorted((json.loads(row) for row in rows), key=lambda row: row["instances"])
        return str(studies[-1]["study_instance_uid"])


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer images and rounds; under three minutes.")] = False,
    only: Annotated[str, typer.Option(help="Measure one server only: mini-pacs or orthanc.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table, as docs/speed.md has it.")] = False,
    as_json: Json = False,
) -> None:
    """Measure ingest, retrieval and queries here, beside Orthanc where it is installed (Debian: apt install orthanc)."""
    count, rounds = (160, 2) if quick else (480, 3)
    names = ["mini-pacs", "orthanc"] if not only else [only]
    if not set(names) <= {"mini-pacs", "orthanc"}:
        raise fail("--only takes mini-pacs or orthanc", 2)
    if "orthanc" in names and not _orthanc():
        err.print("Orthanc is not installed, so there is nothing to compare with (Debian: apt install orthanc).")
        names.remove("orthanc")
        if not names:
            raise typer.Exit(1)
    results: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    with tempfile.TemporaryDirectory(prefix="pacs-bench-") as scratch:
        template = _template(Path(scratch))
        for number in range(rounds):
            for name in names:
                err.print(f"round {number + 1} of {rounds}: {name}", highlight=False)
                with _running(name, Path(scratch) / f"{name}-{number}") as contender:
                    for key, value in _measure(contender, template, count):
                        results[name].setdefault(key, []).append(value)
    medians = {name: {key: statistics.median(values) for key, values in found.items()} for name, found in results.items()}
    if as_json:
        emit({"server": name, **{key: round(value, 3) for key, value in found.items()}} for name, found in medians.items())
        return
    rows = [_row(key, medians) for key in next(iter(medians.values()))]
    columns = {"measure": "Median of rounds", **{name: name for name in names}, "ratio": "Ratio"}
    if markdown:
        out.print(_markdown(rows, columns), highlight=False, soft_wrap=True, markup=False)
        return
    show(rows, columns=columns, as_json=False, empty="")
    out.print("Ratio: mini-pacs to Orthanc; for rates higher is better, for times and CPU lower is better.", highlight=False)


def _row(key: str, medians: dict[str, dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"measure": key.replace("_", " ")}
    row |= {name: f"{found[key]:.4g}" if key in found else "" for name, found in medians.items()}
    if len(medians) == 2:
        ours, theirs = (found.get(key) for found in medians.values())
        row["ratio"] = f"{ours / theirs:.2f}" if ours and theirs else ""
    return row


def _markdown(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    lines = [list(columns.values()), ["---"] * len(columns), *([str(row.get(key, "")) for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _measure(contender: Contender, template: Path, count: int) -> Iterator[tuple[str, float]]:
    """Yield (measure, value) for one server that has just begun empty."""
    largest = ""
    for associations in ASSOCIATIONS:
        studies = [_uid("1") for _ in range(associations)]
        share = count // associations
        jobs = [{"template": str(template), "names": [(study, _uid("2")) for _ in range(share)]} for study in studies]
        before = contender.cpu_s()
        reports = _clients("store", contender, jobs)
        cpu_ms = (contender.cpu_s() - before) * 1000 / (share * associations)
        wall_s = max(one["ended"] for one in reports) - min(one["began"] for one in reports)
        times = [time_ms for one in reports for time_ms in one["times_ms"]]
        yield f"ingest, {associations} associations, images/s", share * associations / wall_s
        yield f"ingest, {associations} associations, server CPU ms/image", cpu_ms
        yield f"ingest, {associations} associations, p50 ms", statistics.median(times)
        largest = largest or studies[0]
    waiting, before = contender.deferred(), contender.cpu_s()
    if waiting:
        # What was not compressed before the answer is compressed now; it is part of the price, and must not disturb the rest.
        deadline = time.monotonic() + COMPRESSING_S
        while contender.deferred():
            if time.monotonic() > deadline:
                raise fail(f"{contender.name} did not compress {waiting} images in {COMPRESSING_S:g} s")
            time.sleep(0.2)
        yield "compressing later, server CPU ms/image", (contender.cpu_s() - before) * 1000 / waiting
    study = contender.study_uid(largest)
    for what, syntax in (("as stored", contender.stored_syntax), ("as Explicit VR Little Endian", EXPLICIT)):
        before = contender.cpu_s()
        (report,) = _clients("get", contender, [{"study": study, "transfer_syntax_uid": syntax}])
        images = len(report["times_ms"])
        yield f"C-GET {what}, images/s", images / (report["ended"] - report["began"])
        yield f"C-GET {what}, server CPU ms/image", (contender.cpu_s() - before) * 1000 / images
    for what, keys in (("by study UID", {"0020000D": study}), ("by date range", {"00080020": "19000101-20991231"})):
        (report,) = _clients("find", contender, [{"keys": keys, "times": 60}])
        yield f"C-FIND {what}, p50 ms", statistics.median(report["times_ms"])


def _clients(what: str, contender: Contender, arguments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run one client process an argument, all let go at the same moment."""
    command = [sys.executable, "-m", "pacs.cli.bench_client", what, "127.0.0.1", str(contender.port), contender.called]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    clients = [subprocess.Popen([*command, json.dumps(one)], **pipes) for one in arguments]
    reports = []
    try:
        for client in clients:
            assert client.stdout is not None
            if client.stdout.readline().strip() != "ready":
                raise fail(f"{contender.name} did not take the load ({what})")
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        for client in clients:
            said, _ = client.communicate(timeout=300)
            if client.returncode:
                raise fail(f"{contender.name} failed under load ({what})")
            reports.append(json.loads(said))
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
                client.wait()
    return reports


@contextmanager
def _running(name: str, folder: Path) -> Iterator[Contender]:
    """Start one server, empty, on loopback; end it afterwards."""
    folder.mkdir(parents=True)
    port, web = _free_port(), _free_port()
    environment: dict[str, str] = {}
    if name == "mini-pacs":
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PACS_")}
        environment |= {"PACS_HOME": str(folder / "home"), "PACS_DICOM_PORT": str(port), "PACS_WEB_PORT": str(web)}
        environment["PACS_PROCESSING_ENABLED"] = "false"
        command, called, syntax = [sys.executable, "-m", "pacs", "serve"], "MINIPACS", HTJ2K
    else:
        config = folder / "orthanc.json"
        config.write_text(json.dumps(_orthanc_configuration(folder, port, web)), encoding="utf-8")
        command, called, syntax = [_orthanc(), str(config)], "ORTHANC", EXPLICIT
    with (folder / "log").open("wb") as sink:
        # Without TCP_NODELAY DCMTK's layer stalls 40 ms a message, and the comparison would be with a straw man.
        process = subprocess.Popen(
            command, env=environment or {**os.environ, "TCP_NODELAY": "1"}, stdout=sink, stderr=sink, cwd=folder
        )
    try:
        for wanted in (port, web):
            _await_port(wanted, process, name)
        if environment:
            # The port answers before the rest has started, and what starts would be measured with the load.
            _await_text("is ready", folder / "log", process, name)
        yield Contender(name, called, port, process, syntax, environment)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _await_text(text: str, path: Path, process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if text in path.read_text(encoding="utf-8", errors="replace"):
            return
        time.sleep(0.1)
    raise fail(f"{name} did not start")


def _orthanc() -> str:
    return shutil.which("Orthanc") or ("/usr/sbin/Orthanc" if Path("/usr/sbin/Orthanc").exists() else "")


def _orthanc_configuration(folder: Path, port: int, web: int) -> dict[str, Any]:
    """Orthanc as it ships (every object fsynced), with everyone on loopback let in."""
    return {
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "DicomPort": port,
        "HttpPort": web,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "Plugins": [],
    }


def _template(folder: Path) -> Path:
    """Write one encoded CT image, 512 x 512, whose UIDs are placeholders that a client fills in."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    from pacs.phantoms import petct

    grid = petct.Grid((-191.625, -191.625, 0.0), 0.75, 5.0, (1, 512, 512))
    ds = next(petct.ct_images(grid))
    ds.StudyInstanceUID, ds.SOPInstanceUID = "8" * UID_LENGTH, "9" * UID_LENGTH
    ds.SeriesInstanceUID = ds.FrameOfReferenceUID = "2.25.77"
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    path = folder / "template"
    path.write_bytes(buffer.getvalue())
    return path


def _uid(first: str) -> str:
    """Return a fresh UID of the template's length."""
    digits = str(int.from_bytes(os.urandom(18))).zfill(44)[-(UID_LENGTH - 6) :]
    return f"2.25.{first}{digits}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise fail(f"{name} did not start")
