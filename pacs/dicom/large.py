"""Large data sets, read by range: the elements around Pixel Data in memory, Pixel Data itself where it lies (PS3.5 section 7).

Only top-level Pixel Data (7FE0,0010) may be large. Whatever else a data set holds must fit into `LARGEST_HEADER` bytes: it is
walked, de-identified and searched in memory. Deflated data sets have to be inflated first.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from pacs.dicom import elements, fragments, part10
from pacs.dicom.elements import EXPLICIT_BIG_ENDIAN, IMPLICIT_LITTLE_ENDIAN, PIXEL_DATA
from pacs.model.bulk import Buffer, Bulk, Content, Mapped, Slice, blocks
from pacs.model.errors import NotUnderstood
from pacs.model.instance import BulkElement, Element

LARGEST_HEADER = 48 << 20
_FIRST_WINDOW = 1 << 20
_BEGINNING = 64 << 10
_STEP_BYTES = 1 << 20
_UNDEFINED = 0xFFFFFFFF
_BITS_ALLOCATED = 0x00280100
_TOO_MUCH = f"only Pixel Data may be larger than {LARGEST_HEADER >> 20} MiB"


def read(data_set: Content, transfer_syntax_uid: str) -> list[Element]:
    """Return the top-level elements like `elements.read`; Pixel Data of a large data set as a `BulkElement`.

    Raises `NotUnderstood`, also where anything but Pixel Data is too large.
    """
    if isinstance(data_set, bytes | bytearray | memoryview):
        return elements.read(data_set, transfer_syntax_uid)
    if transfer_syntax_uid in elements.DEFLATED:
        raise NotUnderstood("the deflated data set is too large to be inflated")
    window, start, found = _until_pixel_data(data_set, transfer_syntax_uid)
    before = elements.read(window[:start], transfer_syntax_uid)
    if not found:
        return before
    pixel_data, end = _pixel_data(data_set, start, transfer_syntax_uid, before)
    left = len(data_set) - end
    if left > LARGEST_HEADER:
        raise NotUnderstood(_TOO_MUCH)
    after = elements.read(data_set.read(end, left), transfer_syntax_uid) if left else []
    return elements.ordered([*before, pixel_data, *after])


@dataclass(frozen=True, slots=True)
class File:
    """What a file says and the data set in it, like `part10.FileParts`; the data set may be large."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    data_set: Content = field(repr=False)


def split(body: Content) -> File:
    """Take a file apart like `part10.split`; the data set of a large one stays where it lies."""
    if isinstance(body, bytes | bytearray | memoryview):
        parts = part10.split(body)
        return File(parts.transfer_syntax_uid, parts.sop_class_uid, parts.sop_instance_uid, parts.data_set)
    beginning = memoryview(body.read(0, min(_BEGINNING, len(body))))
    parts = part10.split(beginning)
    start = len(beginning) - len(parts.data_set)
    return File(parts.transfer_syntax_uid, parts.sop_class_uid, parts.sop_instance_uid, Slice(body, start, len(body) - start))


def inflated(data_set: Content) -> Iterator[Buffer]:
    """Yield a deflated data set inflated, in pieces (PS3.5 A.5). Raises `NotUnderstood` at its end if it is not whole."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for block in blocks(data_set):
            rest: Buffer = block
            while len(rest) and not inflater.eof:
                yield inflater.decompress(rest, _STEP_BYTES)
                rest = inflater.unconsumed_tail
        yield inflater.flush()
    except zlib.error as error:
        raise NotUnderstood("the deflated data set cannot be inflated") from error
    if not inflater.eof:
        raise NotUnderstood("the deflated data set ends early")


def _until_pixel_data(bulk: Bulk, syntax: str) -> tuple[memoryview, int, bool]:
    """Return the beginning of a data set, where Pixel Data begins in it, and whether there is any."""
    size, position = _FIRST_WINDOW, 0
    while True:
        window = memoryview(bulk.read(0, min(size, len(bulk))))
        position, found = _scan(window, position, syntax)
        if found:
            return window, position, True
        if len(window) == len(bulk):
            return window, len(window), False
        if size >= LARGEST_HEADER:
            raise NotUnderstood(_TOO_MUCH)
        size = min(size * 7, LARGEST_HEADER)


def _scan(view: memoryview, position: int, syntax: str) -> tuple[int, bool]:
    """Go from element to element; return where Pixel Data begins, or the first one that is not wholly in `view`."""
    while True:
        try:
            tag, vr, start, length = _head(view, position, syntax)
            if tag == PIXEL_DATA:
                return position, True
            following = start + length if length != _UNDEFINED else elements.end_of(view, position, start, tag, vr, syntax)
        except NotUnderstood:
            # Cut off by the end of the window, or malformed: more of it will show.
            return position, False
        if following > len(view) or following <= position:
            return position, False
        position = following


def _head(view: Buffer, position: int, syntax: str) -> tuple[int, str, int, int]:
    """Return tag, VR ("" if it does not say), where the value begins, and its length."""
    order = ">" if syntax == EXPLICIT_BIG_ENDIAN else "<"
    if len(view) < position + 12:
        raise NotUnderstood("the data set ends within the head of an element")
    group, number, code, length = struct.unpack_from(f"{order}HH2sH", view, position)
    tag = group << 16 | number
    if syntax == IMPLICIT_LITTLE_ENDIAN:
        return tag, "", position + 8, struct.unpack_from("<I", view, position + 4)[0]
    vr = bytes(code).decode("latin-1")
    if vr in elements.LONG_VRS:
        return tag, vr, position + 12, struct.unpack_from(f"{order}I", view, position + 8)[0]
    if vr not in elements.SHORT_VRS:
        raise NotUnderstood("an element has a VR that is none of PS3.5 6.2")
    return tag, vr, position + 8, length


def _pixel_data(bulk: Bulk, position: int, syntax: str, before: list[Element]) -> tuple[BulkElement, int]:
    _, vr, within, length = _head(bulk.read(position, min(12, len(bulk) - position)), 0, syntax)
    start, vr = position + within, vr or "OW"
    if vr not in ("OB", "OW"):
        raise NotUnderstood("large Pixel Data is neither OB nor OW")
    if length == _UNDEFINED:
        if syntax in (IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN):
            raise NotUnderstood("Pixel Data is encapsulated in a transfer syntax without compression")
        _, end = fragments.bulk_items(bulk, start)
        if end + 8 > len(bulk):
            raise NotUnderstood("encapsulated Pixel Data has no end")
        return BulkElement(PIXEL_DATA, vr, b"", b"", True, bulk=Slice(bulk, start, end - start)), end + 8
    if start + length > len(bulk):
        raise NotUnderstood("an element reaches past the end of the data set")
    if length % 2:
        raise NotUnderstood("Pixel Data has an odd length")
    value: Bulk = Slice(bulk, start, length)
    if syntax == EXPLICIT_BIG_ENDIAN and vr == "OW":
        allocated = elements.find(before, _BITS_ALLOCATED)
        cell_bytes = int.from_bytes(allocated.value[:2], "little") // 8 if allocated is not None else 0
        # Pixel cells wider than the words of OW turn as a whole (PS3.5 8.1.1 and Annex D).
        unit = cell_bytes if cell_bytes in (4, 8) else 2
        if length % unit:
            raise NotUnderstood("a value is not a whole number of its units")
        value = Mapped(value, unit, partial(elements.turned, unit=unit))
    return BulkElement(PIXEL_DATA, vr, b"", b"", bulk=value), start + length
