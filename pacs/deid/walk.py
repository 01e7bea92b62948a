"""The engine: every element of every item, to any depth, by the rules of one policy.

Stays on the encoded data set. Within a series most elements repeat byte for byte, so what became of an element is remembered
by (tag, VR, value) in the memory of one patient, one identity set and one IOD, and of nobody else. What became of each is
noted as a fate, a word or two that hold no value; of the fates the report and the claims of an instance are made.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pacs.deid import content, private
from pacs.deid.actions import Subject, apply
from pacs.deid.policy import Action, Rule, Rules
from pacs.dicom import values
from pacs.dicom.building import BY_TAG
from pacs.dicom.elements import DEEPEST, element, find, items, sequence
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Element

PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_MEANING = 0x00080104
_MOST_REMEMBERED = 2048
_LARGEST_REMEMBERED = 2048
"""Entries, and bytes of a value: some megabytes for a patient at most."""
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "FL", "FD"})

KEPT, REMOVED, EMPTIED, REPLACED, CLEANED = "kept", "removed", "emptied", "replaced", "cleaned"
UIDS, DATES, PSEUDONYMS = "uids_replaced", "dates_moved", "pseudonyms"
PRIVATE_KEPT, PRIVATE_REMOVED, GRAPHICS_REMOVED, ITEMS_REMOVED = (
    "private_kept", "private_removed", "graphics_removed", "content_items_removed"
)  # fmt: skip
FATES = (
    KEPT, REMOVED, EMPTIED, REPLACED, CLEANED, UIDS, DATES, PSEUDONYMS, PRIVATE_KEPT, PRIVATE_REMOVED, GRAPHICS_REMOVED,
    ITEMS_REMOVED,
)  # fmt: skip
"""What can become of an element: the keys of a report."""
_BY_ACTION = {
    Action.EMPTY: EMPTIED, Action.DUMMY: REPLACED, Action.UID: UIDS, Action.KEEP_UID: UIDS, Action.SHIFT: DATES,
    Action.CLEAN: CLEANED, Action.SCRUB: CLEANED, Action.KEEP: CLEANED, Action.PATIENT_NAME: PSEUDONYMS,
    Action.PATIENT_ID: PSEUDONYMS, Action.ACCESSION: PSEUDONYMS,
}  # fmt: skip
_Treated = tuple[Element | None, tuple[str, ...]]


@dataclass(slots=True)
class Memory:
    """What one walk remembers for the next: made for one subject and one set of rules."""

    rules: Rules
    subject: Subject
    top: dict[int, tuple[Rule, Action, str]] = field(default_factory=dict, repr=False)
    treated: dict[tuple[int, str, bytes], _Treated] = field(default_factory=dict, repr=False)
    privates: dict[tuple[int, str, bytes, str], _Treated] = field(default_factory=dict, repr=False)
    harmless: set[bytes] = field(default_factory=set, repr=False)


@dataclass(frozen=True, slots=True)
class Walked:
    """What came of a walk.

    `report` counts fates; `options` are the options of Table E.1-1 that had something to say on this instance.
    """

    kept: list[Element] = field(repr=False)
    report: dict[str, int]
    options: frozenset[str]


def deidentify(elements: Sequence[Element], memory: Memory) -> Walked:
    """Treat the top-level elements; what is kept comes in tag order."""
    kept: list[Element] = []
    fates: list[str] = []
    rules, subject, treated = memory.rules, memory.subject, memory.treated
    top = memory.top
    privates: list[Element] = []
    for one in elements:
        tag = one.tag
        known = top.get(tag)
        if known is None:
            rule = rules.rule("", tag)
            if tag in PIXELS:
                rule = Rule(Action.KEEP)
            known = top[tag] = (rule, rule.action, _noted(KEPT, rule) if rule.action is Action.KEEP else _gone(tag, rule))
        rule, action, fate = known
        if action is Action.REMOVE:
            fates.append(fate)
            continue
        if action is Action.PRIVATE:
            privates.append(one)
            continue
        value = one.value
        if action is Action.KEEP and (one.vr in _NUMBERS or tag in PIXELS):
            kept.append(one)
            fates.append(fate)
        elif isinstance(value, bytes) and len(value) <= _LARGEST_REMEMBERED:
            key = (tag, one.vr, value)
            done = treated.get(key)
            if done is None:
                noted: list[str] = []
                found = treat(one, rule, rules, subject, "", 0, noted)
                if len(treated) >= _MOST_REMEMBERED:
                    treated.clear()
                done = treated[key] = (found, tuple(noted))
            if done[0] is not None:
                kept.append(done[0])
            fates += done[1]
        else:
            found = treat(one, rule, rules, subject, "", 0, fates)
            if found is not None:
                kept.append(found)
    if privates:
        safe = _privates(privates, private.declared(elements), rules, subject, "", 0, fates, memory.privates)
        if safe:
            kept += safe
            kept.sort(key=BY_TAG)
    return _walked(kept, fates)


def treat(
    one: Element, rule: Rule, rules: Rules, subject: Subject, path: str, depth: int, fates: list[str] | None = None
) -> Element | None:
    """Return what stands in the place of `one`, which lies at `path`; what became of it and all within goes to `fates`."""
    fates = [] if fates is None else fates
    if one.vr != "SQ":
        found = apply(one, rule.action, rule.otherwise, subject)
        fates.append(_fate(one, found, rule))
        return found
    if rule.action is Action.REMOVE:
        fates.append(_noted(REMOVED, rule))
        return None
    if rule.action is Action.EMPTY:
        fates.append(_noted(EMPTIED, rule))
        return sequence(one.tag, ())
    if depth > DEEPEST:
        raise NotUnderstood(f"sequences are nested deeper than {DEEPEST}")
    inside = items(one.value)
    below = f"{path}{one.tag:08X}/"
    fates.append(_noted(KEPT, rule))
    if rule.action is Action.CONTENT:
        return sequence(one.tag, _content(inside, rules, subject, below, depth + 1, _is_referenced(one), fates))
    blank = rule.action in (Action.DUMMY, Action.RECURSE_DUMMY)
    return sequence(one.tag, [_item(item, rules, subject, below, depth + 1, fates, blank=blank) for item in inside])


def _item(
    item: Sequence[Element],
    rules: Rules,
    subject: Subject,
    path: str,
    depth: int,
    fates: list[str],
    *,
    blank: bool = False,
    referenced: bool = False,
    overrides: Mapping[int, Rule] | None = None,
) -> list[Element]:
    """Treat the elements of one item; `blank` overwrites its text leaves (D on a sequence keeps structure, not content)."""
    declared = find(item, values.SPECIFIC_CHARACTER_SET)
    if declared is not None:
        subject = replace(subject, charsets=values.charsets_of(bytes(declared.value)))
    kept: list[Element] = []
    has_private = False
    for one in item:
        tag = one.tag
        if tag >> 16 & 1:
            has_private = True
            continue
        rule = overrides.get(tag) if overrides else None
        if rule is None:
            rule = rules.rule(path, tag)
            if tag == _MEANING and not blank:
                one, rule = content.meaning(one, item, subject)
            if blank:
                rule = _blanked(rule, one)
        if rule.action is Action.CONTENT and one.vr == "SQ":
            fates.append(_noted(KEPT, rule))
            found: Element | None = sequence(
                tag, _content(items(one.value), rules, subject, f"{path}{tag:08X}/", depth + 1, referenced, fates)
            )
        else:
            found = treat(one, rule, rules, subject, path, depth, fates)
        if found is not None:
            kept.append(found)
    if has_private and "retain_safe_private" in rules.policy.options:
        kept += _privates(item, private.declared(item), rules, subject, path, depth, fates, {})
        kept.sort(key=BY_TAG)
    elif has_private:
        fates.append(PRIVATE_REMOVED)
    return kept


def _content(
    inside: Sequence[Sequence[Element]],
    rules: Rules,
    subject: Subject,
    path: str,
    depth: int,
    referenced: bool,
    fates: list[str],
) -> list[list[Element]]:
    if depth > DEEPEST:
        raise NotUnderstood(f"sequences are nested deeper than {DEEPEST}")
    kept = []
    for item in inside:
        chosen = (
            content.item_rules(item, rules.policy, referenced) if find(item, content.VALUE_TYPE) is not None else content.Item()
        )
        if chosen.removed:
            fates.append(ITEMS_REMOVED)
        else:
            kept.append(_item(item, rules, subject, path, depth, fates, referenced=referenced, overrides=chosen.overrides))
    return kept


def _blanked(rule: Rule, one: Element) -> Rule:
    """Strengthen a rule for the leaves of a sequence that is replaced by a dummy: schemes, classes and types stay."""
    if one.tag in (0x00080102, 0x0040A040) or rule.action in (Action.REMOVE, Action.EMPTY, Action.UID, Action.KEEP_UID):
        return rule
    if one.vr == "SQ":
        return Rule(Action.RECURSE_DUMMY)
    return rule if rule.action is Action.SHIFT and one.vr in ("DA", "DT", "TM") else Rule(Action.DUMMY)


def _privates(
    elements: Sequence[Element],
    declared: Mapping[tuple[int, str], private.Declared],
    rules: Rules,
    subject: Subject,
    path: str,
    depth: int,
    fates: list[str],
    remembered: dict[tuple[int, str, bytes, str], _Treated],
) -> list[Element]:
    """Return the safe private elements of one data set or item, and the creators of their blocks."""
    blocks = private.blocks(elements)
    kept: list[Element] = []
    used: set[int] = set()
    lost = 0
    for one in elements:
        tag = one.tag
        creator = blocks.get(tag >> 8)
        if creator is None:
            lost += tag >> 16 & 1 and tag & 0xFFFF > 0xFF
            continue
        value = one.value
        key = (tag, one.vr, value, creator) if isinstance(value, bytes) and len(value) <= _LARGEST_REMEMBERED else None
        done = remembered.get(key) if key is not None and not declared else None
        if done is None:
            noted: list[str] = []
            found = _private(one, creator, declared, rules, subject, path, depth, noted)
            done = (found, tuple(noted))
            if key is not None and not declared:
                if len(remembered) >= _MOST_REMEMBERED:
                    remembered.clear()
                remembered[key] = done
        fates += done[1]
        if done[0] is not None:
            kept.append(done[0])
            used.add(tag >> 8)
    if lost:
        fates += [PRIVATE_REMOVED] * lost
    kept += [element((block >> 8 << 16) | (block & 0xFF), "LO", blocks[block].encode("latin-1")) for block in used]
    return kept


def _private(
    one: Element,
    creator: str,
    declared: Mapping[tuple[int, str], private.Declared],
    rules: Rules,
    subject: Subject,
    path: str,
    depth: int,
    fates: list[str],
) -> Element | None:
    known = private.safe(one, creator)
    if known is None:
        fates.append(PRIVATE_REMOVED)
        return None
    said = declared.get((one.tag >> 16, creator))
    asked = said.action(one.tag & 0xFF) if said is not None else None
    if asked is not None:
        found = treat(known, Rule(asked), rules, subject, path, depth)
    elif known.vr == "SQ":
        found = treat(known, Rule(Action.RECURSE), rules, subject, path, depth, fates)
    elif known.vr in ("DA", "DT"):
        found = apply(known, rules.date, Action.REMOVE, subject)
    elif known.vr in ("DS", "IS") and subject.identity.echoes(bytes(known.value).decode("latin-1")):
        found = None
    else:
        found = apply(known, Action.CLEAN if known.vr in _PRIVATE_TEXT else Action.KEEP, Action.REMOVE, subject)
    fates.append(_noted(PRIVATE_KEPT, _SAFE) if found is not None else PRIVATE_REMOVED)
    return found


_SAFE = Rule(Action.KEEP, option="retain_safe_private")
_PRIVATE_TEXT = frozenset({"LO", "SH", "ST", "LT", "UC", "UT"})


def _walked(kept: list[Element], fates: list[str]) -> Walked:
    report: dict[str, int] = {}
    options = set()
    for fate, count in Counter(fates).items():
        word, _, option = fate.partition("|")
        report[word] = report.get(word, 0) + count
        if option:
            options.add(option)
    return Walked(kept, report, frozenset(options))


def _fate(one: Element, found: Element | None, rule: Rule) -> str:
    if found is None:
        return _noted(REMOVED, rule)
    if found is one or found.value == one.value:
        return _noted(KEPT, rule)
    if not len(found.value):
        return _noted(EMPTIED, rule)
    return _noted(_BY_ACTION.get(rule.action, CLEANED), rule)


def _gone(tag: int, rule: Rule) -> str:
    """Return the fate of an element that is removed unseen."""
    group = tag >> 16
    if group & 1:
        return PRIVATE_REMOVED
    return GRAPHICS_REMOVED if 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF else _noted(REMOVED, rule)


def _noted(fate: str, rule: Rule) -> str:
    return f"{fate}|{rule.option}" if rule.option else fate


def _is_referenced(one: Element) -> bool:
    """Say whether any item within refers to another by its place: Referenced Content Item Identifier (0040,DB73)."""
    return b"\x40\x00\x73\xdb" in bytes(one.value)
