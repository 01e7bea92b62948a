"""Trachea and large bronchi on chest CT: air is followed from the trachea until it would leak into the lung.

Source: Mori K, Hasegawa J, Toriwaki J, Anno H, Katada K, "Recognition of bronchus in three-dimensional X-ray CT images with
applications to virtualized bronchoscopy system", Proc 13th International Conference on Pattern Recognition (1996) 528-532: the
region that is joined to the trachea below a threshold grows with that threshold, slowly while it follows bronchi and suddenly
where their wall gives way; the last threshold before is taken. The trachea
begins where, from above, air is first a round section.

One threshold holds for the whole tree: where one wall is thin the growth ends everywhere, so that bronchi beyond the segmental
ones are rarely found, and fewer on thick slices or with much noise. The lumen is what is measured, not the wall. A tube or
secretion that fills the trachea leaves nothing to begin with.
"""

from collections.abc import Iterator
from typing import Annotated

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
    processor,
    units,
)
from pacs.processing.masks import Mask, closed, volume_ml
from processors.ct_lungs import round_air

AIRWAYS = 1
SEGMENTS = {AIRWAYS: Segment("Trachea and bronchi", codes.SCT.TracheaAndBronchus, color_rgb=(120, 200, 240))}
LOWEST, HIGHEST, STEP = -960, -700, 8
"""HU; thresholds that are tried."""
REACH_MM = 110.0
"""How far from the trachea bronchi are followed to the sides."""
LEAST_ML, MOST_ML = 8.0, 250.0
"""An adult's trachea holds about 30 mL, trachea and bronchi less than 150."""


@processor(
    "airways",
    version="1.0.0",
    makes=("SEG", "SR"),
    when={"Modality": "CT", "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=20"},
    queue="heavy",
    memory_mb=6144,
)
def airways(
    series: Series,
    run: Run,
    *,
    leak_ml: Annotated[float, Range(0.5, 100, "mL"), "a step of 8 HU that wins more has leaked into the lung"] = 2.0,
    closing_mm: Annotated[float, Range(0, 5, "mm"), "radius that takes in noise within the lumen"] = 1.5,
) -> Iterator[Segmentation | Measurements]:
    """Trachea and large bronchi on chest CT: a segmentation, and the volume of their lumen as a report."""
    geometry = ct_volume(series)
    if abs(geometry.normal[2]) < 0.8 or geometry.spacing_mm[0] > 5.05:
        raise NotApplicable("made for axial slices of at most 5 mm")
    hounsfield = np.clip(series.array(), -1024, 400).astype(np.int16)
    if not -1025 <= float(np.percentile(hounsfield[:, ::4, ::4], 1)) < -300:
        raise NotApplicable("no air in these images: not Hounsfield units, or no chest")
    run.progress(0.3, "finding the trachea")
    at, section = trachea(hounsfield, geometry)
    run.progress(0.4, "following air")
    near = _near(section, geometry)
    # Noise joins what is apart: each voxel is looked at with its neighbours in the slice.
    values = sitk.GetArrayFromImage(sitk.Median(sitk.GetImageFromArray(np.ascontiguousarray(hounsfield[:, *near])), (1, 1, 0)))
    grown, threshold = grow(values, at, section[near], geometry, leak_ml)
    tree = closed(grown, closing_mm, geometry.spacing_mm) & (values < -500)
    volume = volume_ml(tree, geometry)
    if not LEAST_ML <= volume <= MOST_ML:
        raise NotApplicable(f"air joined to the trachea has {volume:.0f} mL: it leaks at once, or is no trachea")
    labels = np.zeros(hounsfield.shape, np.uint8)
    labels[:, *near][tree] = AIRWAYS
    run.progress(0.9, "writing")
    segmentation = Segmentation(series, labels, SEGMENTS, "Airways")
    yield segmentation
    value = units.volume(volume, 2)
    yield Measurements(
        segmentation, {AIRWAYS: [value]}, "Airway volume", {AIRWAYS: f"air below {threshold} HU; beyond that it leaks"}
    )


def trachea(hounsfield: NDArray[np.int16], geometry: Geometry) -> tuple[int, Mask]:
    """Return the first slice from above with a round section of air that goes on for 15 mm, and that section."""
    downwards = list(range(len(hounsfield) - 1, -1, -1) if geometry.normal[2] > 0 else range(len(hounsfield)))
    follow = max(2, round(15 / geometry.spacing_mm[0]))
    for seen, index in enumerate(downwards[: int(0.6 * len(downwards))]):
        section = round_air(hounsfield[index] < -900, geometry)
        if section is None:
            continue
        below = downwards[seen : seen + follow]
        if all((hounsfield[other][section] < -900).mean() > 0.3 for other in below):
            return index, section
    raise NotApplicable("no trachea: no round section of air in the upper slices")


def grow(values: NDArray[np.int16], at: int, section: Mask, geometry: Geometry, leak_ml: float) -> tuple[Mask, int]:
    """Return the air joined to a section of slice `at`, and the highest threshold (HU) before a step wins over `leak_ml`."""
    image = sitk.GetImageFromArray(values)
    seeds = [(int(column), int(row), at) for row, column in np.argwhere(section)]
    tree: Mask | None = None
    volume, threshold = 0.0, LOWEST
    for tried in range(LOWEST, HIGHEST + 1, STEP):
        region = sitk.GetArrayFromImage(sitk.ConnectedThreshold(image, seeds, -1024, tried)) > 0
        now = volume_ml(region, geometry)
        if tree is not None and (now - volume > leak_ml or now > MOST_ML):
            break
        tree, volume, threshold = region, now, tried
    assert tree is not None
    return tree, threshold


def _near(section: Mask, geometry: Geometry) -> tuple[slice, slice]:
    """Return rows and columns within reach of a section."""
    slices = []
    for axis, step in ((1, geometry.spacing_mm[1]), (0, geometry.spacing_mm[2])):
        hit = np.flatnonzero(section.any(axis=axis))
        reach = int(REACH_MM / step)
        slices.append(slice(max(0, int(hit[0]) - reach), int(hit[-1]) + reach + 1))
    return slices[0], slices[1]
