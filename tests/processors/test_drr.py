"""`drr`: line integrals are those of the formula, from parallel rays and from a point."""

from pathlib import Path

import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.drr import drr
from processors.scores.drr import score


def test_line_integrals_are_right() -> None:
    """Through a ball of water: its diameter times the attenuation; its whole shadow is its volume, larger from a point."""
    scores = score().scores
    for name, far in (("parallel rays", 0.5), ("source at 1000 mm", 3.0)):
        assert scores[f"{name}: through the middle"] == pytest.approx(scores["through the middle, by hand"], rel=0.01)
        assert scores[f"{name}: error of the whole shadow (%)"] < far


def test_radiographs_conform(tmp_path: Path) -> None:
    """Two views, the same bytes again, no error for dciodvfy; the values say they are no Hounsfield units."""
    made = workbench.assert_conforms(drr, phantoms.chest(), tmp_path, pixel_mm=4.0)
    assert len(made) == 2
    assert made[0].RescaleType == "US"
    assert "DRR" in made[0].ImageType


def test_a_source_within_the_patient_is_refused() -> None:
    """The reason says what to change."""
    with pytest.raises(NotApplicable, match="further away"):
        scoring.outputs(drr, phantoms.chest(), source_mm=20.0, pixel_mm=8.0)
