"""Projection data of a slice: the line integrals of ellipses, which are known exactly, as a parallel-beam sinogram.

Source of the integrals: Kak AC, Slaney M, "Principles of computerized tomographic imaging", IEEE Press 1988, section 3.1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.phantoms.base import dataset, read

SCALE = 2000.0
"""Stored values per unit of line integral."""


@dataclass(frozen=True, slots=True)
class Ellipse:
    """What is added within an ellipse: centre and half axes in mm, rotation in degrees, attenuation in 1/mm."""

    x: float
    y: float
    a: float
    b: float
    turned_deg: float
    attenuation: float


SLICE = (
    Ellipse(0, 0, 90, 70, 0, 0.020),
    Ellipse(-35, -5, 25, 40, 15, -0.015),
    Ellipse(38, -8, 22, 36, -12, -0.015),
    Ellipse(0, 45, 14, 12, 0, 0.020),
    Ellipse(5, -25, 8, 8, 0, 0.004),
)
"""A chest in small: body, two lungs, a spine, and a node of low contrast."""


def attenuation(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return the attenuation (1/mm) at points (mm)."""
    found = np.zeros(np.broadcast(x, y).shape)
    for one in SLICE:
        angle = np.deg2rad(one.turned_deg)
        along = (x - one.x) * np.cos(angle) + (y - one.y) * np.sin(angle)
        across = -(x - one.x) * np.sin(angle) + (y - one.y) * np.cos(angle)
        found[(along / one.a) ** 2 + (across / one.b) ** 2 <= 1] += one.attenuation
    return found


def projections(
    *, views: int = 360, bins: int = 256, pitch_mm: float = 1.0, noise: float = 0.0, seed: int = 1
) -> NDArray[np.float64]:
    """Return line integrals over half a turn, shape (views, bins); the detector's middle lies on the centre."""
    distance = (np.arange(bins) - (bins - 1) / 2) * pitch_mm
    found = np.zeros((views, bins))
    for row, theta in enumerate(np.arange(views) * np.pi / views):
        for one in SLICE:
            angle = theta - np.deg2rad(one.turned_deg)
            extent = (one.a * np.cos(angle)) ** 2 + (one.b * np.sin(angle)) ** 2
            offset = distance - (one.x * np.cos(theta) + one.y * np.sin(theta))
            inside = np.clip(extent - offset**2, 0, None)
            found[row] += 2 * one.attenuation * one.a * one.b * np.sqrt(inside) / extent
    return found + np.random.default_rng(seed).normal(0, noise, found.shape)


def sinogram(*, views: int = 360, bins: int = 256, pitch_mm: float = 1.0, noise: float = 0.0, seed: int = 1) -> Dataset:
    """Return the projections as a Secondary Capture of 16 bits: a row a view over half a turn, a column a detector element."""
    values = projections(views=views, bins=bins, pitch_mm=pitch_mm, noise=noise, seed=seed)
    one = dataset(
        frame=np.clip(np.rint(values * SCALE), 0, 65535).astype("<u2"),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
        Modality="OT",
        ImageType=["ORIGINAL", "PRIMARY", "SINOGRAM"],
        ConversionType="WSD",
        SeriesDescription="SINOGRAM",
        PixelRepresentation=0,
        RescaleSlope=f"{1 / SCALE:.10g}",
        RescaleType="US",
        PixelSpacing=[1, pitch_mm],
        KVP=None,
        SliceThickness=None,
        PatientPosition=None,
        PatientOrientation="",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        FrameOfReferenceUID=None,
        PositionReferenceIndicator=None,
        BurnedInAnnotation="NO",
    )
    return read([one])[0]
