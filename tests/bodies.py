"""More phantoms with known truth: noisy tissue, a shaded head, a bead, hot spheres, nodules, calcium, a thigh.

Each returns data sets as a processor gets them (written and read again), and what is true of them.
"""

from typing import Any

import cv2
import making
import numpy as np
from phantoms import radiograph, read
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

Three = tuple[float, float, float]
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


def stack(volume: np.ndarray, spacing: Three, origin: Three = (0.0, 0.0, 0.0), **overrides: Any) -> list[Dataset]:
    """Return axial slices of a volume (slices, rows, columns) in stored values; `spacing` in that order, in mm."""
    return read(
        [
            making.dataset(
                instance=number + 1,
                frame=np.ascontiguousarray(np.rint(plane).astype("<i2")),
                PixelSpacing=[spacing[1], spacing[2]],
                SliceThickness=f"{spacing[0]:g}",
                ImagePositionPatient=[origin[0], origin[1], origin[2] + number * spacing[0]],
                **{"WindowCenter": "40", "WindowWidth": "400", **overrides},
            )
            for number, plane in enumerate(volume)
        ]
    )


def mesh(
    shape: tuple[int, int, int], spacing: Three, origin: Three = (0.0, 0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return patient z, y, x (mm) of every voxel of an axial stack."""
    axes = [np.arange(count) * step + start for count, step, start in zip(shape, spacing, reversed(origin), strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z, y, x


def tissue(*, noise: float = 25.0, frames: int = 6, size: int = 96) -> tuple[list[Dataset], np.ndarray]:
    """Return a CT of a body with inserts and white noise, and the volume without noise."""
    z, y, x = mesh((frames, size, size), (5, 2, 2), (-size, -size, 0))
    clean = np.full(z.shape, -1000.0)
    clean[(x / 80) ** 2 + (y / 60) ** 2 < 1] = 50
    for place, value in ((-40, 120), (0, -100), (40, 300)):
        clean[np.hypot(x - place, y) < 14] = value
    noisy = clean + np.random.default_rng(5).normal(0, noise, clean.shape)
    return stack(noisy, (5, 2, 2), (-size, -size, 0), BitsStored=16), clean


def head(*, depth: float = 0.35) -> tuple[list[Dataset], np.ndarray, np.ndarray, np.ndarray]:
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


def bead(*, at: Three = (12.0, -17.0, 33.0)) -> tuple[list[Dataset], Three]:
    """Return a CT of 3 mm slices with a Gaussian bead of 1000 HU, and its place (x, y, z in mm)."""
    shape, spacing, origin = (24, 64, 64), (3.0, 1.5, 1.5), (-48.0, -48.0, 0.0)
    z, y, x = mesh(shape, spacing, origin)
    near = (x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2
    return stack(-1000 + 2000 * np.exp(-near / (2 * 3.0**2)), spacing, origin), at


SPHERES = (((-40.0, 0.0, 40.0), 16.0, 10.0), ((35.0, 20.0, 70.0), 12.0, 6.0), ((20.0, -40.0, 30.0), 14.0, 3.0))
"""Centre (x, y, z), radius in mm and SUV of each hot sphere."""


def hot_spheres(*, spacing: float = 4.0, fwhm_mm: float = 0.0) -> list[Dataset]:
    """Return a PET in which spheres of known SUV lie in a background of SUV 1, blurred as by a scanner."""
    shape, origin = (int(112 / spacing), int(176 / spacing), int(176 / spacing)), (-86.0, -86.0, 0.0)
    z, y, x = mesh(shape, (spacing, spacing, spacing), origin)
    uptake = np.where((x / 78) ** 2 + (y / 78) ** 2 < 1, 1.0, 0.0)
    for (cx, cy, cz), radius, suv in SPHERES:
        uptake[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2] = suv
    if fwhm_mm:
        reach = np.arange(-12, 13) * spacing
        kernel = np.exp(-(reach**2) / (2 * (fwhm_mm / 2.3548) ** 2))
        for axis in range(3):
            uptake = np.apply_along_axis(np.convolve, axis, uptake, kernel / kernel.sum(), "same")
    drug = Dataset()
    drug.RadiopharmaceuticalStartTime = "091500"
    drug.RadionuclideTotalDose = "370000000"
    drug.RadionuclideHalfLife = "6588"
    drug.RadionuclideCodeSequence = Sequence()
    factor = 80000 / (3.7e8 * 2 ** (-3600 / 6588))
    return stack(
        uptake / factor / 2,
        (spacing, spacing, spacing),
        origin,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.128",
        Modality="PT",
        ImageType=["ORIGINAL", "PRIMARY"],
        SeriesDescription="PET AC",
        SeriesTime="101500",
        AcquisitionTime="101500",
        RescaleSlope="2",
        RescaleType=None,
        Units="BQML",
        SeriesType=["STATIC", "IMAGE"],
        CountsSource="EMISSION",
        DecayCorrection="START",
        CorrectedImage=["DECY", "ATTN"],
        NumberOfSlices=shape[0],
        ImageIndex=1,
        FrameReferenceTime="0",
        ActualFrameDuration="60000",
        CollimatorType="RING",
        KVP=None,
        WindowCenter="10000",
        WindowWidth="20000",
        RadiopharmaceuticalInformationSequence=Sequence([drug]),
        EnergyWindowRangeSequence=Sequence(),
        PatientOrientationCodeSequence=Sequence(),
        PatientGantryRelationshipCodeSequence=Sequence(),
    )


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


def chest(*, nodules: bool = True, plaques: bool = False) -> list[Dataset]:
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
    if nodules:
        for (cx, cy, cz), diameter in NODULES:
            values[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < (diameter / 2) ** 2] = 40
    if plaques:
        for place, size, value in PLAQUES:
            index = [round((place[2] - 8) / 1.5), round((place[1] + 98.1) / 1.8), round((place[0] + 116.1) / 1.8)]
            values[index[0], index[1] : index[1] + size[0], index[2] : index[2] + size[1]] = value
    values += np.random.default_rng(11).normal(0, 6, shape)
    return stack(values, spacing, origin)


FAINT = tuple((row, column) for row in (30, 80, 130) for column in (30, 64, 98))
"""Row and column of each faint disc."""


def faint() -> list[Dataset]:
    """Return a radiograph of 12 bits: a steep ramp with nine faint discs of 3 pixels' radius and 40 grey levels."""
    y, x = np.mgrid[:160, :128]
    frame = 500 + 20.0 * x
    for row, column in FAINT:
        frame[np.hypot(y - row, x - column) < 3] += 40
    frame += np.random.default_rng(3).normal(0, 4, frame.shape)
    one = radiograph()
    one.PixelData = np.clip(np.rint(frame), 0, 4095).astype("<u2").tobytes()
    return read([one])


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


def thigh() -> tuple[list[Dataset], np.ndarray]:
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
