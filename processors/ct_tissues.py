"""Bone, fat and muscle on CT by their Hounsfield ranges within the body, with volume and mean attenuation.

Sources: Mitsiopoulos N et al., "Cadaver validation of skeletal muscle measurement by magnetic resonance imaging and
computerized tomography", J Appl Physiol 85 (1998) 115-122, and Aubrey J et al., "Measurement of skeletal muscle radiation
attenuation and basis of its biological variation", Acta Physiol 210 (2014) 489-497: fat -190 to -30 HU, muscle -29 to 150
HU. Bone by hysteresis (seeds above `bone_hu`, grown down to 150 HU), closed and filled slice by slice, so that marrow
belongs to it.

By density alone, "muscle" holds every soft tissue of that density (liver, spleen, heart, blood), and contrast medium looks
like bone. Body composition of a limb or of one lumbar slice is what this is good for.
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
    codes,
    ct_volume,
    processor,
    units,
)
from pacs.processing.masks import disc, filled, solid

BONE, FAT, MUSCLE = 1, 2, 3
TISSUE = Code("85756007", "SCT", "Tissue")
SEGMENTS = {
    BONE: Segment("Bone", codes.SCT.Bone, color_rgb=(241, 214, 145)),
    FAT: Segment("Fat", Code("55603005", "SCT", "Adipose tissue"), TISSUE, color_rgb=(230, 220, 70)),
    MUSCLE: Segment(
        "Muscle and soft tissue", Code("71616004", "SCT", "Skeletal and/or smooth muscle tissue"), TISSUE, (192, 104, 88)
    ),
}
BONE_EDGE = 150
SMALLEST_BONE_ML = 0.2
Mask = NDArray[np.bool_]


@processor(
    "ct-tissues",
    version="1.0.0",
    makes=("SEG", "SR"),
    when={"Modality": "CT", "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=3"},
    queue="cpu",
    memory_mb=6144,
)
def ct_tissues(
    series: Series,
    run: Run,
    *,
    bone_hu: Annotated[float, Range(160, 1000, "HU"), "bone has seeds above it"] = 250.0,
    fat_low: Annotated[float, Range(-300, -100, "HU"), "fat is above it"] = -190.0,
    fat_high: Annotated[float, Range(-60, 0, "HU"), "fat ends here, muscle begins"] = -30.0,
    muscle_high: Annotated[float, Range(80, 200, "HU"), "muscle ends here"] = 150.0,
    closing_mm: Annotated[float, Range(0, 20, "mm"), "radius that closes the outline of bones"] = 3.0,
) -> Iterator[Segmentation | Measurements]:
    """Bone, fat and muscle on CT: a segmentation, and volume and mean attenuation as a report."""
    geometry = ct_volume(series)
    hounsfield = np.stack([np.clip(plane, -1100, 4000).astype(np.int16) for plane in series.frames()])
    run.progress(0.3, "finding the body")
    body = np.stack([_body(plane, geometry) for plane in hounsfield])
    share = float(body.mean())
    inside = hounsfield[body]
    if share < 0.01 or float(((inside > -200) & (inside < 300)).mean()) < 0.3:
        raise NotApplicable("no body of soft tissue in air: not Hounsfield units, or not a body")
    run.progress(0.5, "growing bone")
    bone = _bone(hounsfield, body, geometry, bone_hu, closing_mm)
    labels = np.zeros(hounsfield.shape, np.uint8)
    labels[body & (hounsfield >= fat_low) & (hounsfield < fat_high)] = FAT
    labels[body & (hounsfield >= fat_high) & (hounsfield <= muscle_high)] = MUSCLE
    labels[bone] = BONE
    voxel_ml = geometry.voxel_ml
    segments, values = {}, {}
    for number, segment in SEGMENTS.items():
        found = hounsfield[labels == number]
        if found.size:
            segments[number] = segment
            values[number] = [
                units.volume(found.size * voxel_ml, 2),
                units.attenuation(float(found.mean())),
            ]
    run.progress(0.8, "writing")
    segmentation = Segmentation(series, labels, segments, "Bone, fat, muscle")
    yield segmentation
    yield Measurements(segmentation, values, "Tissue volumes")


def _body(plane: NDArray[np.int16], geometry: Geometry) -> Mask:
    """The large solid parts of a slice, thicker than a table's shell or a sheet, with what they enclose."""
    parts, sizes = solid(plane, geometry.spacing_mm[1], 5.0)
    if len(sizes) < 2:
        return np.zeros(plane.shape, np.bool_)
    # Both legs, or a trunk and its arms: whatever is at least a tenth of the largest part.
    keep = sizes >= 0.1 * sizes[1:].max()
    keep[0] = False
    return filled(keep[parts])


def _bone(hounsfield: NDArray[np.int16], body: Mask, geometry: Geometry, bone_hu: float, closing_mm: float) -> Mask:
    candidates = sitk.ConnectedComponent(sitk.GetImageFromArray((body & (hounsfield >= BONE_EDGE)).astype(np.uint8)), True)
    parts: NDArray[Any] = sitk.GetArrayFromImage(candidates)
    sizes = np.bincount(parts.ravel())
    seeds = np.bincount(parts[hounsfield >= bone_hu], minlength=len(sizes))
    voxel_ml = geometry.voxel_ml
    keep = (seeds > 0) & (sizes * voxel_ml >= SMALLEST_BONE_ML)
    keep[0] = False
    bone = keep[parts]
    reach = round(closing_mm / geometry.spacing_mm[1])
    brush = disc(closing_mm, geometry.spacing_mm[1])
    for index in np.flatnonzero(bone.any(axis=(1, 2))):
        # Padding: closing at the border of an image would draw bone along it.
        plane = np.pad(bone[index].astype(np.uint8), reach + 1)
        if reach:
            plane = cv2.morphologyEx(plane, cv2.MORPH_CLOSE, brush)
        whole = filled(plane > 0)[reach + 1 : -reach - 1, reach + 1 : -reach - 1]
        # A ring of ribs and spine must not make the chest a bone: what is filled in is marrow, not air and not large.
        added = whole & ~bone[index] & body[index] & (hounsfield[index] > -150)
        bone[index] |= _small(added, 1500 / (geometry.spacing_mm[1] * geometry.spacing_mm[2]))
    return bone


def _small(mask: Mask, most_pixels: float) -> Mask:
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] <= most_pixels
    keep[0] = False
    found: Mask = keep[parts]
    return found
