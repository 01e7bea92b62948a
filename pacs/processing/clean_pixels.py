"""Burned-in text out of held images: the cleaner of `pixels`, around the rules of `pacs.deid.pixels`."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut

from pacs.deid import devices, pixels, risk
from pacs.model.errors import NotTranscodable
from pacs.processing.cleaners import HeldImage, Options, Report, Verdict

CLEAN_PIXEL_DATA = "113101"
_BURNED_IN_ANNOTATION = 0x00280301


def clean(images: Sequence[HeldImage], report: Report, options: Options) -> Iterator[Verdict]:
    """Answer for every image that is held for its pixels; see `pacs.deid.pixels`."""
    table = devices.devices(options.get("devices", ()))
    for image in images:
        if "pixels" in image.pending:
            yield _clean_one(image, report, table)


def judge(image: HeldImage) -> str:
    """Return what speaks against an image that is said to be clean, "" where no text can be read in it."""
    doubt = _unsearchable(image)
    return doubt or ("they show text" if pixels.is_legible(image.frames, _look(image)) else "")


def _unsearchable(image: HeldImage) -> str:
    """Return why an image cannot be searched for text, "" where it can."""
    if not image.has_pixels:
        return "there are no pixels that could be searched for text"
    try:
        image.frames  # noqa: B018 - decoded once, and kept
    except NotTranscodable:
        return "the pixels cannot be decoded, so they cannot be searched for text"
    return ""


def _clean_one(image: HeldImage, report: Report, table: Sequence[devices.Device]) -> Verdict:
    uid = image.sop_instance_uid
    doubt = _unsearchable(image)
    if doubt:
        return Verdict(uid, doubt=doubt)
    frames = image.frames
    try:
        found = pixels.clean(frames, _look(image, table), lambda fraction: report(fraction, "searching for text"))
    except pixels.TextLeft as left:
        return Verdict(uid, doubt=f"burned-in text: {left}")
    return Verdict(
        uid,
        frames=found.frames,
        methods=(CLEAN_PIXEL_DATA,),
        elements={_BURNED_IN_ANNOTATION: ("CS", b"NO")},
        counts={"burned_in_text_blanked": found.pieces} if found.pieces else {},
    )


def _look(image: HeldImage, table: Sequence[devices.Device] = ()) -> pixels.Look:
    about, header = image.image, image.header
    return pixels.Look(
        photometric_interpretation=about.photometric_interpretation,
        bits_stored=about.bits_stored,
        high_bit=about.high_bit,
        signed=about.signed,
        palette=_palette(header, about.bits_allocated) if about.photometric_interpretation == "PALETTE COLOR" else None,
        regions=_regions(header),
        blank=devices.rectangles(table, _told(header)),
        keep=pixels.LATERALITY if risk.is_projection(str(header.get("SOPClassUID", ""))) else frozenset(),
    )


def _told(header: Dataset) -> dict[str, str]:
    """Return what the device table may ask for."""
    found = {}
    for keyword in devices.LASTING:
        value = header.get(keyword)
        several = value if isinstance(value, MultiValue) else [value]
        found[keyword] = "\\".join("" if one is None else str(one) for one in several)
    return found


def _regions(header: Dataset) -> tuple[tuple[int, int, int, int], ...]:
    """Return the ultrasound regions (PS3.3 C.8.5.5); none where one of them makes no sense."""
    found = []
    for item in header.get("SequenceOfUltrasoundRegions") or ():
        names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
        values: list[Any] = [item.get(name) for name in names]
        if None in values or values[0] >= values[2] or values[1] >= values[3]:
            return ()
        found.append((int(values[0]), int(values[1]), int(values[2]), int(values[3])))
    return tuple(found)


def _palette(header: Dataset, bits_allocated: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return the palette as 8-bit RGB for every stored value (PS3.3 C.7.6.3.1.5)."""
    values = np.arange(1 << min(bits_allocated, 16)).astype(np.uint16 if bits_allocated > 8 else np.uint8)
    colours = apply_color_lut(values.reshape(1, -1), header)[0][:, :3]
    return (colours >> 8).astype(np.uint8) if colours.dtype == np.uint16 else colours.astype(np.uint8)
