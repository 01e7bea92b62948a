"""`mpr`: every plane lies where it says."""

from pathlib import Path

import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, ParameterError, Series, scoring
from processors.mpr import mpr
from processors.scores.mpr import score


def test_a_bead_is_found_where_it_is() -> None:
    """Coronal, sagittal and oblique planes put it within a twentieth of a millimetre."""
    scores = score().scores

    assert len(scores) == 4 and max(scores.values()) < 0.05


def test_planes_hang_as_people_expect() -> None:
    """Coronal rows run to the patient's left, columns to the feet; the tilt turns columns only."""
    from processors.mpr import turned

    assert turned("coronal") == ((1, 0, 0), (0, 0, -1))
    row, column = turned("coronal", 90, 0)
    assert np.allclose(row, (0, 1, 0)) and np.allclose(column, (0, 0, -1))
    row, column = turned("sagittal", 10, 30)
    assert abs(np.dot(row, column)) < 1e-9


def test_a_plane_is_given_by_its_normal() -> None:
    """Its rows and columns are at right angles to it; along an axis they are the planes that have names."""
    from pacs.processing import PLANES, facing

    for name, normal in (("coronal", (0, 1, 0)), ("sagittal", (-3, 0, 0)), ("axial", (0, 0, -2))):
        assert facing(np.array(normal, float)) == PLANES[name]
    row, column = facing(np.array([1.0, 2.0, 3.0]))
    assert abs(np.dot(row, column)) + abs(np.dot(row, (1, 2, 3))) + abs(np.dot(column, (1, 2, 3))) < 1e-9
    with pytest.raises(ParameterError, match="normal is not written as it must be"):
        scoring.outputs(mpr, phantoms.bead()[0], normal="up")


def test_a_thick_plane_is_the_mean() -> None:
    """Axial slabs parallel to the slices are the mean of these slices, exactly."""
    datasets = phantoms.bead()[0]
    volume = Series(datasets).array()

    (images,) = scoring.outputs(mpr, datasets, plane="axial", step_mm=6.0, thickness_mm=6.0)

    planes = list(images.pixels)
    assert len(planes) == 12
    for number, plane in enumerate(planes):
        assert np.abs(plane - volume[2 * number : 2 * number + 2].mean(axis=0)).max() <= 0.5


@pytest.mark.parametrize("given", [{}, {"plane": "sagittal"}, {"turn_deg": 25, "tilt_deg": -15}, {"normal": "1,2,3"}])
def test_the_images_conform(given: dict[str, object], tmp_path: Path) -> None:
    """CT images with the slices they came from as sources, no new error of dciodvfy, the same again."""
    made = workbench.assert_conforms(mpr, phantoms.bead()[0], tmp_path, step_mm=24.0, **given)

    assert made[0].DerivationCodeSequence[0].CodeValue == "113072"
    assert len(made[0].SourceImageSequence) == 24 or {"tilt_deg", "normal"} & given.keys()
    assert made[0].FrameOfReferenceUID == phantoms.bead()[0][0].FrameOfReferenceUID


@pytest.mark.parametrize("kind", ["MR", "PT"])
def test_other_modalities_conform(kind: str, tmp_path: Path) -> None:
    """MR and PET, too."""
    workbench.assert_conforms(mpr, phantoms.head()[0] if kind == "MR" else phantoms.hot_spheres(), tmp_path, step_mm=60.0)


def test_radiographs_are_refused() -> None:
    """There is no volume in a projection."""
    with pytest.raises(NotApplicable, match="made for"):
        scoring.outputs(mpr, phantoms.read([phantoms.radiograph()]))
