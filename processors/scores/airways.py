"""What `airways` is measured on, and what comes out."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.masks import parts, volume_ml
from pacs.processing.scoring import Measured, Scores, beside, dice, outputs
from processors.airways import airways


def score() -> Measured:
    datasets, truth = phantoms.airways()
    geometry = Series(datasets).geometry()
    segmentation, measurements = outputs(airways, datasets)
    found = segmentation.array() > 0
    volume = measurements.values[1][0].value
    scores: Scores = {
        "Dice": round(dice(found, truth), 4),
        "share of the lumen that is found (%)": round(100 * float(found[truth].mean()), 1),
        "leaked (mL)": round(volume_ml(found & ~truth, geometry), 2),
        "error of volume (%)": round(100 * (volume / volume_ml(truth, geometry) - 1), 2),
    }
    shown = beside(*(_shadow(one, axis) for one in (truth, found) for axis in (1, 2)))
    return Measured(
        scores, shown, "The true tree from the front and the side, and what was found", "a tree of tubes with a leak"
    )


def on_public(folder: Path) -> Measured | None:
    """A low-dose chest; its airways were not labelled."""
    chest = folder / "ct_chest_nlst101287" / "CT"
    if not chest.is_dir():
        return None
    datasets = [dcmread(path) for path in sorted(chest.iterdir())]
    segmentation, measurements = outputs(airways, datasets)
    found = segmentation.array() > 0
    scores: Scores = {
        "NLST chest: volume of the lumen (mL)": measurements.values[1][0].value,
        "NLST chest: parts": len(parts(found, corners=True)[1]) - 1,
        "NLST chest: slices it is seen in": int(found.any(axis=(1, 2)).sum()),
    }
    shown = beside(_shadow(found, 1), _shadow(found, 2))
    return Measured(scores, shown, "From the front and from the side", "NLST 101287 (143 slices of 2 mm, low dose)")


def _shadow(mask: NDArray[Any], axis: int) -> NDArray[np.uint8]:
    depth = mask.sum(axis=axis)[::-1]
    bright = np.where(depth > 0, 70 + 185 * depth / max(int(depth.max()), 1), 0)
    return np.repeat(bright.astype(np.uint8)[..., None], 3, axis=2)
