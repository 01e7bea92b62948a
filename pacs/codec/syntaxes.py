"""A data set in the other uncompressed transfer syntaxes, for receivers that know no better (PS3.5 A.1, A.3, A.5)."""

import struct
import zlib
from collections.abc import Sequence

from pacs.codec.image import DEFLATED, EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from pacs.dicom import elements as dicom
from pacs.model.errors import NotTranscodable
from pacs.model.instance import Buffer, Element

_IMPLICIT = struct.Struct("<HHI")
_BIG_SHORT = struct.Struct(">HH2sH")
_BIG_LONG = struct.Struct(">HH2sHI")
_BIG_ITEM = struct.Struct(">HHI")
_PIXEL_HEAD_BYTES = 12


def rewritten(
    before: Sequence[Element], pixel: Sequence[Buffer], after: Sequence[Element], pixel_vr: str, transfer_syntax_uid: str
) -> tuple[Buffer, ...]:
    """Return a data set in an uncompressed syntax.

    Parameters
    ----------
    before, after : sequence of Element
        The elements on either side of Pixel Data.
    pixel : sequence of Buffer
        Native Pixel Data, Explicit VR Little Endian, its head alone in the first buffer; or nothing.
    """
    if transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN:
        return (*dicom.join(before), *pixel, *dicom.join(after))
    if transfer_syntax_uid == DEFLATED:
        return _deflated((*dicom.join(before), *pixel, *dicom.join(after)))
    length = int.from_bytes(bytes(pixel[0][_PIXEL_HEAD_BYTES - 4 :]), "little") if pixel else 0
    if transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN:
        head = (_IMPLICIT.pack(0x7FE0, 0x0010, length),) if pixel else ()
        return (implicit(before), *head, *pixel[1:], implicit(after))
    if transfer_syntax_uid == EXPLICIT_BIG_ENDIAN:
        if not pixel:
            return (big_endian(before), big_endian(after))
        value: Buffer = b"".join(pixel[1:])
        if pixel_vr == "OW":
            value = _turned(value, 2)
        head_big = _BIG_LONG.pack(0x7FE0, 0x0010, pixel_vr.encode("ascii"), 0, length)
        return (big_endian(before), head_big, value, big_endian(after))
    raise NotTranscodable(f"{transfer_syntax_uid} is not an uncompressed transfer syntax")


def implicit(found: Sequence[Element]) -> bytes:
    """Return elements as Implicit VR Little Endian; sequences have defined lengths then."""
    parts: list[Buffer] = []
    for one in found:
        value = _defined(one)
        if one.vr == "SQ":
            value = b"".join(_item(_IMPLICIT, implicit(item)) for item in dicom.items(one.value))
        parts += (_IMPLICIT.pack(one.tag >> 16, one.tag & 0xFFFF, len(value)), value)
    return b"".join(parts)


def big_endian(found: Sequence[Element]) -> bytes:
    """Return elements as Explicit VR Big Endian; the value of UN stays little endian (PS3.5 6.2.2 note 2)."""
    parts: list[Buffer] = []
    for one in found:
        value = _defined(one)
        if one.vr == "SQ":
            value = b"".join(_item(_BIG_ITEM, big_endian(item)) for item in dicom.items(one.value))
        elif one.vr in dicom.UNIT_BYTES:
            value = _turned(value, dicom.UNIT_BYTES[one.vr])
        group, number, vr = one.tag >> 16, one.tag & 0xFFFF, one.vr.encode("ascii")
        if one.vr in dicom.LONG_VRS:
            parts += (_BIG_LONG.pack(group, number, vr, 0, len(value)), value)
        else:
            parts += (_BIG_SHORT.pack(group, number, vr, len(value)), value)
    return b"".join(parts)


def _defined(one: Element) -> Buffer:
    """Return the value; fragments within a sequence (a compressed icon) have no form in these syntaxes."""
    if one.undefined_length and one.vr != "SQ":
        raise NotTranscodable("the data set holds encapsulated pixels that are not its Pixel Data")
    return one.value


def _item(head: struct.Struct, content: bytes) -> bytes:
    return head.pack(0xFFFE, 0xE000, len(content)) + content


def _turned(value: Buffer, unit: int) -> bytes:
    """Turn the byte order of numbers of `unit` bytes."""
    data = bytes(value)
    if len(data) % unit:
        raise NotTranscodable("a value is not a whole number of its units")
    turned = bytearray(len(data))
    for at in range(unit):
        turned[at::unit] = data[unit - 1 - at :: unit]
    return bytes(turned)


def _deflated(buffers: Sequence[Buffer]) -> tuple[Buffer, ...]:
    # PS3.5 A.5: the whole data set as one RFC 1951 stream, padded to even length.
    deflate = zlib.compressobj(6, wbits=-zlib.MAX_WBITS)
    parts = [deflate.compress(buffer) for buffer in buffers]
    data = b"".join([*parts, deflate.flush()])
    return (data + b"\0" * (len(data) % 2),)
