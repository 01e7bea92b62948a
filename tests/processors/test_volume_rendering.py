"""`volume-rendering`: things lie where they lie, opacity follows the formula, and nothing random gets in."""

from pathlib import Path

import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.scores.volume_rendering import score
from processors.volume_rendering import volume_rendering


def test_places_sizes_and_opacity_are_right() -> None:
    """A ball is found from all sides within half a voxel; a slab stops what Beer's law says."""
    scores = score().scores
    assert scores["shift of a ball, the worst of four views (mm)"] < 0.5
    assert scores["error of its area, the worst of four views (%)"] < 8
    assert scores["light stopped by 20 mm of 0.05/mm"] == pytest.approx(scores["by the formula"], abs=0.01)


def test_turntable_conforms(tmp_path: Path) -> None:
    """As many pictures as views, the same bytes again, and no error for dciodvfy."""
    made = workbench.assert_conforms(volume_rendering, phantoms.chest(), tmp_path, views=3, voxel_mm=4.0)
    assert len(made) == 3
    assert made[0].BurnedInAnnotation == "NO"


def test_mr_is_shown_by_shares_of_its_own_range(tmp_path: Path) -> None:
    """Values without a unit still give a picture; an empty volume is refused."""
    (overlay,) = scoring.outputs(volume_rendering, phantoms.head()[0], views=1, voxel_mm=4.0)
    assert next(iter(overlay.pixels)).max() > 100
    empty = phantoms.stack(phantoms.mesh((24, 8, 8), (3, 3, 3))[0] * 0, (3, 3, 3), **phantoms.MR)
    with pytest.raises(NotApplicable, match="empty"):
        scoring.outputs(volume_rendering, empty, views=1)
