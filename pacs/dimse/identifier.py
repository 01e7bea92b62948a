"""Identifiers of queries and retrievals: bytes to `Query` or keys, answers to bytes; pure.

PS3.4 C.2.2.2 (matching), C.4.1 and C.6 (levels, keys), PS3.5 6.2 (value representations). The unique keys of a level and of
those above it place a query in the hierarchy; without relational negotiation each level above must be named exactly
(PS3.4 C.4.1.2.1). What cannot be matched is not silently used as a filter: it is reported, and the door answers FF01.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pacs.dicom import elements, nested, values
from pacs.dicom.dictionary import keyword_of, tag_of, vr_of
from pacs.dimse.encoding import NestedKeys, answer_charset, encode, sequence, texts, value_bytes
from pacs.index.attributes import COMPUTED, level_of
from pacs.model.errors import InvalidQuery, NotUnderstood
from pacs.model.instance import Buffer, Element
from pacs.model.query import AnyOf, Between, Empty, Level, Match, Query, Single, Wildcard, Within

LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)
UNIQUE_KEYS = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
SPECIFIC_CHARACTER_SET = 0x00080005
QUERY_RETRIEVE_LEVEL = 0x00080052
RETRIEVE_AE_TITLE = 0x00080054
INSTANCE_AVAILABILITY = 0x00080056
FAILED_SOP_INSTANCE_UID_LIST = 0x00080058
TIMEZONE_OFFSET = 0x00080201
_CONTROL = frozenset({SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL, RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY, TIMEZONE_OFFSET})
_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_DATE = r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_TIME = r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"
_PATTERNS = {
    "DA": re.compile(_DATE),
    "TM": re.compile(_TIME),
    "DT": re.compile(rf"\d{{4}}((0[1-9]|1[0-2])((0[1-9]|[12]\d|3[01])({_TIME})?)?)?([+-]\d{{4}})?"),
}
_CHARACTER_SET = re.compile(
    r"|ISO_IR (6|13|100|101|109|110|126|127|138|144|148|166|192|203)|GB18030|GBK"
    r"|ISO 2022 IR (6|13|58|87|100|101|109|110|126|127|138|144|148|149|159|166|203)"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A parsed C-FIND identifier. `empty_keys` are those we cannot answer: sent back without a value, and told by FF01."""

    query: Query
    unique_keywords: tuple[str, ...]
    empty_keys: tuple[tuple[int, str], ...]
    unsupported: bool
    character_set: str
    availability: bool
    timezone: str = ""
    nested_keys: "Mapping[str, NestedKeys]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The unique keys of a C-MOVE or C-GET identifier."""

    level: Level
    keys: Mapping[str, tuple[str, ...]]


def parse(data: Buffer | None, transfer_syntax_uid: str) -> list[Element]:
    """Return the elements of an identifier. Raises `NotUnderstood`."""
    if not data:
        raise InvalidQuery("the request has no identifier")
    return elements.read(data, transfer_syntax_uid)


def level(identifier: Sequence[Element], *, patient_root: bool) -> Level:
    """Return the Query/Retrieve Level (0008,0052). Raises `InvalidQuery` if it is missing or not in the model (PS3.4 C.6)."""
    one = elements.find(identifier, QUERY_RETRIEVE_LEVEL)
    said = values.text(one) if one is not None else []
    try:
        found = Level(said[0] if len(said) == 1 else "")
    except ValueError:
        raise InvalidQuery("Query/Retrieve Level is missing or unknown") from None
    if found is Level.PATIENT and not patient_root:
        raise InvalidQuery("level PATIENT is not in the Study Root model")
    return found


def wanted(identifier: Sequence[Element], *, patient_root: bool, relational: bool) -> Wanted:
    """Return what to retrieve: a list only at the level itself, single values above; other keys do not count (PS3.4 C.4.2.2.1).

    Raises `InvalidQuery` where a unique key is missing, empty, a wildcard or a list in the wrong place.
    """
    found = level(identifier, patient_root=patient_root)
    keys: dict[str, tuple[str, ...]] = {}
    for above in LEVELS[0 if patient_root else 1 : LEVELS.index(found) + 1]:
        keyword = UNIQUE_KEYS[above]
        one = elements.find(identifier, tag_of(keyword))
        said = tuple(value for value in values.text(one, values.charset(identifier)) if value) if one is not None else ()
        if not said and above is not found and relational:
            continue
        if not said:
            raise InvalidQuery(f"{keyword} is missing or empty")
        if len(said) > 1 and (above is not found or above is Level.PATIENT):
            raise InvalidQuery(f"{keyword} must have one value here")
        if above is Level.PATIENT:
            if "*" in said[0] or "?" in said[0]:
                raise InvalidQuery(f"{keyword} must not hold wildcards here")
        elif not all(is_uid(uid) for uid in said):
            raise InvalidQuery(f"{keyword} is not a UID")
        keys[keyword] = said
    return Wanted(found, keys)


def asked(
    identifier: Sequence[Element],
    *,
    patient_root: bool,
    relational: bool,
    fuzzy: bool,
    empty_values: bool = False,
    several_values: bool = False,
    combined: bool = False,
) -> Asked:
    """Return what a C-FIND identifier asks. Raises `InvalidQuery` (A900) or `NotUnderstood` (C000: character set).

    `relational`, `fuzzy`, `empty_values`, `several_values` and `combined` (date-time) are what was negotiated (PS3.4 C.5.1.1).
    """
    found = level(identifier, patient_root=patient_root)
    character_set, charsets = declared_charset(identifier)
    matches: dict[str, Match] = {}
    return_keys: list[str] = []
    empty_keys: list[tuple[int, str]] = []
    nested_keys: dict[str, NestedKeys] = {}
    for one in identifier:
        if one.tag in _CONTROL or one.tag & 0xFFFF == 0:
            continue
        keyword = keyword_of(one.tag)
        key_level = level_of(keyword) if keyword and (one.vr == "SQ") == (vr_of(one.tag) == "SQ") else None
        if key_level is None or LEVELS.index(key_level) > LEVELS.index(found):
            empty_keys.append((one.tag, one.vr if one.vr != "UN" else vr_of(one.tag)))
            continue
        return_keys.append(keyword)
        if one.vr == "SQ":
            nested_keys[keyword], within = _within(keyword, one, charsets, empty_values, several_values)
            if within.keys:
                matches[keyword] = within
            continue
        match = _match(keyword, vr_of(one.tag), one, charsets, empty_values, several_values, combined)
        if match is not None:
            if keyword in COMPUTED and keyword not in ("ModalitiesInStudy", "SOPClassesInStudy"):
                # Counts are returned, not matched; FF01 says so.
                empty_keys.append((one.tag, vr_of(one.tag)))
                return_keys.remove(keyword)
            else:
                matches[keyword] = match
    offset = elements.find(identifier, TIMEZONE_OFFSET)
    zone = "".join(values.text(offset)[:1]) if offset is not None else ""
    model = LEVELS[0 if patient_root else 1 : LEVELS.index(found) + 1]
    for above in model[:-1]:
        match = matches.get(UNIQUE_KEYS[above])
        if not relational and not isinstance(match, Single):
            raise InvalidQuery(f"{UNIQUE_KEYS[above]} must have one value at level {found}")
    return Asked(
        query=Query(level=found, matches=matches, return_keys=tuple(return_keys), fuzzy=fuzzy),
        unique_keywords=tuple(UNIQUE_KEYS[one] for one in model),
        empty_keys=tuple(empty_keys),
        unsupported=bool(empty_keys),
        character_set=character_set,
        availability=elements.find(identifier, INSTANCE_AVAILABILITY) is not None,
        timezone=zone,
        nested_keys=nested_keys,
    )


def answer(asked: Asked, found: Mapping[str, str], ae_title: str, *, explicit: bool) -> bytes:
    """Return the identifier of one Pending response: the keys asked for, the unique keys, level and Retrieve AE Title."""
    rows: dict[int, tuple[str, str]] = {}
    for tag, vr in asked.empty_keys:
        rows[tag] = (vr, "")
    for keyword in (*asked.query.return_keys, *asked.unique_keywords):
        tag = tag_of(keyword)
        rows[tag] = (vr_of(tag), found.get(keyword, ""))
    rows[QUERY_RETRIEVE_LEVEL] = ("CS", str(asked.query.level))
    rows[RETRIEVE_AE_TITLE] = ("AE", ae_title)
    if asked.availability:
        rows[INSTANCE_AVAILABILITY] = ("CS", "ONLINE")
    sequences = {tag: nested.from_text(text) for tag, (vr, text) in rows.items() if vr == "SQ"}
    within = [("LO", text) for items in sequences.values() for text in texts(items)]
    term, codec = answer_charset([*(row for row in rows.values() if row[0] != "SQ"), *within], asked.character_set)
    if term:
        rows[SPECIFIC_CHARACTER_SET] = ("CS", term)
    encoded = []
    for tag, (vr, text) in sorted(rows.items()):
        if vr == "SQ":
            value = sequence(sequences[tag], asked.nested_keys.get(keyword_of(tag), {}), codec, explicit)
        else:
            value = value_bytes(vr, text, codec)
        encoded.append((tag, vr, value))
    return encode(encoded, explicit=explicit)


def failed_list(uids: Iterable[str], *, explicit: bool) -> bytes:
    """Return the identifier with the Failed SOP Instance UID List (0008,0058), PS3.4 C.4.2.1.4.2."""
    return encode([(FAILED_SOP_INSTANCE_UID_LIST, "UI", "\\".join(uids).encode("ascii"))], explicit=explicit)


def declared_charset(identifier: Sequence[Element]) -> tuple[str, tuple[str, ...]]:
    """Return Specific Character Set as it was said, and its codecs. Raises `NotUnderstood` for a term that does not exist."""
    one = elements.find(identifier, SPECIFIC_CHARACTER_SET)
    said = bytes(one.value).decode("ascii", "replace").rstrip("\0 ") if one is not None else ""
    if not all(_CHARACTER_SET.fullmatch(term.strip()) for term in said.split("\\")):
        # PS3.3 C.12.1.1.2 lists the Defined Terms; guessing would match the wrong names.
        raise NotUnderstood("unknown Specific Character Set")
    return said, values.charset(identifier)


def is_uid(text: str) -> bool:
    """Say whether `text` is made like a UID (PS3.5 9.1); leading zeros of components, which exist, pass."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _match(
    keyword: str,
    vr: str,
    one: Element,
    charsets: tuple[str, ...],
    empty_values: bool,
    several_values: bool,
    combined: bool = False,
) -> Match | None:
    """Return how a key restricts, None for Universal Matching (PS3.4 C.2.2.2)."""
    said = [value for value in values.strings(one, charsets) if value] if one.vr != "UN" else []
    if not said or all(set(value) == {"*"} for value in said):
        return None
    if empty_values and said == ['""']:
        return Empty()
    if vr == "UI":
        if not all(is_uid(uid) for uid in said):
            raise InvalidQuery(f"{keyword} is not a UID")
        return Single(said[0]) if len(said) == 1 else AnyOf(tuple(said))
    if len(said) > 1:
        # Lists belong to negotiated Multiple Value Matching (C.2.2.2.8); of codes they are asked for without it, and harmless.
        if vr != "CS" and not several_values:
            raise InvalidQuery(f"{keyword} must have one value")
        if vr in _PATTERNS and not all(_PATTERNS[vr].fullmatch(value) for value in said):
            raise InvalidQuery(f"{keyword} holds something that is not a {vr} in a list")
        return AnyOf(tuple(said))
    if vr in _PATTERNS:
        return _moment(keyword, vr, said[0], combined)
    if vr in _WILDCARD_VRS and ("*" in said[0] or "?" in said[0]):
        return Wildcard(said[0])
    return Single(said[0])


def _within(
    keyword: str, one: Element, charsets: tuple[str, ...], empty_values: bool, several_values: bool
) -> tuple[NestedKeys, Within]:
    """Return the keys within a sequence key, and how they restrict (PS3.4 C.2.2.2.6). Raises as `asked` does."""
    items = elements.items(one.value)
    if len(items) > 1:
        raise InvalidQuery(f"{keyword} must have one item at most")
    wanted: NestedKeys = {}
    found: dict[str, Match] = {}
    for key in items[0] if items else ():
        name = keyword_of(key.tag)
        if not name or key.tag & 0xFFFF == 0:
            continue
        if key.vr == "SQ":
            wanted[name], inner = _within(name, key, charsets, empty_values, several_values)
            if inner.keys:
                found[name] = inner
            continue
        wanted[name] = {}
        match = _match(name, vr_of(key.tag), key, charsets, empty_values, several_values)
        if match is not None:
            found[name] = match
    return wanted, Within(found)


def _moment(keyword: str, vr: str, said: str, combined: bool) -> Match:
    """Return Single Value or Range Matching of a date, a time or both (PS3.4 C.2.2.2.5)."""
    said = said.replace(".", "") if vr == "DA" else said.replace(":", "") if vr == "TM" else said
    pattern = _PATTERNS[vr]
    if pattern.fullmatch(said):
        # A time said to the hour or minute means all of it; the index knows how far a reduced precision reaches.
        return Single(said) if vr == "DA" else Between(said, said)
    for cut in (place for place, letter in enumerate(said) if letter == "-"):
        low, high = said[:cut].strip(), said[cut + 1 :].strip()
        if (low or high) and all(not end or pattern.fullmatch(end) for end in (low, high)):
            # With its date as one moment, a time may begin on one day and end earlier on another.
            if low and high and _reaches(high, vr) < low and not (combined and vr == "TM"):
                raise InvalidQuery(f"{keyword}: the range ends before it begins")
            return Between(low, high)
    raise InvalidQuery(f"{keyword} is not a valid {vr} or range")


def _reaches(value: str, vr: str) -> str:
    """Return the last moment that a value of reduced precision may mean."""
    last = {"DA": "99991231", "TM": "235960.999999", "DT": "99991231235960.999999"}[vr]
    return value + last[len(value) :]
