"""What `multiscale` is measured on, and what comes out."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs import phantoms
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs
from processors.multiscale import multiscale


def score() -> Measured:
    source = phantoms.faint()
    before = source[0].pixel_array.astype(np.float64)
    (same,) = outputs(multiscale, source, power=1.0)
    (changed,) = outputs(multiscale, source, power=0.6)
    (sharper,) = outputs(multiscale, source, power=1.0, unsharp=1.5, radius_mm=0.6)
    identity, after, sharp = (next(iter(one.pixels)).astype(np.float64) for one in (same, changed, sharper))
    y, x = np.mgrid[:160, :128]

    def contrast(plane: NDArray[Any]) -> float:
        found = []
        for row, column in phantoms.FAINT:
            distance = np.hypot(y - row, x - column)
            found.append(plane[distance < 3].mean() - plane[(distance > 5) & (distance < 8)].mean())
        return float(np.mean(found))

    def noise(plane: NDArray[Any]) -> float:
        part = plane[45:65, 20:110]
        return float((part - part.mean(axis=0)).std())

    blurred = cv2.GaussianBlur(before.astype(np.float32), (0, 0), 0.6 / 0.2, borderType=cv2.BORDER_REFLECT)
    truth = np.rint(np.clip(before + 1.5 * (before - blurred), 0, 4095))
    scores: Scores = {
        "power 1: largest change (grey levels)": float(np.abs(identity - before).max()),
        "power 0.6: contrast of faint discs, times": round(contrast(after) / contrast(before), 2),
        "power 0.6: contrast to noise, times": round(contrast(after) / contrast(before) * noise(before) / noise(after), 2),
        "unsharp: largest difference from the formula (grey levels)": float(np.abs(sharp - truth).max()),
    }
    shown = [grey(one - one.mean(axis=0), 0, 200) for one in (before, after, sharp)]
    caption = "Before, power 0.6, unsharp 1.5; the ramp is taken away for the eye"
    return Measured(scores, beside(*shown), caption, "a radiograph: a steep ramp with nine faint discs")
