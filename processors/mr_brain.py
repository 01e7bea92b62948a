"""Brain on T1-weighted MR heads: a balloon is inflated inside the head until it lies on the brain, with its volume.

Source: Smith SM, "Fast robust automated brain extraction", Human Brain Mapping 17 (2002) 143-155: a tessellated sphere moves
outwards where the tissue along its inner normals is bright and stops at the dark rim of fluid and skull, kept smooth by its
own curvature; where it has folded the whole is done again, stiffer. Here it runs on cubes of 2 mm of the upper 170 mm of the
head (found from its crown), first with 642 points, then with 2562; the brain's volume is that of the voxels in the balloon.

Made for T1 weighting, adults and whole heads: on T2 and FLAIR, after contrast medium, or with the skull already removed it may
go wrong without notice. Dura and sinuses are sometimes taken with it, temporal poles and the lower cerebellum sometimes left
out by some millimetres. Fluid at the surface belongs to the result only where the balloon bridges it.

Better is a network that does not ship: `pacs models add deepbet` puts a processor of the same name into the home, which takes
the place of this one, says so in its version with a digest of the weights, and has this one as `method=balloon`.
"""

from collections.abc import Iterator
from typing import Annotated

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
    codes,
    grid_over,
    processor,
    resampled,
    units,
)
from pacs.processing.masks import Mask, largest, volume_ml
from processors.balloon import CUBE_MM, Levels, inflate

BRAIN = 1
SEGMENTS = {BRAIN: Segment("Brain", codes.SCT.Brain, color_rgb=(250, 250, 225))}
HEAD_MM = 170.0
"""From the crown to below the cerebellum; what lies lower is neck, and would pull the balloon's first centre down."""
ADULT_ML = (600.0, 2200.0)
"""Beyond this it is no brain: 900 to 1900 mL is usual, children and templates lie outside that."""


WHEN = {"Modality": "MR", "BodyPartExamined": ["HEAD", "BRAIN", "SKULL", ""], "NumberOfSeriesRelatedInstances": ">=10"}


@processor(
    "mr-brain",
    version="1.0.0",
    makes=("SEG", "SR"),
    when=WHEN,
    queue="cpu",
    memory_mb=4096,
)
def mr_brain(
    series: Series,
    run: Run,
    *,
    strength: Annotated[float, Range(0.1, 0.9), "larger gives a smaller brain (Smith's fractional threshold)"] = 0.5,
    gradient: Annotated[float, Range(-1, 1), "above 0 the brain is larger below and smaller at the crown"] = 0.0,
) -> Iterator[Segmentation | Measurements]:
    """The brain on a T1-weighted MR head: a segmentation, and its volume as a report."""
    refuse_no_head(series)
    geometry = series.geometry()
    brain = extract(series.array(), geometry, strength, gradient)
    run.progress(0.9, "writing")
    yield from told(series, geometry, brain, "Brain")


def told(series: Series, geometry: Geometry, brain: Mask, description: str) -> Iterator[Segmentation | Measurements]:
    """Yield what is made of a mask of the brain."""
    segmentation = Segmentation(series, brain.astype(np.uint8) * BRAIN, SEGMENTS, description)
    yield segmentation
    volume = units.volume(volume_ml(brain, geometry))
    yield Measurements(segmentation, {BRAIN: [volume]}, "Brain volume")


def refuse_no_head(series: Series) -> None:
    """Refuse what is not a magnitude MR image of a head."""
    if series.modality != "MR":
        raise NotApplicable("made for MR")
    part = series.text("BodyPartExamined").upper()
    if part not in ("", "HEAD", "BRAIN", "SKULL"):
        raise NotApplicable("made for heads, and Body Part Examined names another part")
    if "LOCALIZER" in series.text("ImageType"):
        raise NotApplicable("a localizer is not a volume")


def refuse_no_volume(values: NDArray[np.float32], geometry: Geometry) -> None:
    """Refuse what is too small or too coarse for a whole head, and what is no magnitude."""
    reach = [step * count for step, count in zip(geometry.spacing_mm, geometry.shape, strict=True)]
    if min(reach) < 80 or max(geometry.spacing_mm) > 8:
        raise NotApplicable("needs a whole head: at least 80 mm in each direction, slices of at most 8 mm")
    if float(values.min()) < 0:
        raise NotApplicable("needs a magnitude image: values below zero")


def extract(values: NDArray[np.float32], geometry: Geometry, strength: float = 0.5, gradient: float = 0.0) -> Mask:
    """Return the mask of the brain (frames, rows, columns)."""
    refuse_no_volume(values, geometry)
    # Cubes along the patient's axes: rows to the back, slices up.
    grid = grid_over(geometry, (1, 0, 0), (0, 1, 0), (CUBE_MM,) * 3)
    cubes = resampled(values, geometry, grid)
    head = cubes > Levels.of(cubes).air
    crown = _crown(head)
    bottom = max(0, crown - round(HEAD_MM / CUBE_MM))
    grid = grid.slab(bottom, grid.shape[0] - 1)
    found = inflate(np.ascontiguousarray(cubes[bottom:]), strength, gradient)
    brain = largest(resampled(found, grid, geometry) >= 0.5)
    refuse_no_brain(brain, geometry)
    return brain


def refuse_no_brain(brain: Mask, geometry: Geometry) -> None:
    """Refuse a mask that is too small or too large for an adult's brain."""
    volume = volume_ml(brain, geometry)
    if not ADULT_ML[0] <= volume <= ADULT_ML[1]:
        raise NotApplicable(f"what was found has {volume:.0f} mL: not a whole head, or not T1-weighted")


def _crown(head: Mask) -> int:
    """Return the uppermost slice of cubes with a good piece of the head (15 cm2) in it: noise above it does not count."""
    areas = head.sum(axis=(1, 2)) * CUBE_MM**2
    high = np.flatnonzero(areas > 1500)
    if not high.size:
        raise NotApplicable("nothing as large as a head")
    return int(high[-1])
