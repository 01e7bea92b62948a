"""Brain on CT heads: soft tissue that bone encloses on nearly all sides, with its volume and mean attenuation.

Source: Muschelli J, Ullman NL, Mould WA et al., "Validated automatic brain extraction of head CT images", NeuroImage 114
(2015) 379-385 (a range of Hounsfield units, smoothing, filling). What is inside is told otherwise, by looking from each voxel
in 26 directions for bone: the skull is open at the great foramen, so that no hole of it could be filled. On cubes of 2 mm, soft
tissue that sees bone in `enclosed` of them is opened, its largest part kept, closed and filled (ventricles, small
calcifications), and cut to the range again at full resolution, holes of a slice filled, and
the pixel given back that the blur of bone lifts above the range.

The segment is what lies within the skull, fluid and dura with it, not the brain's surface: on CT without contrast they are too
alike. Large defects of the skull let it end short of them, metal throws streaks, and blood above the range at the skull is
left out. The head must be scanned from its crown to below the base of the skull, or begin at the base.
"""

from collections.abc import Iterator
from itertools import product
from typing import Annotated

import cv2
import numpy as np
import SimpleITK as sitk
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
    codes,
    ct_volume,
    grid_over,
    processor,
    resampled,
    units,
)
from pacs.processing.masks import Mask, closed, filled, grown, largest, opened, volume_ml

BRAIN = 1
SEGMENTS = {BRAIN: Segment("Brain", codes.SCT.Brain, color_rgb=(250, 250, 225))}
CUBE_MM = 2.0
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
LEAST_ML, MOST_ML = 300.0, 2400.0
"""Beyond this it is no brain: 900 to 1900 mL is usual, scans of a part of it have less."""


@processor(
    "ct-brain",
    version="1.0.1",
    makes=("SEG", "SR"),
    when={
        "Modality": "CT",
        "ImageType": "!LOCALIZER",
        "BodyPartExamined": ["HEAD", "BRAIN", "SKULL", ""],
        "NumberOfSeriesRelatedInstances": ">=10",
    },
    queue="cpu",
    memory_mb=6144,
)
def ct_brain(
    series: Series,
    run: Run,
    *,
    bone_hu: Annotated[float, Range(150, 800, "HU"), "bone is at or above it"] = 300.0,
    low_hu: Annotated[float, Range(-20, 20, "HU"), "fluid and brain are above it"] = 0.0,
    high_hu: Annotated[float, Range(50, 120, "HU"), "brain and blood are below it"] = 80.0,
    enclosed: Annotated[float, Range(0.5, 1), "share of directions in which bone must lie"] = 0.85,
    opening_mm: Annotated[float, Range(0, 10, "mm"), "radius that parts the brain from orbits and neck"] = 3.0,
) -> Iterator[Segmentation | Measurements]:
    """The brain on a CT head: a segmentation, and volume and mean attenuation as a report."""
    geometry = ct_volume(series)
    if abs(geometry.normal[2]) < 0.8 or geometry.spacing_mm[0] > 8:
        raise NotApplicable("made for axial slices of at most 8 mm")
    # Outside the field of view some scanners write -2000 or -3024.
    hounsfield = np.maximum(series.array(), np.float32(-1024))
    if float(np.percentile(hounsfield[:, ::4, ::4], 5)) >= 100:
        raise NotApplicable("not Hounsfield units")
    run.progress(0.2, "looking for the skull")
    inside = _inside(hounsfield, geometry, bone_hu, (low_hu, high_hu), enclosed, opening_mm)
    run.progress(0.7, "finding the border")
    # Noise must not make holes: the range holds for the median of a voxel and its neighbours, which keeps edges.
    smooth = sitk.GetArrayFromImage(sitk.Median(sitk.GetImageFromArray(hounsfield), (1, 1, 0)))
    brain = largest(inside & (smooth >= low_hu) & (smooth <= high_hu) & (hounsfield < bone_hu))
    brain = np.stack([filled(plane) for plane in brain]) & inside
    # The blur of bone lifts the outermost pixel above the range: it is given back where it is nearer to brain than to bone.
    rim = np.stack([cv2.dilate(plane.astype(np.uint8), CROSS) for plane in brain]) > 0
    brain |= rim & inside & (hounsfield < bone_hu / 2)
    volume = volume_ml(brain, geometry)
    if not LEAST_ML <= volume <= MOST_ML:
        raise NotApplicable(f"bone encloses {volume:.0f} mL of soft tissue: not a brain, or only a piece of one")
    run.progress(0.9, "writing")
    segmentation = Segmentation(series, brain.astype(np.uint8) * BRAIN, SEGMENTS, "Brain")
    yield segmentation
    values = [
        units.volume(volume),
        units.attenuation(float(hounsfield[brain].mean())),
    ]
    yield Measurements(segmentation, {BRAIN: values}, "Brain volume")


def _inside(
    hounsfield: NDArray[np.float32],
    geometry: Geometry,
    bone_hu: float,
    soft: tuple[float, float],
    enclosed: float,
    opening_mm: float,
) -> Mask:
    """Return the inside of the skull on the series' grid, a little beyond the range of the brain."""
    grid = grid_over(geometry, geometry.row, geometry.column, (CUBE_MM,) * 3)
    cubes = resampled(hounsfield, geometry, grid, outside=-1000)
    bone = cubes >= bone_hu
    if volume_ml(bone, grid) < 50:
        raise NotApplicable("no skull: nothing, or little, is as dense as bone")
    within = (surrounded(bone) >= enclosed) & ~bone
    spacing = grid.spacing_mm
    core = largest(opened(within & (cubes >= soft[0]) & (cubes <= soft[1]), opening_mm, spacing))
    if not core.any():
        raise NotApplicable("bone encloses no soft tissue: not a head")
    # Up to the bone, whose blur lifts the nearest cubes above the range.
    whole = grown(filled(closed(core, 2 * opening_mm, spacing)), 1.5 * CUBE_MM, spacing) & within
    return resampled(whole.astype(np.float32), grid, geometry) >= 0.5


def surrounded(bone: Mask) -> NDArray[np.float32]:
    """Return the share of the 26 directions in which each voxel sees bone; what the volume's first and last slice cut off is
    not counted where nothing was seen up to there."""
    seen = np.zeros(bone.shape, np.uint8)
    known = np.zeros(bone.shape, np.uint8)
    for direction in product((-1, 0, 1), repeat=3):
        if direction == (0, 0, 0):
            continue
        found, left = _looking(bone, direction)
        seen += found
        known += found | ~left
    share = (seen / np.maximum(known, 1)).astype(np.float32)
    share[known < 13] = 0
    return share


def _looking(bone: Mask, direction: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Return where bone lies in a direction, and where the way there leaves through the first or last slice."""
    axis = next(number for number, step in enumerate(direction) if step)
    ahead = direction[axis]
    hit, left = np.zeros(bone.shape, np.bool_), np.zeros(bone.shape, np.bool_)
    planes = range(bone.shape[axis])
    others = [step for number, step in enumerate(direction) if number != axis]
    previous: tuple[Mask, Mask] | None = None
    for index in planes if ahead < 0 else reversed(planes):
        here = np.take(bone, index, axis)
        if previous is None:
            found, gone = here, np.full(here.shape, axis == 0)
        else:
            found, gone = here | _moved(previous[0], others), _moved(previous[1], others)
        previous = (found, gone)
        place: list[slice | int] = [slice(None)] * 3
        place[axis] = index
        hit[tuple(place)], left[tuple(place)] = found, gone
    return hit, left & ~hit


def _moved(plane: Mask, steps: list[int]) -> Mask:
    """Return for each voxel what lies one step on; nothing beyond the edge."""
    padded = np.pad(plane, 1)
    first, second = (slice(1 + step, 1 + step + count) for step, count in zip(steps, plane.shape, strict=True))
    found: Mask = padded[first, second]
    return found
