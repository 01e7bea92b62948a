"""Bodies for measuring: tissue with inserts, a bead, a bent tube, plaques of known score, a thigh."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.phantoms.base import Three, mesh, stack


def tissue(*, noise: float = 25.0, frames: int = 6, size: int = 96) -> tuple[list[Dataset], NDArray[Any]]:
    """Return a CT of a body with inserts and white noise, and the volume without noise."""
    z, y, x = mesh((frames, size, size), (5, 2, 2), (-size, -size, 0))
    clean = np.full(z.shape, -1000.0)
    clean[(x / 80) ** 2 + (y / 60) ** 2 < 1] = 50
    for place, value in ((-40, 120), (0, -100), (40, 300)):
        clean[np.hypot(x - place, y) < 14] = value
    noisy = clean + np.random.default_rng(5).normal(0, noise, clean.shape)
    return stack(noisy, (5, 2, 2), (-size, -size, 0), BitsStored=16), clean


def bead(*, at: Three = (12.0, -17.0, 33.0)) -> tuple[list[Dataset], Three]:
    """Return a CT of 3 mm slices with a Gaussian bead of 1000 HU, and its place (x, y, z in mm)."""
    shape, spacing, origin = (24, 64, 64), (3.0, 1.5, 1.5), (-48.0, -48.0, 0.0)
    z, y, x = mesh(shape, spacing, origin)
    near = (x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2
    return stack(-1000 + 2000 * np.exp(-near / (2 * 3.0**2)), spacing, origin), at


@dataclass(frozen=True)
class Tube:
    """What is true of the bent tube: its radius (mm), and the circle that its line is a part of, from 0 to `angle` (rad)."""

    radius: float = 6.0
    bend: float = 45.0
    angle: float = 2.4
    first: Three = (0.8, 0.0, 0.6)
    second: Three = (-0.36, 0.8, 0.48)

    @property
    def length(self) -> float:
        """Of its line, in mm."""
        return self.bend * self.angle

    def at(self, angle: float) -> Three:
        """The point of the line at an angle (rad), also beyond the ends."""
        x, y, z = (self.bend * (np.cos(angle) * a + np.sin(angle) * b) for a, b in zip(self.first, self.second, strict=True))
        return float(x), float(y), float(z)


def tube(*, shade: float = 300.0) -> tuple[list[Dataset], Tube]:
    """Return a CT of 1.5 mm slices with a bent tube of 300 HU in water, its plane oblique to all slices, and its truth."""
    shape, spacing, origin = (76, 96, 96), (1.5, 1.25, 1.25), (-59.375, -59.375, -56.25)
    truth = Tube()
    z, y, x = mesh(shape, spacing, origin)
    along, across = (sum(p * d for p, d in zip((x, y, z), one, strict=True)) for one in (truth.first, truth.second))
    out = sum(p * d for p, d in zip((x, y, z), np.cross(truth.first, truth.second), strict=True))
    angle = np.arctan2(across, along)
    # Distances to the wall and to the flat ends; a voxel at an edge is part one, part the other, as with a scanner.
    wall = truth.radius - np.hypot(np.hypot(along, across) - truth.bend, out)
    end = np.minimum(angle, truth.angle - angle) * truth.bend
    inside = np.clip(np.minimum(wall, end) / 1.4 + 0.5, 0, 1)
    return stack(shade * inside, spacing, origin), truth


def calcium() -> tuple[list[Dataset], float]:
    """Return a CT of 2.5 mm slices with plaques of known area and density, and its Agatston score by hand."""
    volume = np.full((10, 96, 96), 40.0)
    volume[:, :4] = -1000
    pixel = 0.5
    score = 0.0
    # (slice, first row, first column, rows, columns, HU, weight): the last two are too small and not dense enough.
    for index, row, column, rows, columns, value, weight in (
        (2, 30, 30, 4, 6, 150, 1),
        (3, 30, 30, 4, 4, 260, 2),
        (4, 50, 50, 6, 6, 350, 3),
        (5, 50, 50, 2, 2, 900, 4),
        (6, 40, 60, 1, 3, 700, 0),
        (7, 40, 60, 9, 9, 129, 0),
    ):
        volume[index, row : row + rows, column : column + columns] = value
        score += weight * rows * columns * pixel**2
    return stack(volume, (2.5, pixel, pixel)), score * 2.5 / 3


def thigh() -> tuple[list[Dataset], NDArray[Any]]:
    """Return a CT of a thigh, and its labels: 1 bone with marrow, 2 fat, 3 muscle."""
    shape, spacing, origin = (8, 96, 96), (5.0, 2.0, 2.0), (-95.0, -95.0, 0.0)
    _, y, x = mesh(shape, spacing, origin)
    values, labels = np.full(shape, -1000.0), np.zeros(shape, np.uint8)
    for mask, value, label in (
        ((x / 85) ** 2 + (y / 75) ** 2 < 1, -105, 2),
        ((x / 70) ** 2 + (y / 60) ** 2 < 1, 58, 3),
        (np.hypot(x - 10, y) < 16, 900, 1),
        (np.hypot(x - 10, y) < 9, -60, 1),
    ):
        values[mask], labels[mask] = value, label
    values[np.abs(y - 88) < 2] = 80  # the table
    # A scanner's blur: at borders voxels are part one tissue, part the other.
    values = np.stack([cv2.GaussianBlur(plane, (0, 0), 0.5) for plane in values])
    values += np.random.default_rng(2).normal(0, 8, shape)
    return stack(values, spacing, origin), labels
