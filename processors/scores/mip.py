"""What `mip` is measured on, and what comes out."""

import numpy as np

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, place_of, values_of
from processors.mip import mip


def score() -> Measured:
    datasets, at = phantoms.bead()
    series = Series(datasets)
    volume = series.array()
    scores: Scores = {}
    for kind, truth in (("max", volume.max(axis=0)), ("min", volume.min(axis=0)), ("mean", volume.mean(axis=0))):
        (images,) = outputs(mip, datasets, kind=kind, slab_mm=0.0)
        (plane,) = values_of(images, series)
        # The slab's planes lie half as far apart as slices: between them, interpolation never leaves the range of both.
        scores[f"{kind}: largest difference from numpy's (HU)"] = round(float(np.abs(plane - truth).max()), 1)
    (images,) = outputs(mip, datasets, slab_mm=6.0)
    values = values_of(images, series)
    assert images.geometry is not None
    place = place_of(values, images.geometry, -1000)
    scores["shift of a bead in the plane (mm)"] = round(float(np.linalg.norm((place - np.asarray(at))[:2])), 3)
    chest = phantoms.chest()
    (high,) = outputs(mip, chest, plane="coronal", slab_mm=30.0)
    (low,) = outputs(mip, chest, plane="coronal", slab_mm=30.0, kind="min")
    one, two = values_of(high, Series(chest)), values_of(low, Series(chest))
    shown = [grey(one[len(one) // 2], -300, 1400), grey(two[len(two) // 2], -300, 1400)]
    return Measured(
        scores, beside(*shown), "Coronal slabs of 30 mm: maximum and minimum", "a bead in air, 3 mm slices; a chest"
    )
