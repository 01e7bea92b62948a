"""Registration of two volumes: rigid by mutual information, deformable by demons; and whether it was any good.

Sources: Mattes D, Haynor DR, Vesselle H, Lewellen TK, Eubank W, "PET-CT image registration in the chest using free-form
deformations", IEEE Trans Med Imaging 22 (2003) 120-128 (mutual information); Vercauteren T, Pennec X, Perchant A, Ayache N,
"Diffeomorphic demons", NeuroImage 45 (2009) S61-S72 (symmetric forces). Both volumes are first resampled to coarse cubes:
faster and, for rigid motion, no less exact. One thread and a fixed seed: the same volumes give the same answer, bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing.series import Geometry
from pacs.processing.volumes import grid_over, resampled

SEED = 20260101
BINS = 32


@dataclass(frozen=True, slots=True)
class Rigid:
    """What was found: a transform from points of the fixed volume to points of the moving one, in mm (LPS).

    `moved_mm` is the mean displacement over the fixed volume; `before` and `after` the mutual information (in nats) without and
    with it, on the same voxels.
    """

    transform: Any
    moved_mm: float
    before: float
    after: float


def rigid(
    fixed: NDArray[np.float32],
    fixed_grid: Geometry,
    moving: NDArray[np.float32],
    moving_grid: Geometry,
    *,
    cube_mm: float = 5.0,
    iterations: int = 200,
    centred: bool = False,
) -> Rigid:
    """Return the rotation and translation that make the mutual information of two volumes (modality units) largest.

    It begins with the volumes as they lie in the patient's coordinates, or, `centred`, with their middles together.
    """
    one, other = _coarse(fixed, fixed_grid, cube_mm), _coarse(moving, moving_grid, cube_mm)
    start = sitk.Euler3DTransform()
    start.SetCenter(one.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in one.GetSize()]))
    if centred:
        start = sitk.Euler3DTransform(
            sitk.CenteredTransformInitializer(one, other, start, sitk.CenteredTransformInitializerFilter.GEOMETRY)
        )
    with _one_thread():
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(0.5, SEED)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, iterations, 0.6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([2, 1])
        method.SetSmoothingSigmasPerLevel([2, 0])
        method.SetInitialTransform(start, inPlace=False)
        found = sitk.Euler3DTransform(sitk.CompositeTransform(method.Execute(one, other)).GetBackTransform())
    return Rigid(found, displacement(found, fixed_grid), similarity(one, other, None), similarity(one, other, found))


def displacement(transform: Any, grid: Geometry) -> float:
    """Return the mean displacement (mm) of a grid's points: 125 of them, evenly spread."""
    axes = np.stack([grid.normal, np.asarray(grid.column), np.asarray(grid.row)])
    extent = (np.asarray(grid.shape) - 1) * np.asarray(grid.spacing_mm)
    points = [tuple(np.asarray(grid.origin) + (np.asarray(at) / 4 * extent) @ axes) for at in np.ndindex(5, 5, 5)]
    return float(np.mean([np.linalg.norm(np.subtract(transform.TransformPoint(one), one)) for one in points]))


def similarity(fixed: Any, moving: Any, transform: Any) -> float:
    """Return the mutual information (nats) of two SimpleITK images over the voxels that both hold, from a joint histogram."""
    weight = sitk.Image(moving.GetSize(), sitk.sitkUInt8) + 1
    weight.CopyInformation(moving)
    chosen = transform or sitk.Transform()
    held = sitk.GetArrayFromImage(sitk.Resample(weight, fixed, chosen, sitk.sitkNearestNeighbor, 0)) > 0
    if held.sum() < 100:
        return 0.0
    one = sitk.GetArrayViewFromImage(fixed)[held]
    other = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, chosen, sitk.sitkLinear, 0.0))[held]
    joint, _, _ = np.histogram2d(one, other, BINS)
    share = joint / joint.sum()
    apart = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    some = share > 0
    return float((share[some] * np.log(share[some] / apart[some])).sum())


def deform(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    grid: Geometry,
    *,
    cube_mm: float = 4.0,
    iterations: int = 40,
    smoothing_mm: float = 6.0,
) -> Any:
    """Return the displacement field transform from `fixed` to `moving`, both on one grid and of one modality.

    Intensities must mean the same in both (CT, or MR of one sequence with matched histograms).
    """
    one, other = _coarse(fixed, grid, cube_mm), _coarse(moving, grid, cube_mm)
    with _one_thread():
        method = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        method.SetNumberOfIterations(iterations)
        method.SetSmoothDisplacementField(True)
        method.SetStandardDeviations(smoothing_mm / cube_mm)
        field = method.Execute(one, other)
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def folded(transform: Any, grid: Geometry, cube_mm: float = 4.0) -> float:
    """Return the share of the field that folds over itself (Jacobian determinant not above zero)."""
    reference = _coarse(np.zeros(grid.shape, np.float32), grid, cube_mm)
    field = sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat64,
        reference.GetSize(),
        reference.GetOrigin(),
        reference.GetSpacing(),
        reference.GetDirection(),
    )
    determinant = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field))
    return float((determinant <= 0).mean())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over threads depend on their order; over one they do not."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _coarse(values: NDArray[np.float32], grid: Geometry, cube_mm: float) -> Any:
    target = grid_over(grid, grid.row, grid.column, (cube_mm,) * 3)
    return target.image(resampled(values, grid, target, outside=float(values.min())))
