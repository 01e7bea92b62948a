"""Private elements (PS3.15 E.3.10, Retain Safe Private): only what Table E.3.10-1 names, by the string of its creator.

The creator is matched in whatever block it reserved (PS3.5 7.8.1); orphans, unknown creators, values of another VR than the
table's, and bulk, which nobody could look into, are gone.
"""

from collections.abc import Iterable, Mapping
from functools import cache

from pacs.dicom.elements import BINARY_VRS, UNIT_BYTES, element
from pacs.model.instance import Element
from pacs.standard import tables

_REFUSED = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN", "PN", "AE", "UR"})


def blocks(elements: Iterable[Element]) -> Mapping[int, str]:
    """Return the blocks that a creator of the table reserved in one data set or item: group and block (tag >> 8) -> creator."""
    found = {}
    for one in elements:
        tag = one.tag
        if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and one.vr in ("LO", "UN"):
            creator = bytes(one.value).decode("latin-1").strip("\0 ")
            if creator in _creators():
                found[tag >> 16 << 8 | tag & 0xFF] = creator
    return found


def safe(one: Element, creator: str) -> Element | None:
    """Return the element with its VR known if the table has it and its value is of that VR; else None."""
    row = _rows().get((one.tag >> 16, one.tag & 0xFF, creator))
    if row is None or one.tag & 0xFFFF < 0x1000:
        return None
    vr = one.vr
    if vr == "UN":
        vr = row.vrs[0] if len(row.vrs) == 1 else "UN"
        if vr == "SQ" or len(one.value) > 0xFFFE:
            return None
        one = element(one.tag, vr, bytes(one.value))
    if vr in _REFUSED or (row.vrs and vr not in row.vrs):
        return None
    if vr in BINARY_VRS and len(one.value) % UNIT_BYTES.get(vr, 1):
        return None
    return one


@cache
def _creators() -> frozenset[str]:
    return frozenset(row.creator for row in tables.safe_private_rows())


@cache
def _rows() -> Mapping[tuple[int, int, str], tables.SafePrivateRow]:
    return {(row.group, row.number, row.creator): row for row in tables.safe_private_rows()}
