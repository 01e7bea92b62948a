"""Part 10 files: File Meta Information of our own, and what a file holds (PS3.10 section 7)."""

import struct
from dataclasses import dataclass, field

from pacs.dicom import elements
from pacs.dicom.dictionary import is_known
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Buffer

IMPLEMENTATION_CLASS_UID = "2.25.191465891586920255942879037713663457587"
IMPLEMENTATION_VERSION_NAME = "MINIPACS_0_1"


@dataclass(frozen=True, slots=True)
class FileParts:
    """What a file says and the data set in it; the UIDs are "" where File Meta Information lacks them."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    data_set: Buffer = field(repr=False)


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return a zero preamble, the prefix and group 0002 with nothing in it but what is required (PS3.10 Table 7.1-1)."""
    group = b"".join(
        bytes(one.encoded)
        for one in (
            elements.element(0x00020001, "OB", b"\0\1"),
            elements.element(0x00020002, "UI", sop_class_uid.encode("ascii")),
            elements.element(0x00020003, "UI", sop_instance_uid.encode("ascii")),
            elements.element(0x00020010, "UI", transfer_syntax_uid.encode("ascii")),
            elements.element(0x00020012, "UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
            elements.element(0x00020013, "SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
        )
    )
    length = elements.element(0x00020000, "UL", struct.pack("<I", len(group)))
    return b"".join((bytes(128), b"DICM", length.encoded, group))


def split(buffer: Buffer) -> FileParts:
    """Take a file apart. Files without preamble or File Meta Information are read too; their encoding is told from the bytes.

    Raises `NotUnderstood` where this is no DICOM file.
    """
    view = memoryview(buffer)
    start = 132 if bytes(view[128:132]) == b"DICM" else 4 if bytes(view[:4]) == b"DICM" else 0
    meta, position = _meta(view, start)
    if start == 0 and not meta and not _plausible(view):
        raise NotUnderstood("neither a DICOM file nor a data set")
    data_set = view[position:]
    syntax = meta.get(0x00020010, "") or _guess(data_set)
    return FileParts(syntax, meta.get(0x00020002, ""), meta.get(0x00020003, ""), data_set)


def _meta(view: memoryview, position: int) -> tuple[dict[int, str], int]:
    """Read group 0002, whatever its group length claims; return its UIDs and where the data set begins."""
    values: dict[int, str] = {}
    while position + 8 <= len(view):
        group, number, code, length = struct.unpack_from("<HH2sH", view, position)
        if group != 2:
            break
        if code.decode("latin-1") in elements.LONG_VRS:
            if position + 12 > len(view):
                raise NotUnderstood("the file ends within its meta information")
            start, length = position + 12, struct.unpack_from("<I", view, position + 8)[0]
        elif code.decode("latin-1") in elements.SHORT_VRS:
            start = position + 8
        else:
            # Some old writers encode File Meta Information in Implicit VR.
            start, length = position + 8, struct.unpack_from("<I", view, position + 4)[0]
        if start + length > len(view):
            raise NotUnderstood("the file ends within its meta information")
        if number in (0x0002, 0x0003, 0x0010):
            values[group << 16 | number] = bytes(view[start : start + length]).decode("ascii", "replace").strip("\0 ")
        position = start + length
    return values, position


def _plausible(view: memoryview) -> bool:
    """Say whether the bytes begin like a data set: a known even group, and a length that fits."""
    if len(view) < 8:
        return False
    group, number, code, _ = struct.unpack_from("<HH2sH", view, 0)
    if code.decode("latin-1") in elements.LONG_VRS | elements.SHORT_VRS:
        return is_known(group << 16 | number) or number == 0 or is_known(_swapped(group) << 16 | _swapped(number))
    length = struct.unpack_from("<I", view, 4)[0]
    return bool((is_known(group << 16 | number) or number == 0) and group >= 8 and length <= len(view))


def _guess(view: memoryview) -> str:
    """Tell the transfer syntax of a data set without File Meta Information from its first element."""
    if len(view) < 8:
        return elements.IMPLICIT_LITTLE_ENDIAN
    group, _, code, _ = struct.unpack_from("<HH2sH", view, 0)
    if code.decode("latin-1") not in elements.LONG_VRS | elements.SHORT_VRS:
        return elements.IMPLICIT_LITTLE_ENDIAN
    if group & 0xFF == 0 and group >> 8:
        return elements.EXPLICIT_BIG_ENDIAN
    return elements.EXPLICIT_LITTLE_ENDIAN


def _swapped(number: int) -> int:
    return number >> 8 | (number & 0xFF) << 8
