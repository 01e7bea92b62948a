"""What `pet-lesions` is measured on, and what comes out."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, dice, grey, outputs, painted
from pacs.processing.truth import structures
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


def on_public(folder: Path) -> Measured | None:
    """A sarcoma: what thresholds bound, against the tumour that experts drew on MR and CT, moved to the PET's grid."""
    images, contours = (folder / "pet_ct_mr_sts012" / name for name in ("PET", "RTSTRUCT_PET"))
    if not images.is_dir() or not contours.is_dir():
        return None
    datasets = [dcmread(path) for path in sorted(images.iterdir())]
    series = Series(datasets)
    # Its references name slices of the uncropped series: contours are matched by their height in the frame of reference.
    (drawn,) = structures(dcmread(next(iter(sorted(contours.iterdir())))), series).values()
    voxel_ml = float(np.prod(series.geometry().spacing_mm)) / 1000
    scores: Scores = {"tumour as drawn (mL)": round(float(drawn.sum()) * voxel_ml, 1)}
    middle = int(drawn.sum(axis=(1, 2)).argmax())
    flat = 255 - grey(series.frame(middle), 4, 8)
    shown: list[NDArray[Any]] = [flat, painted(flat, drawn[middle], (60, 160, 240))]
    for name, given in (("SUV 2.5", {"suv": 2.5}), ("SUV 4", {"suv": 4.0}), ("41 %", {"method": "percent", "suv": 2.5})):
        segmentation, _ = outputs(pet_lesions, datasets, **given)
        labels = segmentation.array()
        # The bladder is hot, too: what a reader would keep of the list is what touches the tumour.
        found = np.isin(labels, [number for number in segmentation.segments if (drawn & (labels == number)).any()])
        scores[f"{name}: hot regions in the images"] = len(segmentation.segments)
        scores[f"{name}: volume of those that touch the tumour (mL)"] = round(float(found.sum()) * voxel_ml, 1)
        scores[f"{name}: their Dice"] = round(dice(found, drawn), 2)
        shown.append(painted(flat, found[middle], (230, 60, 60)))
    caption = "The slice with most tumour; as drawn; at SUV 2.5, SUV 4, 41 %"
    return Measured(scores, beside(*shown), caption, "STS_012, a sarcoma of the thigh, cropped around it")
