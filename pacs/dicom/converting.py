"""Bring Implicit VR Little Endian and Explicit VR Big Endian into Explicit VR Little Endian (PS3.5 Annex A).

UN elements that the dictionary knows come back with their VR (PS3.5 6.2.2), odd lengths with their padding.
"""

import struct
from functools import lru_cache

from pacs.dicom.building import (
    DEEPEST,
    ITEM,
    LONG_VRS,
    SEQUENCE_END,
    SHORT_VRS,
    SMALL_BYTES,
    UNDEFINED,
    UNIT_BYTES,
    VRS,
    blank,
    element,
    made,
    ordered,
    sequence,
    set_encoded,
    set_tag,
    set_undefined_length,
    set_value,
    set_vr,
)
from pacs.dicom.dictionary import vr_of, vrs_of
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Buffer, Element

_BITS_ALLOCATED, _PIXEL_REPRESENTATION = 0x00280100, 0x00280103
_PIXEL_DATA = 0x7FE00010
_LUT_DESCRIPTORS = frozenset({0x00283002, 0x00281101, 0x00281102, 0x00281103})
_length16, _length32 = struct.Struct("<H").pack, struct.Struct("<I").pack


def implicit_sequence(tag: int, value: Buffer) -> Element:
    """Make an SQ element of a value that is encoded as Implicit VR Little Endian items; raises `NotUnderstood`."""
    view = memoryview(value)
    return sequence(tag, Converter(view, implicit=True, big=False).items(0, len(view), False, 0)[0])


class Converter:
    """Reads Implicit VR Little Endian or Explicit VR Big Endian and makes Explicit VR Little Endian elements."""

    def __init__(self, view: memoryview, *, implicit: bool, big: bool) -> None:
        self._view = view
        self._implicit = implicit
        self._big = big
        order = ">" if big else "<"
        self._head = struct.Struct(order + "HHI")
        self._explicit_head = struct.Struct(order + "HH2sH")
        self._length = struct.Struct(order + "I")

    def elements(self, position: int, end: int, delimited: bool, depth: int, signed: bool = False) -> tuple[list[Element], int]:
        """Return the elements up to `end`, or up to and with the item delimiter if `delimited`; and where reading stopped."""
        if depth > DEEPEST:
            raise NotUnderstood(f"sequences are nested deeper than {DEEPEST}")
        view, found = self._view, list[Element]()
        lut_entries = cell_bytes = 0
        while position < end:
            if position + 8 > end:
                only_padding(view[:end], position)
                return found, end
            group, number, length = self._head.unpack_from(view, position)
            tag = group << 16 | number
            if tag == 0xFFFEE00D and delimited:
                return found, position + 8
            if group == 0xFFFE:
                raise NotUnderstood("a delimiter stands where an element should")
            if tag == 0 and depth == 0 and not any(view[position:end]):
                return found, end
            if self._implicit:
                vr, start = "", position + 8
            else:
                vr, start, length = self._explicit(position, end)
            if length == UNDEFINED:
                one, position = self._undefined(tag, vr, start, end, depth, signed)
                found.append(one)
                continue
            stop = start + length
            if stop > end:
                raise NotUnderstood("an element reaches past the end of the data set")
            if self._implicit:
                vr = _implicit_vr(tag, signed, lut_entries, length)
            if vr == "SQ":
                one = sequence(tag, self.items(start, stop, False, depth + 1, signed)[0])
            else:
                value: Buffer = view[start:stop]
                if self._big and vr in UNIT_BYTES:
                    # Pixel cells wider than the words of OW turn as a whole (PS3.5 8.1.1 and Annex D).
                    wide = tag == _PIXEL_DATA and vr == "OW" and cell_bytes in (4, 8)
                    value = turned(value, cell_bytes if wide else UNIT_BYTES[vr])
                one = self._leaf(tag, vr, value)
            if tag == _PIXEL_REPRESENTATION and len(one.value) == 2:
                signed = one.value[0] == 1
            elif tag == _BITS_ALLOCATED and len(one.value) == 2:
                cell_bytes = int.from_bytes(one.value, "little") // 8
            elif tag in _LUT_DESCRIPTORS and len(one.value) >= 2:
                lut_entries = int.from_bytes(one.value[:2], "little")
            if number:
                found.append(one)
            position = stop
        if delimited:
            raise NotUnderstood("the data set ends within an item")
        return found, end

    def items(
        self, position: int, end: int, delimited: bool, depth: int, signed: bool = False
    ) -> tuple[list[list[Element]], int]:
        """Return the items up to `end`, or up to and with the sequence delimiter if `delimited`."""
        found: list[list[Element]] = []
        while position < end:
            if position + 8 > end:
                raise NotUnderstood("a sequence ends within the head of an item")
            group, number, length = self._head.unpack_from(self._view, position)
            position += 8
            if group == 0xFFFE and number == SEQUENCE_END and delimited:
                return found, position
            if group != 0xFFFE or number != ITEM:
                raise NotUnderstood("a sequence holds something other than items")
            stop = end if length == UNDEFINED else position + length
            if stop > end:
                raise NotUnderstood("an item reaches past the end of its sequence")
            content, position = self.elements(position, stop, length == UNDEFINED, depth + 1, signed)
            found.append(ordered(content))
        if delimited:
            raise NotUnderstood("the data set ends within a sequence")
        return found, position

    def _explicit(self, position: int, end: int) -> tuple[str, int, int]:
        _, _, code, length = self._explicit_head.unpack_from(self._view, position)
        known = VRS.get(code)
        if known is None:
            raise NotUnderstood("an element has a VR that is none of PS3.5 6.2")
        vr, is_long = known
        if not is_long:
            return vr, position + 8, length
        if position + 12 > end:
            raise NotUnderstood("the data set ends within the head of an element")
        return vr, position + 12, self._length.unpack_from(self._view, position + 8)[0]

    def _undefined(self, tag: int, vr: str, start: int, end: int, depth: int, signed: bool) -> tuple[Element, int]:
        if tag == _PIXEL_DATA:
            raise NotUnderstood("Pixel Data is encapsulated in a transfer syntax without compression")
        if vr == "UN":
            inner, position = Converter(self._view, implicit=True, big=False).items(start, end, True, depth + 1, signed)
        elif vr in ("", "SQ"):
            inner, position = self.items(start, end, True, depth + 1, signed)
        else:
            raise NotUnderstood("an element has an undefined length that its VR does not allow")
        return sequence(tag, inner), position

    def _leaf(self, tag: int, vr: str, value: Buffer) -> Element:
        if vr == "UN" or len(value) & 1:
            # In big endian the value of UN is little endian all the same (PS3.5 6.2.2 note 2).
            return repaired(tag, vr, bytes(value))
        if len(value) >= SMALL_BYTES:
            # `made` knows what to do where a short VR cannot hold the length.
            return made(tag, vr, value)
        plain = bytes(value)
        one = blank(Element)
        set_tag(one, tag)
        set_vr(one, vr)
        set_value(one, plain)
        set_encoded(one, _prefix(tag, vr) + (_length16 if vr in SHORT_VRS else _length32)(len(plain)) + plain)
        set_undefined_length(one, False)
        return one


@lru_cache(maxsize=8192)
def _prefix(tag: int, vr: str) -> bytes:
    """Return tag and VR, up to the length, of an Explicit VR Little Endian element."""
    return struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode()) + (b"" if vr in SHORT_VRS else b"\0\0")


def _implicit_vr(tag: int, signed: bool, lut_entries: int, length: int) -> str:
    """Return the VR for an element that came without one (PS3.5 A.1)."""
    vrs = vrs_of(tag)
    if len(vrs) == 1:
        vr = vrs[0]
    elif vrs[:2] == ("US", "SS"):
        vr = "SS" if signed else "US"
    elif vrs == ("US", "OW"):
        # PS3.3 C.11.1.1.1: LUT Data is a list of numbers; one number alone is US, a table OW.
        vr = "US" if lut_entries == 1 else "OW"
    else:
        vr = "OW"
    return "UN" if vr not in LONG_VRS and length > 0xFFFE else vr


def only_padding(view: memoryview, position: int) -> None:
    """Raise `NotUnderstood` where anything but zeros follows."""
    if any(view[position:]):
        raise NotUnderstood("the data set ends within the head of an element")


def repaired(tag: int, vr: str, value: bytes) -> Element:
    """Give an element of odd length, no sequence, its padding, and one of VR UN the VR that the dictionary knows."""
    if vr != "UN":
        return element(tag, vr, value)
    known = vr_of(tag)
    if known == "UN" or tag >> 16 & 1 or (known not in LONG_VRS and len(value) > 0xFFFE):
        return element(tag, "UN", value)
    if known == "SQ":
        # PS3.5 6.2.2 note 2: the sequence within UN is Implicit VR Little Endian.
        try:
            return implicit_sequence(tag, value)
        except NotUnderstood:
            return element(tag, "UN", value)
    if len(value) % UNIT_BYTES.get(known, 1):
        return element(tag, "UN", value)
    return element(tag, known, value)


def turned(value: Buffer, unit: int) -> bytes:
    """Turn the byte order of numbers of `unit` bytes. Raises `NotUnderstood` where there is a part of one."""
    if len(value) % unit:
        raise NotUnderstood("a value is not a whole number of its units")
    turned = bytearray(len(value))
    for offset in range(unit):
        turned[offset::unit] = bytes(value[unit - 1 - offset :: unit])
    return bytes(turned)
