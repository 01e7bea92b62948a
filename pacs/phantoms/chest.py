"""Chests: lungs of known volume on a table; a small chest with vessels, nodules or plaques."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.phantoms.base import Three, dataset, mesh, stack


def lungs(*, joined: bool = False) -> tuple[list[Dataset], NDArray[Any]]:
    """Return a chest CT of 40 slices of 6 mm, 128 x 128 at 3 mm, and its labels: 1 right lung, 2 left lung.

    Two ellipsoids of -850 HU in an elliptic body of 40 HU on a table, with a trachea of -1000 HU above; `joined` lets the
    lungs touch at the front, as real ones do.
    """
    depth, size, pixel, gap = 40, 128, 3.0, 6.0
    z, y, x = np.meshgrid(np.arange(depth) * gap, np.arange(size) * pixel, np.arange(size) * pixel, indexing="ij")
    cx = cy = size * pixel / 2
    volume = np.full(z.shape, -1000.0)
    body = ((x - cx) / 170) ** 2 + ((y - cy) / 120) ** 2 < 1
    volume[body] = 40
    labels = np.zeros(z.shape, np.uint8)
    offset = 66.0 if joined else 78.0
    for number, side in ((1, -1), (2, 1)):
        half = x < cx - 1 if side < 0 else x >= cx + 1
        lung = (((x - cx - side * offset) / 66) ** 2 + ((y - cy) / 85) ** 2 + ((z - 110) / 100) ** 2 < 1) & half
        volume[lung] = -850
        labels[lung] = number
    if joined:
        bridge = (np.abs(x - cx) < 5) & (np.abs(y - cy) < 4) & (np.abs(z - 110) < 8)
        volume[bridge] = -850
    trachea = (np.hypot(x - cx, y - cy) < 9) & (z > 150)
    volume[trachea] = -1000
    labels[trachea] = 0
    volume[(np.abs(y - (cy + 150)) < 4) & (np.abs(x - cx) < 180)] = 100
    # Air inside the table's shell: large, enclosed, and no lung.
    shell = (np.abs(y - (cy + 172)) < 18) & (np.abs(x - cx) < 180)
    volume[shell] = 100
    volume[(np.abs(y - (cy + 172)) < 13) & (np.abs(x - cx) < 174)] = -900
    noise = np.random.default_rng(7).normal(0, 12, volume.shape)
    frames = np.rint(volume + noise).astype("<i2")
    series = [
        dataset(
            instance=i + 1,
            frame=frames[i],
            PixelSpacing=[pixel, pixel],
            SliceThickness=str(gap),
            ImagePositionPatient=[-cx, -cy, i * gap],
            WindowCenter="40",
            WindowWidth="400",
        )
        for i in range(depth)
    ]
    return series, labels


NODULES = (
    ((-52.0, -10.0, 70.0), 10.0),
    ((-40.0, 15.0, 95.0), 7.0),
    ((-60.0, 20.0, 50.0), 6.0),
    ((50.0, 5.0, 80.0), 12.0),
    ((45.0, -20.0, 60.0), 8.0),
    ((58.0, 15.0, 100.0), 6.0),
)
"""Centre (x, y, z) and diameter in mm of each ball in the lungs."""
PLAQUES = (((-8.0, -12.0, 70.0), (4, 3), 250.0), ((10.0, -8.0, 82.0), (3, 3), 450.0))
"""Corner near (x, y, z), pixels (rows, columns) in one slice, and HU of each plaque between the lungs."""


def chest(*, nodules: Sequence[tuple[Three, float]] = NODULES, plaques: bool = False, noise: float = 6.0) -> list[Dataset]:
    """Return a small chest CT, 90 slices of 1.5 mm: two lungs with vessels, a spine, and nodules or plaques."""
    shape, spacing, origin = (90, 110, 130), (1.5, 1.8, 1.8), (-116.1, -98.1, 8.0)
    z, y, x = mesh(shape, spacing, origin)
    values = np.full(shape, -1000.0)
    values[(x / 108) ** 2 + (y / 82) ** 2 < 1] = 40
    for side in (-1, 1):
        lung = ((x - side * 52) / 34) ** 2 + (y / 62) ** 2 + ((z - 75) / 62) ** 2 < 1
        values[lung] = -850
        for dy, dz in ((-20.0, 60.0), (25.0, 85.0)):
            # Vessels: tubes of 4 mm across, along x.
            values[lung & (np.hypot(y - dy, z - dz) < 2) & (np.abs(x) > 25)] = 30
    values[np.hypot(x, y - 60) < 14] = 500
    for (cx, cy, cz), diameter in nodules:
        values[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < (diameter / 2) ** 2] = 40
    if plaques:
        for place, size, value in PLAQUES:
            index = [round((place[2] - 8) / 1.5), round((place[1] + 98.1) / 1.8), round((place[0] + 116.1) / 1.8)]
            values[index[0], index[1] : index[1] + size[0], index[2] : index[2] + size[1]] = value
    values += np.random.default_rng(11).normal(0, noise, shape)
    return stack(values, spacing, origin)


def airways() -> tuple[list[Dataset], NDArray[Any]]:
    """Return a chest CT, 60 slices of 2.5 mm, whose trachea parts into bronchi in the lungs, and the mask of their lumen.

    Tubes of -1000 HU with a wall of 2 mm; the wall of one small bronchus has a hole, so that air leads into the lung there.
    """
    shape, spacing, origin = (60, 96, 110), (2.5, 2.0, 2.0), (-109.0, -95.0, 0.0)
    z, y, x = mesh(shape, spacing, origin)
    values = np.full(shape, -1000.0)
    values[(x / 106) ** 2 + (y / 80) ** 2 < 1] = 40
    for side in (-1.0, 1.0):
        values[((x - side * 55) / 40) ** 2 + (y / 62) ** 2 + ((z - 62) / 66) ** 2 < 1] = -860
    tubes = [((0.0, 0.0, 155.0), (0.0, 0.0, 90.0), 9.0)]
    for side in (-1.0, 1.0):
        tubes.append(((0.0, 0.0, 92.0), (side * 42, 0.0, 68.0), 6.5))
        tubes.append(((side * 42, 0.0, 68.0), (side * 62, -18.0, 44.0), 4.5))
        tubes.append(((side * 42, 0.0, 68.0), (side * 66, 16.0, 50.0), 4.5))
    apart = []
    for start, end, radius in tubes:
        along = np.subtract(end, start)
        share = sum((p - s) * d for p, s, d in zip((x, y, z), start, along, strict=True)) / (along @ along)
        share = np.clip(share, 0, 1)
        away = np.sqrt(sum((p - s - share * d) ** 2 for p, s, d in zip((x, y, z), start, along, strict=True)))
        apart.append(away - radius)
    edge = np.min(apart, axis=0)
    lumen = edge < 0
    values[(edge < 3) & ~lumen] = 40
    # The hole: its air is mixed with what is about it, so that only a high threshold passes.
    values[(np.hypot(y - 16, z - 50) < 3) & (x > 66) & (x < 76)] = -880
    values[lumen] = -1000
    values += np.random.default_rng(17).normal(0, 12, shape)
    return stack(np.maximum(values, -1024), spacing, origin), lumen
