"""What a processor may yield. Plain values: how they become DICOM objects is the business of `derive.py` alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.processing.concepts import Code
from pacs.processing.series import Geometry, Series

PRIVATE_SCHEME = "99MINIPACS"
"""Coding scheme of concepts for which the standard has no code (PS3.16 8.2: private schemes begin with 99)."""

RESAMPLING = Code("113085", "DCM", "Spatial resampling")
"""PS3.16 CID 7203."""


def private_code(value: str, meaning: str) -> Code:
    """A concept of our own scheme."""
    return Code(value, PRIVATE_SCHEME, meaning)


COMPUTED = private_code("MAP", "Computed map")
"""CID 7203 has no code for a map in general."""


@dataclass(eq=False)
class Images:
    """A derived series in the IOD of its source (CT, MR, PT, CR, DX, MG).

    Parameters
    ----------
    pixels : iterable of ndarray of int, each (rows, columns)
        Stored values, one array per image; a generator keeps memory small. int16, uint16 or uint8.
    like : sequence of Dataset
        For each image the source whose header it takes over. With `geometry`, only what is not geometry.
    sources : sequence of sequence of Dataset, optional
        For each image the images it was made from; `like` where absent.
    geometry : Geometry, optional
        The grid, where it is another one than that of `like`.
    slope, intercept : float, optional
        Rescale Slope and Intercept of the stored values, where they differ from those of `like`.
    rescale_type : str, optional
        Rescale Type; "US" where the values no longer are what the source's were.
    units : str, optional
        Units (0054,1001), PT only.
    window : (float, float), optional
        Window Center and Width in modality units.
    bits_stored : int, optional
        Bits Stored; else 8 or 16 as the array has.
    for_presentation : bool
        The result of a FOR PROCESSING source is now for presentation (DX and MG have a SOP Class of their own for that).
    image_type : str
        Further value of Image Type, e.g. "RESAMPLED".
    attributes : mapping
        Further attributes by keyword, for what the pixels' new meaning demands.
    """

    pixels: Iterable[NDArray[Any]]
    like: Sequence[Dataset]
    description: str
    derivation: Code = RESAMPLING
    sources: Sequence[Sequence[Dataset]] | None = None
    geometry: Geometry | None = None
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str | None = None
    units: str | None = None
    window: tuple[float, float] | None = None
    bits_stored: int | None = None
    for_presentation: bool = False
    image_type: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Segment:
    """What one label of a segmentation means. Codes: PS3.16 CID 7150 (category) and CID 7151 (type)."""

    label: str
    type: Code
    category: Code = field(default_factory=lambda: Code("123037004", "SCT", "Anatomical Structure"))
    color_rgb: tuple[int, int, int] = (220, 180, 60)


@dataclass(eq=False)
class Segmentation:
    """Labels on the grid of a series, one SEG object.

    `labels` is an array (frames, rows, columns) of uint8 in the order of `series.datasets`, or a SimpleITK image on that grid.
    `encoding` is "binary" (one bit per voxel and segment; every viewer reads it) or "labelmap" (Label Map Segmentation Storage:
    one number per voxel, far smaller for many segments, known to recent viewers only).
    """

    series: Series
    labels: Any
    segments: Mapping[int, Segment]
    description: str
    encoding: Literal["binary", "labelmap"] = "binary"

    def array(self) -> NDArray[np.uint8]:
        """The labels as an array."""
        if isinstance(self.labels, np.ndarray):
            return np.ascontiguousarray(self.labels, np.uint8)
        import SimpleITK as sitk

        return np.ascontiguousarray(sitk.GetArrayViewFromImage(self.labels), np.uint8)


@dataclass(eq=False)
class Probabilities:
    """How likely, or how full of each segment, every voxel is: one SEG object (FRACTIONAL).

    `values` is an array (frames, rows, columns) for one segment or (frames, rows, columns, segments) for several, from 0 to 1
    in the order of `series.datasets`; it is stored in steps of 1/255. Segments count from 1 along the last axis.
    `occupancy` where a value is the share of a voxel that the segment fills, not its probability.
    """

    series: Series
    values: NDArray[Any]
    segments: Sequence[Segment]
    description: str
    occupancy: bool = False


@dataclass(eq=False)
class Map:
    """A number with a meaning and a unit for every voxel (SUV, ADC, Jacobian): one Parametric Map, 32-bit float.

    `values` is an array (frames, rows, columns) in the order of `series.datasets`, or on the grid `geometry`; every value is
    finite. `quantity` is what is measured, `unit` its UCUM unit, `window` (centre, width) what viewers show at first.
    `derivation` says how it was computed, where the standard has a code (PS3.16 CID 7203). As many archives and viewers cannot
    show maps, yield `map.images()` as well: the same numbers as a derived series of 16 bits.
    """

    series: Series
    values: NDArray[Any]
    quantity: Code
    unit: Code
    description: str
    geometry: Geometry | None = None
    window: tuple[float, float] | None = None
    derivation: Code | None = None

    def images(self, *, description: str = "", units: str | None = None) -> "Images":
        """Return the map as a derived series in the IOD of its source, 16 bits with a slope; `units` for PET (GML)."""
        low, high = float(self.values.min()), float(self.values.max())
        # PS3.3 C.8.9.4.1.8: the intercept of PET is 0, so the range of int16 lies evenly about it for all.
        slope = max(high, -low, 1e-9) / 32767
        count = len(self.values)
        return Images(
            pixels=(np.rint(one / slope).astype(np.int16) for one in self.values),
            like=self.series.datasets if self.geometry is None else [self.series.first] * count,
            description=description or self.description,
            derivation=self.derivation or COMPUTED,
            sources=None if self.geometry is None else [self.series.datasets] * count,
            geometry=self.geometry,
            slope=slope,
            intercept=0.0,
            rescale_type=None if self.series.modality == "PT" else "US",
            units=units,
            window=self.window or ((low + high) / 2, max(high - low, 1e-6)),
        )


@dataclass(frozen=True)
class Value:
    """A measured number: what, how much, in which unit (UCUM), and how it was reduced from many (mean …)."""

    name: Code
    value: float
    unit: Code
    derivation: Code | None = None


@dataclass(eq=False)
class Measurements:
    """Numbers per segment of a `Segmentation` that was yielded before, as an SR (TID 1500, PS3.16)."""

    of: Segmentation
    values: Mapping[int, Sequence[Value]]
    description: str
    comments: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A coded answer to a coded question, how sure (0 to 1), and why; `answer` None where nothing can be said."""

    question: Code
    answer: Code | None
    certainty: float
    reason: str


@dataclass(eq=False)
class Report:
    """Findings about a series as an SR (TID 1500 with qualitative evaluations)."""

    series: Series
    findings: Sequence[Finding]
    description: str


@dataclass(frozen=True)
class Spot:
    """Something at one place: what it is, where its centre lies (mm, LPS; PS3.3 C.7.6.2.1.1), and its numbers."""

    label: str
    finding: Code
    at_mm: tuple[float, float, float]
    values: Sequence[Value]
    comment: str = ""


@dataclass(eq=False)
class Spots:
    """Places in a series as an SR (TID 1500 with planar ROI measurements, each a point in patient coordinates)."""

    series: Series
    spots: Sequence[Spot]
    description: str


@dataclass(eq=False)
class Overlay:
    """RGB pictures for people, as Secondary Capture images, in place where `geometry` is given.

    `pixels` are arrays of uint8, (rows, columns, 3), one per picture; `sources` the images each was made from.
    """

    pixels: Iterable[NDArray[np.uint8]]
    sources: Sequence[Sequence[Dataset]]
    description: str
    geometry: Geometry | None = None
    derivation: Code = RESAMPLING


@dataclass(eq=False)
class Unplaced:
    """Grey images in modality units that no plane of the patient holds (unrolled ones), as Secondary Capture images.

    They have no position, no orientation and no frame of reference, so that no viewer draws cross-lines or measures volumes
    on them. `spacing_mm` is (row, column) distance where that is true in the image; `sources` are the images of each.
    """

    pixels: Iterable[NDArray[Any]]
    sources: Sequence[Sequence[Dataset]]
    description: str
    slope: float
    intercept: float
    rescale_type: str = "US"
    spacing_mm: tuple[float, float] | None = None
    window: tuple[float, float] | None = None
    derivation: Code = RESAMPLING


@dataclass(frozen=True)
class Mark:
    """A figure, with or without words, on one image of a `Presentation`.

    `image` is the index in `series.datasets`. `at` are places (row, column) in the array, whole numbers at pixel centres: one
    for a "point" or "text", two for a "circle" (centre, a point of its edge), four for an "ellipse" (ends of the long axis,
    ends of the short one), two or more for a "polyline" (closed where the first comes again as the last).
    """

    image: int
    figure: Literal["point", "polyline", "circle", "ellipse", "text"]
    at: Sequence[tuple[float, float]]
    text: str = ""
    is_filled: bool = False


@dataclass(eq=False)
class Presentation:
    """How grey images are to be shown: a window and drawings on them, as a Grayscale Softcopy Presentation State.

    `of` is a series, or `Images` yielded before. `window` is (centre, width) in modality units; without one the images' own
    holds. All images of it share one rescale.
    """

    of: "Series | Images"
    description: str
    window: tuple[float, float] | None = None
    marks: Sequence[Mark] = ()
    color_rgb: tuple[int, int, int] = (255, 200, 0)


@dataclass(eq=False)
class Blending:
    """One series shown in colour over another, as an Advanced Blending Presentation State (PET over CT).

    Both are series, or `Images` yielded before, in one frame of reference. Windows are (centre, width) in modality units;
    `colours` is an array (256, 3) of uint8 for `over`, black to white over red and yellow where absent; `opacity` is its share.
    """

    under: "Series | Images"
    over: "Series | Images"
    description: str
    under_window: tuple[float, float]
    over_window: tuple[float, float]
    opacity: float = 0.5
    colours: NDArray[np.uint8] | None = None


Output = (
    Images | Segmentation | Probabilities | Map | Measurements | Report | Spots | Overlay | Unplaced | Presentation | Blending
)
