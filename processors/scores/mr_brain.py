"""What `mr-brain` is measured on, and what comes out."""

from pathlib import Path

import numpy as np

from pacs import phantoms
from pacs.phantoms.head import GREY, WHITE
from pacs.processing import Series
from pacs.processing.masks import Mask, volume_ml
from pacs.processing.scoring import Measured, Picture, Scores, beside, dice, grey, hausdorff, outputs, painted
from pacs.processing.truth import read
from processors.mr_brain import mr_brain

FORAMEN_MM = -60.0
"""Below it the phantom's white matter is cord."""


def score() -> Measured:
    datasets, labels = phantoms.tissues()
    series = Series(datasets)
    geometry = series.geometry()
    level = geometry.position(0)[2] + np.arange(len(labels)) * geometry.spacing_mm[0]
    truth = np.isin(labels, (WHITE, GREY)) & (level > FORAMEN_MM)[:, None, None]
    scores, found = _compared("", series, truth)
    middle = labels.shape[2] // 2
    shown = [_outlined(series, found, index) for index in (22, 32)]
    side = painted(grey(series.array()[::-1, :, middle], 350, 800), found[::-1, :, middle], (230, 60, 60))
    return Measured(scores, beside(*shown, side), "Two slices, and from the side", "a T1-like head with shading and a neck")


def on_public(folder: Path) -> Measured | None:
    """The average of 152 heads, and the mask that came with it."""
    if not (folder / "gt_brain_spm152").is_dir():
        return None
    labelled = read(folder / "gt_brain_spm152")
    (series,) = labelled.series
    (truth,) = labelled.masks(series).values()
    scores, found = _compared("ICBM 152: ", series, truth)
    shown = [_outlined(series, found, index) for index in (20, 36, 52, 68)]
    return Measured(scores, beside(*shown), "Four slices", "the average of 152 T1 heads (ICBM 152), 91 slices of 2 mm")


def _compared(prefix: str, series: Series, truth: Mask) -> tuple[Scores, Mask]:
    segmentation, measurements = outputs(mr_brain, series.datasets)
    found = segmentation.array() > 0
    geometry = series.geometry()
    volume = measurements.values[1][0].value
    scores: Scores = {
        f"{prefix}Dice": round(dice(found, truth), 4),
        f"{prefix}Hausdorff distance, 99 % (mm)": round(hausdorff(found, truth, geometry.spacing_mm, percent=99), 1),
        f"{prefix}volume (mL)": volume,
        f"{prefix}error of volume (%)": round(100 * (volume / volume_ml(truth, geometry) - 1), 2),
    }
    return scores, found


def _outlined(series: Series, found: Mask, index: int) -> Picture:
    plane = series.frame(index)
    top = float(np.percentile(series.array(), 99.5))
    return painted(grey(plane, top / 2, top), found[index], (230, 60, 60))
