"""A frame as a picture for a screen: modality values, window, colour, shape (PS3.3 C.11.1, C.11.2, C.7.6.3; PS3.4 N.2).

Pure: header elements and stored values in, PNG or JPEG bytes out. Pictures are for looking quickly; nobody should measure in
them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.dicom import elements as walking
from pacs.dicom import values
from pacs.model.instance import Element
from pacs.web.accept import NotAcceptable

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_VALUE_TRANSFORMATION, _VOI_LUT, _PIXEL_MEASURES = 0x00289145, 0x00289132, 0x00289110
_SEGMENT_SEQUENCE, _SEGMENT_IDENTIFICATION = 0x00620002, 0x0062000A
_SEGMENTATION_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
# Colours for segments that name none; far apart, and readable on black.
_SEGMENT_COLOURS = (
    (255, 99, 71),
    (64, 224, 208),
    (255, 215, 0),
    (147, 197, 253),
    (190, 242, 100),
    (240, 171, 252),
    (251, 146, 60),
)


@dataclass(frozen=True, slots=True)
class Window:
    """Centre and width, and the VOI LUT Function (PS3.3 C.11.2.1.2, C.11.2.1.3)."""

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True, slots=True)
class Viewport:
    """The size wanted and the part of the frame to show; 0 means all (PS3.18 8.3.5.1.3)."""

    width: int
    height: int
    left: float = 0.0
    top: float = 0.0
    source_width: float = 0.0
    source_height: float = 0.0


def draw(
    header: Sequence[Element],
    stored: NDArray[np.generic],
    *,
    number: int = 1,
    window: Window | None = None,
    viewport: Viewport | None = None,
    small: bool = False,
) -> Bytes:
    """Turn one frame into grey or RGB values for a screen.

    Parameters
    ----------
    header : sequence of Element
        The data set without Pixel Data.
    stored : ndarray, shape (rows, columns) or (rows, columns, samples)
        Stored values of the frame.
    number : int
        Which frame it is, from 1; for functional groups.
    window, viewport : optional
        What the caller asked for; otherwise the window of the header or of the values, and one pixel for each.
    small : bool
        For a thumbnail: a window of the header that merely spans all values gives way to one that shows something.

    Returns
    -------
    ndarray of uint8, shape (height, width) or (height, width, 3)
    """
    plain = values.attributes(header)
    groups = _functional_groups(header, number)
    mask = plain.get("SOPClassUID") in _SEGMENTATION_CLASSES
    if mask:
        shown = _segment(header, plain, groups, stored)
    elif stored.ndim == 3:
        shown = _colour(plain, stored)
    elif plain.get("PhotometricInterpretation") == "PALETTE COLOR":
        shown = _palette(header, stored)
    else:
        shown = _grey(plain, groups, stored, window, small)
    return _shaped(shown, _aspect(plain, groups), viewport, cv2.INTER_NEAREST if mask else cv2.INTER_LINEAR)


def encode(picture: Bytes, media_type: str, quality: int = 90) -> bytes:
    """Return `picture` as image/png or image/jpeg."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality] if media_type == "image/jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    ordered = picture[:, :, ::-1] if picture.ndim == 3 else picture
    done, data = cv2.imencode(".jpg" if media_type == "image/jpeg" else ".png", np.ascontiguousarray(ordered), flags)
    if not done:
        raise NotAcceptable(f"this frame cannot be made as {media_type}")
    return bytes(data)


def to_grey(modality_values: Floats, window: Window) -> Floats:
    """Map modality values to 0…255 (PS3.3 C.11.2.1.2.1, C.11.2.1.3)."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        return np.asarray(255.0 / (1.0 + np.exp(-4.0 * (modality_values - center) / max(width, 1e-6))), np.float32)
    if window.function == "LINEAR_EXACT":
        scaled = (modality_values - center) / max(width, 1e-6) + 0.5
    elif width <= 1:
        scaled = np.where(modality_values <= center - 0.5, 0.0, 1.0)
    else:
        scaled = (modality_values - (center - 0.5)) / (width - 1) + 0.5
    return np.asarray(np.clip(scaled, 0, 1) * 255, np.float32)


def window_of_values(modality_values: Floats) -> Window:
    """Choose a window that shows the values there are: the middle 98 percent, of what is not background."""
    sample = modality_values.ravel()[:: max(1, modality_values.size // 40_000)]
    sample = sample[np.isfinite(sample)]
    inside = sample[sample > sample.min()] if sample.size else sample
    if inside.size < sample.size // 50 or not inside.size:
        inside = sample
    low, high = (float(one) for one in np.percentile(inside, (1, 99))) if inside.size else (0.0, 1.0)
    return Window((low + high) / 2, max(high - low, 1e-3), "LINEAR_EXACT")


def _grey(
    plain: dict[str, str], groups: dict[str, str], stored: NDArray[np.generic], window: Window | None, small: bool
) -> Bytes:
    both = {**plain, **groups}
    slope, intercept = _number(both, "RescaleSlope", 1.0), _number(both, "RescaleIntercept", 0.0)
    modality = stored.astype(np.float32) * np.float32(slope or 1.0) + np.float32(intercept)
    valid = np.ones(stored.shape, bool)
    padding = _number(plain, "PixelPaddingValue", math.nan)
    if not math.isnan(padding):
        limit = _number(plain, "PixelPaddingRangeLimit", padding)
        valid = (stored < min(padding, limit)) | (stored > max(padding, limit))  # type: ignore[operator]  # numbers, always
    if window is None:
        width = _number(both, "WindowWidth", 0.0)
        spans_all = valid.any() and width >= 0.98 * float(np.ptp(modality[valid]))
        if width > 0 and not (small and stored.dtype.itemsize > 1 and spans_all):
            window = Window(_number(both, "WindowCenter", 0.0), width, both.get("VOILUTFunction", "LINEAR") or "LINEAR")
        else:
            window = window_of_values(modality[valid] if valid.any() else modality)
    grey = to_grey(modality, window)
    if plain.get("PhotometricInterpretation") == "MONOCHROME1" or plain.get("PresentationLUTShape") == "INVERSE":
        grey = 255 - grey
    grey[~valid] = 0
    return grey.astype(np.uint8)


def _colour(plain: dict[str, str], stored: NDArray[np.generic]) -> Bytes:
    bits = int(_number(plain, "BitsStored", 8))
    shown = stored if bits <= 8 else stored.astype(np.uint32) >> (bits - 8)
    return np.asarray(shown[:, :, :3], np.uint8)


def _palette(header: Iterable[Element], stored: NDArray[np.generic]) -> Bytes:
    known = {one.tag: one for one in header}
    planes = []
    for descriptor_tag, data_tag in ((0x00281101, 0x00281201), (0x00281102, 0x00281202), (0x00281103, 0x00281203)):
        descriptor, data = known.get(descriptor_tag), known.get(data_tag)
        if descriptor is None or data is None or len(descriptor.value) < 6:
            raise NotAcceptable("the palette of this image cannot be read")
        # PS3.3 C.7.6.3.1.5: number of entries (0 is 65536), first value mapped, bits of each entry.
        entries = int.from_bytes(descriptor.value[:2], "little") or 65536
        first = int.from_bytes(descriptor.value[2:4], "little", signed=descriptor.vr == "SS")
        bits = int.from_bytes(descriptor.value[4:6], "little")
        raw = bytes(data.value)
        table = np.frombuffer(raw, "<u2" if len(raw) >= 2 * entries else "u1")[:entries]
        if bits > 8 and table.dtype != np.uint8:
            table = table >> 8
        index = np.clip(stored.astype(np.int32) - first, 0, len(table) - 1)
        planes.append(table[index].astype(np.uint8))
    return np.dstack(planes)


def _segment(header: Sequence[Element], plain: dict[str, str], groups: dict[str, str], stored: NDArray[np.generic]) -> Bytes:
    """Draw a mask in the segment's colour (PS3.3 C.8.20.2, Recommended Display CIELab Value)."""
    colours = _segment_colours(header)
    if plain.get("SegmentationType") == "LABELMAP" or plain.get("PhotometricInterpretation") == "PALETTE COLOR":
        labels = stored.astype(np.int64)
        table = np.zeros((int(labels.max(initial=0)) + 1, 3), np.uint8)
        for label in range(1, len(table)):
            table[label] = colours.get(label, _SEGMENT_COLOURS[(label - 1) % len(_SEGMENT_COLOURS)])
        return np.asarray(table[labels], np.uint8)
    segment = int(_number(groups, "ReferencedSegmentNumber", 1))
    colour = colours.get(segment, _SEGMENT_COLOURS[(segment - 1) % len(_SEGMENT_COLOURS)])
    highest = _number(plain, "MaximumFractionalValue", 255.0) if plain.get("SegmentationType") == "FRACTIONAL" else 1.0
    weight = np.clip(stored.astype(np.float32) / max(highest, 1.0), 0, 1)
    return np.asarray(weight[:, :, None] * np.asarray(colour, np.float32), np.uint8)


def _segment_colours(header: Sequence[Element]) -> dict[int, tuple[int, int, int]]:
    sequence = walking.find(header, _SEGMENT_SEQUENCE)
    colours: dict[int, tuple[int, int, int]] = {}
    for item in walking.items(sequence.value) if sequence is not None else ():
        known = values.attributes(item)
        lab = [int(one) for one in known.get("RecommendedDisplayCIELabValue", "").split("\\") if one.lstrip("-").isdigit()]
        if len(lab) == 3 and known.get("SegmentNumber", "").isdigit():
            # PS3.3 C.10.7.1.1: L is 0…100 and a, b are -128…127, each over 0…65535.
            one = np.array([[[lab[0] / 65535 * 100, lab[1] / 65535 * 255 - 128, lab[2] / 65535 * 255 - 128]]], np.float32)
            red, green, blue = (np.clip(cv2.cvtColor(one, cv2.COLOR_Lab2RGB)[0, 0], 0, 1) * 255).astype(int)
            if max(red, green, blue) > 40:
                colours[int(known["SegmentNumber"])] = (int(red), int(green), int(blue))
    return colours


def _functional_groups(header: Sequence[Element], number: int) -> dict[str, str]:
    """Return what the shared and the frame's own functional groups say of values, window and spacing (PS3.3 C.7.6.16)."""
    found: dict[str, str] = {}
    for tag, index in ((_SHARED, 0), (_PER_FRAME, number - 1)):
        sequence = walking.find(header, tag)
        nested = walking.items(sequence.value) if sequence is not None else []
        if index >= len(nested):
            continue
        for group in (_VALUE_TRANSFORMATION, _VOI_LUT, _PIXEL_MEASURES, _SEGMENT_IDENTIFICATION):
            macro = walking.find(nested[index], group)
            items = walking.items(macro.value) if macro is not None else []
            if items:
                found |= values.attributes(items[0])
    return found


def _aspect(plain: dict[str, str], groups: dict[str, str]) -> float:
    """Return height over width of a pixel."""
    both = {**plain, **groups}
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        parts = both.get(keyword, "").split("\\")
        if len(parts) == 2:
            try:
                ratio = float(parts[0]) / float(parts[1])
            except (ValueError, ZeroDivisionError):
                continue
            if 0.02 < ratio < 50:
                return ratio
    return 1.0


def _shaped(picture: Bytes, aspect: float, viewport: Viewport | None, enlarging: int) -> Bytes:
    height, width = picture.shape[:2]
    if viewport is not None and (viewport.source_width or viewport.source_height or viewport.left or viewport.top):
        left, top = int(max(viewport.left, 0)), int(max(viewport.top, 0))
        right = int(left + viewport.source_width) if viewport.source_width else width
        bottom = int(top + viewport.source_height) if viewport.source_height else height
        picture = picture[min(top, height - 1) : max(bottom, top + 1), min(left, width - 1) : max(right, left + 1)]
        height, width = picture.shape[:2]
    true_height, true_width = (height * aspect, float(width)) if aspect >= 1 else (float(height), width / aspect)
    scale = 1.0
    if viewport is not None and viewport.width and viewport.height:
        scale = min(viewport.width / true_width, viewport.height / true_height)
    size = (max(1, round(true_width * scale)), max(1, round(true_height * scale)))
    if size == (width, height):
        return picture
    shrinking = size[0] * size[1] < width * height
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinking else enlarging), np.uint8)


def _number(known: dict[str, str], keyword: str, default: float) -> float:
    try:
        number = float(known.get(keyword, "").split("\\")[0])
    except ValueError:
        return default
    return number if math.isfinite(number) else default
