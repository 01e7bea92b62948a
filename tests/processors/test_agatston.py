"""`agatston`: the score is the formula."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.agatston import agatston
from processors.scores.agatston import score


def test_the_score_is_exact() -> None:
    """By hand and by machine: in a given region, and in the one between the lungs."""
    scores = score().scores

    assert scores["plaques: score"] == pytest.approx(scores["plaques: score by hand"], abs=0.01)
    own = "chest, region found by itself: score"
    assert scores[own] == pytest.approx(scores[f"{own} by hand"], abs=0.01)


@pytest.mark.parametrize(("largest", "expected"), [(130, 1), (199.9, 1), (200, 2), (300, 3), (399, 3), (400, 4), (3000, 4)])
def test_weights(largest: float, expected: int) -> None:
    """Agatston's table."""
    from processors.agatston import weight

    assert weight(largest) == expected


def test_the_region_is_where_it_is_asked_for() -> None:
    """A cylinder takes in what is inside and leaves the rest."""
    datasets = phantoms.calcium()[0]

    _, inside = scoring.outputs(agatston, datasets, radius_mm=6, x_mm=16, y_mm=16)
    _, ends = scoring.outputs(agatston, datasets, radius_mm=100, z_low_mm=4.9, z_high_mm=5.1)

    assert inside.values[1][0].value == pytest.approx((6 + 8) * 2.5 / 3, abs=0.01)
    assert ends.values[1][0].value == pytest.approx(6 * 2.5 / 3, abs=0.01)


def test_no_calcium_is_a_score_of_zero(tmp_path: Path) -> None:
    """Zero is an answer: the region is reported with it."""
    datasets = phantoms.stack(np.full((10, 32, 32), 40.0), (3, 1, 1))

    segmentation, measurements = scoring.outputs(agatston, datasets, radius_mm=10, x_mm=16, y_mm=16)

    assert measurements.values[1][0].value == 0 and set(segmentation.segments) == {1}
    workbench.assert_conforms(agatston, datasets, tmp_path, radius_mm=10, x_mm=16, y_mm=16)


def test_the_objects_conform(tmp_path: Path) -> None:
    """SEG and SR, no error of dciodvfy, the same again."""
    made = workbench.assert_conforms(agatston, phantoms.calcium()[0], tmp_path, radius_mm=100)

    assert [one.Modality for one in made] == ["SEG", "SR"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Modality": "MR"}, "made for CT"),
        ({"ContrastBolusAgent": "YES"}, "contrast"),
        ({"RescaleIntercept": "5000"}, "Hounsfield"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "axial|volume"),
    ],
)
def test_what_cannot_be_scored_is_refused(change: dict[str, object], reason: str) -> None:
    """Other modalities, contrast medium, other units, other planes."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(agatston, phantoms.read(making.ct_series(12, **change)), radius_mm=50)
