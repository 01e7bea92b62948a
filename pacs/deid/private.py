"""Private elements (PS3.15 E.3.10, Retain Safe Private): only what a list names, by the string of its creator.

Table E.3.10-1 is the list; beyond it numbers that The Cancer Imaging Archive found harmless, if they are of the VR given there
and look like no date. The creator is matched in whatever block it reserved (PS3.5 7.8.1); orphans, unknown creators, values of
another VR than the list's, and bulk, which nobody could look into, are gone. What the sender itself declares identifying in
Private Data Element Characteristics Sequence (0008,0300) is treated as it asks; what it declares safe is not believed.
"""

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from pacs.deid.policy import Action
from pacs.dicom.elements import BINARY_VRS, UNIT_BYTES, element, find, implicit_sequence, items
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Element
from pacs.standard import tables

CHARACTERISTICS = 0x00080300
_GROUP, _CREATOR, _STATUS, _HARMLESS = 0x00080301, 0x00080302, 0x00080303, 0x00080304
_ACTIONS, _IDENTIFYING, _ACTION = 0x00080305, 0x00080306, 0x00080307
_REFUSED = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN", "PN", "AE", "UR"})
_WORDS = {"D": Action.DUMMY, "Z": Action.EMPTY, "X": Action.REMOVE, "U": Action.UID}
_LIKE_A_DATE = re.compile(rb"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")


@dataclass(frozen=True, slots=True)
class Declared:
    """What a sender says about one block: what happens to an element, by the low byte of its number."""

    unsafe: bool = False
    harmless: frozenset[int] | None = None
    actions: Mapping[int, Action] = field(default_factory=dict)

    def action(self, number: int) -> Action | None:
        """Return what is asked for, or None where nothing is: the list decides."""
        if self.unsafe:
            return Action.REMOVE
        asked = self.actions.get(number)
        if asked is None and self.harmless is not None and number not in self.harmless:
            return Action.REMOVE
        return asked


def declared(elements: Sequence[Element]) -> Mapping[tuple[int, str], Declared]:
    """Return what Private Data Element Characteristics Sequence says, by group and creator (PS3.3 C.12.1.1.7)."""
    one = None
    for one in elements:
        if one.tag >= CHARACTERISTICS:
            break
    if one is None or one.tag != CHARACTERISTICS or one.vr != "SQ":
        return {}
    found = {}
    for item in items(one.value):
        group, creator, status = find(item, _GROUP), find(item, _CREATOR), find(item, _STATUS)
        if group is None or creator is None or len(group.value) != 2:
            continue
        actions: dict[int, Action] = {}
        asked = find(item, _ACTIONS)
        for inner in items(asked.value) if asked is not None and asked.vr == "SQ" else ():
            word = find(inner, _ACTION)
            action = _WORDS.get(_text(word).upper() if word is not None else "", Action.REMOVE)
            actions.update(dict.fromkeys(_numbers(find(inner, _IDENTIFYING)), action))
        state = _text(status).upper() if status is not None else ""
        found[struct.unpack("<H", group.value)[0], _text(creator)] = Declared(
            state == "UNSAFE", frozenset(_numbers(find(item, _HARMLESS))) if state == "MIXED" else None, actions
        )
    return found


def blocks(elements: Iterable[Element]) -> Mapping[int, str]:
    """Return the blocks that a creator of a list reserved in one data set or item: group and block (tag >> 8) -> creator."""
    found = {}
    for one in elements:
        tag = one.tag
        if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and one.vr in ("LO", "UN"):
            creator = bytes(one.value).decode("latin-1").strip("\0 ")
            if creator in _creators():
                found[tag >> 16 << 8 | tag & 0xFF] = creator
    return found


def safe(one: Element, creator: str) -> Element | None:
    """Return the element with its VR known if a list has it and its value is of that VR; else None."""
    if one.tag & 0xFFFF < 0x1000:
        return None
    group, number, vr = one.tag >> 16, one.tag & 0xFF, one.vr
    row = _rows().get((group, number, creator))
    if row is None:
        return _number(one, creator)
    if vr == "UN":
        vr = row.vrs[0] if len(row.vrs) == 1 else "UN"
        if len(one.value) > 0xFFFE:
            return None
        if vr == "SQ":
            # PS3.5 6.2.2 note 2: the sequence within UN is Implicit VR Little Endian.
            return _sequence(one)
        one = element(one.tag, vr, bytes(one.value))
    if vr in _REFUSED or (row.vrs and vr not in row.vrs):
        return None
    if vr in BINARY_VRS and len(one.value) % UNIT_BYTES.get(vr, 1):
        return None
    return one


def _number(one: Element, creator: str) -> Element | None:
    """Return a number of the second list: of just this VR, whole, and nothing like a date."""
    vr = one.vr
    if (one.tag >> 16, one.tag & 0xFF, creator, vr) not in tables.numeric_private_rows():
        return None
    if vr in ("DS", "IS"):
        return None if _LIKE_A_DATE.search(bytes(one.value)) else one
    return None if len(one.value) % UNIT_BYTES[vr] else one


def _sequence(one: Element) -> Element | None:
    try:
        return implicit_sequence(one.tag, one.value)
    except NotUnderstood:
        return None


def _numbers(one: Element | None) -> tuple[int, ...]:
    if one is None or one.vr != "US":
        return ()
    return struct.unpack(f"<{len(one.value) // 2}H", one.value[: len(one.value) // 2 * 2])


def _text(one: Element) -> str:
    return bytes(one.value).decode("latin-1").strip("\0 ")


@cache
def _creators() -> frozenset[str]:
    return frozenset(row.creator for row in tables.safe_private_rows()) | {row[2] for row in tables.numeric_private_rows()}


@cache
def _rows() -> Mapping[tuple[int, int, str], tables.SafePrivateRow]:
    return {(row.group, row.number, row.creator): row for row in tables.safe_private_rows()}
