"""Text in the pixels of files: the picture of `pacs deid explain --picture`, and the look of `pacs deid check`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pacs.codec import frames
from pacs.codec.image import describe
from pacs.dicom import part10
from pacs.dicom.elements import EXPLICIT_LITTLE_ENDIAN, PIXEL_DATA, join, read
from pacs.model.errors import NotFound, NotTranscodable, Quarantined
from pacs.model.instance import Element
from pacs.processing import clean_pixels
from pacs.processing.cleaners import HeldImage

_RED = (64, 64, 255)


def draw(path: Path, target: Path, devices: Sequence[Mapping[str, Any]] = ()) -> int:
    """Write the picture as PNG; returns how many regions would be blanked, those of the device table among them.

    Raises `NotFound` where there are no pixels, `Quarantined` where they could not be made clean.
    """
    parts = part10.split(path.read_bytes())
    image = _image(read(parts.data_set, parts.transfer_syntax_uid), parts.transfer_syntax_uid)
    before = image.frames[0]
    (verdict,) = clean_pixels.clean([image], lambda fraction, doing: None, {"devices": devices})
    if verdict.doubt:
        raise Quarantined(verdict.doubt)
    after = verdict.frames[0] if verdict.frames is not None else before
    changed = (before != after) if before.ndim == 2 else (before != after).any(axis=2)
    mask = cv2.dilate(changed.astype(np.uint8), np.ones((5, 5), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask)
    picture = _grey(before)
    for number in range(1, count):
        x, y, width, height = (int(one) for one in boxes[number][:4])
        inside = labels == number
        picture[inside] = (0.55 * picture[inside] + 0.45 * np.array(_RED)).astype(np.uint8)
        cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), _RED, 2)
    if not cv2.imwrite(str(target), picture):
        raise NotFound(f"cannot write {target}")
    return int(count) - 1


def look(elements: Sequence[Element], transfer_syntax_uid: str) -> str:
    """Return what speaks against the pixels of an object, "" where no text is found in them; see `pacs.deid.check.Look`."""
    try:
        return clean_pixels.judge(_image(elements, transfer_syntax_uid))
    except (NotFound, NotTranscodable, ValueError) as error:
        return f"they may show text, and cannot be searched for it ({type(error).__name__})"


def _image(elements: Sequence[Element], syntax: str) -> HeldImage:
    by_tag = {one.tag: one for one in elements}
    pixels = by_tag.get(PIXEL_DATA)
    if pixels is None:
        raise NotFound("the file has no pixels")
    about = describe(by_tag)
    if pixels.undefined_length:
        split = frames.split_encapsulated(pixels.value, about.number_of_frames, syntax)
    else:
        syntax, split = EXPLICIT_LITTLE_ENDIAN, frames.split_native(pixels.value, about)
    header = b"".join(join(one for one in elements if one.tag != PIXEL_DATA))
    return HeldImage("", ("pixels",), header, split.frames, syntax, packed=split.packed)


def _grey(frame: Any) -> Any:
    """Return a frame as 8-bit BGR over its whole range."""
    if frame.ndim == 3 and frame.dtype == np.uint8:
        return np.ascontiguousarray(frame[..., ::-1])
    values = frame.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    grey = ((values - low) * (255.0 / (high - low or 1.0))).astype(np.uint8)
    return grey if grey.ndim == 3 else cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
