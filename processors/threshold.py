"""What is brighter (or darker) than a threshold, in connected parts: given, or found from the histogram.

Source: Otsu N, "A threshold selection method from gray-level histograms", IEEE Trans Syst Man Cybern 9 (1979) 62-66: the
threshold that parts the values into two classes of largest variance between them. Parts are joined by faces.

It knows no anatomy: it is a mask for another processor, or an answer where values mean something (HU, SUV). Otsu's threshold
is that of the whole volume, air and table included; shading of MR coils moves it from place to place.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import SimpleITK as sitk

from pacs.processing import (
    Choice,
    Code,
    Measurements,
    NotApplicable,
    Range,
    Run,
    Segment,
    Segmentation,
    Series,
    Value,
    codes,
    private_code,
    processor,
)
from pacs.processing.masks import filled, parts
from pacs.processing.units import HOUNSFIELD, NO_UNIT

TISSUE = Code("85756007", "SCT", "Tissue")
INTENSITY = private_code("INTENSITY", "Mean of the pixel values")
COLORS = ((230, 160, 60), (80, 180, 230), (150, 210, 90), (220, 90, 150), (170, 130, 230))


@processor(
    "threshold",
    version="1.0.0",
    makes=("SEG", "SR"),
    when={"Modality": ["CT", "MR", "PT"], "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=3"},
    memory_mb=6144,
)
def threshold(
    series: Series,
    run: Run,
    *,
    method: Annotated[str, Choice("otsu", "fixed"), "find the threshold, or take `level`"] = "otsu",
    level: Annotated[float, Range(-100000, 1000000), "fixed: the threshold, in the unit of the images"] = 0.0,
    side: Annotated[str, Choice("above", "below"), "which side of it is taken"] = "above",
    most: Annotated[int, Range(1, 50), "parts, the largest first"] = 1,
    smallest_ml: Annotated[float, Range(0, 10000, "mL"), "smaller parts are left out"] = 1.0,
    fill: Annotated[bool, "what a part encloses belongs to it"] = False,
) -> Iterator[Segmentation | Measurements]:
    """What is above or below a threshold (Otsu's, or a given one), its largest parts: a segmentation, and their volumes."""
    if series.modality not in ("CT", "MR", "PT"):
        raise NotApplicable("made for CT, MR and PET")
    geometry = series.geometry()
    values = series.array()
    if float(values.max()) <= float(values.min()):
        raise NotApplicable("all pixels have one value")
    at = level if method == "fixed" else otsu(values)
    run.progress(0.4, "finding parts")
    labels, sizes = parts(values >= at if side == "above" else values < at)
    numbers = [n for n in range(1, min(most, len(sizes) - 1) + 1) if sizes[n] * geometry.voxel_ml >= smallest_ml]
    if not numbers:
        raise NotApplicable(f"nothing of at least {smallest_ml:g} mL lies {side} the threshold {at:.6g}")
    found = np.zeros(values.shape, np.uint8)
    # Smallest first, so that what a large part encloses does not take a small one away.
    for number in reversed(numbers):
        whole = labels == number
        found[(filled(whole) if fill else whole) & (found == 0)] = number
    name, unit = (codes.DCM.AttenuationCoefficient, HOUNSFIELD) if series.modality == "CT" else (INTENSITY, NO_UNIT)
    segments = {n: Segment(f"Part {n}", TISSUE, TISSUE, COLORS[(n - 1) % len(COLORS)]) for n in numbers}
    measured = {
        n: [
            Value(codes.SCT.Volume, round(int((found == n).sum()) * geometry.voxel_ml, 2), codes.UCUM.CubicCentimeter),
            Value(name, round(float(values[found == n].mean(dtype=np.float64)), 3), unit, codes.SCT.Mean),
        ]
        for n in numbers
    }
    run.progress(0.8, "writing")
    segmentation = Segmentation(series, found, segments, f"Parts {side} {at:.6g}")
    yield segmentation
    yield Measurements(segmentation, measured, "Volumes of parts", dict.fromkeys(numbers, f"{side} {at:.6g}, {method}"))


def otsu(values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> float:
    """Return Otsu's threshold over 1024 levels; values beyond the outermost thousandths do not stretch them."""
    low, high = (float(one) for one in np.percentile(values[:, ::2, ::2], (0.1, 99.9)))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    image = sitk.GetImageFromArray(np.clip(values, low, high))
    measure = sitk.OtsuThresholdImageFilter()
    measure.SetNumberOfHistogramBins(1024)
    measure.Execute(image)
    return float(measure.GetThreshold())
