"""Where frames lie in the patient, and a coarse volume made of them (PS3.3 C.7.6.2.1.1).

A frame is placed by itself: position, the two directions of its grid, the two spacings. Axial, sagittal, coronal and oblique
stacks, uneven gaps, a tilted gantry and the three planes of a localizer are then one case. `Work` is the volume that
`head.py` looks at: aligned with the patient, 2.5 mm, in (superior, anterior, left) order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

WORK_MM = 2.5
WIDEST_GAP_MM = 20.0
"""Between slices farther apart than this nothing is known; the volume says so instead of guessing."""

LARGEST_WORK = 60_000_000
"""Voxels of `Work`: 2.5 m of 600 mm x 600 mm. What is larger has a wrong geometry."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One frame in patient coordinates, mm, LPS (PS3.3 C.7.6.2.1.1).

    `row` is the direction in which the column index grows, `column` the one in which the row index grows; `spacing_mm` is
    Pixel Spacing: between rows, then between columns. `shape` is (rows, columns), `thickness_mm` Slice Thickness or 0.
    """

    position: tuple[float, float, float]
    row: tuple[float, float, float]
    column: tuple[float, float, float]
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]
    thickness_mm: float = 0.0

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector through the slice: row x column."""
        return np.cross(self.row, self.column)

    def corners(self) -> NDArray[np.float64]:
        """Return the centres of the four corner pixels, shape (4, 3)."""
        rows, columns = self.shape
        down = np.asarray(self.column) * self.spacing_mm[0] * (rows - 1)
        right = np.asarray(self.row) * self.spacing_mm[1] * (columns - 1)
        at = np.asarray(self.position, float)
        return np.stack([at, at + down, at + right, at + down + right])

    def affine_to(self, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return origin, step per row and step per column after the 4 x 4 `matrix` from patient coordinates."""
        turn = matrix[:3, :3]
        return (
            turn @ np.asarray(self.position) + matrix[:3, 3],
            turn @ (np.asarray(self.column) * self.spacing_mm[0]),
            turn @ (np.asarray(self.row) * self.spacing_mm[1]),
        )


def is_sound(planes: Sequence[Plane]) -> bool:
    """Tell whether these are planes at all: finite numbers, orthogonal unit directions, spacings above zero."""
    for one in planes:
        numbers = np.array([*one.position, *one.row, *one.column, *one.spacing_mm])
        row, column = np.asarray(one.row), np.asarray(one.column)
        if (
            not np.isfinite(numbers).all()
            or abs(row @ row - 1) > 0.01
            or abs(column @ column - 1) > 0.01
            or abs(row @ column) > 0.01
            or min(one.spacing_mm) <= 0
            or min(one.shape) < 1
        ):
            return False
    return bool(planes)


@dataclass(frozen=True, slots=True)
class Work:
    """A coarse volume of the patient.

    `values` has shape (s, a, l): the first axis runs upward (superior), the second forward (anterior), the third to the
    patient's left, each by `WORK_MM`. `origin` is the place of voxel (0, 0, 0) in (l, a, s) mm. Where `seen` is false there
    are no pixels.
    """

    values: NDArray[np.float32]
    seen: NDArray[np.bool_]
    origin: NDArray[np.float64]

    def place(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (l, a, s) in mm of voxel indices (s, a, l), along the last axis."""
        return np.asarray(index)[..., ::-1] * WORK_MM + self.origin


LPS_TO_LAS = np.diag([1.0, -1.0, 1.0, 1.0])
"""Patient coordinates have y backward; here everything looks forward."""


def gather(planes: Sequence[Plane], frames: Iterable[NDArray[np.floating]]) -> Work | None:
    """Return the coarse volume of `frames` (each of its plane's shape), or None where their geometry spans too much.

    Each frame is reduced to the working resolution by area and then forgotten, so one full frame is in memory at a time.
    """
    stacks: dict[tuple[float, ...], list[tuple[Plane, NDArray[np.float32]]]] = {}
    for plane, frame in zip(planes, frames, strict=True):
        directions = tuple(np.round([*plane.row, *plane.column], 2) + 0.0)
        stacks.setdefault(directions, []).append((plane, _reduced(plane, frame)))
    corners = np.concatenate([one.corners() for one in planes]) * (1, -1, 1)
    low, high = corners.min(axis=0), corners.max(axis=0)
    span = np.ceil((high - low) / WORK_MM) + 1
    if span.prod() > LARGEST_WORK:
        return None
    # A single slice is a volume as thick as itself.
    size = np.maximum(span.astype(int), 2)
    shape = (int(size[2]), int(size[1]), int(size[0]))
    work = Work(np.zeros(shape, np.float32), np.zeros(shape, bool), low)
    for stack in stacks.values():
        _lay(work, stack)
    return work


def _reduced(plane: Plane, frame: NDArray[np.floating]) -> NDArray[np.float32]:
    rows = max(1, round(plane.shape[0] * plane.spacing_mm[0] / WORK_MM))
    columns = max(1, round(plane.shape[1] * plane.spacing_mm[1] / WORK_MM))
    size = (min(columns, plane.shape[1]), min(rows, plane.shape[0]))
    small: NDArray[np.float32] = cv2.resize(np.asarray(frame, np.float32), size, interpolation=cv2.INTER_AREA)
    return small


def _lay(work: Work, stack: list[tuple[Plane, NDArray[np.float32]]]) -> None:
    """Put one stack of parallel planes into `work`, where nothing lies yet."""
    normal = stack[0][0].normal
    stack.sort(key=lambda one: float(np.dot(one[0].position, normal)))
    along = np.array([np.dot(plane.position, normal) for plane, _ in stack])
    places = np.array([plane.position for plane, _ in stack]) * (1, -1, 1)
    flip = np.array([1.0, -1.0, 1.0])
    first = stack[0][0]
    row, column, normal = np.asarray(first.row) * flip, np.asarray(first.column) * flip, normal * flip
    heights = {small.shape for _, small in stack}
    if len(heights) > 1:
        for one in {plane.shape + plane.spacing_mm for plane, _ in stack}:
            _lay(work, [each for each in stack if each[0].shape + each[0].spacing_mm == one])
        return
    images = np.stack([small for _, small in stack])
    step_row = first.shape[0] * first.spacing_mm[0] / images.shape[1]
    step_column = first.shape[1] * first.spacing_mm[1] / images.shape[2]
    # The field of view begins half a pixel before the first pixel's centre.
    start_row, start_column = (step_row - first.spacing_mm[0]) / 2, (step_column - first.spacing_mm[1]) / 2
    gaps = np.diff(along) if len(along) > 1 else np.array([0.0])
    typical = float(np.median(gaps)) if len(along) > 1 else 0.0
    reach = max(min(max(typical, 0.0), WIDEST_GAP_MM), first.thickness_mm, WORK_MM) / 2 + WORK_MM / 2
    _, count_a, count_l = work.values.shape
    a, left = np.meshgrid(np.arange(count_a), np.arange(count_l), indexing="ij")
    for s in range(work.values.shape[0]):
        points = np.stack([left, a, np.full_like(a, s)], axis=-1) * WORK_MM + work.origin
        depth = points @ normal
        above = np.clip(np.searchsorted(along, depth), 1, max(len(along) - 1, 1))
        below = above - 1
        above = np.minimum(above, len(along) - 1)
        frame = np.where(np.abs(depth - along[below]) <= np.abs(depth - along[above]), below, above)
        gap = along[above] - along[below]
        near = np.where(gap <= WIDEST_GAP_MM, np.maximum(gap / 2, reach), reach)
        relative = points - places[frame]
        r = np.rint((relative @ column - start_row) / step_row).astype(int)
        c = np.rint((relative @ row - start_column) / step_column).astype(int)
        inside = (
            (np.abs(depth - along[frame]) <= near)
            & (r >= 0)
            & (r < images.shape[1])
            & (c >= 0)
            & (c < images.shape[2])
            & ~work.seen[s]
        )
        work.values[s][inside] = images[frame[inside], r[inside], c[inside]]
        work.seen[s] |= inside
