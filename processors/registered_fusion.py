"""Two modalities of one patient registered rigidly: MR on the grid of its CT, or of another MR, and both blended.

Source: Mattes D, Haynor DR, Vesselle H, Lewellen TK, Eubank W, "PET-CT image registration in the chest using free-form
deformations", IEEE Trans Med Imaging 22 (2003) 120-128 (mutual information of coarse volumes, here for rigid motion alone).

A registration that does not raise the mutual information, or that moves the patient further than asked for, is refused: the
result would look more certain than it is. Organs that deform stay where the rigid motion puts them; only the head is nearly
rigid. Volumes of different frames of reference begin with their middles together.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pacs.processing import (
    Finding,
    Geometry,
    Images,
    NotApplicable,
    Overlay,
    Range,
    Report,
    Run,
    Series,
    Storage,
    Study,
    private_code,
    processor,
    resampled,
)
from pacs.processing.registration import Rigid, rigid
from processors.petct_fusion import hot

FUSED = private_code("FUSION", "Fusion of two modalities")
REGISTERED = private_code("REGISTRATION", "Rigid registration")
IMPROVED = private_code("IMPROVED", "Improved")
LEAST_GAIN = 0.02
"""Share by which the mutual information must rise; less is the noise of interpolation."""


@processor(
    "registered-fusion",
    version="1.0.0",
    level="study",
    makes=("MR", "OT", "SR"),
    when={"Modality": ["CT", "MR"], "ImageType": "!LOCALIZER"},
    queue="heavy",
    memory_mb=8192,
)
def registered_fusion(
    study: Study,
    run: Run,
    *,
    furthest_mm: Annotated[float, Range(1, 500, "mm"), "refuse what moves the patient further, on average"] = 30.0,
    cube_mm: Annotated[float, Range(2, 12, "mm"), "voxel on which it is registered"] = 5.0,
    alpha: Annotated[float, Range(0, 1), "share of colour in the blend"] = 0.4,
) -> Iterator[Images | Overlay | Report]:
    """MR registered to CT (or to the finest MR) of the study, resampled onto it, and a colour blend; refused where it fails."""
    fixed, moving = choose(study)
    fixed_grid, moving_grid = fixed.geometry(), moving.geometry()
    below, above = fixed.array(), moving.array()
    run.progress(0.1, "registering")
    apart = fixed.text("FrameOfReferenceUID") != moving.text("FrameOfReferenceUID")
    found = rigid(below, fixed_grid, above, moving_grid, cube_mm=cube_mm, centred=apart)
    judge(found, furthest_mm, apart)
    run.progress(0.6, "resampling")
    moved = resampled(above, moving_grid, fixed_grid, transform=found.transform, outside=float(above.min()))
    storage = Storage.of(moving, float(moved.min()), float(moved.max()))
    near = [_nearest(moving, moving_grid, found, fixed_grid.position(number)) for number in range(fixed_grid.shape[0])]
    yield Images(
        pixels=(storage.stored(plane) for plane in moved),
        like=[moving.datasets[index] for index in near],
        geometry=fixed_grid,
        description=f"{moving.modality} registered to {fixed.modality}",
        slope=storage.slope,
        intercept=storage.intercept,
        bits_stored=storage.bits,
        image_type="REGISTERED",
        # It now lies in the frame of reference of what it was registered to.
        attributes={
            "FrameOfReferenceUID": fixed.text("FrameOfReferenceUID"),
            "SliceThickness": f"{fixed_grid.spacing_mm[0]:.6g}",
        },
    )
    yield Overlay(
        pixels=blends(below, moved, alpha),
        sources=[[one, moving.datasets[index]] for one, index in zip(fixed.datasets, near, strict=True)],
        geometry=fixed_grid,
        description=f"{moving.modality} over {fixed.modality}",
        derivation=FUSED,
    )
    gain = f"moved by {found.moved_mm:.1f} mm on average; mutual information {found.before:.3f} before, {found.after:.3f} after"
    yield Report(fixed, [Finding(REGISTERED, IMPROVED, min(0.99, 1 - found.before / found.after), gain)], "Registration")


def choose(study: Study) -> tuple[Series, Series]:
    """Pick what stays (CT, else the MR of most slices) and what is moved (the MR of most slices that is left)."""
    volumes = []
    for one in (*study.of_modality("CT"), *study.of_modality("MR")):
        try:
            one.geometry()
        except NotApplicable:
            continue
        volumes.append(one)
    volumes.sort(key=lambda one: (one.modality != "CT", -len(one)))
    rest = [one for one in volumes[1:] if one.modality == "MR"]
    if not rest:
        raise NotApplicable("needs a CT and an MR volume, or two MR volumes")
    return volumes[0], rest[0]


def judge(found: Rigid, furthest_mm: float, apart: bool) -> None:
    """Raise `NotApplicable` where a registration is not to be trusted."""
    if found.after < found.before * (1 + LEAST_GAIN) and (apart or found.moved_mm > 1):
        raise NotApplicable("registering does not make the two more alike")
    if found.moved_mm > furthest_mm and not apart:
        raise NotApplicable("the motion found is larger than furthest_mm: look at both before you trust it")


def blends(below: NDArray[np.float32], above: NDArray[np.float32], alpha: float) -> Iterator[NDArray[np.uint8]]:
    """Yield RGB planes: one volume grey, the other in colour over it, each between its own 1st and 99th percentile."""
    grey, color = (
        np.clip((one - np.percentile(one, 1)) / max(float(np.percentile(one, 99) - np.percentile(one, 1)), 1e-6), 0, 1)
        for one in (below, above)
    )
    for one, other in zip(grey, color, strict=True):
        yield np.rint(255 * ((1 - alpha) * one[..., None] + alpha * hot(other.astype(np.float32)))).astype(np.uint8)


def _nearest(series: Series, grid: Geometry, found: Rigid, position: tuple[float, float, float]) -> int:
    along = (np.asarray(found.transform.TransformPoint(position)) - np.asarray(grid.origin)) @ grid.normal
    return int(np.clip(round(float(along) / grid.spacing_mm[0]), 0, len(series) - 1))
