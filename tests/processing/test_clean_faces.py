"""Held head series come out without a face, chests come out as they came, and doubt goes to quarantine."""

from pathlib import Path

import making
import making_head
import numpy as np
import pytest
from processing.held_heads import clean, methods, send, visible

from pacs.model.job import JobState
from pacs.phantoms import petct


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
