"""Coronary calcium by Agatston's formula within a region: a given cylinder, or what the lungs enclose.

Source: Agatston AS, Janowitz WR, Hildner FJ et al., "Quantification of coronary artery calcium using ultrafast computed
tomography", J Am Coll Cardiol 15 (1990) 827-832: slice by slice, parts of at least 1 mm2 above 130 HU, area times a weight
by the part's largest value (1 from 130, 2 from 200, 3 from 300, 4 from 400 HU). Its slices were 3 mm; other distances are
brought to that as in McCollough CH et al., "Coronary artery calcium: a multi-institutional, multimanufacturer international
standard for quantification at cardiac CT", Radiology 243 (2007) 527-538. Volume score: Callister TQ et al., Radiology 208
(1998) 807-814.

The score is exact for the region it is given. The region of its own accord (`radius_mm` 0) is what lies between both lungs,
in front of the spine, joined to no large bone: it takes in calcium of valves and aorta, too, which may be most of it; draw the
cylinder around the heart for a coronary score. Contrast medium is refused.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing import (
    Code,
    Geometry,
    Measurements,
    NotApplicable,
    Range,
    Run,
    Segment,
    Segmentation,
    Series,
    Value,
    codes,
    ct_volume,
    processor,
)
from pacs.processing.units import HOUNSFIELD, NO_UNIT
from processors.ct_lungs import LEFT, RIGHT, ct_lungs

REGION, CALCIUM = 1, 2
AGATSTON = codes.DCM.CalciumScore
STANDARD_SLICE_MM = 3.0
BONE_ML = 3.0
"""Dense parts larger than this are bone."""
MOST_OF_HULL = 0.55
"""Where less than the rest of what the lungs enclose is lung, the slice lies below the heart or above it."""
Mask = NDArray[np.bool_]


@processor(
    "agatston",
    version="1.0.0",
    makes=("SEG", "SR"),
    when={"Modality": "CT", "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=10", "ContrastBolusAgent": ""},
    queue="cpu",
    memory_mb=6144,
)
def agatston(
    series: Series,
    run: Run,
    *,
    radius_mm: Annotated[
        float, Range(0, 200, "mm"), "of an upright cylinder that is searched; 0 searches between the lungs"
    ] = 0.0,
    x_mm: Annotated[float, Range(-1000, 1000, "mm"), "centre of the cylinder, towards the patient's left"] = 0.0,
    y_mm: Annotated[float, Range(-1000, 1000, "mm"), "centre of the cylinder, towards the patient's back"] = 0.0,
    z_low_mm: Annotated[float, Range(-5000, 5000, "mm"), "lower end of the cylinder"] = -5000.0,
    z_high_mm: Annotated[float, Range(-5000, 5000, "mm"), "upper end of the cylinder"] = 5000.0,
    threshold: Annotated[float, Range(90, 200, "HU"), "calcium is at or above it"] = 130.0,
    smallest_mm2: Annotated[float, Range(0, 10, "mm2"), "a smaller part of a slice is noise"] = 1.0,
) -> Iterator[Segmentation | Measurements]:
    """Coronary calcium on CT without contrast: Agatston and volume score within a region, and where the calcium is."""
    geometry = ct_volume(series)
    if series.text("ContrastBolusAgent"):
        raise NotApplicable("contrast medium is as dense as calcium")
    if abs(geometry.normal[2]) < 0.99:
        raise NotApplicable("made for axial slices")
    if geometry.spacing_mm[0] > 5.05:
        raise NotApplicable("slices of more than 5 mm are not comparable")
    # Outside the field of view some scanners write -2000 or -3024.
    hounsfield = np.maximum(series.array(), np.float32(-1024))
    if not -1025 <= float(np.percentile(hounsfield[:, ::8, ::8], 1)) < 100:
        raise NotApplicable("not Hounsfield units")
    run.progress(0.2, "finding the region")
    if radius_mm:
        region = cylinder(geometry, (x_mm, y_mm), radius_mm, (z_low_mm, z_high_mm))
    else:
        region = between_lungs(series, hounsfield, geometry, threshold)
    if not region.any():
        raise NotApplicable("the region holds no part of the images")
    run.progress(0.7, "scoring")
    total, calcium = score(hounsfield, region, geometry, threshold, smallest_mm2)
    labels = region.astype(np.uint8) * REGION
    labels[calcium] = CALCIUM
    segments = {
        REGION: Segment("Region searched for calcium", Code("72410000", "SCT", "Mediastinum"), color_rgb=(160, 160, 200))
    }
    values = {REGION: [Value(AGATSTON, round(total, 2), NO_UNIT)]}
    comments = {REGION: f"Agatston score of the region, brought to slices of 3 mm; part of {_category(total)}"}
    if calcium.any():
        volume = int(calcium.sum()) * float(np.prod(geometry.spacing_mm))
        segments[CALCIUM] = Segment(
            "Calcium",
            Code("18115005", "SCT", "Calcification"),
            Code("49755003", "SCT", "Morphologically Abnormal Structure"),
            (250, 250, 90),
        )
        values[CALCIUM] = [
            Value(codes.SCT.Volume, round(volume, 2), codes.UCUM.CubicMillimeter),
            Value(codes.DCM.AttenuationCoefficient, round(float(hounsfield[calcium].max()), 1), HOUNSFIELD, codes.SCT.Maximum),
        ]
    segmentation = Segmentation(series, labels, segments, "Coronary calcium")
    yield segmentation
    yield Measurements(segmentation, values, "Agatston score", comments)


def score(
    hounsfield: NDArray[np.float32], region: Mask, geometry: Geometry, threshold: float = 130.0, smallest_mm2: float = 1.0
) -> tuple[float, Mask]:
    """Return the Agatston score of a region and the voxels that counted.

    Parts are joined within a slice by edges and corners. A part is dense by its largest value within the region.
    """
    pixel_mm2 = geometry.spacing_mm[1] * geometry.spacing_mm[2]
    counted = np.zeros(region.shape, np.bool_)
    total = 0.0
    for index in np.flatnonzero(region.any(axis=(1, 2))):
        dense = (region[index] & (hounsfield[index] >= threshold)).astype(np.uint8)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(dense, connectivity=8)
        for number in range(1, count):
            area = float(stats[number, cv2.CC_STAT_AREA]) * pixel_mm2
            # A per mille of slack: four pixels of 0.5 mm are 1 mm2, whatever the decimal strings of the spacing say.
            if area < smallest_mm2 * 0.999:
                continue
            part = parts == number
            total += area * weight(float(hounsfield[index][part].max()))
            counted[index] |= part
    return total * geometry.spacing_mm[0] / STANDARD_SLICE_MM, counted


def weight(largest: float) -> int:
    """Agatston's density weight."""
    return 1 if largest < 200 else 2 if largest < 300 else 3 if largest < 400 else 4


def cylinder(geometry: Geometry, center: tuple[float, float], radius_mm: float, ends: tuple[float, float]) -> Mask:
    """Return the voxels whose centres lie in an upright cylinder (patient coordinates)."""
    rows, columns = np.mgrid[: geometry.shape[1], : geometry.shape[2]]
    region = np.zeros(geometry.shape, np.bool_)
    for index in range(geometry.shape[0]):
        origin = geometry.position(index)
        x, y, z = (
            origin[axis]
            + columns * geometry.spacing_mm[2] * geometry.row[axis]
            + rows * geometry.spacing_mm[1] * geometry.column[axis]
            for axis in range(3)
        )
        region[index] = (np.hypot(x - center[0], y - center[1]) <= radius_mm) & (z >= ends[0]) & (z <= ends[1])
    return region


def between_lungs(series: Series, hounsfield: NDArray[np.float32], geometry: Geometry, threshold: float) -> Mask:
    """Return what both lungs enclose in each slice, its front three quarters, without bones and what joins them."""
    (segmentation, *_) = ct_lungs(series, Run())
    lungs = segmentation.array()
    region = np.zeros(lungs.shape, np.bool_)
    for index, plane in enumerate(lungs):
        if not ((plane == RIGHT).any() and (plane == LEFT).any()):
            continue
        points = np.argwhere((plane == RIGHT) | (plane == LEFT))[:, ::-1].astype(np.int32)
        hull = np.zeros(plane.shape, np.uint8)
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
        inside = (hull > 0) & (plane == 0)
        if inside.sum() > MOST_OF_HULL * hull.sum():
            continue  # liver and spleen, or the shoulders: not the heart's slices
        rows = np.flatnonzero((plane > 0).any(axis=1))
        # Patient y grows towards the back; rows may run either way.
        span = int(0.75 * (rows[-1] - rows[0] + 1))
        front = slice(rows[0], rows[0] + span) if geometry.column[1] > 0 else slice(rows[-1] - span + 1, rows[-1] + 1)
        region[index, front] = inside[front]
    if not region.any():
        raise NotApplicable("no slice shows both lungs: give a cylinder instead")
    dense = sitk.ConnectedComponent(sitk.GetImageFromArray((hounsfield >= threshold).astype(np.uint8)), True)
    parts: NDArray[Any] = sitk.GetArrayFromImage(dense)
    sizes = np.bincount(parts.ravel()) * float(np.prod(geometry.spacing_mm)) / 1000
    large = sizes > BONE_ML
    large[0] = False
    return region & ~large[parts]


def _category(total: float) -> str:
    """Rumberger JA et al., Mayo Clin Proc 74 (1999) 243-252."""
    names = ((0, "0"), (10, "1 to 10"), (100, "11 to 100"), (400, "101 to 400"))
    return next((f"the group {name}" for top, name in names if total <= top), "the group above 400")
