"""What `mpr` is measured on, and what comes out."""

import numpy as np

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, place_of, values_of
from processors.mpr import mpr


def score() -> Measured:
    datasets, at = phantoms.bead()
    series = Series(datasets)
    scores: Scores = {}
    shown = []
    for name, given in (
        ("coronal", {}),
        ("sagittal", {"plane": "sagittal"}),
        ("oblique by 30 and 20 degrees", {"turn_deg": 30.0, "tilt_deg": 20.0}),
        ("across the direction 1,2,3", {"normal": "1,2,3"}),
    ):
        (images,) = outputs(mpr, datasets, step_mm=1.5, **given)
        values = values_of(images, series)
        assert images.geometry is not None
        shift = np.linalg.norm(place_of(values, images.geometry, -1000) - np.asarray(at))
        scores[f"{name}: shift of a bead (mm)"] = round(float(shift), 3)
    chest = phantoms.chest()
    for given in ({}, {"plane": "sagittal"}, {"turn_deg": 30.0, "tilt_deg": 20.0}):
        (images,) = outputs(mpr, chest, step_mm=6.0, **given)
        values = values_of(images, Series(chest))
        shown.append(grey(values[int(len(values) * (0.42 if "plane" not in given else 0.28))], -300, 1400))
    return Measured(
        scores, beside(*shown), "Coronal, sagittal and oblique plane through a chest", "a bead in air, 3 mm slices; a chest"
    )
