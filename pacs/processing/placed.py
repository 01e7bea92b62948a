"""Held images in the patient: where each frame lies, what it measures, and its stored values changed within a mask.

What the cleaners of faces and of shapes share; the rules are in `pacs.deid.face`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.deid.candidates import SAID, Said, said_of
from pacs.deid.planes import Plane
from pacs.processing.cleaners import Array, HeldImage

RECOGNIZABLE = 0x00280302
"""Recognizable Visual Features."""

_PROJECTIONS = frozenset({"LOCALIZER", "PROJECTION IMAGE", "MIP", "MAXIMUM_PROJECTION", "VRT", "SSD", "VOLUME_RENDER", "3D"})
"""Values of Image Type that say that a frame is no slice. An MR localizer is one; see `_is_projection`."""


def said(image: HeldImage) -> Said:
    """Return which part of the body a header named as it came; what is left of it decides where that was not written down."""
    written = [one for one in Said if SAID + one in image.report]
    if written:
        return written[0]
    header = image.header
    keywords = ("BodyPartExamined", "SeriesDescription", "ProtocolName", "StudyDescription")
    return said_of({keyword: str(header.get(keyword) or "") for keyword in keywords})


def frame_of_reference(header: Dataset) -> str:
    """Return Frame of Reference UID (0020,0052), "" where there is none."""
    return str(header.get("FrameOfReferenceUID") or "")


def planes(image: HeldImage) -> tuple[Plane, ...]:
    """Return where each frame lies, one for each; none where the image has no place.

    From the image itself, from its functional groups (PS3.3 C.7.6.16.2), or from the offsets of a dose grid (PS3.3 C.8.8.3.2).
    """
    header = image.header
    if not image.has_pixels or _is_projection(header):
        return ()
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = header.get("PerFrameFunctionalGroupsSequence")
    try:
        if frames:
            return tuple(_plane(header, [one, shared]) for one in frames)
        if "GridFrameOffsetVector" in header:
            return _dose_planes(header)
        if int(header.get("NumberOfFrames") or 1) != 1:
            return ()
        return (_plane(header, []),)
    except (KeyError, AttributeError, IndexError, TypeError, ValueError):
        return ()


def rescale(header: Dataset, number: int) -> tuple[float, float]:
    """Return slope and intercept to modality units of a frame, counted from 0 (PS3.3 C.11.1, C.7.6.16.2.9)."""
    slope, intercept = 1.0, 0.0
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [one for one in (*shared[:1], *own[number : number + 1]) if "PixelValueTransformationSequence" in one]
    for place in (header, *(one["PixelValueTransformationSequence"].value[0] for one in groups)):
        slope = float(place.get("RescaleSlope") or slope)
        intercept = float(place.get("RescaleIntercept") or intercept)
    return slope, intercept


def changed(image: HeldImage, frame: Array, mask: NDArray[np.bool_], values: Array | int) -> Array:
    """Return a frame with other stored values where `mask` is true; every other sample as it was, unused bits and all."""
    stored = image.image
    new = np.asarray(values, frame.dtype)
    low = stored.high_bit + 1 - stored.bits_stored
    if low > 0 and stored.bits_stored < stored.bits_allocated:
        new = np.left_shift(new, new.dtype.type(low), dtype=new.dtype)
    out = frame.copy()
    out[mask] = new[mask] if new.ndim else new
    return out


def _is_projection(header: Dataset) -> bool:
    kinds = {str(kind).strip().upper() for kind in header.get("ImageType") or ()}
    if header.get("Modality") == "MR":
        # The localizer of an MR is made of slices.
        kinds.discard("LOCALIZER")
    return bool(kinds & _PROJECTIONS)


def _dose_planes(header: Dataset) -> tuple[Plane, ...]:
    first = _plane(header, [])
    offsets = [float(value) for value in header.GridFrameOffsetVector]
    if len(offsets) != int(header.get("NumberOfFrames") or 1):
        return ()
    if offsets[0] != 0:
        # Not relative, but z of the patient: allowed for axial grids that begin where they say.
        if abs(offsets[0] - first.position[2]) > 0.01 or abs(first.normal[2]) < 0.999:
            return ()
        offsets = [(offset - offsets[0]) * float(np.sign(first.normal[2])) for offset in offsets]
    return tuple(
        Plane(
            _triple(np.asarray(first.position) + offset * first.normal),
            first.row,
            first.column,
            first.spacing_mm,
            first.shape,
            first.thickness_mm,
        )
        for offset in offsets
    )


def _plane(header: Dataset, groups: Sequence[Dataset]) -> Plane:
    def found(macro: str, keyword: str) -> list[float]:
        for group in groups:
            if macro in group and keyword in group[macro].value[0]:
                return [float(value) for value in group[macro].value[0][keyword].value]
        return [float(value) for value in header[keyword].value]

    position = found("PlanePositionSequence", "ImagePositionPatient")
    direction = found("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = found("PixelMeasuresSequence", "PixelSpacing")
    thickness = header.get("SliceThickness")
    for group in groups:
        if "PixelMeasuresSequence" in group:
            thickness = group.PixelMeasuresSequence[0].get("SliceThickness", thickness)
    x, y, z = position
    a, b, c, d, e, f = direction
    rows_mm, columns_mm = spacing
    return Plane(
        (x, y, z),
        (a, b, c),
        (d, e, f),
        (rows_mm, columns_mm),
        (int(header.Rows), int(header.Columns)),
        float(thickness) if thickness not in (None, "") else 0.0,
    )


def _triple(vector: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])
