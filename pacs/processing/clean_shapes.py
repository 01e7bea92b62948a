"""The shape of a face out of what shows it besides head series: the cleaner of `shapes`, around the rules of `pacs.deid.face`.

Segmentations, PET, dose grids and parametric maps, and CT and MR series that left a doubt, are cut where the head series of
their frame of reference were. What no head series came for passes if its header names another part of the body, and is in doubt
otherwise: nothing here looks for a face in them.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.codec.decode import stored_values
from pacs.codec.image import Image
from pacs.deid.candidates import AMOUNTS, METHOD, SEGMENTATIONS, VOLUMES, Said
from pacs.deid.face import Plane, Region, fill, mask_of
from pacs.deid.planes import is_sound
from pacs.model.errors import NotTranscodable
from pacs.processing.cleaners import Array, HeldImage, Located, Options, Report, Verdict
from pacs.processing.placed import RECOGNIZABLE, changed, frame_of_reference, planes, rescale, said

SHAPES = "shapes"
"""What such objects are held for (`Deidentified.pending`)."""

_Replaced = Callable[[Array, NDArray[np.bool_], int], Array | int]
"""What a frame holds within a mask: its stored values, the mask and the frame's number give others, or one for all."""


def clean(images: Sequence[HeldImage], report: Report, options: Options) -> Iterator[Verdict]:
    """Answer for every held object by itself, by what is known of the study."""
    known = Known(options.get("located", ()))
    for image in images:
        if SHAPES in image.pending:
            yield _clean_one(image, known, report)


class Known:
    """Where the faces of a study lie, by frame of reference."""

    def __init__(self, located: Sequence[Located]) -> None:
        self._regions: dict[str, list[Region]] = {}
        for one in located:
            found = self._regions.setdefault(one.frame_of_reference_uid, [])
            if one.region:
                found.append(Region.from_bytes(one.region))
        self._masks: dict[tuple[str, Plane], bytes] = {}

    def regions(self, frame_of_reference_uid: str) -> list[Region] | None:
        """Return where the face lies: nowhere that is known where the list is empty, None if no face was in question."""
        return self._regions.get(frame_of_reference_uid)

    def none_in_study(self) -> bool:
        """Tell whether no series of the study showed a face, or may have."""
        return not self._regions

    def mask(self, frame_of_reference_uid: str, plane: Plane) -> NDArray[np.bool_]:
        """Return what is cut of a plane: the segments of one slice share it."""
        key = frame_of_reference_uid, plane
        if key not in self._masks:
            self._masks[key] = np.packbits(mask_of(self._regions[frame_of_reference_uid], plane)).tobytes()
        bits = np.unpackbits(np.frombuffer(self._masks[key], np.uint8), count=plane.shape[0] * plane.shape[1])
        return bits.astype(bool).reshape(plane.shape)


def _clean_one(image: HeldImage, known: Known, report: Report) -> Verdict:
    uid, header = image.sop_instance_uid, image.header
    frame = frame_of_reference(header)
    regions, where = known.regions(frame) if frame else None, planes(image)
    sop_class_uid = str(header.get("SOPClassUID", ""))
    elsewhere = said(image) is Said.OTHER and sop_class_uid not in VOLUMES
    if regions is None and elsewhere and (frame or known.none_in_study()):
        return Verdict(uid, elements={RECOGNIZABLE: None}, counts={"faces_not_in_view": 1})
    if regions is None or not regions:
        if sop_class_uid in VOLUMES:
            return Verdict(uid, doubt=_UNTOLD)
        return Verdict(uid, doubt=_NO_HEAD if regions is None else _NOT_FOUND)
    if not is_sound(where) or len(where) != image.described.number_of_frames:
        return Verdict(uid, doubt="it may carry the shape of a face, and has no place in the patient")
    report(0.5, "removing the face")
    try:
        frames, count = _cut(image, [(frame, plane) for plane in where], known)
    except NotTranscodable:
        return Verdict(uid, doubt="it may carry the shape of a face, and its frames cannot be decoded")
    return Verdict(
        uid,
        frames=frames if count else None,
        methods=(METHOD,),
        elements={RECOGNIZABLE: ("CS", b"NO")},
        counts={"face_pixels_removed": count},
    )


_NO_HEAD = "it may carry the shape of a face, and no head series of its frame of reference came to tell where"
_NOT_FOUND = "it may carry the shape of a face, and that could not be located in its frame of reference"
_UNTOLD = "a face may be in view: neither its own series nor another one of its frame of reference tells where"


def _cut(image: HeldImage, places: Sequence[tuple[str, Plane]], known: Known) -> tuple[list[Array], int]:
    """Return the frames with nothing in the mask, and how many pixels were changed."""
    within = _replaced(image)
    out: list[Array] = []
    count = 0
    for number, (frame, place) in enumerate(zip(image.frames, places, strict=True)):
        if frame.any():
            mask = known.mask(*place)
            if mask.any():
                new = changed(image, frame, mask, within(stored_values(frame, image.image), mask, number))
                different = int(np.count_nonzero(new != frame))
                count += different
                frame = new if different else frame
        out.append(frame)
    return out, count


def _replaced(image: HeldImage) -> _Replaced:
    """Return what comes in the place of a face, by what the stored values of this object mean."""
    header, sop_class_uid = image.header, str(image.header.get("SOPClassUID", ""))
    if sop_class_uid in SEGMENTATIONS:
        # PS3.3 C.8.20.2: no segment; in a label map that is Pixel Padding Value, where it has one.
        padding = header.get("PixelPaddingValue")
        background = int(padding) if isinstance(padding, int) and "LABELMAP" in str(header.get("SegmentationType", "")) else 0
        return lambda values, mask, number: background
    if sop_class_uid in AMOUNTS:
        return lambda values, mask, number: _zero(header, number, image.image)
    key = image.sop_instance_uid.encode("ascii")
    return lambda values, mask, number: fill(values, mask, key, number)


def _zero(header: Dataset, number: int, stored: Image) -> int:
    """Return the stored value that means an amount of zero, or the nearest one that there is."""
    slope, intercept = rescale(header, number)
    lowest = -(1 << stored.bits_stored - 1) if stored.signed else 0
    return max(lowest, min(round(-intercept / slope), lowest + (1 << stored.bits_stored) - 1))
