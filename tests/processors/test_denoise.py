"""`denoise`: noise goes, edges and values stay."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, Series, scoring
from pacs.processing.scoring import Scores
from processors.denoise import denoise
from processors.scores.denoise import score


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score().scores


def test_noise_is_measured(scores: Scores) -> None:
    """Within 15 % of what was put in."""
    assert scores["noise measured (HU)"] == pytest.approx(25, rel=0.15)


@pytest.mark.parametrize(("method", "shift"), [("nlm", 3), ("curvature", 3), ("tv", 15)])
def test_images_come_nearer_to_the_truth(method: str, shift: float, scores: Scores) -> None:
    """At least 6 dB; four fifths of the noise gone; inserts keep their mean (total variation lowers small ones)."""
    assert scores[f"{method}: PSNR after (dB)"] > scores["PSNR before (dB)"] + 6
    assert scores[f"{method}: standard deviation left inside (HU)"] < 0.2 * 25
    assert scores[f"{method}: largest shift of an insert's mean (HU)"] < shift


@pytest.mark.parametrize("method", ["nlm", "curvature", "tv"])
def test_no_strength_changes_nothing(method: str) -> None:
    """Strength 0 is the identity, bit for bit."""
    datasets = phantoms.tissue(frames=2)[0]

    (images,) = scoring.outputs(denoise, datasets, method=method, strength=0)

    for before, after in zip(Series(datasets).datasets, images.pixels, strict=True):
        assert np.array_equal(before.pixel_array, after)


def test_an_empty_image_stays_empty() -> None:
    """A constant slice has no noise to divide by."""
    datasets = phantoms.read(making.ct_series(2, frame=np.full((16, 16), -1000, "<i2")))

    (images,) = scoring.outputs(denoise, datasets)

    assert all((one == -1000).all() for one in images.pixels)


@pytest.mark.parametrize("kind", ["CT", "MR", "CR"])
@pytest.mark.parametrize("method", ["nlm", "curvature", "tv"])
def test_the_images_conform(kind: str, method: str, tmp_path: Path) -> None:
    """In the source's IOD, no new error of dciodvfy, the same again."""
    datasets = {
        "CT": lambda: phantoms.tissue(frames=2, size=48)[0],
        "MR": lambda: phantoms.head()[0][:2],
        "CR": lambda: phantoms.read([phantoms.radiograph()]),
    }[kind]()

    made = workbench.assert_conforms(denoise, datasets, tmp_path, most=1, method=method)

    assert made[0].SOPClassUID == datasets[0].SOPClassUID
    assert "RescaleSlope" not in made[0] if kind == "MR" else made[0].RescaleSlope == 1


def test_raw_radiographs_are_refused() -> None:
    """FOR PROCESSING: noise is not the same everywhere."""
    with pytest.raises(NotApplicable, match="FOR PROCESSING"):
        scoring.outputs(denoise, phantoms.read([phantoms.radiograph(modality="DX", for_processing=True)]))
