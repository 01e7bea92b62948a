"""Faces out of held CT and MR series: the cleaner of `faces`, around the rules of `pacs.deid.face`.

Every image of the series is laid out in the patient; a face in view is cut from all of them by one region, which is handed back
for what else there is of its frame of reference. Markers are set only where a face was cut. A series that leaves a doubt waits
for others of its frame of reference to tell (`clean_shapes`). What has no place in the patient (a scout, a projection, a
rendering) cannot be cut by a region: it passes where the header names another part of the body, and is in doubt otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.codec.decode import stored_values
from pacs.deid.candidates import METHOD, Said
from pacs.deid.face import Plane, Region, fill, find
from pacs.model.errors import NotTranscodable, Quarantined
from pacs.processing.cleaners import Array, HeldImage, Located, Options, Report, Verdict
from pacs.processing.placed import RECOGNIZABLE, changed, frame_of_reference, planes, rescale, said

FACES = "faces"
"""What such images are held for (`Deidentified.pending`)."""


@dataclass(frozen=True, slots=True)
class _Placed:
    image: HeldImage
    planes: tuple[Plane, ...]
    """One for each frame; none where the image has no place."""


def clean(images: Sequence[HeldImage], report: Report, options: Options) -> Iterator[Verdict | Located]:
    """Answer for every held image of one series; see `pacs.deid.face.find` for what is decided how."""
    held = [one for one in images if FACES in one.pending]
    if any(_was_cut(one.header) for one in images if FACES not in one.pending):
        # The face of the others is noise by now: nothing tells whether it lay where this image's face lies.
        yield from _all_doubtful(held, "it came after the face of its series had been removed")
        return
    placed = [_Placed(one, planes(one)) for one in images]
    named = {one.sop_instance_uid: said(one) for one in images}
    strongest = next(one for one in (Said.HEAD, Said.NOTHING, Said.OTHER) if one in named.values())
    slices = [one for one in placed if one.planes]
    frames_of_reference = sorted({frame_of_reference(one.image.header) for one in slices} - {""})
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
            for frame in frames_of_reference:
                yield Located(frame)
            for one in placed:
                if FACES in one.image.pending:
                    uid = one.image.sop_instance_uid
                    others_may_tell = one.planes and frame_of_reference(one.image.header)
                    yield Verdict(uid, waits_for=("shapes",)) if others_may_tell else Verdict(uid, doubt=str(doubt))
            return
        for frame in frames_of_reference if region is not None else ():
            # A series of several is one head to the eye that looked; whose coordinates those are nobody knows.
            yield Located(frame, region.to_bytes() if region is not None and len(frames_of_reference) == 1 else b"")
    for done, one in enumerate(placed):
        report(0.3 + 0.7 * done / len(placed), "removing the face")
        if FACES not in one.image.pending:
            continue
        uid = one.image.sop_instance_uid
        if not one.planes:
            sure = (named[uid] is Said.OTHER and region is None) or not one.image.has_pixels
            yield Verdict(uid, counts={"faces_without_geometry": 1}) if sure else Verdict(uid, doubt=_UNPLACED)
        elif region is None:
            yield Verdict(uid, elements={RECOGNIZABLE: None}, counts={"faces_not_in_view": 1})
        else:
            frames, count = _cut(one, region)
            yield Verdict(
                uid,
                frames=frames if count else None,
                methods=(METHOD,),
                elements={RECOGNIZABLE: ("CS", b"NO")},
                counts={"face_pixels_removed": count},
            )


_UNPLACED = "a face may be in view: the image has no place in the patient"


def _all_doubtful(held: Sequence[HeldImage], reason: str) -> Iterator[Verdict]:
    for one in held:
        yield Verdict(one.sop_instance_uid, doubt=reason)


def _was_cut(header: Dataset) -> bool:
    codes = {str(item.get("CodeValue", "")) for item in header.get("DeidentificationMethodCodeSequence") or []}
    return METHOD in codes


def _units(slices: Sequence[_Placed]) -> Iterator[NDArray[np.float32]]:
    """Frames in modality units; colour as its mean."""
    for one in slices:
        for number, frame in enumerate(one.image.frames):
            values = stored_values(frame, one.image.image).astype(np.float32)
            if values.ndim == 3:
                values = values.mean(axis=2)
            slope, intercept = rescale(one.image.header, number)
            yield values * np.float32(slope) + np.float32(intercept)


def _cut(one: _Placed, region: Region) -> tuple[list[Array], int]:
    """Return the frames without the face, and how many pixels that were."""
    key = one.image.sop_instance_uid.encode("ascii")
    out: list[Array] = []
    count = 0
    for number, (frame, plane) in enumerate(zip(one.image.frames, one.planes, strict=True)):
        mask = region.mask(plane)
        count += int(mask.sum())
        if mask.any():
            values = stored_values(frame, one.image.image)
            frame = changed(one.image, frame, mask, fill(values, mask, key, number))
        out.append(frame)
    return out, count
