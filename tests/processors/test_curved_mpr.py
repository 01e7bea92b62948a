"""`curved-mpr`: lengths along a line and distances across it come out right, and no place is claimed."""

from pathlib import Path

import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, ParameterError, scoring
from pacs.processing.curves import lengths, smooth_line, untwisted
from processors.curved_mpr import curved_mpr
from processors.scores.curved_mpr import score

ACROSS = "-30,0,0; 0,5,10; 30,0,0"


def test_a_bent_tube_has_its_length_and_radius() -> None:
    """Straightened, stretched and projected, within a pixel of 0.5 mm; trachea and bronchi within 2.5 mm."""
    scores = score().scores

    errors = {name: value for name, value in scores.items() if "error" in name}
    assert len(errors) == 8 and max(map(abs, errors.values())) < 0.5, errors
    lines = {name: value for name, value in scores.items() if "true one" in name}
    assert len(lines) == 2 and max(lines.values()) < 2.5, lines
    assert min(value for name, value in scores.items() if "followed" in name) > 110


def test_a_smooth_line_goes_through_its_points() -> None:
    """Steps are equal, every point is on it, and the direction across stays at right angles to it."""
    points = np.array([[0, 0, 0], [10, 3, 5], [12, 15, 9], [4, 20, 20]], float)

    line = smooth_line(points, 0.25)

    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    assert np.abs(steps - 0.25).max() < 1e-3
    assert max(np.linalg.norm(line - point, axis=1).min() for point in points) < 0.26
    across = untwisted(line, np.array([0.0, 0.0, 1.0]))
    assert np.abs((across * np.gradient(line, axis=0)).sum(axis=1)).max() < 1e-3
    assert lengths(line)[-1] > np.linalg.norm(np.diff(points, axis=0), axis=1).sum()


@pytest.mark.parametrize("given", [{"kind": "straightened"}, {"kind": "stretched", "upright": True}, {"kind": "projected"}])
def test_the_images_conform_and_lie_nowhere(given: dict[str, object], tmp_path: Path) -> None:
    """Secondary Capture in Hounsfield units without position, orientation or frame of reference; no error of dciodvfy."""
    made = workbench.assert_conforms(curved_mpr, phantoms.bead()[0], tmp_path, points=ACROSS, width_mm=20.0, **given)

    assert len(made) == 2 and made[0].SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    for one in made:
        assert not {"ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "SliceLocation"} & set(one.dir())
        assert not one.PatientOrientation and one.RescaleType == "HU"
        assert all(source.SpatialLocationsPreserved == "NO" for source in one.SourceImageSequence)
        assert ("PixelSpacing" in one) == (given["kind"] != "projected")
    assert (made[0].Rows > made[0].Columns) != bool(given.get("upright"))


@pytest.mark.parametrize("kind", ["MR", "PT"])
def test_other_modalities_conform(kind: str, tmp_path: Path) -> None:
    """MR and PET, too; their values are no Hounsfield units."""
    datasets = phantoms.head()[0] if kind == "MR" else phantoms.hot_spheres()
    x, y, z = (float(v) for v in datasets[len(datasets) // 2].ImagePositionPatient)
    points = f"{x + 20:g},{y + 20:g},{z:g}; {x + 40:g},{y + 35:g},{z + 5:g}"

    made = workbench.assert_conforms(curved_mpr, datasets, tmp_path, points=points, width_mm=20.0, views=1)

    assert made[0].RescaleType == "US"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"points": "0,0,0; 500,0,0"}, "leaves the images"),
        ({"points": "0,0,30"}, "two different points"),
        ({"points": "0,0,10; 0,20,30; 0,0,40; 0,-20,30; 0,0,15", "kind": "projected"}, "turns back"),
        ({}, "no trachea|no air"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], reason: str) -> None:
    """A line that leaves the images, has no length, or cannot be seen from the side; no airway to follow."""
    with pytest.raises(NotApplicable, match=reason):
        list(scoring.outputs(curved_mpr, phantoms.bead()[0], **given))


def test_points_are_checked_before_a_job_is_made() -> None:
    """The message says how they are written."""
    with pytest.raises(ParameterError, match="x,y,z; x,y,z"):
        scoring.spec_of(curved_mpr).bind({"points": "1,2; 3"})
