"""What has changed between two CT volumes: the later one minus the earlier one, after rigid and deformable registration.

Sources: Mattes D et al., IEEE Trans Med Imaging 22 (2003) 120-128 (rigid); Vercauteren T, Pennec X, Perchant A, Ayache N,
"Diffeomorphic demons: efficient non-parametric image registration", NeuroImage 45 (2009) S61-S72; Ishida T et al., "Application
of temporal subtraction for detection of interval changes on chest radiographs", Med Phys 26 (1999) 1453-1460 (subtraction).

Both volumes must be series of one study and of one frame of reference or nearly so. A deformation follows growth in part, so
small changes come out smaller than they are; a field that folds over itself is refused. Differences at borders
are often motion.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing import Code, Geometry, Images, NotApplicable, Range, Run, Series, Study, processor, resampled
from pacs.processing.registration import deform, folded, rigid
from processors.registered_fusion import judge

SUBTRACTION = Code("113062", "DCM", "Pixel by pixel subtraction")


@processor(
    "follow-up",
    version="1.0.0",
    level="study",
    makes=("CT",),
    when={"Modality": "CT", "ImageType": "!LOCALIZER"},
    queue="heavy",
    memory_mb=8192,
)
def follow_up(
    study: Study,
    run: Run,
    *,
    furthest_mm: Annotated[float, Range(1, 500, "mm"), "refuse what moves the patient further, on average"] = 50.0,
    deformable: Annotated[bool, "follow breathing and posture after the rigid motion"] = True,
    smoothing_mm: Annotated[float, Range(2, 30, "mm"), "stiffness of the deformation"] = 8.0,
) -> Iterator[Images]:
    """Later minus earlier CT of a study, registered: growth is bright, shrinking is dark; values are differences in HU."""
    earlier, later = choose(study)
    grid, before_grid = later.geometry(), earlier.geometry()
    now, before = later.array(), earlier.array()
    run.progress(0.1, "rigid registration")
    found = rigid(now, grid, before, before_grid)
    judge(found, furthest_mm, earlier.text("FrameOfReferenceUID") != later.text("FrameOfReferenceUID"))
    moved = resampled(before, before_grid, grid, transform=found.transform, outside=-1000.0)
    if deformable:
        run.progress(0.4, "deformable registration")
        moved = _deformed(now, moved, before, before_grid, grid, found.transform, smoothing_mm)
    run.progress(0.9, "subtracting")
    difference = now - moved
    yield Images(
        pixels=(np.clip(np.rint(plane), -32768, 32767).astype(np.int16) for plane in difference),
        like=later.datasets,
        sources=[[one, *earlier.datasets] for one in later.datasets],
        description="follow-up difference",
        derivation=SUBTRACTION,
        slope=1.0,
        intercept=0.0,
        bits_stored=16,
        rescale_type="US",
        window=(0.0, 400.0),
        image_type="SUBTRACTION",
    )


def choose(study: Study) -> tuple[Series, Series]:
    """Pick the first and the last CT volume by acquisition date and time, then series number."""
    volumes = []
    for one in study.of_modality("CT"):
        try:
            one.geometry()
        except NotApplicable:
            continue
        if "ORIGINAL" in one.text("ImageType"):
            volumes.append(one)
    volumes.sort(key=lambda one: (one.text("AcquisitionDate"), one.text("AcquisitionTime"), one.number("SeriesNumber") or 0))
    if len(volumes) < 2:
        raise NotApplicable("needs two original CT volumes in the study")
    return volumes[0], volumes[-1]


def _deformed(
    now: NDArray[np.float32],
    moved: NDArray[np.float32],
    before: NDArray[np.float32],
    before_grid: Geometry,
    grid: Geometry,
    motion: sitk.Transform,
    smoothing_mm: float,
) -> NDArray[np.float32]:
    # Contrast of soft tissue and lung alone: metal and bone would pull the rest along.
    field = deform(np.clip(now, -1000, 400), np.clip(moved, -1000, 400), grid, smoothing_mm=smoothing_mm)
    if folded(field, grid) > 0.001:
        raise NotApplicable("the deformation found folds over itself: raise smoothing_mm, or leave it out")
    # The field is applied first: points of `now` go to the rigidly moved volume, and from there to the earlier one.
    whole = sitk.CompositeTransform([motion, field])
    return resampled(before, before_grid, grid, transform=whole, outside=-1000.0)
