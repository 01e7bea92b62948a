"""What `denoise` is measured on, and what comes out."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, psnr, values_of
from processors.denoise import denoise, estimate


def score() -> Measured:
    datasets, clean = phantoms.tissue(noise=25, frames=3)
    series = Series(datasets)
    noisy = series.array()
    scores: Scores = {"noise put in (HU)": 25.0, "noise measured (HU)": round(estimate(series), 1)}
    scores["PSNR before (dB)"] = round(psnr(noisy, clean), 1)
    shown = [grey(noisy[1], 50, 500)]
    inside = clean > -500
    for method in ("nlm", "curvature", "tv"):
        (images,) = outputs(denoise, datasets, method=method)
        values = values_of(images, series)
        scores[f"{method}: PSNR after (dB)"] = round(psnr(values, clean), 1)
        scores[f"{method}: largest shift of an insert's mean (HU)"] = round(
            max(abs(float(values[_core(clean, value)].mean()) - value) for value in (50, 120, -100, 300)), 1
        )
        scores[f"{method}: standard deviation left inside (HU)"] = round(
            float((values - clean)[inside & _flat(clean)].std()), 1
        )
        shown.append(grey(values[1], 50, 500))
    return Measured(
        scores, beside(*shown), "Before, non-local means, curvature diffusion, total variation", "a CT of a body with inserts"
    )


def _core(clean: NDArray[Any], value: float) -> NDArray[Any]:
    """Where a value holds and its surroundings, too."""
    mask = np.stack([cv2.erode((plane == value).astype(np.uint8), np.ones((7, 7), np.uint8)) for plane in clean])
    return mask > 0


def _flat(clean: NDArray[Any]) -> NDArray[Any]:
    kernel = np.ones((5, 5), np.uint8)
    return np.stack([cv2.dilate(p.astype(np.float32), kernel) == cv2.erode(p.astype(np.float32), kernel) for p in clean])
