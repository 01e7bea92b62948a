"""Planes and slabs through volumes: their directions, what they are interpolated from, and the derived series they make."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.processing.api import NotApplicable
from pacs.processing.concepts import Code
from pacs.processing.outputs import RESAMPLING, Images
from pacs.processing.series import Geometry, Series
from pacs.processing.volumes import Storage, Vector, contributing, resampled

Directions = tuple[Vector, Vector]
PLANES: dict[str, Directions] = {
    # Rows towards the patient's left or back, columns towards the feet: as radiologists hang them.
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}


def on_grid(
    series: Series,
    source: Geometry,
    target: Geometry,
    pixels: Iterable[NDArray[Any]],
    storage: Storage,
    *,
    description: str,
    image_type: str,
    derivation: Code = RESAMPLING,
    thickness_mm: float = 0.0,
    like: Sequence[Dataset] | None = None,
    attributes: dict[str, Any] | None = None,
) -> Images:
    """Return a derived series on another grid, each image with the slices of the source that it is interpolated from.

    Parameters
    ----------
    series, source : Series, Geometry
        What it is made of, and the grid of that.
    target : Geometry
        The grid of the result.
    pixels : iterable of ndarray, each (rows, columns)
        Stored values as `storage` makes them, one array for each slice of `target`.
    thickness_mm : float
        Of a slab; 0 where a slice is thin.
    like : sequence of Dataset
        For each image the source whose header it takes over, the middle one of its slices where absent.
    """
    sources = [contributing(source, target, number, thickness_mm) for number in range(target.shape[0])]
    return Images(
        pixels=pixels,
        like=like or [series.datasets[one[len(one) // 2]] for one in sources],
        sources=[[series.datasets[index] for index in one] for one in sources],
        geometry=target,
        description=description.strip(),
        derivation=derivation,
        slope=storage.slope,
        intercept=storage.intercept,
        bits_stored=storage.bits,
        image_type=image_type,
        attributes=attributes or {},
    )


def turned(plane: str, turn_deg: float = 0.0, tilt_deg: float = 0.0) -> Directions:
    """Return the directions of rows and columns of a plane that is turned about z and then tilted about its rows."""
    row, column = (np.asarray(one) for one in PLANES[plane])
    row, column = _rotated(row, np.array([0.0, 0.0, 1.0]), turn_deg), _rotated(column, np.array([0.0, 0.0, 1.0]), turn_deg)
    column = _rotated(column, row, tilt_deg)
    return _vector(row), _vector(column)


def facing(normal: NDArray[np.float64]) -> Directions:
    """Return the directions of rows and columns of the plane at right angles to `normal`, hung as people expect.

    Columns run as far to the feet as the plane allows, rows then to the patient's left or back; where the plane is nearly
    axial, rows run to the left and columns to the back. The slices' order follows: rows x columns may be the opposite normal.
    Raises `NotApplicable` for a normal without length.
    """
    length = float(np.linalg.norm(normal))
    if length < 1e-6:
        raise NotApplicable("the normal has no length")
    axis = normal / length
    if abs(axis[2]) > 0.8:
        row = _in_plane(np.array([1.0, 0.0, 0.0]), axis)
        column = np.cross(axis * np.sign(axis[2]), row)
    else:
        column = _in_plane(np.array([0.0, 0.0, -1.0]), axis)
        row = np.cross(column, axis)
        row = row * np.sign(row[int(np.abs(row[:2]).argmax())])
    return _vector(row), _vector(column)


def slab(
    values: NDArray[np.float32], source: Geometry, target: Geometry, number: int, thickness_mm: float, outside: float
) -> NDArray[np.float32]:
    """Return the planes that make up slice `number` of `target`, shape (planes, rows, columns): one where it is thin.

    Where they are parallel to the source's slices, they are those slices; else planes as far apart as the finest spacing.
    """
    parallel = abs(float(source.normal @ target.normal)) > 1 - 1e-9
    if parallel and thickness_mm > source.spacing_mm[0]:
        along = float((np.asarray(target.position(number)) - np.asarray(source.origin)) @ source.normal) / source.spacing_mm[0]
        half = thickness_mm / source.spacing_mm[0] / 2
        # From the lower edge to the upper one, without it: a slice on the border of two slabs belongs to one of them.
        first, last = (int(np.clip(np.ceil(along + way - 1e-6), 0, source.shape[0])) for way in (-half, half))
        if last > first:
            part = source.slab(first, last - 1)
            offset = (np.asarray(target.position(number)) - np.asarray(part.origin)) @ source.normal
            start = np.asarray(target.position(number)) - offset * source.normal
            if float(source.normal @ target.normal) < 0:
                start = start + (last - 1 - first) * source.spacing_mm[0] * source.normal
            place = (float(start[0]), float(start[1]), float(start[2]))
            spacing = (source.spacing_mm[0], target.spacing_mm[1], target.spacing_mm[2])
            same = Geometry(place, target.row, target.column, spacing, (last - first, *target.shape[1:]))
            return resampled(values, source, same, outside=outside)
    fine = min(source.spacing_mm)
    count = max(1, round(thickness_mm / fine))
    apart = thickness_mm / count if count > 1 else fine
    origin = np.asarray(target.position(number)) - target.normal * apart * (count - 1) / 2
    grid = Geometry(
        (float(origin[0]), float(origin[1]), float(origin[2])),
        target.row,
        target.column,
        (apart, target.spacing_mm[1], target.spacing_mm[2]),
        (count, *target.shape[1:]),
    )
    return resampled(values, source, grid, outside=outside)


def _in_plane(direction: NDArray[np.float64], axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what of a direction lies in the plane at right angles to `axis`, at length 1."""
    part = direction - (direction @ axis) * axis
    found: NDArray[np.float64] = part / np.linalg.norm(part)
    return found


def _vector(direction: NDArray[np.float64]) -> Vector:
    # Rounding away -0.0 and 1e-17, which would stand in Image Orientation (Patient).
    x, y, z = (float(part) for part in np.round(direction, 12) + 0.0)
    return x, y, z


def _rotated(vector: NDArray[np.float64], axis: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Rodrigues' rotation."""
    angle = np.deg2rad(degrees)
    turned_vector: NDArray[np.float64] = (
        vector * np.cos(angle) + np.cross(axis, vector) * np.sin(angle) + axis * (axis @ vector) * (1 - np.cos(angle))
    )
    return turned_vector
