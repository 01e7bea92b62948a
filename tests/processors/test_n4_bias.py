"""`n4-bias`: shading goes, tissue stays."""

from pathlib import Path

import bodies
import making
import phantoms
import pytest
import workbench
from benchmarks import score_processors

from pacs.processing import NotApplicable
from processors.n4_bias import n4_bias


def test_shading_is_found_and_divided_out() -> None:
    """The field correlates above .95 with the true one, and white matter becomes even."""
    scores = score_processors.score_n4_bias().scores

    assert scores["correlation of found and true field"] > 0.95
    assert scores["variation of white matter after (%)"] < scores["variation of white matter before (%)"] / 4


def test_the_images_conform(tmp_path: Path) -> None:
    """MR images on the source's grid, the same bytes again."""
    made = workbench.assert_conforms(n4_bias, bodies.head()[0], tmp_path, coarse_mm=12, iterations=5, levels=1)

    assert {one.SOPClassUID for one in made} == {"1.2.840.10008.5.1.4.1.1.4"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Modality": "CT"}, "made for MR"),
        ({**bodies.MR, "ImageType": ["DERIVED", "PRIMARY", "ADC"]}, "map"),
        ({**bodies.MR}, "below zero"),
    ],
)
def test_what_has_no_shading_is_refused(change: dict[str, object], reason: str) -> None:
    """Other modalities, maps, and signed images."""
    with pytest.raises(NotApplicable, match=reason):
        workbench.outputs(n4_bias, phantoms.read(making.ct_series(6, **change)))


def test_one_slice_is_no_volume() -> None:
    """A field is fitted in three dimensions."""
    with pytest.raises(NotApplicable, match="at least two"):
        workbench.outputs(n4_bias, bodies.head()[0][:1])
