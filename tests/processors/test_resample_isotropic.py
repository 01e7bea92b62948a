"""`resample-isotropic`: cubes, in place, linear where the source is."""

from pathlib import Path

import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, Series, scoring
from processors.resample_isotropic import resample_isotropic
from processors.scores.resample_isotropic import score


def test_things_stay_where_they_are() -> None:
    """A bead moves by less than a twentieth of a voxel; a ramp stays a ramp."""
    scores = score().scores

    assert scores["shift of a bead (mm)"] < 0.075
    assert scores["largest error on a linear ramp (share of its step)"] < 1e-3


def test_the_voxels_are_cubes_over_the_same_field() -> None:
    """Edges are equal, and the field of view is the source's within one voxel."""
    datasets = phantoms.bead()[0]
    before = Series(datasets).geometry()

    (images,) = scoring.outputs(resample_isotropic, datasets, spacing_mm=2.0)

    assert images.geometry.spacing_mm == (2, 2, 2)
    for old, step, new in zip(before.shape, before.spacing_mm, images.geometry.shape, strict=True):
        assert abs(old * step - new * 2) < 2


def test_fine_detail_does_not_fold_over() -> None:
    """A pattern finer than the new voxels becomes its mean, not stripes."""
    volume = np.where(np.arange(64) % 2 == 0, 0.0, 100.0) * np.ones((4, 64, 64))
    (images,) = scoring.outputs(resample_isotropic, phantoms.stack(volume, (3, 1, 1)), spacing_mm=3.0)

    inside = np.stack(list(images.pixels))[:, 3:-3, 3:-3]
    assert abs(inside.mean() - 50) < 2 and np.ptp(inside) < 10


@pytest.mark.parametrize("kind", ["CT", "MR", "PT"])
def test_the_images_conform(kind: str, tmp_path: Path) -> None:
    """In the source's IOD with a geometry of their own, no new error of dciodvfy, the same again."""
    datasets = {
        "CT": lambda: phantoms.bead()[0][:5],
        "MR": lambda: phantoms.head()[0][:4],
        "PT": lambda: phantoms.hot_spheres()[:5],
    }[kind]()

    made = workbench.assert_conforms(resample_isotropic, datasets, tmp_path, spacing_mm=4.0)

    again = Series(phantoms.read(made)).geometry()
    assert np.allclose(again.spacing_mm, 4.0)


def test_what_is_too_large_or_no_volume_is_refused() -> None:
    """A limit on voxels, and a missing slice."""
    datasets = phantoms.bead()[0]
    with pytest.raises(NotApplicable, match="million voxels"):
        scoring.outputs(resample_isotropic, datasets, spacing_mm=0.3, most_mvoxel=1)
    with pytest.raises(NotApplicable, match="not evenly spaced"):
        scoring.outputs(resample_isotropic, datasets[:5] + datasets[6:])
