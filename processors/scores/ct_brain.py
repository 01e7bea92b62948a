"""What `ct-brain` is measured on, and what comes out."""

import numpy as np

from pacs import phantoms
from pacs.phantoms.head import FLUID, GREY, WHITE
from pacs.processing import Series
from pacs.processing.masks import volume_ml
from pacs.processing.scoring import Measured, Picture, Scores, beside, dice, grey, hausdorff, outputs, painted
from processors.ct_brain import ct_brain

BASE_MM = -53.0
"""Below it the phantom's white matter and fluid are cord and neck."""


def score() -> Measured:
    """A whole head, and one that is scanned from above the base of the skull."""
    scores: Scores = {}
    shown: list[Picture] = []
    for name, base in (("whole head", True), ("from above the base", False)):
        datasets, labels = phantoms.tissues("CT", base=base)
        series = Series(datasets)
        segmentation, measurements = outputs(ct_brain, datasets)
        found = segmentation.array() > 0
        geometry = series.geometry()
        level = geometry.position(0)[2] + np.arange(len(labels)) * geometry.spacing_mm[0]
        truth = np.isin(labels, (WHITE, GREY, FLUID)) & (level > BASE_MM)[:, None, None]
        volume, mean = (one.value for one in measurements.values[1])
        scores |= {
            f"{name}: Dice": round(dice(found, truth), 4),
            f"{name}: Hausdorff distance, 99 % (mm)": round(hausdorff(found, truth, geometry.spacing_mm, percent=99), 1),
            f"{name}: error of volume (%)": round(100 * (volume / volume_ml(truth, geometry) - 1), 2),
            f"{name}: mean attenuation (HU)": mean,
        }
        middle = labels.shape[2] // 2
        values = series.array()
        shown.append(painted(grey(values[len(labels) // 2], 40, 120), found[len(labels) // 2], (230, 60, 60)))
        shown.append(painted(grey(values[::-1, :, middle], 40, 120), found[::-1, :, middle], (230, 60, 60)))
    return Measured(
        scores, beside(*shown), "A whole head, and one from above the base", "a head with scalp, skull, foramen and neck"
    )
