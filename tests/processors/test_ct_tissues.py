"""`ct-tissues`: bone, fat and muscle where they are."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.ct_tissues import ct_tissues
from processors.scores.ct_tissues import score


def test_tissues_are_found() -> None:
    """Dice above .92 at 2 mm pixels with a scanner's blur; muscle within 2 % of its volume."""
    scores = score().scores

    assert min(value for name, value in scores.items() if name.endswith("Dice")) > 0.92
    assert abs(scores["muscle: error of volume (%)"]) < 2


def test_marrow_is_bone_and_the_table_is_nothing() -> None:
    """What bone encloses belongs to it, although it is as dense as fat; the table is no tissue."""
    datasets, truth = phantoms.thigh()

    labels = scoring.outputs(ct_tissues, datasets)[0].array()

    marrow = np.hypot(*(axis - at for axis, at in zip(np.indices(truth.shape[1:]), (47.5, 52.5), strict=True))) < 3
    assert (labels[4][marrow] == 1).all()
    assert (labels[:, 91:] == 0).all()


def test_the_objects_conform(tmp_path: Path) -> None:
    """SEG and SR, no error of dciodvfy, the same again."""
    made = workbench.assert_conforms(ct_tissues, phantoms.thigh()[0], tmp_path)

    assert [one.Modality for one in made] == ["SEG", "SR"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Modality": "MR"}, "made for CT"),
        ({"RescaleIntercept": "4000"}, "Hounsfield"),
        ({"RescaleIntercept": "-800"}, "no body"),
    ],
)
def test_what_is_no_body_is_refused(change: dict[str, object], reason: str) -> None:
    """Another modality, other units, no soft tissue."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(ct_tissues, phantoms.read(making.ct_series(4, **change)))
