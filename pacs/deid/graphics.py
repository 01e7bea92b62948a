"""Pixel Data's edges: overlay planes hidden in unused bits, and bytes behind the last pixel (PS3.15 E.3.2, PS3.3 C.9.2).

Overlay and curve groups themselves are dropped by rule. Burned-in text is not looked for here: what may bear it is refused.
"""

import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from pacs.dicom.elements import element, find, items
from pacs.model.bulk import Mapped, Slice
from pacs.model.errors import Quarantined
from pacs.model.instance import Buffer, BulkElement, Element

_LARGEST_OVERLAY_GROUP = 0x60FF


_LINES = frozenset({"POLYLINE", "INTERPOLATED"})
_FEWEST_TO_WRITE = 8
"""Points of lines that three letters take at the least ("LIV": 3, 2 and 3)."""


def may_be_written(elements: Sequence[Element]) -> bool:
    """Tell whether drawn lines that are kept could spell something: Graphic Annotation Sequence (0070,0001), PS3.3 C.10.5.

    Points, circles, ellipses, and a line or a rectangle cannot; compound graphics are not looked into and may.
    """
    annotations = find(elements, 0x00700001)
    points = 0
    for annotation in items(annotations.value) if annotations is not None and annotations.vr == "SQ" else ():
        if find(annotation, 0x00700209) is not None:
            return True
        drawn = find(annotation, 0x00700009)
        for graphic in items(drawn.value) if drawn is not None and drawn.vr == "SQ" else ():
            kind, data = find(graphic, 0x00700023), find(graphic, 0x00700022)
            if kind is None or bytes(kind.value).decode("latin-1").strip() in _LINES:
                points += len(data.value) // 8 if data is not None else 0
    return points >= _FEWEST_TO_WRITE


def embedded_planes(elements: Sequence[Element]) -> list[int]:
    """Return the bit positions of overlay planes that lie in unused bits of Pixel Data."""
    planes = []
    for one in elements:
        group = one.tag >> 16
        if 0x6000 <= group <= _LARGEST_OVERLAY_GROUP and one.tag & 0xFFFF == 0x0102 and len(one.value) == 2:
            position = struct.unpack("<H", one.value)[0]
            if position and find(elements, group << 16 | 0x3000) is None:
                planes.append(position)
    return planes


def tidy(pixel_data: Element, elements: Sequence[Element], planes: Sequence[int]) -> Element:
    """Return native Pixel Data with embedded overlay planes cleared and without anything behind the last pixel.

    Raises `Quarantined` where planes lie in pixels that are compressed or overlap the image's own bits, and where more than a
    frame is left over: that may be hidden, or an image that the header forgot.
    """
    if pixel_data.undefined_length:
        if planes:
            raise Quarantined("an overlay plane lies in unused bits of compressed pixels")
        return pixel_data
    if isinstance(pixel_data, BulkElement):
        return _tidy_bulk(pixel_data, elements, planes)
    value = pixel_data.value
    kept = _kept_bytes(len(value), elements)
    if kept < len(value):
        value = value[:kept]
    if kept == expected_bytes(elements)[0] + 1 and value[-1]:
        # PS3.5 6.2: the byte that makes the length even is zero. Some writers leave another one.
        value = bytes(value[:-1]) + b"\0"
    if planes:
        value = _cleared(value, _mask(elements, planes, len(value)))
    return pixel_data if value is pixel_data.value else element(pixel_data.tag, pixel_data.vr, bytes(value))


def _tidy_bulk(pixel_data: BulkElement, elements: Sequence[Element], planes: Sequence[int]) -> BulkElement:
    kept = _kept_bytes(len(pixel_data.bulk), elements)
    value = pixel_data.bulk if kept == len(pixel_data.bulk) else Slice(pixel_data.bulk, 0, kept)
    if planes:
        value = Mapped(value, 2, partial(_cleared, mask=_mask(elements, planes, kept)))
    return pixel_data if value is pixel_data.bulk else replace(pixel_data, bulk=value)


def _kept_bytes(size: int, elements: Sequence[Element]) -> int:
    """Return how many bytes of native Pixel Data are pixels and their padding."""
    expected, frames = expected_bytes(elements)
    if not expected or size <= expected + (expected & 1):
        return size
    if size - expected >= expected // frames:
        raise Quarantined("Pixel Data holds more frames than the header says")
    return expected + (expected & 1)


def expected_bytes(elements: Sequence[Element]) -> tuple[int, int]:
    """Return how long native Pixel Data has to be, and of how many frames; (0, 1) where the header does not say.

    Source: PS3.3 C.7.6.3, PS3.5 8.1.
    """
    rows, columns = _number(elements, 0x00280010), _number(elements, 0x00280011)
    samples, allocated = _number(elements, 0x00280002) or 1, _number(elements, 0x00280100)
    photometric = find(elements, 0x00280004)
    if (
        not rows
        or not columns
        or not allocated
        or photometric is None
        or b"422" in bytes(photometric.value)
        or b"420" in bytes(photometric.value)
    ):
        return 0, 1
    frames = find(elements, 0x00280008)
    try:
        number = max(int(bytes(frames.value)), 1) if frames is not None and bytes(frames.value).strip() else 1
    except ValueError:
        return 0, 1
    return (rows * columns * samples * allocated * number + 7) // 8, number


def _mask(elements: Sequence[Element], planes: Sequence[int], size: int) -> int:
    allocated, high = _number(elements, 0x00280100), _number(elements, 0x00280102)
    if allocated != 16 or any(plane <= (high or 0) or plane > 15 for plane in planes) or size & 1:
        raise Quarantined("an overlay plane overlaps the image's own bits")
    mask = 0xFFFF
    for plane in planes:
        mask &= ~(1 << plane)
    return mask


def _cleared(value: Buffer, mask: int) -> bytes:
    words = np.frombuffer(value, "<u2") & np.uint16(mask)
    return words.astype("<u2", copy=False).tobytes()


def _number(elements: Sequence[Element], tag: int) -> int | None:
    one = find(elements, tag)
    return struct.unpack("<H", one.value)[0] if one is not None and len(one.value) == 2 else None
