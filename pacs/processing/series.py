"""What a processor is given: the images of a series in geometric order, and the series of a study.

Pixels are decoded when they are asked for. Whatever needs a volume asks for `geometry()` first, which refuses with a reason
(`NotApplicable`) what cannot be one: uneven spacing, a tilted gantry, mixed sizes or orientations.
Geometry: PS3.3 C.7.6.2.1.1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from pacs.processing.api import NotApplicable
from pacs.processing.enhanced import Frame, frames, is_enhanced

if TYPE_CHECKING:
    import SimpleITK as sitk

UNEVEN = 0.01
"""Largest deviation of a gap between slices from the median gap; more is not a volume."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A regular grid in patient coordinates (mm, LPS), slices ascending along `normal`.

    `row` is the direction in which the column index grows, `column` the one in which the row index grows.
    `spacing_mm` is (slice, row, column) distance, the order of array axes.
    """

    origin: tuple[float, float, float]
    row: tuple[float, float, float]
    column: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector from slice to slice: row x column."""
        return np.cross(self.row, self.column)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL."""
        return float(np.prod(self.spacing_mm)) / 1000

    def position(self, frame: int) -> tuple[float, float, float]:
        """Image Position (Patient) of a frame."""
        at = np.asarray(self.origin) + frame * self.spacing_mm[0] * self.normal
        return float(at[0]), float(at[1]), float(at[2])

    def image(self, array: NDArray[Any]) -> "sitk.Image":
        """Return `array` (frames, rows, columns) as a SimpleITK image on this grid."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(array)
        image.SetSpacing([self.spacing_mm[2], self.spacing_mm[1], self.spacing_mm[0]])
        image.SetOrigin(list(self.origin))
        image.SetDirection(np.stack([self.row, self.column, self.normal], axis=1).ravel().tolist())
        return image

    def slab(self, first: int, last: int) -> "Geometry":
        """Return the grid of frames `first` to `last`, both included."""
        return Geometry(self.position(first), self.row, self.column, self.spacing_mm, (last - first + 1, *self.shape[1:]))

    def resized(self, rows: int, columns: int) -> "Geometry":
        """Return the grid with other in-plane counts over the same field of view."""
        row_mm = self.spacing_mm[1] * self.shape[1] / rows
        column_mm = self.spacing_mm[2] * self.shape[2] / columns
        # The field of view begins half a pixel before the first pixel's centre.
        origin = (
            np.asarray(self.origin)
            + np.asarray(self.row) * (column_mm - self.spacing_mm[2]) / 2
            + np.asarray(self.column) * (row_mm - self.spacing_mm[1]) / 2
        )
        place = (float(origin[0]), float(origin[1]), float(origin[2]))
        return Geometry(place, self.row, self.column, (self.spacing_mm[0], row_mm, column_mm), (self.shape[0], rows, columns))


class Series:
    """The images of one series. `datasets` are complete data sets, sorted along the slice normal, else by number.

    Enhanced multi-frame CT, MR and PET objects count as the single-frame images they hold (`pacs.processing.enhanced`);
    `instances` are the objects as the archive has them, for those without their pixels.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        if not datasets:
            raise ValueError("a series has at least one instance")
        planes = [plane for one in datasets for plane in (frames(one) if is_enhanced(one) else [one])]
        self.datasets: list[Dataset] = sorted(planes, key=_order_key(planes))
        is_split = any(isinstance(one, Frame) for one in planes)
        self.instances: list[Dataset] = list(datasets) if is_split else self.datasets

    def __len__(self) -> int:
        return len(self.datasets)

    @property
    def first(self) -> Dataset:
        """The first data set: what is the same in the whole series can be read from it."""
        return self.datasets[0]

    @property
    def modality(self) -> str:
        return str(self.first.get("Modality", ""))

    @property
    def has_pixels(self) -> bool:
        return all("PixelData" in one for one in self.datasets)

    def text(self, keyword: str) -> str:
        """Value of an attribute in the first instance as text, several values joined by a backslash; "" where absent."""
        value = self.first.get(keyword)
        if value is None:
            return ""
        return str(value) if isinstance(value, str) or not hasattr(value, "__iter__") else "\\".join(map(str, value))

    def number(self, keyword: str) -> float | None:
        """First value of a numeric attribute, or None where absent or empty."""
        value = self.first.get(keyword)
        if value is None or value == "":
            return None
        try:
            return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)
        except (TypeError, ValueError, IndexError):
            return None

    def stored(self, index: int) -> NDArray[Any]:
        """Stored values of one instance, shape (rows, columns[, samples]); refuses multi-frame and undecodable images."""
        one = self.datasets[index]
        if "PixelData" not in one or int(one.get("NumberOfFrames") or 1) != 1:
            raise NotApplicable("needs single-frame images")
        try:
            array: NDArray[Any] = one.pixel_array
        except (RuntimeError, NotImplementedError, ValueError, AttributeError) as error:
            # What pydicom raises for pixel data that is damaged, inconsistent, or of a transfer syntax without a decoder.
            raise NotApplicable("its pixels cannot be decoded") from error
        return array

    def frame(self, index: int) -> NDArray[np.float32]:
        """One instance in modality units (PS3.3 C.11.1), shape (rows, columns)."""
        one, stored = self.datasets[index], self.stored(index)
        if stored.ndim != 2:
            raise NotApplicable("needs grey images")
        if one.get("ModalityLUTSequence"):
            return np.asarray(apply_modality_lut(stored, one), np.float32)
        slope, intercept = rescale(one)
        values = stored.astype(np.float32)
        if slope != 1:
            values *= np.float32(slope)
        if intercept:
            values += np.float32(intercept)
        return values

    def in_stored_order(self, planes: NDArray[Any]) -> NDArray[Any]:
        """Return planes in the order of `datasets` in that of the frames of a multi-frame object; else as they are.

        Raises `NotApplicable` where the series has several multi-frame objects.
        """
        if self.instances is self.datasets:
            return planes
        if len(self.instances) > 1:
            raise NotApplicable("needs a series of single-frame images or of one multi-frame object")
        ordered = np.empty_like(planes)
        for plane, one in zip(planes, self.datasets, strict=True):
            ordered[one.number - 1] = plane
        return ordered

    def frames(self) -> Iterator[NDArray[np.float32]]:
        """Instances in modality units, one after another: never more than one in memory."""
        for index in range(len(self)):
            yield self.frame(index)

    def array(self) -> NDArray[np.float32]:
        """All instances in modality units, shape (frames, rows, columns)."""
        first = self.frame(0)
        volume = np.empty((len(self), *first.shape), np.float32)
        for index in range(len(self)):
            one = first if index == 0 else self.frame(index)
            if one.shape != first.shape:
                raise NotApplicable("images differ in size")
            volume[index] = one
        return volume

    def geometry(self) -> Geometry:
        """Return the grid of the series; raises `NotApplicable` where it is not one."""
        if len(self) < 2:
            raise NotApplicable("a volume needs at least two slices")
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
            if any(not one.get(keyword) for one in self.datasets):
                raise NotApplicable(f"no volume: {keyword} is missing")
        first = self.first
        orientation = np.array(first.ImageOrientationPatient, float)
        for one in self.datasets:
            if not np.allclose(np.array(one.ImageOrientationPatient, float), orientation, atol=1e-3):
                raise NotApplicable("no volume: slices have different orientations")
            if (one.Rows, one.Columns) != (first.Rows, first.Columns) or not np.allclose(
                np.array(one.PixelSpacing, float), np.array(first.PixelSpacing, float), rtol=1e-3
            ):
                raise NotApplicable("no volume: slices have different sizes")
        row, column = orientation[:3], orientation[3:]
        normal = np.cross(row, column)
        places = np.array([[float(v) for v in one.ImagePositionPatient] for one in self.datasets])
        along = places @ normal
        gaps = np.diff(along)
        gap = float(np.median(gaps))
        if gap <= 1e-3 or gaps.min() <= 1e-3:
            raise NotApplicable("no volume: several slices at one position")
        if np.abs(gaps - gap).max() > UNEVEN * gap + 1e-3:
            raise NotApplicable("no volume: the slices are not evenly spaced, one may be missing")
        # A tilted gantry moves each slice sideways along the table: the stack is then a sheared, not a rectangular, grid.
        sideways = (places - places[0]) - np.outer(along - along[0], normal)
        if np.abs(np.diff(sideways, axis=0)).max() > 0.02 * gap + 1e-3:
            raise NotApplicable("no volume: the gantry is tilted")
        mean_gap = float((along[-1] - along[0]) / (len(self) - 1))
        spacing = (mean_gap, float(first.PixelSpacing[0]), float(first.PixelSpacing[1]))
        origin = (float(places[0][0]), float(places[0][1]), float(places[0][2]))
        return Geometry(origin, _triple(row), _triple(column), spacing, (len(self), int(first.Rows), int(first.Columns)))

    def volume(self) -> "sitk.Image":
        """The series as a SimpleITK image in modality units (float32) and patient geometry."""
        geometry = self.geometry()
        return geometry.image(self.array())


class Study:
    """The series of one study that a study-level processor asked for."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = sorted(series, key=lambda one: (one.number("SeriesNumber") or 0.0, one.text("SeriesInstanceUID")))

    def of_modality(self, modality: str) -> list[Series]:
        """The series of one modality."""
        return [one for one in self.series if one.modality == modality]


def rescale(dataset: Dataset) -> tuple[float, float]:
    """Rescale Slope and Intercept, 1 and 0 where absent; PS3.3 C.11.1."""
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return (1.0 if slope in (None, "") else float(slope)) or 1.0, 0.0 if intercept in (None, "") else float(intercept)


def _triple(vector: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])


def _order_key(datasets: Sequence[Dataset]) -> Any:
    placed = all(one.get("ImagePositionPatient") and one.get("ImageOrientationPatient") for one in datasets)
    if placed:
        orientation = np.array(datasets[0].ImageOrientationPatient, float)
        normal = np.cross(orientation[:3], orientation[3:])
        return lambda one: (
            round(float(np.dot(np.array(one.ImagePositionPatient, float), normal)), 4),
            int(one.get("InstanceNumber") or 0),
            str(one.SOPInstanceUID),
        )
    return lambda one: (int(one.get("InstanceNumber") or 0), str(one.SOPInstanceUID))
