"""`mip`: extremes are exact, places stay."""

from pathlib import Path

import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.mip import mip
from processors.scores.mip import score


def test_projections_are_numpys() -> None:
    """Along the slices, maximum and minimum are exact and the mean is rounded."""
    scores = score().scores

    assert scores["max: largest difference from numpy's (HU)"] == 0
    assert scores["min: largest difference from numpy's (HU)"] == 0
    assert scores["mean: largest difference from numpy's (HU)"] <= 0.5
    assert scores["shift of a bead in the plane (mm)"] < 0.1


def test_slabs_slide() -> None:
    """A step of half a slab, unless told otherwise."""
    datasets = phantoms.bead()[0]

    (images,) = scoring.outputs(mip, datasets, slab_mm=12.0)

    assert images.geometry.spacing_mm[0] == 6 and images.attributes["SliceThickness"] == "12"


def test_the_outside_never_wins() -> None:
    """A minimum from the side shows the volume's own values, not emptiness beyond it."""
    datasets = phantoms.stack(np.full((6, 32, 32), 40.0), (3, 1.5, 1.5))

    (images,) = scoring.outputs(mip, datasets, kind="min", plane="coronal", turn_deg=30, slab_mm=0)

    assert all((one == 40).all() for one in images.pixels)


@pytest.mark.parametrize("kind", ["max", "min", "mean"])
def test_the_images_conform(kind: str, tmp_path: Path) -> None:
    """With its own derivation code, no new error of dciodvfy, the same again."""
    made = workbench.assert_conforms(mip, phantoms.bead()[0], tmp_path, kind=kind, slab_mm=36.0)

    code = {"max": "113078", "min": "113079", "mean": "113072"}[kind]
    assert made[0].DerivationCodeSequence[0].CodeValue == code


def test_radiographs_are_refused() -> None:
    """There is no volume in a projection."""
    with pytest.raises(NotApplicable, match="made for"):
        scoring.outputs(mip, phantoms.read([phantoms.radiograph()]))
