"""A head with known brain, face and ears, as MR or CT, in any acquisition: made of formulas, the same every time.

Its shapes are not those of `pacs.deid.head.MODEL`: other sizes, other proportions, a skull with its base, a table under it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import making
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from pacs.deid.planes import Plane

Points = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

DIRECTIONS = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
}
"""Row and column direction of the slices, LPS."""

PARTS = ("eyes", "nose", "mouth", "chin", "ears")
_AIR, _SOFT, _FAT, _BONE, _BRAIN, _FLUID, _EYE = range(7)
_MR = np.array([12, 380, 720, 60, 600, 160, 190], float)
_CT = np.array([-1000, 45, -90, 900, 36, 8, 12], float)


@dataclass(frozen=True)
class Head:
    """Frames of one series, where they lie, and the truth: masks (frames, rows, columns) of the brain and of each part."""

    modality: str
    planes: list[Plane]
    frames: NDArray[np.int16] = field(repr=False)
    brain: NDArray[np.bool_] = field(repr=False)
    parts: dict[str, NDArray[np.bool_]] = field(repr=False)
    skin: NDArray[np.bool_] = field(repr=False)

    def floats(self) -> Iterator[NDArray[np.float32]]:
        """Frames in modality units."""
        for frame in self.frames:
            yield frame.astype(np.float32)


def head(
    modality: str = "MR",
    acquisition: str = "axial",
    *,
    pixel_mm: float = 1.5,
    slice_mm: float = 3.0,
    gap_mm: float = 0.0,
    turned: tuple[float, float, float] = (0, 0, 0),
    size: float = 1.0,
    shift_mm: tuple[float, float, float] = (4.0, -7.0, 11.0),
    field_mm: float = 290.0,
    slab_mm: tuple[float, float] | None = None,
    shoulders: bool = False,
    seed: int = 1,
) -> Head:
    """Return a head.

    Parameters
    ----------
    turned : three floats
        Degrees: chin up, ear down, looking aside.
    shift_mm : three floats
        Where the middle of the head lies in the patient's coordinates, LPS.
    slab_mm : two floats, optional
        First and last slice relative to the middle of the head, along the slice normal; the whole field of view if left out.
    """
    row, column = (np.array(one, float) for one in DIRECTIONS[acquisition])
    normal = np.cross(row, column)
    count = round(field_mm / pixel_mm)
    low, high = slab_mm or (-field_mm / 2, field_mm / 2)
    levels = np.arange(low, high + 1e-6, slice_mm + gap_mm)
    # The field of view reaches farther down than up.
    middle = np.array(shift_mm) + np.array([0, 0, -25.0])
    planes = []
    for level in levels:
        corner = middle - (row + column) * (count - 1) / 2 * pixel_mm + level * normal
        planes.append(
            Plane(_triple(corner), _triple(row), _triple(column), (pixel_mm, pixel_mm), (count, count), thickness_mm=slice_mm)
        )
    turn = _rotation(np.radians(turned))
    noise = np.random.default_rng(seed)
    kinds, brains, skins = [], [], []
    parts: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in PARTS}
    values = _CT if modality == "CT" else _MR
    for plane in planes:
        start, down, right = (np.asarray(one) for one in plane.affine_to(np.eye(4)))
        r, c = np.mgrid[: plane.shape[0], : plane.shape[1]]
        places = start + r[..., None] * down + c[..., None] * right - shift_mm
        places = places * (1, -1, 1) @ turn / size
        kind, brain, here = _tissue((places[..., 0], places[..., 1], places[..., 2]), shoulders)
        skins.append(kind != _AIR)
        image = values[kind]
        if modality == "CT":
            # The head rest does not turn with the head.
            place = start + r[..., None] * down + c[..., None] * right - shift_mm
            rest = (np.abs(np.hypot(place[..., 0], place[..., 1] + 30) - 165) < 3) & (place[..., 1] > 100)
            image = np.where(rest & (kind == _AIR), -150, image) + noise.normal(0, 12, kind.shape)
        else:
            image = np.hypot(image + noise.normal(0, 12, kind.shape), noise.normal(0, 12, kind.shape))
        kinds.append(np.clip(np.rint(image), -1024, 3071).astype(np.int16))
        brains.append(brain)
        for name in PARTS:
            parts[name].append(here[name])
    return Head(
        modality,
        planes,
        np.stack(kinds),
        np.stack(brains),
        {name: np.stack(one) for name, one in parts.items()},
        np.stack(skins),
    )


def datasets(made: Head, **overrides: object) -> list[Dataset]:
    """Return the head's series as images with planted identity."""
    series_uid = overrides.pop("series_uid", making.SERIES_UID + ".7")
    out = []
    for number, (plane, frame) in enumerate(zip(made.planes, made.frames, strict=True)):
        ds = making.dataset(instance=number + 1, series_uid=str(series_uid), frame=frame.astype("<i2"))
        ds.ImagePositionPatient = [f"{v:.6g}" for v in plane.position]
        ds.ImageOrientationPatient = [*plane.row, *plane.column]
        ds.PixelSpacing = list(plane.spacing_mm)
        ds.SliceThickness = f"{plane.thickness_mm:g}"
        ds.Modality, ds.BodyPartExamined = made.modality, "HEAD"
        ds.SeriesDescription, ds.StudyDescription = "AX HEAD", "HEAD"
        if made.modality == "MR":
            ds.SOPClassUID = MRImageStorage
            del ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType, ds.KVP
            ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "GR", "SP", "", "3D"
            ds.EchoTime, ds.EchoTrainLength = "3", 1
        for keyword, value in overrides.items():
            setattr(ds, keyword, value)
        out.append(ds)
    return out


def _ball(points: Points, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return a number below 1 inside an ellipsoid."""
    return sum(((p - c) / r) ** 2 for p, c, r in zip(points, centre, radii, strict=True))  # type: ignore[return-value]


def _tissue(points: Points, shoulders: bool) -> tuple[NDArray[np.int8], NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    left, ahead, up = points
    side = np.abs(left)
    mirrored = (side, ahead, up)
    middle = (0.0, -14.0, 4.0)
    scalp = _ball(points, middle, (77, 98, 85)) < 1
    outer = _ball(points, middle, (72, 92, 79)) < 1
    inner = _ball(points, middle, (66, 86, 73)) < 1
    base = np.interp(ahead, [-100, -8, -4, 20, 24, 90], [-54, -54, -38, -36, -19, -19])
    face = ((side / 63) ** 2.6 + (np.abs(ahead - 28) / 58) ** 2.6 + (np.abs(up + 62) / 72) ** 2.6 < 1) & (up < 0)
    jaw = _ball(points, (0, 34, -108), (50, 48, 34)) < 1
    neck = (_ball((left, ahead, up * 0), (0, -34, 0), (57, 60, 1)) < 1) & (up < -45)
    nose = (_ball(points, (0, 90, -62), (14, 21, 21)) < 1) & (ahead > 80)
    lips = _ball(points, (0, 86, -98), (25, 9, 10)) < 1
    chin = _ball(points, (0, 72, -126), (26, 17, 15)) < 1
    ears = (_ball(mirrored, (80, -22, -32), (9, 15, 29)) < 1) & (side > 77)
    eyes = _ball(mirrored, (31, 71, -38), (12, 12, 12)) < 1
    orbit = _ball(mirrored, (30, 64, -38), (17, 22, 17)) < 1
    trunk = (_ball(points, (0, -45, -290), (215, 105, 110)) < 1) if shoulders else np.zeros(left.shape, bool)
    body = scalp | face | jaw | neck | nose | lips | chin | ears | trunk
    brain = inner & (up > base + 2) & (_ball(points, middle, (64, 84, 71)) < 1)
    kind = np.where(body, _SOFT, _AIR).astype(np.int8)
    kind[scalp & ~outer] = _FAT
    vault = outer & (up > base - 5)
    kind[vault] = _BONE
    kind[inner & (up > base)] = _FLUID
    kind[brain] = _BRAIN
    kind[_ball(points, (0, -10, 15), (12, 28, 9)) < 1] = _FLUID
    kind[(_ball(points, (0, 34, -108), (44, 40, 28)) < 1) & ~(_ball(points, (0, 26, -106), (36, 36, 40)) < 1)] = _BONE
    kind[orbit & ~vault & face] = _FAT
    kind[eyes] = _EYE
    kind[(_ball(points, (0, 55, -97), (20, 24, 4)) < 1) | (_ball(mirrored, (24, 50, -66), (11, 15, 14)) < 1)] = _AIR
    kind[(_ball((left, ahead, up * 0), (0, 2, 0), (9, 7, 1)) < 1) & (up < -70) & body] = _AIR
    kind[(_ball((left, ahead, up * 0), (0, -48, 0), (16, 15, 1)) < 1) & (up < -58) & body] = _BONE
    outside = ~(face | scalp | neck)
    return kind, brain, {"eyes": eyes, "nose": nose, "mouth": lips, "chin": chin & (outside | (ahead > 60)), "ears": ears}


def _rotation(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation by radians about l (chin up), a (ear down), s (looking aside), from head to patient, (l, a, s)."""
    (cl, ca, cs), (sl, sa, ss) = np.cos(turn), np.sin(turn)
    about_l = np.array([[1, 0, 0], [0, cl, -sl], [0, sl, cl]])
    about_a = np.array([[ca, 0, sa], [0, 1, 0], [-sa, 0, ca]])
    about_s = np.array([[cs, -ss, 0], [ss, cs, 0], [0, 0, 1]])
    whole: NDArray[np.float64] = about_s @ about_a @ about_l
    return whole


def _triple(vector: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])
