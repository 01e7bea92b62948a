"""`ct-brain`: what the skull encloses."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.ct_brain import ct_brain, surrounded
from processors.scores.ct_brain import score


def test_the_brain_is_found() -> None:
    """Dice above .97 at 3 mm pixels with an open foramen and with the base cut off; no neck, and the mean of its tissues."""
    scores = score().scores

    for name in ("whole head", "from above the base"):
        assert scores[f"{name}: Dice"] > 0.97
        assert scores[f"{name}: Hausdorff distance, 99 % (mm)"] < 6
        assert 28 < scores[f"{name}: mean attenuation (HU)"] < 36


def test_the_objects_conform(tmp_path: Path) -> None:
    """SEG and SR, no error of dciodvfy, the same again."""
    made = workbench.assert_conforms(ct_brain, phantoms.tissues("CT")[0], tmp_path)

    assert [one.Modality for one in made] == ["SEG", "SR"]


def test_directions_are_counted() -> None:
    """In a bowl all but the way out shows bone; slices that end the volume are not held against it."""
    bowl = np.ones((9, 9, 9), bool)
    bowl[2:7, 2:7, 2:7] = False
    bowl[4, 4, 7:] = False

    assert surrounded(bowl)[4, 4, 4] == pytest.approx(25 / 26)
    assert surrounded(bowl[:5])[4, 4, 4] == pytest.approx(16 / 17)


def test_padding_is_no_reason_to_refuse() -> None:
    """What lies outside a scanner's round field of view is -2000 in many series, or -3024."""
    values = np.stack([one.pixel_array for one in phantoms.tissues("CT")[0]])
    y, x = np.indices(values.shape[1:])
    values[:, np.hypot((y - 37.5) / 38, (x - 31.5) / 32) > 1] = -2000
    header = {"BodyPartExamined": "HEAD"}

    found = scoring.outputs(ct_brain, phantoms.stack(values, (4.0, 3.0, 3.0), (-94.5, -118.5, -116.0), **header))[0]

    assert found.array().any()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Modality": "MR"}, "made for CT"),
        ({"RescaleIntercept": "4000"}, "Hounsfield"),
        ({}, "no skull"),
    ],
)
def test_what_is_no_head_is_refused(change: dict[str, object], reason: str) -> None:
    """Another modality, other units, no bone."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(ct_brain, phantoms.read(making.ct_series(6, **change)))


def test_a_body_is_refused() -> None:
    """A chest has bone, but none around so much soft tissue."""
    with pytest.raises(NotApplicable, match="encloses"):
        scoring.outputs(ct_brain, phantoms.chest())
