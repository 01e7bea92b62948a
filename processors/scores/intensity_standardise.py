"""What `intensity-standardise` is measured on, and what comes out."""

import numpy as np
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.phantoms.head import GREY, WHITE
from pacs.processing import Series
from pacs.processing.scoring import Measured, Picture, Scores, beside, grey, outputs, values_of
from processors.intensity_standardise import intensity_standardise

SCANNERS = ((0.6, 1.0), (1.0, 1.0), (1.7, 0.9))
"""Gain and gamma of one head's images on three scanners."""


def score() -> Measured:
    """One head as three scanners with other gains and response would show it: how far tissues differ from each other."""
    datasets, labels = phantoms.tissues(depth=0.0)
    heads = [scanned(datasets, gain, gamma) for gain, gamma in SCANNERS]
    scores: Scores = {}
    shown: list[Picture] = []
    for method in ("as they are", "landmarks", "white-stripe"):
        volumes = []
        for one in heads:
            series = Series(one)
            plain = method == "as they are"
            volumes.append(
                series.array() if plain else values_of(outputs(intensity_standardise, one, method=method)[0], series)
            )
        white = np.array([float(one[labels == WHITE].mean()) for one in volumes])
        mantle = np.array([float(one[labels == GREY].mean()) for one in volumes])
        # White stripe makes white matter 0: differences are told in shares of the contrast of white and grey.
        contrast = float((white - mantle).mean())
        scores[f"{method}: range of white matter (% of its contrast to grey)"] = round(100 * float(np.ptp(white)) / contrast, 1)
        scores[f"{method}: range of grey matter (% of the contrast)"] = round(100 * float(np.ptp(mantle)) / contrast, 1)
        if method != "white-stripe":
            shown += [grey(one[32], 500, 1000) for one in volumes]
    caption = "One head from three scanners, as they are and on the standard scale, in one window"
    return Measured(scores, beside(*shown, height=160), caption, "a T1-like head, with three gains and a gamma of 0.9")


def scanned(datasets: list[Dataset], gain: float, gamma: float) -> list[Dataset]:
    """Return a head with its values multiplied, and bent by a power."""
    values = Series(datasets).array()
    bent = 1000 * (values / 1000) ** gamma * gain
    geometry = Series(datasets).geometry()
    return phantoms.stack(bent, geometry.spacing_mm, geometry.origin, **phantoms.MR)
