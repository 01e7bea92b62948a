"""Both lungs on CT by threshold, connected air and morphology, with volume and attenuation.

Source: Hu S, Hoffman EA, Reinhardt JM, "Automatic lung segmentation for accurate quantitation of volumetric X-ray CT images",
IEEE Trans Med Imaging 20 (2001) 490-498: threshold, removal of outside air and trachea, separation of left and right, smoothing
of the border. Here the threshold is fixed at -320 HU, outside air is dropped slice by slice (air that reaches the image border
in its own plane), and lungs that touch are cut where they are thinnest. Emphysema index: Gould GA et al., Am Rev Respir Dis 137
(1988) 380-392 (share below -950 HU).

Fails on consolidation, large effusions and pneumonectomy; what is not lung-like is refused with a reason.
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
    ct_volume,
    private_code,
    processor,
    units,
)
from pacs.processing.masks import box, disc, filled, trunk
from pacs.processing.masks import distance as distance_mm
from pacs.processing.masks import parts as parts_of
from pacs.processing.units import PERCENT

RIGHT, LEFT, BODY = 1, 2, 3
SEGMENTS = {
    RIGHT: Segment("Right lung", Code("3341006", "SCT", "Right lung"), color_rgb=(110, 184, 209)),
    LEFT: Segment("Left lung", Code("44029006", "SCT", "Left lung"), color_rgb=(197, 165, 145)),
    BODY: Segment("Body", Code("38266002", "SCT", "Entire body"), color_rgb=(177, 122, 101)),
}
LOW_ATTENUATION = private_code("LAA950", "Share of lung below -950 HU")
COARSE_MM = 1.6
"""In-plane pixel of the coarse grid on which lungs are parted and closed."""
NECK_MM = 2.0
"""Half the width of a neck between lung and bowel gas, or lung and bronchus, that is cut."""
PURE_AIR = -945.0
"""HU; the core of a lung holds more blood than that, even in emphysema, the core of bowel or bronchus less."""

Mask = NDArray[np.bool_]


@processor(
    "ct-lungs",
    version="1.0.0",
    makes=("SEG", "SR"),
    when={"Modality": "CT", "NumberOfSeriesRelatedInstances": ">=20"},
    queue="cpu",
    memory_mb=6144,
)
def ct_lungs(
    series: Series,
    run: Run,
    *,
    threshold: Annotated[float, Range(-700, -200, "HU"), "air and lung are below it"] = -320.0,
    closing_mm: Annotated[float, Range(0, 20, "mm"), "radius that takes in vessels and nodules at the border"] = 8.0,
    smallest_ml: Annotated[float, Range(50, 2000, "mL"), "a smaller part is not a lung"] = 300.0,
    body: Annotated[bool, "also segment the body"] = False,
) -> Iterator[Segmentation | Measurements]:
    """Right and left lung on axial CT: a segmentation, and volume, mean attenuation and low-attenuation share as a report."""
    geometry = ct_volume(series)
    if abs(geometry.normal[2]) < 0.8:
        raise NotApplicable("made for axial slices")
    hounsfield = _hounsfield(series, geometry, run)
    if int(hounsfield.min()) > threshold:
        raise NotApplicable("no air in these images: not Hounsfield units, or no chest")
    solid = np.stack([trunk(plane, geometry.spacing_mm[1]) for plane in hounsfield])
    air = _inner_air(hounsfield, threshold) & solid
    run.progress(0.4, "removing the trachea")
    _remove_airway(air, hounsfield, geometry)
    gas = _remove_gas(air, hounsfield, geometry)
    run.progress(0.6, "parting the lungs")
    labels = _lungs(air, hounsfield, geometry, smallest_ml)
    run.progress(0.75, "closing")
    _close_and_fill(labels, geometry, closing_mm, gas)
    segments = {number: SEGMENTS[number] for number in (RIGHT, LEFT) if (labels == number).any()}
    values = {number: _measure(labels == number, hounsfield, geometry) for number in segments}
    if body:
        labels[(labels == 0) & solid] = BODY
        segments[BODY] = SEGMENTS[BODY]
    run.progress(0.9, "writing")
    segmentation = Segmentation(series, labels, segments, "Lungs")
    yield segmentation
    yield Measurements(segmentation, values, "Lung volumes")


def _hounsfield(series: Series, geometry: Geometry, run: Run) -> NDArray[np.int16]:
    volume = np.empty(geometry.shape, np.int16)
    for index, frame in enumerate(series.frames()):
        volume[index] = np.clip(frame, -1100, 3000)
        run.progress(0.3 * (index + 1) / len(series), "reading")
    return volume


def _inner_air(hounsfield: NDArray[np.int16], threshold: float) -> Mask:
    """Air of each slice that does not reach the border of the image within the slice."""
    inner = np.zeros(hounsfield.shape, np.bool_)
    for index, plane in enumerate(hounsfield):
        air = (plane < threshold).astype(np.uint8)
        _, parts = cv2.connectedComponents(air, connectivity=4, ltype=cv2.CV_16U)
        border = np.unique(np.concatenate((parts[0], parts[-1], parts[:, 0], parts[:, -1])))
        keep = np.ones(int(parts.max()) + 1, np.bool_)
        keep[border] = False
        keep[0] = False
        inner[index] = keep[parts]
    return inner


def _remove_airway(air: Mask, hounsfield: NDArray[np.int16], geometry: Geometry) -> None:
    """Follow the trachea down from its first round cross-section and take it, with its wall, out of `air` (in place).

    A cross-section is near-black (below -900 HU), 80 to 900 mm2 and about round. It is followed while it overlaps the one above
    and does not suddenly grow, which is where it leaks into the lung or parts at the carina.
    """
    pixel_mm2 = geometry.spacing_mm[1] * geometry.spacing_mm[2]
    downwards = range(len(air) - 1, -1, -1) if geometry.normal[2] > 0 else range(len(air))
    current: NDArray[np.uint8] | None = None
    area = 0.0
    brush = disc(2.0, geometry.spacing_mm[1], least=1)
    for seen, index in enumerate(downwards):
        black = (air[index] & (hounsfield[index] < -900)).astype(np.uint8)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(black, connectivity=4)
        if current is None:
            if seen > 0.6 * len(air):
                return
            section = round_air(black > 0, geometry)
            if section is None:
                continue
            chosen = [int(parts[section][0])]
        else:
            overlapping = np.unique(parts[current > 0])
            chosen = [int(n) for n in overlapping if n]
            total = sum(int(stats[n, cv2.CC_STAT_AREA]) for n in chosen) * pixel_mm2
            if not chosen or total > max(2.0 * area, area + 250) or total > 1200:
                return
        current = np.isin(parts, chosen).astype(np.uint8)
        area = float(current.sum()) * pixel_mm2
        air[index] &= cv2.dilate(current, brush) == 0


def round_air(black: Mask, geometry: Geometry) -> Mask | None:
    """Return the round part of a slice's air, 80 to 900 mm2 and within 60 mm of the middle, that is nearest to the middle."""
    pixel_mm2 = geometry.spacing_mm[1] * geometry.spacing_mm[2]
    middle = geometry.shape[2] / 2
    count, parts, stats, centers = cv2.connectedComponentsWithStats(black.astype(np.uint8), connectivity=4)
    candidates = [
        (abs(centers[n][0] - middle), n)
        for n in range(1, count)
        if 80 <= stats[n, cv2.CC_STAT_AREA] * pixel_mm2 <= 900
        and 0.5 < stats[n, cv2.CC_STAT_WIDTH] / stats[n, cv2.CC_STAT_HEIGHT] < 2
        and stats[n, cv2.CC_STAT_AREA] > 0.6 * stats[n, cv2.CC_STAT_WIDTH] * stats[n, cv2.CC_STAT_HEIGHT]
        and abs(centers[n][0] - middle) * geometry.spacing_mm[2] < 60
    ]
    return parts == min(candidates)[1] if candidates else None


def _remove_gas(air: Mask, hounsfield: NDArray[np.int16], geometry: Geometry) -> Mask:
    """Take bowel gas and large bronchi that touch the lung only narrowly out of `air` (in place), and return them.

    Worn down by `NECK_MM`, lung and gas fall apart; a part is gas where its core is nearly pure air. Each voxel then goes with
    the part whose basin it lies in.
    """
    factor = _coarse_factor(geometry)
    coarse = np.ascontiguousarray(air[:, ::factor, ::factor])
    values = hounsfield[:, ::factor, ::factor]
    spacing = (geometry.spacing_mm[0], geometry.spacing_mm[1] * factor, geometry.spacing_mm[2] * factor)
    distance = distance_mm(coarse, spacing)
    parts, sizes = parts_of(distance > NECK_MM)
    sums = np.bincount(parts.ravel(), weights=values.ravel(), minlength=len(sizes))
    means = sums / np.maximum(sizes, 1)
    is_gas = means < PURE_AIR
    is_gas[0] = False
    if not is_gas.any():
        return np.zeros(air.shape, np.bool_)
    kinds = np.where(is_gas, 2, 1).astype(np.uint8)
    kinds[0] = 0
    flooded = _flood(distance, kinds[parts], spacing)
    gas = _upsampled(flooded == 2, factor, air.shape) & air
    air &= ~gas
    return gas


def _flood(distance: NDArray[np.float32], markers: NDArray[np.uint8], spacing: tuple[float, float, float]) -> NDArray[Any]:
    """Watershed of the distance map from markers."""
    image = sitk.GetImageFromArray(-distance)
    image.SetSpacing([float(step) for step in reversed(spacing)])
    seeds = sitk.GetImageFromArray(markers)
    seeds.CopyInformation(image)
    flooded = sitk.MorphologicalWatershedFromMarkers(image, seeds, markWatershedLine=False)
    found: NDArray[Any] = sitk.GetArrayFromImage(flooded)
    return found


def _upsampled(coarse: Mask, factor: int, shape: tuple[int, ...]) -> Mask:
    fine: Mask = np.repeat(np.repeat(coarse, factor, 1), factor, 2)[:, : shape[1], : shape[2]]
    return fine


def _lungs(air: Mask, hounsfield: NDArray[np.int16], geometry: Geometry, smallest_ml: float) -> NDArray[np.uint8]:
    """Choose and name the lungs: RIGHT where the patient's right is (smaller x; PS3.3 C.7.6.2.1.1)."""
    voxel_ml = float(np.prod(geometry.spacing_mm)) / 1000
    parts, sizes = parts_of(air)
    large = [n for n in range(1, len(sizes)) if sizes[n] * voxel_ml >= smallest_ml]
    # Air under a blanket or in the bowel is nearly pure; lung holds blood.
    lunglike = [n for n in large if -960 < _mean(hounsfield, parts == n) < -500][:2]
    if not lunglike:
        raise NotApplicable(f"no enclosed lung of at least {smallest_ml:g} mL: not a chest, or the lungs are cut off")
    first = parts == lunglike[0]
    second = parts == lunglike[1] if len(lunglike) == 2 else None
    del parts
    if second is None or sizes[lunglike[1]] < 0.2 * sizes[lunglike[0]]:
        joined = first if second is None else first | second
        first, second = _part_in_two(joined, geometry)
    labels = np.zeros(air.shape, np.uint8)
    x_first = _center_x(first, geometry)
    if second is None:
        labels[first] = RIGHT if x_first < _center_x(hounsfield > -300, geometry) else LEFT
        return labels
    right, left = (first, second) if x_first < _center_x(second, geometry) else (second, first)
    labels[right] = RIGHT
    labels[left] = LEFT
    return labels


def _part_in_two(lungs: Mask, geometry: Geometry) -> tuple[Mask, Mask | None]:
    """Cut lungs that touch: wear them down until two parts remain, then let both grow back; None where there is one lung."""
    factor = _coarse_factor(geometry)
    coarse = np.ascontiguousarray(lungs[:, ::factor, ::factor])
    spacing = (geometry.spacing_mm[0], geometry.spacing_mm[1] * factor, geometry.spacing_mm[2] * factor)
    distance = distance_mm(coarse, spacing)
    total = int(coarse.sum())
    for depth_mm in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 13.0):
        parts, sizes = parts_of(distance > depth_mm)
        if len(sizes) > 2 and sizes[2] >= 0.25 * sizes[1] and sizes[1] + sizes[2] > 0.3 * total:
            flooded = _flood(distance, np.where(parts <= 2, parts, 0).astype(np.uint8), spacing)
            halves = [lungs & _upsampled(flooded == number, factor, lungs.shape) for number in (1, 2)]
            return halves[0], halves[1]
    return lungs, None


def _close_and_fill(labels: NDArray[np.uint8], geometry: Geometry, closing_mm: float, gas: Mask) -> None:
    """Close each lung by a ball of `closing_mm` on the coarse grid and fill holes slice by slice (in place)."""
    factor = _coarse_factor(geometry)
    spacing = (geometry.spacing_mm[0], geometry.spacing_mm[1] * factor, geometry.spacing_mm[2] * factor)
    for number, other in ((RIGHT, LEFT), (LEFT, RIGHT)):
        lung = labels == number
        if not lung.any():
            continue
        if closing_mm > 0:
            around = box(lung, geometry, closing_mm)
            coarse = np.ascontiguousarray(lung[around][:, ::factor, ::factor])
            # Padding, so that the ball does not meet the wall of the box; slices beyond the scan repeat the last one.
            pad = [(0, 0), *((int(np.ceil(closing_mm / one)) + 1,) * 2 for one in spacing[1:])]
            padded = np.pad(coarse, pad)
            grown = distance_mm(~padded, spacing) <= closing_mm
            closed = distance_mm(grown, spacing) > closing_mm
            closed = closed[:, pad[1][0] : -pad[1][0], pad[2][0] : -pad[2][0]]
            added = closed & ~coarse
            region = lung[around]
            region |= _upsampled(added, factor, region.shape)
        for index in np.flatnonzero(lung.any(axis=(1, 2))):
            lung[index] = filled(lung[index])
        labels[lung & (labels != other) & ~gas] = number


def _measure(lung: Mask, hounsfield: NDArray[np.int16], geometry: Geometry) -> list[Value]:
    inside = hounsfield[lung]
    volume_ml = inside.size * float(np.prod(geometry.spacing_mm)) / 1000
    return [
        units.volume(volume_ml),
        units.attenuation(float(inside.mean())),
        Value(LOW_ATTENUATION, round(100 * float((inside < -950).mean()), 2), PERCENT),
    ]


def _center_x(mask: Mask, geometry: Geometry) -> float:
    """Patient x (mm, towards the left) of a mask's centre."""
    per_column = mask.sum(axis=(0, 1), dtype=np.int64)
    per_row = mask.sum(axis=(0, 2), dtype=np.int64)
    total = max(int(per_column.sum()), 1)
    column = float((per_column * np.arange(mask.shape[2])).sum()) / total * geometry.spacing_mm[2]
    row = float((per_row * np.arange(mask.shape[1])).sum()) / total * geometry.spacing_mm[1]
    return geometry.origin[0] + column * geometry.row[0] + row * geometry.column[0]


def _mean(hounsfield: NDArray[np.int16], mask: Mask) -> float:
    return float(hounsfield[mask].mean())


def _coarse_factor(geometry: Geometry) -> int:
    return max(1, round(COARSE_MM / max(geometry.spacing_mm[1], geometry.spacing_mm[2])))
