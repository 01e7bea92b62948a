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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydicom
import typer
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.archive import Archive
from pacs.cli import phantom
from pacs.cli.console import Json, err, fail, one_line_errors, out, show
from pacs.cli.serve import sign_in_link
from pacs.dimse import scu
from pacs.model.job import Job, JobState
from pacs.settings import Settings, load

START_TIMEOUT_S = 90.0
JOBS_TIMEOUT_S = 300.0
LUNG_DICE = 0.95
"""Overlap with the true lungs that the segmentation must reach; what a reader takes for good (PROCESSING notes)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the demo's table."""

    check: str
    ok: bool
    detail: str


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running, to look at in the browser; Ctrl-C ends it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show that all of it works, here, now: send, de-identify, store, process, query, retrieve. Takes about a minute."""
    folder = Path(tempfile.mkdtemp(prefix="pacs-demo-"))
    try:
        with _server(folder) as (settings, server):
            with one_line_errors():
                findings = list(_journey(settings, folder))
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


def _journey(settings: Settings, folder: Path) -> Iterator[Finding]:
    with err.status("Making a phantom PET/CT study …"):
        files = phantom.write(folder / "modality")
    sent = {one.SOPInstanceUID: one for paths in files.values() for one in map(pydicom.dcmread, paths)}
    with err.status(f"Sending {len(sent)} images by C-STORE …"):
        began = time.monotonic()
        report = scu.send(
            [path for paths in files.values() for path in paths],
            host=settings.dicom.host,
            port=settings.dicom.port,
            ae_title=settings.dicom.ae_title,
            calling="DEMOSCANNER",
        )
    took = time.monotonic() - began
    yield Finding("every image answered 0000", report.sent == len(sent), f"{report.sent} of {len(sent)} in {took:.1f} s")

    with Archive.opened(settings, writer="cli") as archive:
        with err.status("Waiting for the jobs …"):
            jobs = _wait_for_jobs(archive)
        ended = [job for job in jobs if job.state is JobState.SUCCEEDED]
        yield Finding(
            "jobs ran on arrival",
            bool(jobs) and len(ended) == len(jobs),
            ", ".join(sorted({f"{job.processor}: {job.state}{' ' + job.reason if job.reason else ''}" for job in jobs})),
        )
        studies = archive.index.studies(None, "")
    yield Finding(
        "one study, under a new identity", len(studies) == 1, ", ".join(f"{s.patient_id} {s.study_date}" for s in studies)
    )
    if len(studies) != 1:
        return
    study_uid = studies[0].study_instance_uid
    found = scu.find(
        host=settings.dicom.host,
        port=settings.dicom.port,
        ae_title=settings.dicom.ae_title,
        calling="DEMOVIEWER",
        keys={
            "QueryRetrieveLevel": "STUDY",
            "StudyInstanceUID": study_uid,
            "PatientName": "",
            "NumberOfStudyRelatedInstances": "",
        },
    )
    yield Finding(
        "C-FIND finds it", len(found) == 1, f"{found[0].NumberOfStudyRelatedInstances} instances" if found else "nothing"
    )
    original = next(iter(sent.values())).PatientID
    by_name = scu.find(
        host=settings.dicom.host,
        port=settings.dicom.port,
        ae_title=settings.dicom.ae_title,
        calling="DEMOVIEWER",
        keys={"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "PatientID": original},
    )
    yield Finding("C-FIND by the original Patient ID finds nothing", not by_name, f"{len(by_name)} answers")

    with err.status("Bringing it back by C-GET …"):
        paths = scu.get(
            host=settings.dicom.host,
            port=settings.dicom.port,
            ae_title=settings.dicom.ae_title,
            calling="DEMOVIEWER",
            study_instance_uid=study_uid,
            folder=folder / "viewer",
        )
    back = [pydicom.dcmread(path) for path in paths]
    yield from _check_sources(list(sent.values()), back)
    yield from _check_derived(back)
    with err.status("Searching the disk for what must not be there …"):
        yield from _check_disk(settings.home, list(sent.values()))


def _wait_for_jobs(archive: Archive) -> list[Job]:
    deadline = time.monotonic() + JOBS_TIMEOUT_S
    while (archive.index.pending() or archive.index.jobs.open_count()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return archive.index.jobs.list(states=None, study_instance_uid=None, limit=None)


def _check_sources(sent: list[Dataset], back: list[Dataset]) -> Iterator[Finding]:
    sources = {(one.Modality, int(one.InstanceNumber)): one for one in back if one.SeriesNumber in (2, 3)}
    equal = sum(
        bool((twin := sources.get((one.Modality, int(one.InstanceNumber)))) is not None and twin.PixelData == one.PixelData)
        for one in sent
    )
    yield Finding("pixels come back bit for bit", equal == len(sent), f"{equal} of {len(sent)} images")
    needles = _needles(sent)
    leaks = sum(any(needle in str(one).encode() for needle in needles) for one in back)
    yield Finding("no identity in what comes back", leaks == 0, f"{len(needles)} strings looked for in {len(back)} objects")


def _check_derived(back: list[Dataset]) -> Iterator[Finding]:
    derived: dict[str, list[Dataset]] = {}
    for one in back:
        if "ContributingEquipmentSequence" in one and one.SeriesNumber not in (2, 3):
            derived.setdefault(str(one.SeriesInstanceUID), []).append(one)
    names = sorted(
        f"{series[0].Modality} {series[0].get('SeriesDescription', '')} ({len(series)})" for series in derived.values()
    )
    yield Finding("derived series in the same study", len(derived) >= 4, "; ".join(names))

    segmentations = [one for one in back if one.Modality == "SEG"]
    score = max((_lung_dice(one) for one in segmentations), default=0.0)
    yield Finding("lungs found", score >= LUNG_DICE, f"Dice {score:.3f} against the truth, {LUNG_DICE} asked for")

    resampled = [series for series in derived.values() if series[0].Modality == "PT"]
    distance = min((_hot_spot_distance(series) for series in resampled), default=float("inf"))
    yield Finding(
        "PET lies on the CT",
        distance <= phantom.PET_GRID.slice_mm,
        f"hot spot {distance:.1f} mm from the nodule's centre" if resampled else "no resampled PET",
    )
    reports = [one for one in back if one.Modality == "SR"]
    regions = {meaning for one in reports for meaning in _code_meanings(one)}
    chest = any("chest" in meaning.lower() or "thora" in meaning.lower() for meaning in regions)
    yield Finding("classified as chest", chest, f"{len(reports)} structured reports")


def _check_disk(home: Path, sent: list[Dataset]) -> Iterator[Finding]:
    needles = _needles(sent)
    needles |= {needle.decode().encode("utf-16-le") for needle in needles}
    files = [path for path in home.rglob("*") if path.is_file()]
    hits, dicom, size = 0, 0, 0
    for path in files:
        content = path.read_bytes()
        size += len(content)
        hits += any(needle in content for needle in needles)
        dicom += content[128:132] == b"DICM"
    yield Finding("no identity on the disk", hits == 0, f"{len(files)} files, {size >> 20} MiB searched")
    sample = sent[len(sent) // 4].PixelData
    marker = sample[len(sample) // 2 : len(sample) // 2 + 64]
    plain = any(marker in path.read_bytes() for path in files)
    yield Finding("ciphertext on the disk", not dicom and not plain, "no file is DICOM, no pixel row in the clear")


def _needles(sent: list[Dataset]) -> set[bytes]:
    """Return the byte strings that would give the planted identity away."""
    words = {part for value in phantom.IDENTITY.values() for part in value.split("^") if len(part) > 3}
    uids = {str(one.get(keyword)) for one in sent for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    return {word.encode() for word in words | uids}


def _lung_dice(segmentation: Dataset) -> float:
    """Return the overlap of all segments labelled lung with the phantom's lungs, 0 if the object has none."""
    wanted = {int(item.SegmentNumber) for item in segmentation.SegmentSequence if "lung" in str(item.SegmentLabel).lower()}
    truth = phantom.lungs(phantom.CT_GRID)
    found = np.zeros(truth.shape, bool)
    frames: NDArray[Any] = np.atleast_3d(segmentation.pixel_array)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        shared = segmentation.SharedFunctionalGroupsSequence[0]
        owner = groups if "SegmentIdentificationSequence" in groups else shared
        if int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber) in wanted:
            z = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
            found[round((z - phantom.CT_GRID.origin[2]) / phantom.CT_GRID.slice_mm)] |= frame > 0
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 0.0


def _hot_spot_distance(series: list[Dataset]) -> float:
    """Return how far, in mm, the centre of the hottest voxels lies from the nodule's centre."""
    points: list[NDArray[np.float64]] = []
    weights: list[NDArray[np.float64]] = []
    volume = [one.pixel_array * float(one.RescaleSlope) for one in series]
    threshold = 0.6 * max(float(plane.max()) for plane in volume)
    for one, plane in zip(series, volume, strict=True):
        rows, columns = np.nonzero(plane >= threshold)
        x0, y0, z0 = (float(v) for v in one.ImagePositionPatient)
        row_mm, column_mm = (float(v) for v in one.PixelSpacing)
        points.append(np.column_stack([x0 + columns * column_mm, y0 + rows * row_mm, np.full(len(rows), z0)]))
        weights.append(plane[rows, columns])
    centre = np.average(np.concatenate(points), axis=0, weights=np.concatenate(weights))
    return float(np.linalg.norm(centre - np.array(phantom.NODULE_MM)))


def _code_meanings(item: Dataset) -> Iterator[str]:
    for child in item.get("ContentSequence", []):
        for code in child.get("ConceptCodeSequence", []):
            yield str(code.CodeMeaning)
        yield from _code_meanings(child)


def _keep(settings: Settings, server: subprocess.Popen[bytes]) -> None:
    with Archive.opened(settings, writer="cli") as archive:
        out.print(f"Look at it: {sign_in_link(settings, archive)}", soft_wrap=True, highlight=False)
    out.print("Ctrl-C ends the server and removes everything.")
    try:
        server.wait()
    except KeyboardInterrupt:
        err.print("Ending.")
