"""Content items of structured reports and of what is built like them (PS3.15 E.3.4, Table E.3.4-1).

The table speaks by concept name, in its own code or a retired one, and value type. Items it does not name are treated by value
type: text and names lose their content, dates move, references follow the new UIDs; numbers, codes and coordinates stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pacs.deid.actions import Subject, text_of
from pacs.deid.dates import OLDEST_YEARS
from pacs.deid.policy import Action, Policy, Rule, content_actions
from pacs.deid.text import in_vocabulary
from pacs.dicom.elements import element, find, items
from pacs.model.instance import Element
from pacs.standard import tables

VALUE_TYPE = 0x0040A040
CONCEPT_NAME = 0x0040A043
_CODE_VALUE, _SCHEME, _MEANING = 0x00080100, 0x00080102, 0x00080104
_DATE_TIME, _DATE, _TIME, _PERSON, _UID, _TEXT = 0x0040A120, 0x0040A121, 0x0040A122, 0x0040A123, 0x0040A124, 0x0040A160
_MEASURED, _NUMERIC_VALUE = 0x0040A300, 0x0040A30A
_SUBJECT_AGE = ("121033", "DCM")
_VALUES = (_DATE_TIME, _DATE, _TIME, _PERSON, _UID, _TEXT)

_LONGEST_MEANING = 64
_LANGUAGES = {("en-US", "RFC5646"): "English (United States)"}
"""PS3.16 CID 5000 leaves language codes to RFC 5646; this is what its examples, and reports made here, say."""
_SCRUBBED, _CLEANED = Rule(Action.SCRUB, Action.DUMMY), Rule(Action.CLEAN, Action.DUMMY)
_PUBLISHED = Rule(Action.KEEP_MEANING)


@dataclass(frozen=True, slots=True)
class Item:
    """How to treat one content item: not at all, or with these rules in place of the general ones."""

    removed: bool = False
    overrides: dict[int, Rule] = field(default_factory=dict)


def item_rules(item: Sequence[Element], policy: Policy, referenced: bool) -> Item:
    """Return how to treat a content item.

    Parameters
    ----------
    referenced : bool
        Some item of the document is referred to by its place (PS3.3 C.17.3.2.5): then nothing may be taken out, only blanked.
    """
    value_type = _word(item, VALUE_TYPE)
    code, scheme = tables.current_code(*concept(item))
    row = content_actions().get((code, scheme, value_type))
    options = frozenset(policy.options)
    chosen = [action for option, action in row.options.items() if option in options] if row is not None else []
    dated = policy.temporal != "REMOVED"
    if value_type in ("IMAGE", "COMPOSITE", "WAVEFORM", "UIDREF"):
        return Item()
    if row is not None and not chosen and row.basic == "X" and not referenced:
        return Item(removed=True)
    if (code, scheme) == _SUBJECT_AGE and _number(item) >= OLDEST_YEARS:
        return Item(overrides={_MEASURED: Rule(Action.EMPTY)}) if referenced else Item(removed=True)
    if value_type in ("NUM", "CODE", "CONTAINER", "SCOORD", "SCOORD3D", "TCOORD", "TABLE"):
        blank = row is not None and not chosen and row.basic == "X"
        return Item(overrides={0x0040A168: Rule(Action.RECURSE_DUMMY), _MEASURED: Rule(Action.EMPTY)} if blank else {})
    if row is None:
        text = Action.CLEAN if "clean_descriptors" in options else Action.DUMMY
        date = Action.SHIFT if dated else Action.DUMMY
    else:
        text = Action.CLEAN if "C" in chosen and value_type == "TEXT" else Action.DUMMY
        date = Action.SHIFT if "C" in chosen and dated else Action.DUMMY
    rules = dict.fromkeys(_VALUES, Rule(Action.DUMMY))
    rules[_TEXT] = Rule(text, Action.DUMMY)
    rules[_UID] = Rule(Action.UID)
    for tag in (_DATE_TIME, _DATE, _TIME):
        rules[tag] = Rule(date, Action.DUMMY)
    return Item(overrides=rules)


def concept(item: Sequence[Element]) -> tuple[str, str]:
    """Return (code, scheme) of the item's concept name, or ("", "")."""
    names = find(item, CONCEPT_NAME)
    coded = items(names.value) if names is not None and names.vr == "SQ" else []
    return (_word(coded[0], _CODE_VALUE), _word(coded[0], _SCHEME)) if coded else ("", "")


def meaning(one: Element, item: Sequence[Element], subject: Subject) -> tuple[Element, Rule]:
    """Return Code Meaning of a coded entry as it may stand, and the rule for what is left of it.

    A name can stand there, and did. What PS3.16 says the code means is written in place of anything but known words; where it
    says nothing, text is cleaned like a descriptor, whatever the scheme claims to be.
    """
    text = text_of(one, subject)
    if in_vocabulary(text, subject.words) and text.isascii():
        return one, _SCRUBBED
    coded = _word(item, _CODE_VALUE), _word(item, _SCHEME)
    published = tables.code_meaning(*coded) or _LANGUAGES.get(coded, "")
    if not published or not published.isascii() or len(published) > _LONGEST_MEANING or subject.identity.echoes(published):
        return one, _CLEANED
    return (one if published == text else element(_MEANING, "LO", published.encode("ascii"))), _PUBLISHED


def _number(item: Sequence[Element]) -> float:
    """Return the item's number; what is none counts as large, so that it is not taken for an ordinary age."""
    measured = find(item, _MEASURED)
    inside = items(measured.value) if measured is not None and measured.vr == "SQ" else []
    try:
        return max((float(_word(one, _NUMERIC_VALUE)) for one in inside), default=0.0)
    except ValueError:
        return float("inf")


def _word(item: Sequence[Element], tag: int) -> str:
    one = find(item, tag)
    return bytes(one.value).decode("latin-1").strip("\0 ") if one is not None else ""
