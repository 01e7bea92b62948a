"""`registered-fusion`: injected motion is found within a millimetre; what does not improve is refused."""

from pathlib import Path

import judges
import numpy as np
import pytest
import SimpleITK as sitk

from pacs import phantoms
from pacs.phantoms import petct
from pacs.processing import Geometry, NotApplicable, Run, Series, Study, scoring
from pacs.processing.derive import derive, encode
from pacs.processing.headers import Provenance
from pacs.processing.registration import Rigid, displacement
from pacs.processing.validate import findings
from processors.registered_fusion import choose, judge, registered_fusion
from processors.scores.registered_fusion import GRID, MOTIONS, motion, pair, score


def test_motion_is_found_within_a_millimetre() -> None:
    """Target registration error at 27 landmarks, for motions of 6 to 16 mm."""
    scores = score().scores
    assert len(scores) == 2 * len(MOTIONS)
    assert max(scores.values()) <= 1.0


def test_objects_lie_in_the_frame_of_what_stays(tmp_path: Path) -> None:
    """MR, pictures and report: the same bytes again, no error for dciodvfy, the CT's frame of reference."""
    ct = petct.hounsfield(GRID).astype(np.float32)
    grid = Geometry(GRID.origin, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (GRID.slice_mm, GRID.pixel_mm, GRID.pixel_mm), GRID.shape)
    fixed, moving = pair(ct, grid)
    spec = scoring.spec_of(registered_fusion)
    provenance = Provenance("d" * 64, spec.name, spec.version, spec.bind())
    known = {str(one.SOPInstanceUID) for one in [*fixed, *moving]}

    def once() -> list[bytes]:
        made = list(derive(spec.call(Study([Series(fixed), Series(moving)]), Run(), spec.bind()), provenance))
        for one in made:
            assert findings(one, encode(one.dataset), known, str(fixed[0].StudyInstanceUID)) == []
        chosen = [made[0].dataset, made[len(fixed)].dataset, made[-1].dataset]
        assert chosen[0].FrameOfReferenceUID == fixed[0].FrameOfReferenceUID
        assert [error for path in judges.written(tmp_path / "out", chosen) for error in judges.errors(path)] == []
        return [encode(one.dataset) for one in made]

    assert once() == once()


@pytest.mark.parametrize(
    ("found", "apart", "reason"),
    [
        (Rigid(None, 12.0, 0.500, 0.505), False, "more alike"),
        (Rigid(None, 0.4, 0.500, 0.490), True, "more alike"),
        (Rigid(None, 45.0, 0.500, 0.900), False, "furthest_mm"),
    ],
)
def test_what_does_not_improve_is_refused(found: Rigid, apart: bool, reason: str) -> None:
    """Neither a registration that gains nothing nor one that moves the patient too far is believed."""
    with pytest.raises(NotApplicable, match=reason):
        judge(found, 30.0, apart)


def test_a_pair_that_lies_right_already_is_accepted() -> None:
    """Nothing to gain is no fault where the two lie together."""
    judge(Rigid(None, 0.3, 0.500, 0.501), 30.0, False)


def test_half_a_pair_is_refused() -> None:
    """One volume has nothing to be registered to."""
    with pytest.raises(NotApplicable, match="two MR volumes"):
        choose(Study([Series(phantoms.tissue()[0])]))


def test_displacement_is_a_mean_over_the_volume() -> None:
    """A translation moves every point by its length."""
    grid = Geometry((0, 0, 0), (1, 0, 0), (0, 1, 0), (2, 2, 2), (10, 10, 10))
    moved = sitk.Euler3DTransform()
    moved.SetTranslation((3, 4, 0))
    assert displacement(moved, grid) == pytest.approx(5)
    assert displacement(motion(0, (0, 0, 0)), grid) == 0
