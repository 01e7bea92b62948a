"""T1-like heads: one whose shading is known, and one, in CT as well, whose tissues are."""

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.phantoms.base import mesh, stack

MR = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    "BodyPartExamined": "HEAD",
    "KVP": None,
    "RescaleIntercept": None,
    "RescaleSlope": None,
    "RescaleType": None,
    "ScanningSequence": "GR",
    "SequenceVariant": "SP",
    "ScanOptions": "",
    "MRAcquisitionType": "3D",
    "RepetitionTime": "8",
    "EchoTime": "3",
    "EchoTrainLength": "1",
    "SeriesDescription": "T1 3D",
}


def head(*, depth: float = 0.35) -> tuple[list[Dataset], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return a T1-like head with shading, the field (mean 1 in white matter), and the masks of white matter and of the head."""
    shape, spacing, origin = (24, 80, 80), (6.0, 3.0, 3.0), (-120.0, -120.0, -72.0)
    z, y, x = mesh(shape, spacing, origin)
    radius = (x / 75) ** 2 + (y / 95) ** 2 + (z / 68) ** 2
    values = np.full(shape, 8.0)
    values[radius < 1] = 150
    values[radius < 0.85] = 420
    white = radius < 0.6
    values[white] = 600
    values[(np.abs(x) < 8) & (np.abs(y) < 25) & (np.abs(z) < 20)] = 180
    white &= values == 600
    field = np.exp(depth * (x / 90 + 0.6 * y / 90 - 0.7 * (z / 70) ** 2))
    field /= field[white].mean()
    noisy = np.abs(values * field + np.random.default_rng(9).normal(0, 8, shape))
    return stack(noisy, spacing, origin, **{**MR, "WindowCenter": "300", "WindowWidth": "700"}), field, white, radius < 1


WHITE, GREY, FLUID, BONE, FAT, SOFT = 1, 2, 3, 4, 5, 6
TISSUES = {WHITE: "White matter", GREY: "Grey matter", FLUID: "Fluid", BONE: "Bone", FAT: "Fat", SOFT: "Other soft tissue"}
"""What the labels of `tissues` mean."""
_T1 = {WHITE: 600.0, GREY: 430.0, FLUID: 150.0, BONE: 60.0, FAT: 720.0, SOFT: 330.0, 0: 8.0}
_HOUNSFIELD = {WHITE: 29.0, GREY: 38.0, FLUID: 8.0, BONE: 900.0, FAT: -90.0, SOFT: 55.0, 0: -1000.0}


def tissues(
    modality: Literal["MR", "CT"] = "MR", *, depth: float = 0.2, noise: float | None = None, base: bool = True
) -> tuple[list[Dataset], NDArray[Any]]:
    """Return a head on slices of 4 mm (MR: T1-like, with shading of `depth`), and its labels, 0 being air.

    Folded white matter in a mantle of grey, ventricles and fluid around, a skull that opens downwards to a cord of white in a
    neck, scalp, eyes and, in CT, a head rest. Without `base` the slices end above the base of the skull.
    """
    shape, spacing, origin = (52, 76, 64), (4.0, 3.0, 3.0), (-94.5, -118.5, -116.0)
    z, y, x = mesh(shape, spacing, origin)
    labels = np.zeros(shape, np.uint8)
    around = np.hypot(x / 70, y / 88)
    # The neck, the face, and the scalp over the skull; y grows to the back.
    labels[(np.hypot(x / 58, (y - 15) / 62) < 1) & (z < -40)] = SOFT
    labels[((x / 60) ** 2 + ((y + 25) / 62) ** 2 + ((z + 55) / 62) ** 2 < 1) & (z < 0)] = SOFT
    shells = (((84, 102, 88), FAT), ((79, 97, 83), BONE), ((73, 91, 77), FLUID), ((70, 88, 74), GREY))
    floor = np.interp(y, [-30, -8], [-30.0, -52.0])
    for (width, length, height), label in shells:
        shell = (x / width) ** 2 + (y / length) ** 2 + (z / height) ** 2 < 1
        thick = {FAT: -6.0, BONE: -6.0, FLUID: 0.0, GREY: 3.0}[label]
        labels[shell & (z > floor + thick)] = label
    grey = labels == GREY
    # Gyri: the border of white matter waves about 0.82 of the way out.
    waves = 0.82 + 0.05 * np.sin(9 * np.arctan2(y, x)) * np.cos(z / 9)
    labels[grey & (np.sqrt(around**2 + (z / 74) ** 2) < waves) & (z > floor + 9)] = WHITE
    labels[((np.abs(x) - 13) / 7) ** 2 + ((y - 2) / 30) ** 2 + ((z - 12) / 9) ** 2 < 1] = FLUID
    labels[((np.abs(x) - 22) / 7) ** 2 + ((y + 8) / 16) ** 2 + ((z + 4) / 10) ** 2 < 1] = GREY
    # The great foramen: cord in fluid through the base.
    canal = np.hypot(x, y - 30)
    labels[(canal < 24) & (z < floor + 3) & (z > -80)] = np.where(z > -64, BONE, SOFT)[
        (canal < 24) & (z < floor + 3) & (z > -80)
    ]
    labels[(canal < 15) & (z < floor + 3)] = FLUID
    labels[(canal < 9) & (z < floor + 12)] = WHITE
    labels[((np.abs(x) - 30) / 12) ** 2 + ((y + 72) / 12) ** 2 + ((z + 34) / 12) ** 2 < 1] = FLUID
    values = np.zeros(shape)
    for label, value in (_T1 if modality == "MR" else _HOUNSFIELD).items():
        values[labels == label] = value
    random = np.random.default_rng(21)
    if modality == "CT":
        values[(np.abs(np.hypot(x, y + 30) - 145) < 3) & (y > 85) & (labels == 0)] = -150
        values = np.stack([cv2.GaussianBlur(plane, (0, 0), 0.5) for plane in values])
        values += random.normal(0, 5 if noise is None else noise, shape)
    else:
        values *= np.exp(depth * (x / 90 + 0.6 * y / 90 - 0.7 * (z / 70) ** 2))
        spread = 10 if noise is None else noise
        values = np.hypot(values + random.normal(0, spread, shape), random.normal(0, spread, shape))
    header = {**MR, "WindowCenter": "350", "WindowWidth": "800"} if modality == "MR" else {"BodyPartExamined": "HEAD"}
    first = 0 if base else int(np.searchsorted(z[:, 0, 0], -20))
    place = (origin[0], origin[1], float(z[first, 0, 0]))
    return stack(values[first:], spacing, place, **header), labels[first:]
