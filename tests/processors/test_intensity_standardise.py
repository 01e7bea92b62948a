"""`intensity-standardise`: a tissue has the same value whatever the scanner."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, Series, scoring
from processors.intensity_standardise import foreground, intensity_standardise, learnt
from processors.scores.intensity_standardise import scanned, score


def test_scanners_agree_afterwards() -> None:
    """Tissues that differed by several times their contrast differ by less than a tenth of it."""
    scores = score().scores

    assert scores["as they are: range of white matter (% of its contrast to grey)"] > 200
    for method in ("landmarks", "white-stripe"):
        assert scores[f"{method}: range of white matter (% of its contrast to grey)"] < 10


def test_a_learnt_scale_is_reached() -> None:
    """The percentiles of the foreground become the numbers that were learnt, on another scanner, too."""
    datasets = phantoms.tissues(depth=0.0)[0]
    volume = Series(datasets).array()
    scale = learnt([volume])
    other = Series(scanned(datasets, 1.7, 0.9))

    (images,) = scoring.outputs(intensity_standardise, other.datasets, scale=" ".join(map(str, scale)))

    inside = foreground(other.array())
    found = np.percentile(scoring.values_of(images, other)[inside], (1, 50, 99))
    np.testing.assert_allclose(found, (scale[0], scale[5], scale[-1]), atol=2)


@pytest.mark.parametrize("method", ["landmarks", "z-score"])
def test_the_images_conform(method: str, tmp_path: Path) -> None:
    """MR images on the source's grid, the same bytes again; those by z-score with mean 0 and deviation 1."""
    datasets = phantoms.head()[0]

    made = workbench.assert_conforms(intensity_standardise, datasets, tmp_path, method=method)

    assert {one.SOPClassUID for one in made} == {"1.2.840.10008.5.1.4.1.1.4"}
    if method == "z-score":
        values = Series(phantoms.read(made)).array()[foreground(Series(datasets).array())]
        assert (float(values.mean()), float(values.std())) == pytest.approx((0, 1), abs=0.02)


@pytest.mark.parametrize(
    ("change", "given", "reason"),
    [
        ({"Modality": "CT"}, {}, "made for MR"),
        ({**phantoms.MR, "ImageType": ["DERIVED", "PRIMARY", "ADC"]}, {}, "map"),
        ({**phantoms.MR}, {}, "below zero"),
    ],
)
def test_what_has_a_scale_is_refused(change: dict[str, object], given: dict[str, object], reason: str) -> None:
    """Other modalities, maps, signed images."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(intensity_standardise, phantoms.read(making.ct_series(6, **change)), **given)


def test_a_wrong_scale_is_refused() -> None:
    """Eleven ascending numbers, nothing else."""
    with pytest.raises(NotApplicable, match="11 ascending"):
        scoring.outputs(intensity_standardise, phantoms.head()[0], scale="1 2 3")
