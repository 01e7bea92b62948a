"""VR and keyword of every standard element: pydicom's dictionary and what PS3.6 2026c has added since.

Elements that no dictionary knows have VR UN and no keyword. Group lengths are UL, private creators LO (PS3.5 7.8.1).
"""

from functools import cache

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.datadict import keyword_dict

from pacs.standard import tables


@cache
def vrs_of(tag: int) -> tuple[str, ...]:
    """Return every VR that PS3.6 allows for `tag`; ("UN",) if nobody knows it."""
    added = tables.dictionary_additions().get(tag)
    if added is not None:
        return added.vrs
    row = DicomDictionary.get(tag) or _repeater(tag)
    if row is not None and row[0] != "NONE":
        return tuple(row[0].split(" or "))
    if tag & 0xFFFF == 0 and tag >> 16 != 0:
        return ("UL",)
    if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
        return ("LO",)
    return ("UN",)


@cache
def vr_of(tag: int) -> str:
    """Return the VR of `tag`; of several the one for unsigned words (US, OW), "UN" if nobody knows it."""
    vrs = vrs_of(tag)
    return "OW" if vrs == ("OB", "OW") or vrs == ("US", "OW") else vrs[0]


@cache
def keyword_of(tag: int) -> str:
    """Return the keyword of `tag`, or "" if nobody knows it."""
    added = tables.dictionary_additions().get(tag)
    if added is not None:
        return added.keyword
    row = DicomDictionary.get(tag) or _repeater(tag)
    return row[4] if row is not None else ""


@cache
def tag_of(keyword: str) -> int:
    """Return the tag of `keyword`. Raises KeyError if nobody knows it."""
    tag = keyword_dict.get(keyword)
    return int(tag) if tag is not None else _added_keywords()[keyword]


@cache
def is_known(tag: int) -> bool:
    """Say whether `tag` is an element of the standard (group lengths and private creators are not)."""
    return tag in tables.dictionary_additions() or tag in DicomDictionary or _repeater(tag) is not None


@cache
def _added_keywords() -> dict[str, int]:
    return {entry.keyword: tag for tag, entry in tables.dictionary_additions().items()}


@cache
def _masks() -> tuple[tuple[int, int, tuple[str, str, str, str, str]], ...]:
    """Repeating groups and elements of PS3.6 as (mask, value, row)."""
    rows = []
    for name, row in RepeatersDictionary.items():
        mask = int("".join("0" if digit == "x" else "F" for digit in name), 16)
        rows.append((mask, int(name.replace("x", "0"), 16), row))
    return tuple(rows)


def _repeater(tag: int) -> tuple[str, str, str, str, str] | None:
    if tag >> 16 & 1:
        return None
    return next((row for mask, value, row in _masks() if tag & mask == value), None)
