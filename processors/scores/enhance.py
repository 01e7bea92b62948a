"""What `enhance` is measured on, and what comes out."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs
from pacs.processing.truth import read
from processors.enhance import enhance


def score() -> Measured:
    """Look how much faint discs stand out, what the identity changes, and that values outside the window stay."""
    faint = phantoms.faint()
    before = faint[0].pixel_array.astype(np.float64)
    (images,) = outputs(enhance, faint)
    after = next(iter(images.pixels)).astype(np.float64)
    ct = phantoms.tissue(frames=1)[0]
    stored = ct[0].pixel_array
    (same,), (changed,) = outputs(enhance, ct, strength=0.0), outputs(enhance, ct, strength=1.0)
    equal, strong = next(iter(same.pixels)), next(iter(changed.pixels))
    outside = (stored < -160) | (stored > 240)
    scores: Scores = {
        "radiograph: contrast of faint discs to the range of the image, times": round(_contrast(after) / _contrast(before), 2),
        "CT, strength 0: largest change (HU)": float(np.abs(equal.astype(int) - stored).max()),
        "CT, strength 1: largest change outside the window (HU)": float(np.abs(strong.astype(int) - stored)[outside].max()),
    }
    shown = [grey(before, 2000, 3600), grey(after, 2048, 4096), grey(stored, 40, 400), grey(strong, 40, 400)]
    caption = "A radiograph and a CT, before and after"
    return Measured(scores, beside(*shown), caption, "a steep ramp with nine faint discs; a CT of a body with inserts")


def on_public(folder: Path) -> Measured | None:
    """Enhance a chest radiograph and a mammogram."""
    shown = []
    for series in (one for name in ("xray", "mammo") for one in read(folder / name).series):
        if series.modality in ("CR", "DX", "MG"):
            (images,) = outputs(enhance, series.datasets)
            for one, pixels in zip(series.datasets, images.pixels, strict=True):
                shown += [_whole(one.pixel_array, one), _whole(pixels, one)]
    if not shown:
        return None
    return Measured({"images": len(shown) / 2}, beside(*shown), "Before and after, each", "chest radiographs and a mammogram")


def _contrast(plane: NDArray[np.float64]) -> float:
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
    found = []
    for row, column in phantoms.FAINT:
        distance = np.hypot(y - row, x - column)
        found.append(plane[distance < 3].mean() - plane[(distance > 5) & (distance < 8)].mean())
    return float(np.mean(found) / (np.percentile(plane, 99) - np.percentile(plane, 1)))


def _whole(plane: NDArray[np.int_], one: Dataset) -> NDArray[np.uint8]:
    low, high = np.percentile(plane, (1, 99))
    picture = grey(plane.astype(np.float64), (low + high) / 2, max(high - low, 1))
    return 255 - picture if one.PhotometricInterpretation == "MONOCHROME1" else picture
