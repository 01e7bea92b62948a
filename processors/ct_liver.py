"""Liver on CT of the upper abdomen, whole or a few slices of it, with its volume in the scan and mean attenuation.

Source: Rusko L, Bekes G, Fidrich M, "Automatic segmentation of the liver from multi- and single-phase contrast-enhanced CT
images", Medical Image Analysis 13 (2009) 871-882: the liver's attenuation is the peak of the histogram of the large soft organ
on the patient's right, a region of it is grown after erosion, so that it does not leak into what it touches, and vessels and
lesions are filled in afterwards. Here soft tissue is taken within the hull of ribs and cartilage, on pixels of 2 mm; it counts
in the histogram by how deep in an organ it lies. What lies within `spread_hu` of the peak, and is left by an opening of
`opening_mm`, is the liver; its local mean then takes the peak's place (up to `drift_hu`, for streaks and shading) until nothing
changes. Its rim towards fat and lung, which partial volume darkens, is given back.

Works with contrast medium in the portal phase and, less surely, without, on three slices or more. Vessels at the hilum and the
vena cava beside the liver are often taken with it, large lesions at its border left out; in a fatty liver darker than 20 HU,
where the heart or the stomach touches without a line of fat, and in a liver on the left it fails or is refused. The volume is
that of the liver within the scan: where the scan ends in the liver the report says with which cross-section, and the volume is
only a part's. Its constants were chosen with the labelled slices below in view, so that these are no independent test.
"""

from collections.abc import Iterator
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.processing import (
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
    grid_over,
    private_code,
    processor,
    resampled,
    units,
)
from pacs.processing.masks import Mask, box, closed, distance, filled, grown, opened, parts, trunk, volume_ml

LIVER = 1
SEGMENTS = {LIVER: Segment("Liver", codes.SCT.Liver, color_rgb=(221, 130, 101))}
CUT = private_code("CUTAREA", "Largest cross-section at which the scan ends within the organ")
PIXEL_MM = 2.0
THICK_MM = 3.0
"""Thin slices are averaged to about this, so that their noise does not tear the liver apart."""
SOFT = (20.0, 220.0)
"""HU between which the liver is looked for, with and without contrast medium."""
CARTILAGE = 95.0
"""HU; costal cartilage is above it, and the wall's muscle is not."""
LEAST_CM2 = 60.0
"""A smaller largest cross-section is a tip of the liver, or a muscle of a raised arm."""
WHOLE_ML, MOST_ML = 400.0, 4500.0
"""A liver that the scan does not cut has at least, and every liver at most, this volume."""
Floats = NDArray[np.float32]


@processor(
    "ct-liver",
    version="1.0.0",
    makes=("SEG", "SR"),
    when={"Modality": "CT", "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=3"},
    queue="cpu",
    memory_mb=6144,
)
def ct_liver(
    series: Series,
    run: Run,
    *,
    spread_hu: Annotated[
        float, Range(10, 40, "HU"), "tissue this near to the liver's attenuation is liver, or more in noise"
    ] = 18.0,
    drift_hu: Annotated[float, Range(0, 50, "HU"), "how far the liver's local attenuation may lie from its usual"] = 30.0,
    opening_mm: Annotated[float, Range(0, 15, "mm"), "half the width of a neck to other organs that is cut"] = 7.0,
    closing_mm: Annotated[float, Range(0, 15, "mm"), "radius that takes in vessels and lesions at the border"] = 5.0,
) -> Iterator[Segmentation | Measurements]:
    """The liver on axial CT: a segmentation, and volume, mean attenuation and where the scan cuts it as a report."""
    geometry = ct_volume(series)
    if len(series) < 3 or abs(geometry.normal[2]) < 0.8 or geometry.spacing_mm[0] > 10:
        raise NotApplicable("made for three axial slices or more, at most 10 mm apart")
    # Outside the field of view some scanners write -2000 or -3024.
    hounsfield = np.maximum(series.array(), -1024)
    if float(np.percentile(hounsfield[:, ::4, ::4], 5)) >= 100:
        raise NotApplicable("not Hounsfield units")
    run.progress(0.2, "looking for the liver's attenuation")
    pixels, grid = averaged(hounsfield, geometry)
    body = np.stack([trunk(plane, PIXEL_MM) for plane in pixels])
    if not body.any():
        raise NotApplicable("no body in air: not Hounsfield units, or not a body")
    space, caged = inside_ribs(pixels, body, grid.spacing_mm[0])
    space &= body
    right = right_of_middle(body)
    peak, spread = attenuation(pixels, space, right)
    run.progress(0.4, "growing")
    window = max(3 * spread, spread_hu)
    found = _grown_liver(pixels, grid, space, right, peak, window, drift_hu, opening_mm)
    _refuse_other_organs(found, pixels, body, right, caged, peak, window)
    run.progress(0.8, "finding the border")
    found = _bordered(found, pixels, grid, body, space, peak, closing_mm)
    liver = resampled(found.astype(np.float32), grid, geometry) >= 0.5
    volume, cut_cm2 = _refuse_sizes(liver, geometry)
    run.progress(0.9, "writing")
    segmentation = Segmentation(series, liver.astype(np.uint8) * LIVER, SEGMENTS, "Liver")
    yield segmentation
    values = [
        units.volume(volume),
        units.attenuation(float(hounsfield[liver].mean())),
        Value(CUT, round(cut_cm2, 1), codes.UCUM.SquareCentimeter),
    ]
    yield Measurements(segmentation, {LIVER: values}, "Liver volume")


def averaged(hounsfield: Floats, geometry: Geometry) -> tuple[Floats, Geometry]:
    """Return the volume on a grid along the patient's axes (rows to the back, slices up), with less noise, and the grid.

    Long stacks of thin slices become slices of about `THICK_MM`; short ones keep their count, and are smoothed across.
    """
    gap, row_mm, column_mm = geometry.spacing_mm
    thick = max(1, round(THICK_MM / gap))
    count = len(hounsfield) // thick if len(hounsfield) >= 6 * thick else len(hounsfield)
    step = len(hounsfield) / count
    centres = (np.arange(count) + 0.5) * step - 0.5
    size = (max(1, round(PIXEL_MM / column_mm)), max(1, round(PIXEL_MM / row_mm)))
    planes = np.empty((count, *hounsfield.shape[1:]), np.float32)
    for index, centre in enumerate(centres):
        low, high = round(centre - (thick - 1) / 2 + 1e-6), round(centre + (thick - 1) / 2 + 1e-6)
        planes[index] = cv2.blur(hounsfield[max(0, low) : high + 1].mean(axis=0), size)
    first = np.asarray(geometry.origin) + centres[0] * gap * geometry.normal
    place = (float(first[0]), float(first[1]), float(first[2]))
    stack = Geometry(place, geometry.row, geometry.column, (gap * step, row_mm, column_mm), planes.shape)
    grid = grid_over(stack, (1, 0, 0), (0, 1, 0), (gap * step, PIXEL_MM, PIXEL_MM))
    found = resampled(planes, stack, grid, outside=-1000)
    return np.stack([cv2.medianBlur(plane, 5) for plane in found]), grid


def inside_ribs(pixels: Floats, body: Mask, gap_mm: float) -> tuple[Mask, NDArray[np.bool_]]:
    """Return the convex hull of bone and cartilage within 10 mm of each slice, and in which slices that is a rib cage's.

    Where it is too small for one, everything is within.
    """
    hulls = np.zeros(pixels.shape, np.uint8)
    for index, plane in enumerate(pixels):
        dense = ((plane >= CARTILAGE) & body[index]).astype(np.uint8)
        points = cv2.findNonZero(cv2.morphologyEx(dense, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)))
        if points is not None:
            cv2.fillConvexPoly(hulls[index], cv2.convexHull(points), 1)
    reach = int(10 / gap_mm)
    space = np.stack([hulls[max(0, at - reach) : at + reach + 1].any(axis=0) for at in range(len(hulls))])
    caged = space.sum(axis=(1, 2)) > 0.4 * body.sum(axis=(1, 2))
    space[~caged] = True
    return space, caged


def right_of_middle(body: Mask) -> Mask:
    """Return the columns of each slice on the patient's right of the body's middle (columns run to the left)."""
    right = np.zeros(body.shape, np.bool_)
    for index, plane in enumerate(body):
        right[index, :, : _middle(plane)] = True
    return right


def _middle(plane: Mask) -> int:
    columns = np.flatnonzero(plane.any(axis=0))
    return (int(columns[0]) + int(columns[-1]) + 1) // 2 if columns.size else 0


def attenuation(pixels: Floats, space: Mask, right: Mask) -> tuple[float, float]:
    """Return the liver's peak in the histogram of deep soft tissue on the right, and the peak's standard deviation (HU)."""
    soft = space & (pixels >= SOFT[0]) & (pixels <= SOFT[1])
    deep = np.stack([cv2.distanceTransform(np.pad(plane.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1] for plane in soft])
    weight = np.where(soft & right & (deep > 8 / PIXEL_MM), deep, 0)
    if not weight.any():
        raise NotApplicable("no large soft organ on the right: not an upper abdomen")
    counts, edges = np.histogram(pixels, bins=np.arange(SOFT[0], SOFT[1] + 2), weights=weight)
    smooth = cv2.GaussianBlur(counts[None].astype(np.float64), (0, 0), 3)[0]
    top = int(smooth.argmax())
    below = np.flatnonzero(smooth[:top] < smooth[top] / 2)
    above = np.flatnonzero(smooth[top:] < smooth[top] / 2)
    width = (top + above[0] if above.size else len(smooth)) - (below[-1] if below.size else 0)
    return float(edges[top]) + 0.5, float(width) / 2.355


def _grown_liver(
    pixels: Floats,
    grid: Geometry,
    space: Mask,
    right: Mask,
    peak: float,
    window: float,
    drift_hu: float,
    opening_mm: float,
) -> Mask:
    """Return the largest part on the right of what is like the liver, its likeness following the local mean."""
    spacing = grid.spacing_mm
    allowed = space & (np.abs(pixels - peak) <= window + drift_hu)
    if not allowed.any():
        raise NotApplicable("no large soft organ on the right: not an upper abdomen")
    around = box(allowed, grid)
    here, allowed, on_right = pixels[around], allowed[around], right[around]
    usual: Floats | float = peak
    part, size = np.zeros(here.shape, np.bool_), 0
    for _ in range(8):
        like = allowed & (np.abs(here - usual) <= window)
        labels, sizes = parts(opened(like, opening_mm, spacing))
        if len(sizes) < 2:
            raise NotApplicable("no large soft organ on the right: not an upper abdomen")
        part = labels == 1 + int(np.argmax(np.bincount(labels[on_right], minlength=len(sizes))[1:]))
        before, size = size, int(part.sum())
        if abs(size - before) < 0.005 * size:
            break
        usual = np.clip(_local_mean(here, part, spacing, peak), peak - drift_hu, peak + drift_hu)
    found = np.zeros(pixels.shape, np.bool_)
    near = grown(part, 3.0, spacing) & like
    labels, _ = parts(near)
    found[around] = labels == 1
    return found


def _local_mean(values: Floats, part: Mask, spacing: tuple[float, float, float], peak: float) -> Floats:
    """Return the mean of a part's values about each voxel (Gaussian of 15 mm), and `peak` far from the part."""
    weight = part.astype(np.float32)
    sums, weights = _blurred(values * weight, spacing), _blurred(weight, spacing)
    found: Floats = np.where(weights > 0.02, sums / np.maximum(weights, 1e-4), np.float32(peak))
    return found


def _blurred(values: Floats, spacing: tuple[float, float, float]) -> Floats:
    sigma = 15.0
    planes = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma / spacing[1]) for plane in values])
    flat = planes.reshape(len(planes), -1)
    across = cv2.GaussianBlur(flat, (1, 0), sigmaX=1e-6, sigmaY=sigma / spacing[0], borderType=cv2.BORDER_REPLICATE)
    found: Floats = across.reshape(values.shape)
    return found


def _refuse_other_organs(
    found: Mask, pixels: Floats, body: Mask, right: Mask, caged: NDArray[np.bool_], peak: float, window: float
) -> None:
    """Refuse what lies on both sides, has its like on the other, or no ribs about it: heart, brain, muscle, pelvic organs."""
    slices = found.any(axis=(1, 2))
    if caged[slices].mean() < 0.5:
        raise NotApplicable("no rib cage about the soft organ on the right: not an upper abdomen, or one cut off at the sides")
    share = float((found & right).sum()) / max(int(found.sum()), 1)
    if share < 0.6:
        raise NotApplicable(
            f"the largest soft organ on the right lies there by only {share:.0%}: no liver, or not apart from others"
        )
    like = np.abs(pixels - peak) <= window
    mirrored = matched = 0
    for index in np.flatnonzero(slices):
        rows, columns = np.nonzero(found[index])
        other = 2 * _middle(body[index]) - 1 - columns
        inside = (other >= 0) & (other < found.shape[2])
        mirrored += len(rows)
        matched += int(like[index, rows[inside], other[inside]].sum())
    if matched > 0.65 * mirrored:
        raise NotApplicable("the soft organ on the right has its like on the left: muscle or brain, not a liver")


def _bordered(found: Mask, pixels: Floats, grid: Geometry, body: Mask, space: Mask, peak: float, closing_mm: float) -> Mask:
    """Close and fill the liver, take ribs out, and give the rim back that partial volume with fat and lung has darkened."""
    spacing = grid.spacing_mm
    around = box(found, grid, 2 * closing_mm + 6)
    here, values, inner = found[around], pixels[around], body[around]
    depth = distance(space[around], spacing)
    ribs = grown((values > peak + 50) & (depth < 15), PIXEL_MM, spacing)
    whole = closed(here, closing_mm, spacing) & inner & (values > -30) & ~ribs
    whole = np.stack([filled(plane) for plane in whole])
    dark = grown(values < -20, 2.5, spacing)
    whole |= grown(whole, PIXEL_MM, spacing) & dark & (values > 0) & inner & ~ribs
    result = np.zeros(found.shape, np.bool_)
    result[around] = whole
    return result


def _refuse_sizes(liver: Mask, geometry: Geometry) -> tuple[float, float]:
    """Return volume (mL) and the larger cross-section (cm2) at the stack's ends; refuse what no liver measures."""
    areas = liver.sum(axis=(1, 2)) * geometry.spacing_mm[1] * geometry.spacing_mm[2] / 100
    if areas.max() < LEAST_CM2:
        raise NotApplicable(f"the largest cross-section found has {areas.max():.0f} cm2: no liver, or only its tip")
    volume, cut = volume_ml(liver, geometry), float(max(areas[0], areas[-1]))
    if volume > MOST_ML or (cut == 0 and volume < WHOLE_ML):
        raise NotApplicable(f"what was found has {volume:.0f} mL: not a liver, or not it alone")
    return volume, cut
