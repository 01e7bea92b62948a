"""What `registered-fusion` is measured on, and what comes out."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.phantoms import petct
from pacs.processing import Geometry, Series, resampled
from pacs.processing.registration import rigid
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs_of_study, values_of
from processors.registered_fusion import blends, registered_fusion

MOTIONS = ((2.0, (4.0, -3.0, 2.0)), (4.0, (7.0, -6.0, 5.0)), (6.0, (-10.0, 8.0, -6.0)))
"""Rotation about the head-foot axis in degrees (a third of it about the others), and translation in mm."""
GRID = petct.Grid((-190.0, -130.0, -100.0), 3.0, 5.0, (40, 88, 127))
LANDMARKS = [(x, y, z) for x in (-60.0, 0.0, 60.0) for y in (-50.0, 0.0, 50.0) for z in (-70.0, 0.0, 70.0)]


def score() -> Measured:
    """Move a pseudo-MR of a chest by known motions, and see how far landmarks are off afterwards."""
    ct = petct.hounsfield(GRID).astype(np.float32)
    grid = Geometry(GRID.origin, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (GRID.slice_mm, GRID.pixel_mm, GRID.pixel_mm), GRID.shape)
    scores: Scores = {}
    for degrees, shift in MOTIONS:
        truth = motion(degrees, shift)
        moving = moved(ct, grid, truth)
        found = rigid(ct, grid, moving, grid).transform
        off = [np.linalg.norm(np.subtract(found.TransformPoint(at), truth.TransformPoint(at))) for at in LANDMARKS]
        before = np.mean([np.linalg.norm(np.subtract(at, truth.TransformPoint(at))) for at in LANDMARKS])
        name = f"turned by {degrees:g} degrees and moved, {before:.0f} mm"
        scores[f"{name}: mean error at landmarks (mm)"] = round(float(np.mean(off)), 2)
        scores[f"{name}: largest error at landmarks (mm)"] = round(float(np.max(off)), 2)
    fixed, other = pair(ct, grid)
    images, overlay, _ = outputs_of_study(registered_fusion, [fixed, other])
    middle = len(fixed) // 2
    moving = Series(other).array()
    without = list(blends(ct, moving, 0.4))
    shown = [grey(ct[middle], 40, 1500), grey(values_of(images, Series(other))[middle], 300, 700)]
    shown += [without[middle], list(overlay.pixels)[middle]]
    caption = "CT, registered MR, and the blends before and after"
    return Measured(
        scores, beside(*shown), caption, "a chest as CT and as pseudo-MR of other contrasts, moved by known motions"
    )


def motion(degrees: float, shift: tuple[float, float, float]) -> sitk.Euler3DTransform:
    """Return a rigid motion of points about the middle."""
    found = sitk.Euler3DTransform()
    angle = float(np.deg2rad(degrees))
    found.SetRotation(angle / 3, -angle / 3, angle)
    found.SetTranslation(shift)
    return found


def moved(ct: NDArray[np.float32], grid: Geometry, truth: sitk.Euler3DTransform) -> NDArray[np.float32]:
    """Return a pseudo-MR of the CT in which what lay at p lies at truth(p)."""
    contrast = np.interp(ct, [-1000, -840, 0, 45, 480], [5, 60, 400, 600, 100]).astype(np.float32)
    return resampled(contrast, grid, grid, outside=5.0, transform=truth.GetInverse())


def pair(ct: NDArray[np.float32], grid: Geometry) -> tuple[list[Dataset], list[Dataset]]:
    """Return CT and moved MR as the series of one study and one frame of reference."""
    mr = {**phantoms.MR, "BodyPartExamined": "CHEST", "WindowCenter": "300", "WindowWidth": "700"}
    other = moved(ct, grid, motion(*MOTIONS[1]))
    one = phantoms.stack(ct, grid.spacing_mm, grid.origin)
    two = phantoms.stack(other, grid.spacing_mm, grid.origin, series_uid="1.2.826.0.1.3680043.8.498.1001.2", **mr)
    return one, two
