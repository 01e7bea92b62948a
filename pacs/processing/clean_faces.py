"""Faces out of held CT and MR series: the cleaner of `faces`, around the rules of `pacs.deid.face`.

Every image of the series is laid out in the patient; a face in view is cut from all of them by one region. Markers are set only
where a face was cut. What has no place in the patient (a scout, a projection, a rendering) cannot be cut by a region: it passes
where the header names another part of the body, and is in doubt otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.codec.decode import stored_values
from pacs.deid.candidates import METHOD, Said, said_of
from pacs.deid.face import Plane, Region, fill, find
from pacs.model.errors import NotTranscodable, Quarantined
from pacs.processing.cleaners import Array, HeldImage, Options, Report, Verdict

FACES = "faces"
"""What such images are held for (`Deidentified.pending`)."""

_RECOGNIZABLE = 0x00280302
_PROJECTIONS = frozenset({"LOCALIZER", "PROJECTION IMAGE", "MIP", "MAXIMUM_PROJECTION", "VRT", "SSD", "VOLUME_RENDER", "3D"})
"""Values of Image Type that say that a frame is no slice. An MR localizer is one; see `_is_projection`."""


@dataclass(frozen=True, slots=True)
class _Placed:
    image: HeldImage
    planes: tuple[Plane, ...]
    """One for each frame; none where the image has no place."""


def clean(images: Sequence[HeldImage], report: Report, options: Options) -> Iterator[Verdict]:
    """Answer for every held image of one series; see `pacs.deid.face.find` for what is decided how."""
    held = [one for one in images if FACES in one.pending]
    if any(_was_cut(one.header) for one in images if FACES not in one.pending):
        # The face of the others is noise by now: nothing tells where this image's face lies.
        yield from _all_doubtful(held, "it came after the face of its series had been removed")
        return
    placed = [_Placed(one, _planes(one)) for one in images]
    said = {one.sop_instance_uid: _said(one.header) for one in images}
    strongest = Said.HEAD if Said.HEAD in said.values() else Said.NOTHING if Said.NOTHING in said.values() else Said.OTHER
    slices = [one for one in placed if one.planes]
    region: Region | None = None
    if slices:
        report(0.1, "looking for a face")
        modality = "CT" if str(slices[0].image.header.get("Modality", "")) == "CT" else "MR"
        try:
            region = find(
                list(chain.from_iterable(one.planes for one in slices)), _units(slices), modality=modality, said=strongest
            )
        except NotTranscodable:
            yield from _all_doubtful(held, "a face may be in view: its frames cannot be decoded")
            return
        except Quarantined as doubt:
            yield from _all_doubtful(held, str(doubt))
            return
    for done, one in enumerate(placed):
        report(0.3 + 0.7 * done / len(placed), "removing the face")
        if FACES not in one.image.pending:
            continue
        uid = one.image.sop_instance_uid
        if not one.planes:
            sure = (said[uid] is Said.OTHER and region is None) or not one.image.has_pixels
            yield Verdict(uid, counts={"faces_without_geometry": 1}) if sure else Verdict(uid, doubt=_UNPLACED)
        elif region is None:
            yield Verdict(uid, elements={_RECOGNIZABLE: None}, counts={"faces_not_in_view": 1})
        else:
            frames, count = _cut(one, region)
            yield Verdict(
                uid,
                frames=frames if count else None,
                methods=(METHOD,),
                elements={_RECOGNIZABLE: ("CS", b"NO")},
                counts={"face_pixels_removed": count},
            )


_UNPLACED = "a face may be in view: the image has no place in the patient"


def _all_doubtful(held: Sequence[HeldImage], reason: str) -> Iterator[Verdict]:
    for one in held:
        yield Verdict(one.sop_instance_uid, doubt=reason)


def _was_cut(header: Dataset) -> bool:
    codes = {str(item.get("CodeValue", "")) for item in header.get("DeidentificationMethodCodeSequence") or []}
    return METHOD in codes


def _said(header: Dataset) -> Said:
    keywords = ("BodyPartExamined", "SeriesDescription", "ProtocolName", "StudyDescription")
    return said_of({keyword: str(header.get(keyword) or "") for keyword in keywords})


def _is_projection(header: Dataset) -> bool:
    kinds = {str(kind).strip().upper() for kind in header.get("ImageType") or ()}
    if header.get("Modality") == "MR":
        # The localizer of an MR is made of slices.
        kinds.discard("LOCALIZER")
    return bool(kinds & _PROJECTIONS)


def _planes(image: HeldImage) -> tuple[Plane, ...]:
    """Return where each frame lies, from the image itself or from its functional groups (PS3.3 C.7.6.16.2)."""
    header = image.header
    if not image.has_pixels or _is_projection(header):
        return ()
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = header.get("PerFrameFunctionalGroupsSequence")
    try:
        if frames:
            return tuple(_plane(header, [one, shared]) for one in frames)
        if int(header.get("NumberOfFrames") or 1) != 1:
            return ()
        return (_plane(header, []),)
    except (KeyError, AttributeError, IndexError, TypeError, ValueError):
        return ()


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


def _units(slices: Sequence[_Placed]) -> Iterator[NDArray[np.float32]]:
    """Frames in modality units (PS3.3 C.11.1, C.7.6.16.2.9); colour as its mean."""
    for one in slices:
        header = one.image.header
        shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        groups = header.get("PerFrameFunctionalGroupsSequence") or [Dataset()] * len(one.planes)
        for frame, group in zip(one.image.frames, groups, strict=True):
            values = stored_values(frame, one.image.image).astype(np.float32)
            if values.ndim == 3:
                values = values.mean(axis=2)
            slope, intercept = 1.0, 0.0
            for place in (
                header,
                *(
                    part["PixelValueTransformationSequence"].value[0]
                    for part in (shared, group)
                    if "PixelValueTransformationSequence" in part
                ),
            ):
                slope = float(place.get("RescaleSlope") or slope)
                intercept = float(place.get("RescaleIntercept") or intercept)
            yield values * np.float32(slope) + np.float32(intercept)


def _cut(one: _Placed, region: Region) -> tuple[list[Array], int]:
    """Return the frames without the face, and how many pixels that were."""
    key = one.image.sop_instance_uid.encode("ascii")
    out: list[Array] = []
    count = 0
    for number, (frame, plane) in enumerate(zip(one.image.frames, one.planes, strict=True)):
        mask = region.mask(plane)
        count += int(mask.sum())
        if not mask.any():
            out.append(frame)
            continue
        values = stored_values(frame, one.image.image)
        filled = fill(values, mask, key, number)
        # Samples as they are allocated: bits beyond the stored ones, and the sign's, only where they were.
        changed = frame.copy()
        changed[mask] = _as_allocated(filled, one.image)[mask]
        out.append(changed)
    return out, count


def _as_allocated(values: Array, image: HeldImage) -> Array:
    described = image.image
    low = described.high_bit + 1 - described.bits_stored
    if low <= 0 or described.bits_stored >= described.bits_allocated:
        return values
    return np.left_shift(values, values.dtype.type(low), dtype=values.dtype)
