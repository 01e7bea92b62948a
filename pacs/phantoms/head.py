"""A T1-like head whose shading is known."""

from typing import Any

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
