"""Held head series come out without a face, chests come out as they came, and doubt goes to quarantine."""

import time
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import making
import making_head
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.job import Job, JobState
from pacs.phantoms import petct
from pacs.processing.registry import discover
from pacs.processing.runner import run_job
from pacs.processing.schedule import cleaning_jobs
from pacs.retrieve import data_set

EXPLICIT = "1.2.840.10008.1.2.1"


def send(archive: Archive, images: Iterable[Dataset], association: str = "a1") -> None:
    for one in images:
        ingest(archive, making.received(one, association=association))
    archive.index.end_association(association)


def clean(archive: Archive) -> list[Job]:
    """Do what scheduler and worker do for series that hold something."""
    jobs = []
    for held in archive.index.settled_held(time.time() + 3600, settle_s=0, quiet_s=0):
        for job_id in archive.index.scheduled_held(held, cleaning_jobs(held)):
            run_job(archive, discover(archive.settings.plugins_path), job_id, worker="test")
            jobs.append(archive.index.jobs.get(job_id))
    return jobs


def visible(archive: Archive) -> list[Dataset]:
    """Return what a door would hand out, in slice order."""
    out = []
    for study in archive.index.studies():
        for one in archive.index.locate(study_instance_uids=[study.study_instance_uid]):
            buffers = data_set(archive, one, [EXPLICIT]).buffers
            ds = dcmread(BytesIO(b"".join(bytes(part) for part in buffers)), force=True)
            out.append(ds)
    return sorted(out, key=lambda ds: int(ds.InstanceNumber))


def methods(ds: Dataset) -> set[str]:
    return {item.CodeValue for item in ds.DeidentificationMethodCodeSequence}


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_a_head_is_held_until_its_face_is_gone(modality: str, tmp_path: Path) -> None:
    """Nobody sees the series before; then every image says so, its face is noise, and its brain is as it was, bit for bit."""
    made = making_head.head(modality, pixel_mm=3.0, slice_mm=6.0)
    with making.archive(tmp_path / "home", deid__policy="research-faceless") as archive:
        send(archive, making_head.datasets(made))
        assert visible(archive) == []

        (job,) = clean(archive)

        assert job.state is JobState.SUCCEEDED
        after = visible(archive)
    assert len(after) == len(made.frames)
    volume = np.stack([np.frombuffer(ds.PixelData, "<i2").reshape(ds.Rows, ds.Columns) for ds in after])
    assert np.array_equal(volume[made.brain], made.frames[made.brain])
    for name, part in made.parts.items():
        assert (volume[part] != made.frames[part]).mean() > 0.95, name
    for ds in after:
        assert "113102" in methods(ds)
        assert ds.RecognizableVisualFeatures == "NO"


def test_a_chest_is_shown_as_it_came_and_claims_nothing(tmp_path: Path) -> None:
    """Where no face is in view not a bit changes, and the option is not claimed."""
    images = [ds for name, ds in petct.study() if name == "CT"]
    with making.archive(tmp_path / "home", deid__policy="research-faceless") as archive:
        send(archive, images)
        clean(archive)
        after = visible(archive)

    assert [ds.PixelData for ds in after] == [ds.PixelData for ds in sorted(images, key=lambda ds: int(ds.InstanceNumber))]
    assert all("113102" not in methods(ds) and "RecognizableVisualFeatures" not in ds for ds in after)


def test_a_slice_that_comes_late_goes_to_quarantine(tmp_path: Path) -> None:
    """Once the face of a series is noise nothing tells where the face of a late slice lies."""
    made = making_head.head("MR", pixel_mm=4.0, slice_mm=8.0)
    images = making_head.datasets(made)
    late = images.pop(15)
    with making.archive(tmp_path / "home", deid__policy="research-faceless") as archive:
        send(archive, images)
        clean(archive)
        send(archive, [late], "a2")
        clean(archive)

        assert len(visible(archive)) == len(images)
        (kept,) = archive.index.quarantine.list()
        assert "after the face" in kept.reason


def test_a_head_without_geometry_goes_to_quarantine(tmp_path: Path) -> None:
    """What cannot be cleaned is not shown."""
    images = making_head.datasets(making_head.head("MR", pixel_mm=4.0, slice_mm=20.0))
    for ds in images:
        del ds.ImagePositionPatient
    with making.archive(tmp_path / "home", deid__policy="research-faceless") as archive:
        send(archive, images)
        clean(archive)

        assert visible(archive) == []
        assert len(archive.index.quarantine.list()) == len(images)


def test_other_policies_hold_nothing_for_a_face(tmp_path: Path) -> None:
    """Without the option a head is visible at once, and does not claim it."""
    images = making_head.datasets(making_head.head("MR", pixel_mm=4.0, slice_mm=20.0))
    with making.archive(tmp_path / "home", deid__policy="research") as archive:
        send(archive, images)
        after = visible(archive)

    assert len(after) == len(images)
    assert all("113102" not in methods(ds) for ds in after)
