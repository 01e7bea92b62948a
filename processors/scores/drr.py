"""What `drr` is measured on, and what comes out."""

import numpy as np

from pacs import phantoms
from pacs.phantoms import petct
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, values_of
from processors.drr import WATER, drr

RADIUS_MM = 30.0
AT = (10.0, -6.0, 42.0)


def score() -> Measured:
    """Send rays through a ball of water, whose line integrals and whose shadow are known."""
    shape, spacing, origin = (48, 80, 80), (2.0, 1.5, 1.5), (-59.25, -59.25, -5.0)
    z, y, x = phantoms.mesh(shape, spacing, origin)
    inside = (x - AT[0]) ** 2 + (y - AT[1]) ** 2 + (z - AT[2]) ** 2 < RADIUS_MM**2
    datasets = phantoms.stack(np.where(inside, 0.0, -1000.0), spacing, origin)
    series = Series(datasets)
    scores: Scores = {"through the middle, by hand": round(2 * RADIUS_MM * WATER, 3)}
    for name, source_mm in (("parallel rays", 0.0), ("source at 1000 mm", 1000.0)):
        front, side = outputs(drr, datasets, source_mm=source_mm, pixel_mm=1.0)
        integrals = [values_of(one, series)[0] for one in (front, side)]
        scores[f"{name}: through the middle"] = round(max(float(one.max()) for one in integrals), 3)
        volume = 4 / 3 * np.pi * RADIUS_MM**3 * WATER
        scores[f"{name}: error of the whole shadow (%)"] = round(
            100 * max(abs(float(one.sum()) / volume - 1) for one in integrals), 2
        )
    chest = [one for name, one in petct.study() if name == "CT"]
    shown = []
    for given in ({}, {"above_hu": 150.0}):
        for one in outputs(drr, chest, pixel_mm=1.5, **given):
            plane = values_of(one, Series(chest))[0]
            shown.append(grey(plane, float(plane.max()) / 2, float(plane.max())))
    caption = "From the front and the side; the same, bone alone"
    return Measured(scores, beside(*shown), caption, "a ball of water of 30 mm radius; a chest")
