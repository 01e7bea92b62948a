"""An upper abdomen in CT whose liver is known, among organs that are like it."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.phantoms.base import mesh, stack

LIVER, LESION = 1, 2


def abdomen(*, liver: float = 110.0, slices: slice = slice(None)) -> tuple[list[Dataset], NDArray[Any]]:
    """Return a CT of 44 slices of 5 mm, 128 x 128 at 3 mm, and its labels: 1 liver, 2 a darker lesion in it.

    A body with a rib cage and a spine; lung over the liver's dome, and a spleen, kidneys, a stomach with gas and an aorta
    beside it. `liver` is its attenuation in HU: the organs and the aorta have more with it, as after contrast medium, and 60 is
    a liver without. `slices` takes a part of the stack.
    """
    shape, spacing, origin = (44, 128, 128), (5.0, 3.0, 3.0), (-190.5, -190.5, 0.0)
    z, y, x = mesh(shape, spacing, origin)
    enhanced = max(liver - 60.0, 0.0)
    values, labels = np.full(shape, -1000.0), np.zeros(shape, np.uint8)
    around = np.hypot(x / 165, y / 115)
    values[around < 1] = -100
    values[np.hypot(x / 150, y / 100) < 1] = 55
    cavity = np.hypot(x / 138, y / 88) < 1
    values[cavity] = -95
    # Ribs: arcs of the wall, some in every slice; costal cartilage in front.
    turn = np.arctan2(y, x)
    ribs = (np.abs(np.hypot(x / 143, y / 93) - 1) < 0.05) & (np.sin(14 * turn + z / 12) > 0.55)
    values[ribs] = np.where(y < -55, 115.0, 420.0)[ribs]
    values[np.hypot(x / 22, (y - 66) / 20) < 1] = 380
    for side in (-1.0, 1.0):
        values[(np.hypot((x - side * 40) / 26, (y - 92) / 14) < 1) & ~ribs] = 55 + 0.1 * enhanced
    # The right lobe and the left, cut by the fat of the hilum; lung above.
    lobes = ((x + 70) / 66) ** 2 + ((y - 2) / 78) ** 2 + ((z - 105) / 88) ** 2 < 1
    lobes |= ((x + 5) / 85) ** 2 + ((y + 45) / 38) ** 2 + ((z - 125) / 52) ** 2 < 1
    lobes &= cavity & (np.hypot((x + 20) / 16, (y + 2) / 12) >= 1)
    labels[lobes] = LIVER
    values[lobes] = liver
    vessels = lobes & ((np.hypot(x + 60, y + 5) < 6) | (np.hypot(y - 5, z - 130) < 5))
    values[vessels] = liver + 0.8 * enhanced
    lesion = (x + 80) ** 2 + (y - 20) ** 2 + (z - 100) ** 2 < 15**2
    labels[lesion & lobes] = LESION
    values[lesion & lobes] = liver - 35
    lung = cavity & (z > 150) & (labels == 0) & (np.hypot(x / 100, (y - 70) / 40) >= 1)
    values[lung] = -840
    organs = (
        (((92, 38, 120), (34, 42, 50)), 52 + 1.1 * enhanced),  # spleen
        (((60, -25, 120), (36, 34, 42)), 30.0),  # stomach
        (((-52, 62, 40), (24, 22, 42)), 34 + 2.2 * enhanced),  # kidneys, the right one at the liver
        (((52, 62, 60), (24, 22, 50)), 34 + 2.2 * enhanced),
    )
    for ((cx, cy, cz), (a, b, c)), value in organs:
        inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2 < 1
        values[inside & cavity & (labels == 0)] = value
    gas = ((x - 60) / 26) ** 2 + ((y + 38) / 16) ** 2 + ((z - 120) / 32) ** 2 < 1
    values[gas & (labels == 0)] = -900
    values[(np.hypot(x - 4, y - 34) < 11) & (labels == 0)] = 45 + 2 * enhanced
    values[(np.abs(y - 140) < 5) & (np.abs(x) < 185)] = 60
    values = np.stack([cv2.GaussianBlur(plane, (0, 0), 0.6) for plane in values])
    values += np.random.default_rng(23).normal(0, 14, shape)
    height = float(z[slices][0, 0, 0])
    header = {"BodyPartExamined": "ABDOMEN"}
    return stack(np.maximum(values, -1024)[slices], spacing, (origin[0], origin[1], height), **header), labels[slices]
