"""`n4-bias`: shading goes, tissue stays."""

from pathlib import Path

import making
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.n4_bias import n4_bias
from processors.scores.n4_bias import score


def test_shading_is_found_and_divided_out() -> None:
    """The field correlates above .95 with the true one, and white matter becomes even."""
    scores = score().scores

    assert scores["correlation of found and true field"] > 0.95
    assert scores["variation of white matter after (%)"] < scores["variation of white matter before (%)"] / 4


def test_the_images_conform(tmp_path: Path) -> None:
    """MR images on the source's grid, the same bytes again."""
    made = workbench.assert_conforms(n4_bias, phantoms.head()[0], tmp_path, coarse_mm=12, iterations=5, levels=1)

    assert {one.SOPClassUID for one in made} == {"1.2.840.10008.5.1.4.1.1.4"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Modality": "CT"}, "made for MR"),
        ({**phantoms.MR, "ImageType": ["DERIVED", "PRIMARY", "ADC"]}, "map"),
        ({**phantoms.MR}, "below zero"),
    ],
)
def test_what_has_no_shading_is_refused(change: dict[str, object], reason: str) -> None:
    """Other modalities, maps, and signed images."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(n4_bias, phantoms.read(making.ct_series(6, **change)))


def test_one_slice_is_no_volume() -> None:
    """A field is fitted in three dimensions."""
    with pytest.raises(NotApplicable, match="at least two"):
        scoring.outputs(n4_bias, phantoms.head()[0][:1])
