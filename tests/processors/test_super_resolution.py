"""`super-resolution`: nearer to the truth than linear interpolation, and true to what was measured."""

from pathlib import Path

import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.scores.super_resolution import score
from processors.super_resolution import super_resolution


def test_thin_slices_are_nearer_to_the_truth() -> None:
    """Half a decibel or more above linear interpolation; made thick again, the thin slices are the thick ones."""
    scores = score().scores
    for factor in (2, 4):
        assert scores[f"{factor} times: PSNR (dB)"] > scores[f"{factor} times: PSNR by linear interpolation (dB)"] + 0.5
        assert scores[f"{factor} times: made thick again, differs on average by (HU)"] < 0.5


def test_series_conforms_and_lies_where_its_source_lies(tmp_path: Path) -> None:
    """Twice the slices of half the thickness over the same extent; the same bytes again."""
    source = phantoms.tissue(frames=6)[0]
    made = workbench.assert_conforms(super_resolution, source, tmp_path)
    assert len(made) == 12
    heights = sorted(float(one.ImagePositionPatient[2]) for one in made)
    assert (heights[0], heights[-1]) == (-1.25, 26.25), "thick slices at 0 to 25 mm reach from -2.5 to 27.5"


def test_thin_slices_are_left_alone() -> None:
    """There is nothing to gain where slices are as thin as pixels."""
    with pytest.raises(NotApplicable, match="as thin"):
        scoring.outputs(super_resolution, phantoms.chest())
