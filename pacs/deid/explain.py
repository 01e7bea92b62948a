"""Why: what de-identification would do to an object, element by element, and by which row of which table.

Compares what comes with what the engine makes of it, so that what is told is what happens; the reason is looked up in the same
rules. Values stay out of `repr` and are shown by nobody who was not asked to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pacs.deid import content, policy
from pacs.deid.policy import Action, Rules
from pacs.deid.profile import Deidentifier
from pacs.dicom import values
from pacs.dicom.dictionary import is_known, keyword_of
from pacs.dicom.elements import find, items
from pacs.model.errors import ArchiveError, DataSetMismatch, NotUnderstood, Quarantined
from pacs.model.instance import Element, Received

KEPT, REMOVED, EMPTIED, CHANGED, ADDED = "kept", "removed", "emptied", "changed", "added"
_LONGEST_VALUE = 120
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_DOING = {
    Action.REMOVE: "remove",
    Action.KEEP: "keep",
    Action.EMPTY: "empty",
    Action.DUMMY: "dummy value",
    Action.UID: "new UID",
    Action.SHIFT: "move the date",
    Action.CLEAN: "clean the text",
    Action.SCRUB: "look for the identity",
    Action.RECURSE: "treat its items",
    Action.CONTENT: "treat its content items",
    Action.PATIENT_NAME: "pseudonym",
    Action.PATIENT_ID: "pseudonym",
    Action.ACCESSION: "pseudonym",
    Action.KEEP_CHARACTER_SET: "keep",
    Action.PRIVATE: "keep if safe",
    Action.KEEP_UID: "keep: it names a class",
    Action.RECURSE_DUMMY: "dummy values within",
    Action.KEEP_MEANING: "the meaning that PS3.16 gives",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One element: where it stands, what becomes of it, what was to be done, and which row says so."""

    path: str
    tag: int
    keyword: str
    vr: str
    fate: str
    action: str
    why: str
    before: str = field(default="", repr=False)
    after: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The tag as people write it."""
        return f"({self.tag >> 16:04X},{self.tag & 0xFFFF:04X})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of an object: "stored", "held" (until its pixels are clean), "quarantined" or "refused", and why."""

    outcome: str
    reason: str
    policy: str
    methods: tuple[str, ...]
    pending: tuple[str, ...]
    lines: tuple[Line, ...]


def explain(deidentifier: Deidentifier, received: Received) -> Explanation:
    """Return what would become of `received` and of each of its elements.

    Raises `NotUnderstood` if it cannot be parsed: then nothing can be said about elements.
    """
    methods: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    try:
        made = deidentifier.deidentify(received)
        methods, pending = made.methods, made.pending
        outcome, reason = ("held", f"until it is clean: {', '.join(pending)}") if pending else ("stored", "")
    except (Quarantined, DataSetMismatch, NotUnderstood) as error:
        outcome, reason = "quarantined", str(error)
    except ArchiveError as error:
        outcome, reason = "refused", str(error)
    before, after, rules = deidentifier.treated(received)
    charsets = values.charset(before)
    lines = tuple(_lines(before, after, rules, "", "", charsets))
    return Explanation(outcome, reason, rules.policy.name, methods, pending, lines)


def _lines(
    before: Sequence[Element], after: Sequence[Element], rules: Rules, path: str, shown: str, charsets: tuple[str, ...]
) -> Iterator[Line]:
    there = {one.tag: one for one in after}
    for one in before:
        made = there.pop(one.tag, None)
        rule = rules.rule(path, one.tag)
        fate = _fate(one, made)
        yield Line(
            shown,
            one.tag,
            keyword_of(one.tag),
            one.vr,
            fate,
            _DOING[rule.action],
            _why(one.tag, rules, path),
            _shown(one, charsets),
            _shown(made, charsets) if made is not None and fate == CHANGED else "",
        )
        if one.vr == "SQ" and made is not None and made.vr == "SQ":
            yield from _within(one, made, rules, path, shown, charsets)
    for one in there.values():
        yield Line(shown, one.tag, keyword_of(one.tag), one.vr, ADDED, "add", "", "", _shown(one, charsets))


def _within(one: Element, made: Element, rules: Rules, path: str, shown: str, charsets: tuple[str, ...]) -> Iterator[Line]:
    below = f"{path}{one.tag:08X}/"
    kept = items(made.value)
    inside = items(one.value)
    following = iter(kept)
    shorter = len(kept) < len(inside)
    for number, item in enumerate(inside, 1):
        place = f"{shown}{keyword_of(one.tag) or f'{one.tag:08X}'}[{number}] > "
        if shorter and find(item, content.VALUE_TYPE) is not None and content.item_rules(item, rules.policy, False).removed:
            code, scheme = content.concept(item)
            why = f"Table E.3.4-1: concept {code} of {scheme} is X"
            yield Line(place, one.tag, keyword_of(one.tag), "SQ", REMOVED, "remove the content item", why)
            continue
        treated = next(following, None)
        if treated is not None:
            yield from _lines(item, treated, rules, below, place, values.charset(item) if _declares(item) else charsets)


def _declares(item: Sequence[Element]) -> bool:
    return find(item, values.SPECIFIC_CHARACTER_SET) is not None


def _fate(one: Element, made: Element | None) -> str:
    if made is None:
        return REMOVED
    if one.vr == "SQ":
        return EMPTIED if len(one.value) and not len(made.value) else KEPT
    if made.value == one.value or bytes(made.value).rstrip(b"\0 ") == bytes(one.value).rstrip(b"\0 "):
        return KEPT
    return CHANGED if len(made.value) else EMPTIED


def _why(tag: int, rules: Rules, path: str) -> str:
    """Name the row that decides."""
    if tag >> 16 & 1:
        safe = "retain_safe_private" in rules.policy.options
        return "private: Table E.3.10-1 names what is safe" if safe else "Table E.1-1, private attributes: X"
    group = tag >> 16
    if 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
        return "Table E.1-1, curves and overlays: X"
    row = policy.table().get(tag)
    if row is not None:
        kind = rules._type(path, tag)
        said = f"Table E.1-1: {row.basic}" + (f" (Type {kind})" if kind and "/" in row.basic else "")
        chosen = [f"{option}: {action}" for option, action in row.options.items() if option in rules.policy.options]
        return "; ".join((said, *chosen))
    if tag & 0xFFFF == 0:
        return "a group length"
    if not is_known(tag):
        return "no edition of PS3.6 knows it"
    if rules.rule(path, tag).action is Action.REMOVE:
        return "never let in: claims, signatures, icons, trial modules"
    return "in no table: by its VR"


def _shown(one: Element, charsets: tuple[str, ...]) -> str:
    if one.vr == "SQ":
        return ""
    if one.vr in _BULK or len(one.value) > 4096:
        return f"{len(one.value)} bytes"
    try:
        text = "\\".join(values.strings(one, charsets))
    except (ValueError, KeyError):
        return f"{len(one.value)} bytes"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
