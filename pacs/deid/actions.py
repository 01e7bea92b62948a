"""X, Z, D, U, C on one encoded element: pure, by VR (PS3.15 Table E.1-1a, PS3.5 Table 6.2-1).

Each function takes an element and returns what stands in its place, or None for nothing. What a value keeps is checked against
its VR on the way: a DS that is no number is not kept, because text may hide there.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pacs.deid import icc
from pacs.deid.dates import clean_age, clean_time, shift_date, shift_date_time
from pacs.deid.policy import Action
from pacs.deid.pseudonym import Pseudonyms, is_registered, is_uid
from pacs.deid.text import Identity, clean, in_vocabulary, scrub
from pacs.dicom import values
from pacs.dicom.dictionary import vrs_of
from pacs.dicom.elements import UNIT_BYTES, element
from pacs.model.instance import Element

CODING_SCHEME_DESIGNATOR = 0x00080102
_ICC_PROFILE = 0x00282000
REMOVED = "REMOVED"
"""The dummy text: conspicuous, valid in CS, LO, SH, PN and AE alike."""

_DECIMAL = re.compile(rb" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *\Z")
_INTEGER = re.compile(rb" *[+-]?[0-9]{1,12} *\Z")
_CODE_STRING = re.compile(rb"[A-Za-z0-9 _./+-]{0,64}\Z")
_CHARACTER_SETS = re.compile(rb"[A-Z0-9 _\\]{0,128}[ \0]?\Z")
_NEVER_KEPT = frozenset({0x04000100, 0x0040A124})
"""Digital Signature UID, and UID of a content item: Retain UIDs has no say on them (PS3.15 Table E.1-1)."""
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TEXT = frozenset({"LO", "SH", "ST", "LT", "UC", "UT", "CS"})
_DUMMIES = {
    "DA": "19000101", "DT": "19000101000000", "TM": "000000", "IS": "0", "DS": "0", "AS": "000Y", "UR": "urn:removed",
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """Whom an element is about, as far as its treatment depends on it: patient, identity set, character sets.

    `shift_days` is 0 where dates are kept; `keep_uids` says that the policy keeps UIDs (PS3.15 E.3.9); `words` may stand in
    descriptors beside those of the vocabulary.
    """

    pseudonyms: Pseudonyms = field(repr=False)
    patient_id: str
    shift_days: int = field(repr=False)
    identity: Identity = field(repr=False)
    charsets: tuple[str, ...] = values.DEFAULT_CHARSETS
    keep_uids: bool = False
    words: frozenset[str] = field(default=frozenset(), repr=False)


def apply(one: Element, action: Action, otherwise: Action, subject: Subject) -> Element | None:
    """Obey `action` on an element that is no sequence; where cleaning leaves nothing, obey `otherwise`."""
    if action is Action.REMOVE or _disguised(one):
        return None
    if not len(one.value) and action is not Action.PATIENT_NAME and action is not Action.PATIENT_ID:
        return one
    return _APPLY[action](one, otherwise, subject)


def text_of(one: Element, subject: Subject) -> str:
    """Return the whole value as one string."""
    return values.decode(bytes(one.value), subject.charsets).rstrip("\0 ")


def dummy(one: Element, subject: Subject) -> Element:
    """Replace the value by one that says nothing (D)."""
    if one.vr == "UI":
        return _map_uids(one, Action.EMPTY, subject)
    if one.vr in _BULK:
        return element(one.tag, one.vr, b"\0\0")
    if one.vr in UNIT_BYTES:
        return element(one.tag, one.vr, bytes(UNIT_BYTES[one.vr] if one.vr != "AT" else 4))
    return element(one.tag, one.vr, _DUMMIES.get(one.vr, REMOVED).encode("ascii"))


def empty(one: Element) -> Element:
    """Take the value away (Z)."""
    return element(one.tag, one.vr, b"")


def fall_back(one: Element, otherwise: Action, subject: Subject) -> Element | None:
    """Do what the table says where cleaning left nothing."""
    if otherwise is Action.REMOVE:
        return None
    return dummy(one, subject) if otherwise is Action.DUMMY else empty(one)


def encode(text: str, vr: str, charsets: tuple[str, ...]) -> bytes:
    """Encode text of ours so that Specific Character Set stays true; what does not fit is left out."""
    if text.isascii():
        return text.encode("ascii")
    if vr not in values.CHARSET_VRS or len(charsets) > 1 or charsets == values.DEFAULT_CHARSETS or charsets[0] == "shift_jis":
        return text.encode("ascii", "ignore")
    return text.encode(charsets[0], "ignore")


def _disguised(one: Element) -> bool:
    """Say whether bulk stands where the dictionary has text, numbers or a sequence: nobody could look into it."""
    if one.vr not in _BULK:
        return False
    allowed = vrs_of(one.tag)
    return not one.tag >> 16 & 1 and not any(vr in _BULK and vr != "UN" for vr in allowed)


def _keep(one: Element, otherwise: Action, subject: Subject) -> Element | None:
    """Keep a value that is what its VR says; anything in doubt is emptied."""
    raw = bytes(one.value) if one.vr in ("DS", "IS") else b""
    if one.vr == "DS" or one.vr == "IS":
        pattern = _DECIMAL if one.vr == "DS" else _INTEGER
        parts = raw.rstrip(b"\0 ").split(b"\\")
        if all(not part.strip() or pattern.match(part) for part in parts):
            return one
        # Numbers of IS with a decimal point are common and harmless.
        return one if all(not part.strip() or _DECIMAL.match(part) for part in parts) else empty(one)
    if one.vr == "AS":
        return _map_text(one, clean_age)
    if one.vr in ("DA", "DT", "TM"):
        return _shift(one, otherwise, subject)
    if one.vr == "UI":
        return _map_uids(one, otherwise, subject)
    if one.vr in ("PN", "AE", "UR"):
        return empty(one)
    if one.tag == _ICC_PROFILE:
        profile = icc.blanked(bytes(one.value))
        return element(one.tag, one.vr, profile) if profile else None
    return _scrub(one, otherwise, subject) if one.vr in _TEXT else one


def _shift(one: Element, otherwise: Action, subject: Subject) -> Element | None:
    if one.vr == "DA":
        moved = _map_text(one, lambda value: shift_date(value, subject.shift_days))
    elif one.vr == "DT":
        moved = _map_text(one, lambda value: shift_date_time(value, subject.shift_days))
    elif one.vr == "TM":
        moved = _map_text(one, clean_time)
    elif one.vr in _BULK:
        return dummy(one, subject)
    else:
        return _scrub(one, otherwise, subject) if one.vr in _TEXT else _keep(one, otherwise, subject)
    return moved if bytes(moved.value).strip(b" \\") else fall_back(one, otherwise, subject)


def _map_text(one: Element, change: Callable[[str], str]) -> Element:
    raw = bytes(one.value)
    before = raw.decode("latin-1").rstrip("\0 ")
    after = "\\".join(change(value) for value in before.split("\\"))
    return one if after == before else element(one.tag, one.vr, after.encode("ascii", "ignore"))


def _map_uids(one: Element, otherwise: Action, subject: Subject) -> Element:
    if one.vr != "UI":
        return dummy(one, subject)
    if subject.keep_uids and one.tag not in _NEVER_KEPT:
        return _keep_uids(one, otherwise, replace(subject, keep_uids=False)) or one
    parts = bytes(one.value).decode("latin-1").split("\\")
    mapped = [subject.pseudonyms.uid(part.strip("\0 ")) if part.strip("\0 ") else "" for part in parts]
    return element(one.tag, "UI", "\\".join(mapped).encode("ascii"))


def _keep_uids(one: Element, otherwise: Action, subject: Subject) -> Element | None:
    """Keep UIDs that name a class or definition; one that is no UID, or holds an identifier, is mapped."""
    parts = [part.strip("\0 ") for part in bytes(one.value).decode("latin-1").split("\\")]
    kept = all(not part or is_registered(part) or (is_uid(part) and not subject.identity.echoes(part)) for part in parts)
    return one if kept else _map_uids(one, otherwise, replace(subject, keep_uids=False))


def _scrub(one: Element, otherwise: Action, subject: Subject) -> Element | None:
    if one.vr == "CS" or one.tag == CODING_SCHEME_DESIGNATOR:
        return _scrub_code_string(one, otherwise, subject)
    return _rewrite(one, Action.DUMMY if otherwise is Action.EMPTY else otherwise, subject, scrub)


def _clean(one: Element, otherwise: Action, subject: Subject) -> Element | None:
    if one.vr == "CS":
        return _scrub_code_string(one, otherwise, subject)
    if one.vr in ("DA", "DT", "TM"):
        return _shift(one, otherwise, subject)
    if one.vr not in _TEXT:
        return (
            fall_back(one, otherwise, subject) if one.vr in ("PN", "AE", "UR", "OB", "UN") else _keep(one, otherwise, subject)
        )
    return _rewrite(one, otherwise, subject, lambda text, identity: clean(text, identity, subject.words))


def _scrub_code_string(one: Element, otherwise: Action, subject: Subject) -> Element | None:
    """Keep a code string unless it repeats a name or is no code string; words of the vocabulary cannot be a name here."""
    parts = bytes(one.value).rstrip(b"\0 ").split(b"\\")
    kept = []
    for part in parts:
        text = part.decode("latin-1")
        if _CODE_STRING.match(part) and (in_vocabulary(text) or scrub(text, subject.identity) == text):
            kept.append(part)
        else:
            kept.append(REMOVED.encode("ascii"))
    return one if kept == parts else element(one.tag, one.vr, b"\\".join(kept))


def _rewrite(one: Element, otherwise: Action, subject: Subject, change: Callable[[str, Identity], str]) -> Element | None:
    before = text_of(one, subject)
    parts = [before] if one.vr in values.UNSPLIT_VRS else before.split("\\")
    changed = [change(part, subject.identity) for part in parts]
    if changed == parts:
        return one
    if not any(part.strip() for part in changed):
        return fall_back(one, otherwise, subject)
    return element(one.tag, one.vr, encode("\\".join(changed), one.vr, subject.charsets))


def _patient_name(one: Element, otherwise: Action, subject: Subject) -> Element:
    return element(one.tag, "PN", subject.patient_id.encode("ascii"))


def _patient_id(one: Element, otherwise: Action, subject: Subject) -> Element:
    return element(one.tag, "LO", subject.patient_id.encode("ascii"))


def _accession(one: Element, otherwise: Action, subject: Subject) -> Element:
    number = text_of(one, subject).strip()
    if not number:
        return empty(one)
    return element(one.tag, "SH", ("A" + subject.pseudonyms.word("accession", subject.patient_id, number)).encode("ascii"))


def _character_set(one: Element, otherwise: Action, subject: Subject) -> Element | None:
    return one if one.vr == "CS" and _CHARACTER_SETS.match(bytes(one.value)) else None


_APPLY: dict[Action, Callable[[Element, Action, Subject], Element | None]] = {
    Action.KEEP: _keep,
    Action.EMPTY: lambda one, otherwise, subject: empty(one),
    Action.DUMMY: lambda one, otherwise, subject: dummy(one, subject),
    Action.UID: _map_uids,
    Action.SHIFT: _shift,
    Action.CLEAN: _clean,
    Action.SCRUB: _scrub,
    # A sequence's rule on something that is no sequence.
    Action.RECURSE: lambda one, otherwise, subject: None,
    Action.RECURSE_DUMMY: lambda one, otherwise, subject: None,
    Action.CONTENT: lambda one, otherwise, subject: None,
    Action.PATIENT_NAME: _patient_name,
    Action.PATIENT_ID: _patient_id,
    Action.ACCESSION: _accession,
    Action.KEEP_CHARACTER_SET: _character_set,
    Action.KEEP_UID: _keep_uids,
    Action.KEEP_MEANING: lambda one, otherwise, subject: one,
}
