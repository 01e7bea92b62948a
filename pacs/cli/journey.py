"""What `pacs demo` checks: a phantom study sent, processed, found, brought back, and looked for where it must not be.

Every line of the table is measured against the phantom's known truth or against the bytes that were sent.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.archive import Archive
from pacs.cli.console import err
from pacs.dimse import outbound, scu
from pacs.model.job import Job, JobState
from pacs.phantoms import petct
from pacs.settings import Settings

JOBS_TIMEOUT_S = 300.0
LUNG_DICE = 0.95
"""Overlap with the true lungs that the segmentation must reach."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the demo's table."""

    check: str
    ok: bool
    detail: str


def journey(settings: Settings, folder: Path) -> Iterator[Finding]:
    """Send a phantom study to the server of `settings` and yield what holds and what does not; `folder` is scratch."""
    with err.status("Making a phantom PET/CT study …"):
        files = petct.write(folder / "modality")
    archive_at = (settings.dicom.host, settings.dicom.port, settings.dicom.ae_title)
    sent: dict[str, Dataset] = {one.SOPInstanceUID: one for paths in files.values() for one in map(pydicom.dcmread, paths)}
    with err.status(f"Sending {len(sent)} images by C-STORE …"):
        began = time.monotonic()
        report = outbound.send([path for paths in files.values() for path in paths], *archive_at, calling="DEMOSCANNER")
    took = time.monotonic() - began
    yield Finding("every image answered 0000", report.stored == len(sent), f"{report.stored} of {len(sent)} in {took:.1f} s")

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
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_uid, "NumberOfStudyRelatedInstances": ""}
    found = scu.find(*archive_at, keys, calling="DEMOVIEWER")
    yield Finding("C-FIND finds it", len(found) == 1, f"{found[0]['NumberOfStudyRelatedInstances']} instances" if found else "")
    original = str(next(iter(sent.values())).PatientID)
    by_id = scu.find(*archive_at, {**keys, "StudyInstanceUID": "", "PatientID": original}, calling="DEMOVIEWER")
    yield Finding("C-FIND by the original Patient ID finds nothing", not by_id, f"{len(by_id)} answers")

    viewer = folder / "viewer"
    viewer.mkdir()
    with err.status("Bringing it back by C-GET …"):
        scu.get(*archive_at, study_uid, viewer, calling="DEMOVIEWER")
    paths = sorted(path for path in viewer.rglob("*") if path.is_file())
    back: list[Dataset] = [pydicom.dcmread(path) for path in paths]
    yield from _check_sources(list(sent.values()), back)
    yield from _check_derived(back)
    needles = _needles(list(sent.values()))
    leaks = sum(any(needle in content for needle in needles) for content in map(Path.read_bytes, paths))
    yield Finding("no identity in what comes back", leaks == 0, f"{len(needles)} strings looked for in {len(paths)} objects")
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
        (twin := sources.get((one.Modality, int(one.InstanceNumber)))) is not None
        and np.array_equal(twin.pixel_array, one.pixel_array)
        for one in sent
    )
    yield Finding("pixels come back bit for bit", equal == len(sent), f"{equal} of {len(sent)} images")


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
        distance <= petct.PET_GRID.slice_mm,
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
    words = {part for value in petct.IDENTITY.values() for part in value.split("^") if len(part) > 3}
    uids = {str(one.get(keyword)) for one in sent for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    return {word.encode() for word in words | uids}


def _lung_dice(segmentation: Dataset) -> float:
    """Return the overlap of all segments labelled lung with the phantom's lungs, 0 if the object has none."""
    wanted = {int(item.SegmentNumber) for item in segmentation.SegmentSequence if "lung" in str(item.SegmentLabel).lower()}
    truth = petct.lungs(petct.CT_GRID)
    found = np.zeros(truth.shape, bool)
    frames: NDArray[Any] = np.atleast_3d(segmentation.pixel_array)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        shared = segmentation.SharedFunctionalGroupsSequence[0]
        owner = groups if "SegmentIdentificationSequence" in groups else shared
        if int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber) in wanted:
            z = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
            found[round((z - petct.CT_GRID.origin[2]) / petct.CT_GRID.slice_mm)] |= frame > 0
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
    return float(np.linalg.norm(centre - np.array(petct.NODULE_MM)))


def _code_meanings(item: Dataset) -> Iterator[str]:
    for child in item.get("ContentSequence", []):
        for code in child.get("ConceptCodeSequence", []):
            yield str(code.CodeMeaning)
        yield from _code_meanings(child)
