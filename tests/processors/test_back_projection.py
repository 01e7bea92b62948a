"""`back-projection`: Hounsfield units are right, and what is no sinogram is refused."""

from pathlib import Path

import pytest
import workbench

from pacs import phantoms
from pacs.phantoms.sinogram import sinogram
from pacs.processing import NotApplicable, scoring
from processors.back_projection import back_projection
from processors.scores.back_projection import score


def test_values_are_right() -> None:
    """No bias where the slice is even; smoother windows leave less noise."""
    scores = score().scores
    for window, deviation in (("ram-lak", 20), ("shepp-logan", 15), ("hann", 8)):
        assert abs(scores[f"{window}: mean error where it is even (HU)"]) < 3
        assert scores[f"{window}: its standard deviation (HU)"] < deviation
    noise = "noisy projections: standard deviation (HU)"
    assert scores[f"hann, {noise}"] < 0.6 * scores[f"ram-lak, {noise}"]


def test_slice_conforms(tmp_path: Path) -> None:
    """The same bytes again, no error for dciodvfy, and the pixel that was asked for."""
    (made,) = workbench.assert_conforms(back_projection, [sinogram(views=90, bins=96)], tmp_path, pixel_mm=2.0)
    assert (made.Rows, made.Columns) == (48, 48)
    assert [float(step) for step in made.PixelSpacing] == [2.0, 2.0]


def test_what_is_no_sinogram_is_refused() -> None:
    """Only Image Type tells projections from pictures."""
    with pytest.raises(NotApplicable, match="SINOGRAM"):
        scoring.outputs(back_projection, phantoms.tissue(frames=1)[0])
