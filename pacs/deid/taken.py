"""What de-identification took away: the original elements that the vault keeps, by the level they belong to.

Compares what came with what was made of it, at the top of the data set: a sequence in which anything changed is kept whole.
The level only decides where equal values are kept once; restoring does not depend on it. Not kept, and so never restored:
private elements, group lengths, pixels, and elements above the limits here.
"""

from collections.abc import Mapping, Sequence

from pacs.dicom import values
from pacs.dicom.elements import items
from pacs.model.errors import NotUnderstood
from pacs.model.identity import Taken
from pacs.model.instance import Element
from pacs.model.query import Level

LARGEST_BYTES = 1 << 16
LARGEST_SEQUENCE_BYTES = 1 << 22
_PIXELS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00008, 0x7FE00009, 0x7FE00010})
_DROPPED_GROUPS = frozenset({0x0000, 0x0002, 0x0004, 0xFFFC})
_STUDY_OF_0010 = frozenset(
    {
        0x00101010, 0x00101020, 0x00101021, 0x00101022, 0x00101023, 0x00101024, 0x00101030, 0x00102000, 0x00102110, 0x00102180,
        0x001021A0, 0x001021B0, 0x001021C0, 0x001021D0, 0x00102203,
    }
)  # fmt: skip
"""Patient Study module (PS3.3 C.7.2.2): of the patient on that day."""
_STUDY = frozenset(
    {
        0x00080020, 0x00080030, 0x00080050, 0x00080051, 0x00080080, 0x00080081, 0x00080082, 0x00080090, 0x00080092, 0x00080094,
        0x00080096, 0x0008009C, 0x0008009D, 0x00081030, 0x00081032, 0x00081040, 0x00081048, 0x00081049, 0x00081060, 0x00081062,
        0x00081080, 0x00081084, 0x00081110, 0x0020000D, 0x00200010, 0x00321032, 0x00321060, 0x00380010, 0x00380014, 0x00380060,
    }
)  # fmt: skip
"""General Study and Patient Visit, and what equipment repeats of them in every series."""
_INSTANCE = frozenset({0x00080018, 0x00080012, 0x00080013, 0x00080033, 0x00080032, 0x0008002A, 0x00083010})

_NAMES = (
    (0x00100010, Level.PATIENT, "name"),
    (0x00080050, Level.STUDY, "accession"),
    (0x0020000D, Level.STUDY, "uid"),
    (0x0020000E, Level.SERIES, "uid"),
    (0x00080018, Level.IMAGE, "uid"),
)
_PATIENT_ID, _ISSUER, _OTHER_IDS = 0x00100020, 0x00100021, 0x00101002


def collect(original: Sequence[Element], produced: Sequence[Element], patient_id: str) -> Taken:
    """Return what `produced` lacks of `original`.

    Parameters
    ----------
    original, produced : sequence of Element
        The top-level elements before and after.
    patient_id : str
        The patient's pseudonym.
    """
    made = {one.tag: one for one in produced}
    take = made.pop
    levels: dict[Level, dict[int, bytes]] = {level: {} for level in Level}
    left_out = 0
    for one in original:
        tag = one.tag
        there = take(tag, None)
        if there is one or tag in _PIXELS:
            continue
        encoded = one.encoded
        if there is not None and there.encoded == encoded:
            continue
        group = tag >> 16
        if group in _DROPPED_GROUPS or not tag & 0xFFFF:
            continue
        if group & 1 or len(encoded) > (LARGEST_SEQUENCE_BYTES if one.vr == "SQ" else LARGEST_BYTES):
            left_out += 1
            continue
        levels[_level(tag)][tag] = bytes(encoded)
    charset = next((bytes(one.encoded) for one in original if one.tag == values.SPECIFIC_CHARACTER_SET), b"")
    for level in (Level.PATIENT, Level.STUDY):
        # Nobody can read the names at this level without it.
        levels[level][values.SPECIFIC_CHARACTER_SET] = charset
    for tag in made:
        if tag not in _PIXELS and not tag >> 16 & 1:
            levels[_level(tag)][tag] = b""
    return Taken(patient_id, levels, _named(original), left_out)


def _level(tag: int) -> Level:
    if tag in _INSTANCE:
        return Level.IMAGE
    if tag >> 16 == 0x0010:
        return Level.STUDY if tag in _STUDY_OF_0010 else Level.PATIENT
    return Level.STUDY if tag in _STUDY else Level.SERIES


def _named(original: Sequence[Element]) -> tuple[tuple[Level, str, str], ...]:
    """Return what the instance may be looked for by."""
    by_tag = {one.tag: one for one in original}
    charsets = values.charset(original)
    found: list[tuple[Level, str, str]] = []
    for tag, level, kind in _NAMES:
        value = _text(by_tag, tag, charsets)
        if value:
            found.append((level, kind, value))
    found += _identifiers(_text(by_tag, _PATIENT_ID, charsets), _text(by_tag, _ISSUER, charsets))
    others = by_tag.get(_OTHER_IDS)
    if others is not None and others.vr == "SQ":
        try:
            inside = items(others.value)
        except NotUnderstood:
            inside = []
        for item in inside:
            within = {one.tag: one for one in item}
            found += _identifiers(_text(within, _PATIENT_ID, charsets), _text(within, _ISSUER, charsets))
    return tuple(found)


def _identifiers(patient_id: str, issuer: str) -> list[tuple[Level, str, str]]:
    if not patient_id:
        return []
    return [(Level.PATIENT, "id", patient_id), (Level.PATIENT, "patient", f"{patient_id}\\{issuer}")]


def _text(by_tag: Mapping[int, Element], tag: int, charsets: tuple[str, ...]) -> str:
    one = by_tag.get(tag)
    if one is None or one.vr == "SQ":
        return ""
    said = values.text(one, charsets)
    return said[0].strip() if said else ""
