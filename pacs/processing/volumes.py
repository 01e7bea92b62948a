"""What processors of volumes have in common: grids over a source, resampling, noise, and values that fit the source's pixels.

Grids and directions are in patient coordinates (mm, LPS; PS3.3 C.7.6.2.1.1), so that a result lies where its source lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.processing.api import NotApplicable
from pacs.processing.series import Geometry, Series, rescale

Vector = tuple[float, float, float]
Interpolation = Literal["nearest", "linear", "cubic"]


@dataclass(frozen=True, slots=True)
class Storage:
    """How modality values are stored: like the source where all its images agree, else with a slope of their own.

    `slope` and `intercept` are None where the source's stay; give them to `Images` as they are.
    """

    slope: float | None
    intercept: float | None
    bits: int
    dtype: Any
    _slope: float
    _intercept: float
    _low: int
    _high: int

    @classmethod
    def of(cls, series: Series, low: float, high: float) -> "Storage":
        """Return the storage for values from `low` to `high`, in modality units."""
        first = series.first
        scales = {rescale(one) for one in series.datasets}
        formats = {(int(one.get("BitsStored") or 16), int(one.get("PixelRepresentation") or 0)) for one in series.datasets}
        bits, signed = next(iter(formats))
        if len(scales) == len(formats) == 1 and 8 <= bits <= 16 and not first.get("ModalityLUTSequence"):
            slope, intercept = next(iter(scales))
            bottom, top = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
            dtype = np.int16 if signed else np.uint8 if int(first.get("BitsAllocated") or 16) == 8 else np.uint16
            if bits > 8 or dtype is np.uint8:
                return cls(None, None, bits, dtype, slope, intercept, bottom, top)
        slope = max(high, -low, 1e-12) / 32767
        return cls(slope, 0.0, 16, np.int16, slope, 0.0, -32768, 32767)

    def stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return `values` (modality units) as stored values, rounded and kept within what fits."""
        found = np.rint((values.astype(np.float32) - np.float32(self._intercept)) / np.float32(self._slope))
        clipped: NDArray[Any] = np.clip(found, self._low, self._high).astype(self.dtype)
        return clipped


def ct_volume(series: Series) -> Geometry:
    """Return where a CT volume lies. Raises `NotApplicable` for other modalities, localizers, and what is no volume."""
    if series.modality != "CT" or "LOCALIZER" in series.text("ImageType"):
        raise NotApplicable("made for CT volumes, not for localizers")
    return series.geometry()


def resampled(
    values: NDArray[np.float32],
    source: Geometry,
    target: Geometry,
    *,
    interpolation: Interpolation = "linear",
    outside: float = 0.0,
    transform: Any = None,
) -> NDArray[np.float32]:
    """Return `values` at the voxel centres of `target`; `outside` where the source does not reach.

    `transform` is a SimpleITK transform from points of `target` to points of `source`, identity where absent.
    """
    import SimpleITK as sitk

    methods = {"nearest": sitk.sitkNearestNeighbor, "linear": sitk.sitkLinear, "cubic": sitk.sitkBSpline}
    reference = sitk.Image([target.shape[2], target.shape[1], target.shape[0]], sitk.sitkUInt8)
    reference.SetSpacing([target.spacing_mm[2], target.spacing_mm[1], target.spacing_mm[0]])
    reference.SetOrigin(list(target.origin))
    reference.SetDirection(np.stack([target.row, target.column, target.normal], axis=1).ravel().tolist())
    moved = sitk.Resample(
        source.image(values), reference, transform or sitk.Transform(), methods[interpolation], outside, sitk.sitkFloat32
    )
    found: NDArray[np.float32] = sitk.GetArrayFromImage(moved)
    return found


def sampled(
    values: NDArray[np.float32], source: Geometry, points: NDArray[np.float64], *, outside: float = 0.0
) -> NDArray[np.float32]:
    """Return `values` at points of the patient, shape (..., 3), linear between voxels; `outside` beyond them."""
    axes = np.stack([source.normal, np.asarray(source.column), np.asarray(source.row)])
    counts = np.asarray(source.shape)
    index = (points - np.asarray(source.origin)) @ axes.T / np.asarray(source.spacing_mm)
    inside = ((index >= -0.5) & (index <= counts - 0.5)).all(axis=-1)
    index = np.clip(index, 0, counts - 1)
    low = np.clip(np.floor(index).astype(np.int64), 0, np.maximum(counts - 2, 0))
    share = (index - low).astype(np.float32)
    found = np.zeros(points.shape[:-1], np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.asarray(corner), share, 1 - share), axis=-1)
        at = np.minimum(low + np.asarray(corner), counts - 1)
        found += weight * values[at[..., 0], at[..., 1], at[..., 2]]
    kept: NDArray[np.float32] = np.where(inside, found, np.float32(outside))
    return kept


def grid_over(source: Geometry, row: Sequence[float], column: Sequence[float], spacing_mm: Vector) -> Geometry:
    """Return the smallest grid with these directions and spacings (slice, row, column) that covers the source's voxels.

    The first voxel begins where the source's field of view begins, not at a voxel centre of the source.
    """
    axes = np.stack([np.cross(row, column), np.asarray(column, float), np.asarray(row, float)])
    own = np.stack([source.normal, np.asarray(source.column), np.asarray(source.row)])
    counts, steps = np.asarray(source.shape, float), np.asarray(source.spacing_mm)
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], float)
    points = np.asarray(source.origin) + ((corners * counts - 0.5) * steps) @ own
    low, high = (points @ axes.T).min(axis=0), (points @ axes.T).max(axis=0)
    step = np.asarray(spacing_mm, float)
    # A thousandth of a voxel of slack, so that rounding does not add an empty plane.
    shape = np.maximum(np.ceil((high - low) / step - 1e-3), 1).astype(int)
    origin = ((low + high) / 2 - (shape - 1) / 2 * step) @ axes
    return Geometry(
        (float(origin[0]), float(origin[1]), float(origin[2])),
        (float(row[0]), float(row[1]), float(row[2])),
        (float(column[0]), float(column[1]), float(column[2])),
        (float(step[0]), float(step[1]), float(step[2])),
        (int(shape[0]), int(shape[1]), int(shape[2])),
    )


def contributing(source: Geometry, target: Geometry, frame: int, thickness_mm: float = 0.0) -> list[int]:
    """Return which slices of `source` a slice of `target` (with its thickness) is interpolated from, ascending."""
    row = np.asarray(target.row) * target.spacing_mm[2] * (target.shape[2] - 1)
    column = np.asarray(target.column) * target.spacing_mm[1] * (target.shape[1] - 1)
    half = target.normal * thickness_mm / 2
    place = np.asarray(target.position(frame)) - np.asarray(source.origin)
    points = np.array([place + a * row + b * column + c * half for a in (0, 1) for b in (0, 1) for c in (-1, 1)])
    along = points @ source.normal / source.spacing_mm[0]
    first = int(np.clip(np.floor(along.min() + 1e-3), 0, source.shape[0] - 1))
    last = int(np.clip(np.ceil(along.max() - 1e-3), 0, source.shape[0] - 1))
    return list(range(first, last + 1))


def noise(plane: NDArray[np.float32]) -> float:
    """Return the standard deviation of white noise in the brighter half of an image; 0 where it is constant.

    The Laplacian mask that no plane or ramp passes, and the median instead of the mean, so that edges count little.
    Noise that is correlated from pixel to pixel (smooth kernels) comes out too small.

    Source: Immerkaer J, "Fast noise variance estimation", Comput Vis Image Underst 64 (1996) 300-302.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    answer = np.abs(cv2.filter2D(plane.astype(np.float32), -1, mask))[1:-1, 1:-1]
    inside = answer[plane[1:-1, 1:-1] > plane.mean()]
    return 1.4826 * float(np.median(inside)) / 6 if inside.size else 0.0
