"""`airways`: the tree is followed, and the lung is not."""

from pathlib import Path

import making
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.airways import airways
from processors.scores.airways import score


def test_the_tree_is_followed_and_does_not_leak() -> None:
    """Dice above .96 at 2 mm pixels; through the hole in a wall less than 1 mL of lung, which has hundreds, are won."""
    scores = score().scores

    assert scores["Dice"] > 0.96
    assert scores["leaked (mL)"] < 1


def test_the_objects_conform(tmp_path: Path) -> None:
    """SEG and SR, no error of dciodvfy, the same again."""
    made = workbench.assert_conforms(airways, phantoms.airways()[0], tmp_path)

    assert [one.Modality for one in made] == ["SEG", "SR"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"Modality": "MR"}, "made for CT"), ({"RescaleIntercept": "4000"}, "no air"), ({}, "no trachea")],
)
def test_what_is_no_chest_is_refused(change: dict[str, object], reason: str) -> None:
    """Another modality, other units, no round air."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(airways, phantoms.read(making.ct_series(6, **change)))
