"""`ct-liver`: the liver, in a whole abdomen and in a few slices, and nothing else."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench
from pydicom import dcmread

from pacs import phantoms
from pacs.phantoms.abdomen import LESION
from pacs.processing import NotApplicable, Series, scoring
from processors.ct_liver import averaged, ct_liver
from processors.scores.ct_liver import on_labelled, score


@pytest.fixture(scope="module")
def scores() -> scoring.Scores:
    return score().scores


def test_the_liver_is_found(scores: scoring.Scores) -> None:
    """Dice above .95 with contrast medium and without it, whole and in six slices, beside organs of like attenuation."""
    for name in ("contrast medium", "plain", "six slices"):
        assert scores[f"{name}: Dice"] > 0.95
    assert abs(scores["contrast medium: error of volume (%)"]) < 3


def test_the_report_says_where_the_scan_cuts_the_liver(scores: scoring.Scores) -> None:
    """Nothing for a whole liver; for slices of one its cross-section, which no volume could tell."""
    assert scores["contrast medium: cross-section at the scan's end (cm2)"] == 0
    assert scores["six slices: cross-section at the scan's end (cm2)"] > 100


def test_a_lesion_in_the_liver_belongs_to_it() -> None:
    """What is 35 HU darker and within it is filled in."""
    datasets, labels = phantoms.abdomen()

    found = scoring.outputs(ct_liver, datasets)[0].array() > 0

    assert found[labels == LESION].mean() > 0.98


def test_against_labels(shared_data: Path) -> None:
    """Dice above .94 on a contrast-enhanced abdomen, above .9 on three plain slices, as its page says."""
    labelled = on_labelled(shared_data)

    assert labelled is not None
    assert labelled[0]["abdomen, 20 slices: Dice"] > 0.94
    assert labelled[0]["three slices: Dice"] > 0.9


def test_shoulders_are_no_liver(shared_data: Path) -> None:
    """A muscle of a raised arm is soft, large, on the right and without its like on the left."""
    series = sorted(
        (shared_data / "petct_acrin042" / "CT").iterdir(), key=lambda path: dcmread(path, 1024).ImagePositionPatient[2]
    )

    with pytest.raises(NotApplicable, match="cross-section"):
        scoring.outputs(ct_liver, [dcmread(path) for path in series[112:]])


def test_the_objects_conform(tmp_path: Path) -> None:
    """SEG and SR, no error of dciodvfy, the same again."""
    made = workbench.assert_conforms(ct_liver, phantoms.abdomen(slices=slice(16, 26))[0], tmp_path)

    assert [one.Modality for one in made] == ["SEG", "SR"]


def test_thin_slices_are_averaged_where_they_are_many() -> None:
    """Thirty slices of 1 mm become ten of 3 mm that cover the same; five stay five."""
    rising = np.broadcast_to(np.arange(30.0)[:, None, None], (30, 16, 16))
    series = Series(phantoms.stack(rising, (1.0, 2.0, 2.0)))

    pixels, grid = averaged(series.array(), series.geometry())

    assert grid.spacing_mm[0] == pytest.approx(3) and len(pixels) == 10
    first = series.array()[:3].mean()
    np.testing.assert_allclose(pixels[:, 8, 8], first + 3 * np.arange(10), atol=0.1)
    assert grid.position(0)[2] == pytest.approx(1.0)
    short = Series(phantoms.stack(rising[:5], (1.0, 2.0, 2.0)))
    assert len(averaged(short.array(), short.geometry())[0]) == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Modality": "MR"}, "made for CT"),
        ({"RescaleIntercept": "4000"}, "Hounsfield"),
        ({"RescaleIntercept": "-800"}, "no body|no large soft organ"),
    ],
)
def test_what_is_no_body_is_refused(change: dict[str, object], reason: str) -> None:
    """Another modality, other units, no soft tissue."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(ct_liver, phantoms.read(making.ct_series(4, **change)))


def test_two_slices_are_refused() -> None:
    """Too few to tell a liver from what else is soft there."""
    with pytest.raises(NotApplicable, match="three axial slices"):
        scoring.outputs(ct_liver, phantoms.abdomen(slices=slice(20, 22))[0])


@pytest.mark.parametrize(
    ("name", "reason"), [("chest", "rib cage"), ("head", "by only"), ("thigh", "rib cage"), ("left", "by only|no large")]
)
def test_other_parts_of_the_body_are_refused(name: str, reason: str) -> None:
    """No liver is found in a chest, a head or a thigh, nor on the left."""
    if name == "left":
        volume = Series(phantoms.abdomen()[0]).array()[:, :, ::-1]
        datasets = phantoms.stack(volume + 1024, (5.0, 3.0, 3.0), (-190.5, -190.5, 0.0), RescaleIntercept="-1024")
    else:
        made = {"chest": phantoms.chest, "head": lambda: phantoms.tissues("CT")[0], "thigh": lambda: phantoms.thigh()[0]}
        datasets = made[name]()

    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(ct_liver, datasets)
