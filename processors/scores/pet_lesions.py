"""What `pet-lesions` is measured on, and what comes out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, painted
from processors.pet_lesions import pet_lesions


def score() -> Measured:
    scores: Scores = {"spheres": len(phantoms.SPHERES)}
    shown: list[NDArray[Any]] = []
    for sharpness, fwhm_mm in (("sharp", 0.0), ("blurred by 6 mm", 6.0)):
        datasets = phantoms.hot_spheres(fwhm_mm=fwhm_mm)
        uptake = Series(datasets).array() * 80000 / (3.7e8 * 2 ** (-3600 / 6588))
        for name, given in (("SUV 2.5", {"suv": 2.5}), ("SUV 4", {"suv": 4.0}), ("41 %", {"method": "percent", "suv": 2.5})):
            segmentation, measurements = outputs(pet_lesions, datasets, **given)
            scores[f"{sharpness}, {name}: lesions"] = len(measurements.values)
            errors = [_sphere_errors(number, measurements) for number in measurements.values]
            for index, what in enumerate(("volume", "SUVmax", "SUVpeak")):
                scores[f"{sharpness}, {name}: largest error of {what} (%)"] = round(max(one[index] for one in errors), 1)
            if fwhm_mm:
                flat = 255 - grey(uptake.max(axis=1)[::-1], 4, 8)
                colored = flat
                for number, segment in segmentation.segments.items():
                    colored = painted(colored, (segmentation.array() == number).any(axis=1)[::-1], segment.color_rgb)
                shown += [colored] if shown else [flat, colored]
    caption = "Maximum projection from the front; lesions at SUV 2.5, SUV 4, 41 %"
    return Measured(
        scores, beside(*shown), caption, "spheres of 12 to 16 mm radius and SUV 10, 6, 3 in a background of 1, 4 mm voxels"
    )


def _sphere_errors(number: int, measurements: Any) -> tuple[float, float, float]:
    _, radius, suv = phantoms.SPHERES[number - 1]
    volume, largest, _, peak, _ = (one.value for one in measurements.values[number])
    truth_ml = 4 / 3 * np.pi * radius**3 / 1000
    return 100 * abs(volume / truth_ml - 1), 100 * abs(largest / suv - 1), 100 * abs(peak / suv - 1)
