"""`mr-brain`: the balloon lies on the brain."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.balloon import sphere
from processors.mr_brain import mr_brain
from processors.scores.mr_brain import on_public, score


def test_the_brain_is_found() -> None:
    """Dice above .97 with shading, scalp, eyes and a neck; volume within 3 %."""
    scores = score().scores

    assert scores["Dice"] > 0.97
    assert scores["Hausdorff distance, 99 % (mm)"] < 7
    assert abs(scores["error of volume (%)"]) < 3


def test_the_average_of_many_heads(shared_data: Path) -> None:
    """Dice above .95 against the mask that came with real anatomy."""
    measured = on_public(shared_data)

    assert measured is not None
    assert measured.scores["ICBM 152: Dice"] > 0.95


def test_the_objects_conform(tmp_path: Path) -> None:
    """SEG and SR, no error of dciodvfy, the same again."""
    made = workbench.assert_conforms(mr_brain, phantoms.tissues()[0], tmp_path)

    assert [one.Modality for one in made] == ["SEG", "SR"]


def test_the_sphere_is_closed() -> None:
    """Every edge belongs to two faces (Euler), points lie on the unit sphere, and normals point outwards."""
    mesh = sphere(3)

    assert len(mesh.points) == 10 * 4**3 + 2 and len(mesh.faces) == 20 * 4**3
    np.testing.assert_allclose(np.linalg.norm(mesh.points, axis=1), 1)
    assert (mesh.counts.sum() // 2) == len(mesh.points) + len(mesh.faces) - 2
    assert (mesh.normals(mesh.points) * mesh.points).sum(axis=1).min() > 0.99


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Modality": "CT"}, "made for MR"),
        ({**phantoms.MR, "BodyPartExamined": "KNEE"}, "another part"),
        ({**phantoms.MR}, "whole head"),
    ],
)
def test_what_is_no_head_is_refused(change: dict[str, object], reason: str) -> None:
    """Another modality, another part of the body, a few slices."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(mr_brain, phantoms.read(making.ct_series(6, **change)))


def test_a_body_without_a_brain_is_refused() -> None:
    """What the balloon finds must have the volume of a brain."""
    z, y, x = phantoms.mesh((30, 40, 40), (4, 4, 4), (-78, -78, -58))
    ball = np.where(x**2 + y**2 + z**2 < 40**2, 500.0, 5.0)

    with pytest.raises(NotApplicable, match="mL"):
        scoring.outputs(mr_brain, phantoms.stack(ball, (4, 4, 4), (-78, -78, -58), **phantoms.MR))
