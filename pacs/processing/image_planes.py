"""Where images lie in the patient, one by one: which slice holds a point, and which pixel of another image lies there.

Unlike `Geometry` this asks for no regular grid. Source: PS3.3 C.7.6.2.1.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.processing.series import Series

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane of one image: its first pixel's centre, the directions of rows and columns, (row, column) distances in mm."""

    origin: Points
    row: Points
    column: Points
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]

    @classmethod
    def of(cls, attributes: Dataset, shape: tuple[int, ...]) -> "Plane | None":
        """Read it from the attributes of an Image Plane; None where one is missing."""
        position, orientation = attributes.get("ImagePositionPatient"), attributes.get("ImageOrientationPatient")
        spacing = attributes.get("PixelSpacing")
        if not position or not orientation or not spacing:
            return None
        directions = np.array(orientation, float)
        return cls(
            np.array(position, float),
            directions[:3],
            directions[3:],
            (float(spacing[0]), float(spacing[1])),
            (int(shape[0]), int(shape[1])),
        )

    @property
    def normal(self) -> Points:
        """Unit vector: row x column."""
        return np.cross(self.row, self.column)

    def corners(self) -> Points:
        """Return the centres of three corner pixels, shape (3, 3): they span the plane."""
        across = self.row * self.spacing_mm[1] * (self.shape[1] - 1)
        down = self.column * self.spacing_mm[0] * (self.shape[0] - 1)
        return np.array([self.origin, self.origin + across, self.origin + down])

    def pixels(self, points: Points) -> Points:
        """Return the (column, row) of points, shape (points, 2), as drawing functions want them."""
        offset = points - self.origin
        return np.stack([offset @ self.row / self.spacing_mm[1], offset @ self.column / self.spacing_mm[0]], axis=1)

    def looking_up(self, other: "Plane", values: NDArray[Any]) -> NDArray[Any]:
        """Return for each pixel of this image the value of the nearest pixel of another one in the same plane; 0 beyond it."""
        first, right, down = other.pixels(
            np.array([self.origin, self.origin + self.row * self.spacing_mm[1], self.origin + self.column * self.spacing_mm[0]])
        )
        rows, columns = np.mgrid[: self.shape[0], : self.shape[1]]
        at = first + columns[..., None] * (right - first) + rows[..., None] * (down - first)
        # A thousandth of a pixel: decimal strings put equal grids beside one another by that much.
        column, row = np.rint(at[..., 0] + 1e-3).astype(int), np.rint(at[..., 1] + 1e-3).astype(int)
        inside = (row >= 0) & (row < other.shape[0]) & (column >= 0) & (column < other.shape[1])
        found = values[np.clip(row, 0, other.shape[0] - 1), np.clip(column, 0, other.shape[1] - 1)]
        kept: NDArray[Any] = np.where(inside, found, np.zeros((), values.dtype))
        return kept


class Planes:
    """The planes of a series, in the order of its data sets."""

    def __init__(self, planes: Sequence[Plane | None]) -> None:
        self._planes = planes
        self._known = [index for index, plane in enumerate(planes) if plane is not None]
        known = [plane for plane in planes if plane is not None]
        self._normals = np.array([plane.normal for plane in known]).reshape(-1, 3)
        self._heights = np.array([plane.origin @ plane.normal for plane in known])

    @classmethod
    def of(cls, series: Series, frame_of_reference_uid: str | None = None) -> "Planes":
        """Return the planes that lie in a frame of reference (where both sides name one)."""
        return cls(
            [
                Plane.of(one, (int(one.Rows), int(one.Columns)))
                if not frame_of_reference_uid
                or one.get("FrameOfReferenceUID", frame_of_reference_uid) == frame_of_reference_uid
                else None
                for one in series.datasets
            ]
        )

    def __getitem__(self, index: int) -> Plane:
        plane = self._planes[index]
        assert plane is not None
        return plane

    def holding(self, points: Points, within_mm: float) -> int | None:
        """Return the slice in whose plane all points lie, the nearest where several do; None where there is none."""
        if not self._known:
            return None
        far = np.abs(points @ self._normals.T - self._heights).max(axis=0)
        nearest = int(far.argmin())
        return self._known[nearest] if far[nearest] < within_mm else None
