"""`multiscale`: faint things stand out, nothing asked is nothing done."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.multiscale import multiscale
from processors.scores.multiscale import score


def test_faint_things_stand_out() -> None:
    """Contrast of faint discs rises by a third or more and not at the cost of noise; the formulas are exact."""
    scores = score().scores

    assert scores["power 1: largest change (grey levels)"] == 0
    assert scores["power 0.6: contrast of faint discs, times"] > 1.33
    assert scores["power 0.6: contrast to noise, times"] > 0.9
    assert scores["unsharp: largest difference from the formula (grey levels)"] == 0


def test_no_more_is_clipped_than_before() -> None:
    """The range stays: no more than two per mille at either end."""
    (images,) = scoring.outputs(multiscale, phantoms.faint(), power=0.5)
    (plane,) = images.pixels

    assert ((plane == 0) | (plane == 4095)).mean() < 0.002


def test_raw_images_become_images_for_presentation() -> None:
    """FOR PROCESSING: logarithm and the SOP Class for presentation."""
    (made,) = workbench.results(multiscale, phantoms.read([phantoms.radiograph(modality="DX", for_processing=True)]))

    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
    assert (made.PresentationIntentType, made.PixelIntensityRelationship) == ("FOR PRESENTATION", "LOG")


@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_the_images_conform(modality: str, tmp_path: Path) -> None:
    """No new error of dciodvfy, the same again."""
    workbench.assert_conforms(multiscale, phantoms.read([phantoms.radiograph(modality=modality)]), tmp_path)


@pytest.mark.parametrize("change", [{"Modality": "CT"}, {"Modality": "CR", "SamplesPerPixel": 3}])
def test_what_it_is_not_for_is_refused(change: dict[str, object]) -> None:
    """Volumes and colour."""
    with pytest.raises(NotApplicable):
        scoring.outputs(multiscale, [making.dataset(**change)])


def test_a_constant_image_stays_as_it_is() -> None:
    """Nothing to amplify, nothing to divide by."""
    one = phantoms.radiograph()
    one.PixelData = np.full((160, 128), 900, "<u2").tobytes()

    (images,) = scoring.outputs(multiscale, phantoms.read([one]))

    assert all((plane == 900).all() for plane in images.pixels)
