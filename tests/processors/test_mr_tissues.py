"""`mr-tissues`: each voxel its tissue, shading or not."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.mr_tissues import fit, mr_tissues
from processors.scores.mr_tissues import score


def test_tissues_are_told_apart_in_spite_of_shading() -> None:
    """Dice above .97 for each, with shading that is stronger than the contrast of grey and white."""
    scores = score().scores

    assert min(value for name, value in scores.items() if name.endswith("Dice")) > 0.97


def test_a_mixture_is_found_again() -> None:
    """Means within 2 and shares within 2 % of those that the values were drawn from."""
    random = np.random.default_rng(3)
    drawn = [random.normal(mean, 25, count) for mean, count in ((150, 4000), (420, 20000), (600, 16000))]

    found = fit(np.concatenate(drawn).astype(np.float32))

    np.testing.assert_allclose(found.means, (150, 420, 600), atol=2)
    np.testing.assert_allclose(found.shares, (0.1, 0.5, 0.4), atol=0.02)


def test_the_objects_conform(tmp_path: Path) -> None:
    """SEG and SR, no error of dciodvfy, the same again."""
    made = workbench.assert_conforms(mr_tissues, phantoms.tissues(depth=0.0)[0], tmp_path, even=False)

    assert [one.Modality for one in made] == ["SEG", "SR"]


def test_other_modalities_are_refused() -> None:
    """CT has ranges for its tissues."""
    with pytest.raises(NotApplicable, match="made for MR"):
        scoring.outputs(mr_tissues, phantoms.read(making.ct_series(6)))
