"""The identity set: whom an instance names, gathered before anything is changed (names, identifiers, addresses, at any
depth)."""

from collections.abc import Iterable

from pacs.deid.text import in_vocabulary
from pacs.dicom import values
from pacs.dicom.elements import DEEPEST, items
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Element

CODES = frozenset(
    {
        0x00080050, 0x00080080, 0x00080081, 0x00080092, 0x00080094, 0x00081010, 0x00100020, 0x00101000, 0x00101040, 0x00101050,
        0x00101080, 0x00101090, 0x00102154, 0x00102155, 0x00120040, 0x00181000, 0x00380010, 0x00380060, 0x00400009, 0x00400512,
        0x00400551, 0x00401001, 0x00401102, 0x00401103, 0x00402010, 0x00402016, 0x00402017,
    }
)  # fmt: skip
"""Attributes whose whole value tells who or where: IDs, accession and order numbers, phones, addresses, institution,
station."""

_INSTITUTION = frozenset({0x00080080, 0x00080081, 0x00080092, 0x00081040})
_DEVICE = frozenset({0x00081010, 0x00181000})
"""Of these, what Retain Institution Identity and Retain Device Identity leave: it identifies nobody any more."""


def codes_for(options: Iterable[str]) -> frozenset[int]:
    """Return the attributes of `CODES` that identify under a policy with these options."""
    chosen = set(options)
    kept = _INSTITUTION if "retain_institution_identity" in chosen else frozenset()
    return CODES - kept - (_DEVICE if "retain_device_identity" in chosen else frozenset())


Found = tuple[frozenset[str], frozenset[str]]
"""Person names and other identifiers, as they stand."""
NOBODY: Found = (frozenset(), frozenset())


def named_in(
    elements: Iterable[Element], charsets: tuple[str, ...], depth: int = 0, identifying: frozenset[int] = CODES
) -> Found:
    """Return the person names and identifiers in these elements and everything nested in them."""
    names: set[str] = set()
    codes: set[str] = set()
    for one in elements:
        if one.tag == values.SPECIFIC_CHARACTER_SET:
            charsets = values.charsets_of(bytes(one.value))
        elif one.vr == "PN" or one.tag in identifying:
            found = named_by(one, charsets)
            names |= found[0]
            codes |= found[1]
        elif one.vr == "SQ":
            found = named_within(one, charsets, depth, identifying)
            names |= found[0]
            codes |= found[1]
    return frozenset(names), frozenset(codes)


def named_by(one: Element, charsets: tuple[str, ...]) -> Found:
    """Return what a single element names."""
    if one.vr == "PN":
        return frozenset(values.text(one, charsets)), frozenset()
    if one.vr == "SQ":
        return named_within(one, charsets, 0)
    return frozenset(), frozenset(
        text for text in values.text(one, charsets) if not in_vocabulary(text) or any(map(str.isdigit, text))
    )


def named_within(one: Element, charsets: tuple[str, ...], depth: int, identifying: frozenset[int] = CODES) -> Found:
    """Return what the items of a sequence name. A private sequence that cannot be parsed names nobody: it will not be kept."""
    if depth > DEEPEST:
        raise NotUnderstood(f"sequences are nested deeper than {DEEPEST}")
    try:
        inside = items(one.value)
    except NotUnderstood:
        if one.tag >> 16 & 1:
            return NOBODY
        raise
    found = [named_in(item, charsets, depth + 1, identifying) for item in inside]
    if not found:
        return NOBODY
    return frozenset().union(*(names for names, _ in found)), frozenset().union(*(codes for _, codes in found))
