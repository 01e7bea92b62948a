"""The engine: every element of every item, to any depth, by the rules of one policy.

Stays on the encoded data set. Within a series most elements repeat byte for byte, so what became of an element is remembered
by (tag, VR, value) in the memory of one patient, one identity set and one IOD, and of nobody else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pacs.deid import content, private
from pacs.deid.actions import Subject, apply
from pacs.deid.policy import Action, Rule, Rules
from pacs.dicom import values
from pacs.dicom.elements import DEEPEST, element, find, items, sequence
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Element

PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_MEANING = 0x00080104
_MARKER: Element = Element(0, "", b"", b"")
_MOST_REMEMBERED = 2048
_LARGEST_REMEMBERED = 2048
"""Entries, and bytes of a value: some megabytes for a patient at most."""
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "FL", "FD"})


@dataclass(slots=True)
class Memory:
    """What one walk remembers for the next: made for one subject and one set of rules."""

    rules: Rules
    subject: Subject
    top: dict[int, Rule] = field(default_factory=dict, repr=False)
    treated: dict[tuple[int, str, bytes], Element | None] = field(default_factory=dict, repr=False)
    harmless: set[bytes] = field(default_factory=set, repr=False)


def deidentify(elements: Sequence[Element], memory: Memory) -> list[Element]:
    """Return the top-level elements without identity, in tag order."""
    kept: list[Element] = []
    rules, subject, treated = memory.rules, memory.subject, memory.treated
    top = memory.top
    privates: list[Element] = []
    for one in elements:
        tag = one.tag
        if tag in PIXELS:
            kept.append(one)
            continue
        rule = top.get(tag)
        if rule is None:
            rule = top[tag] = rules.rule("", tag)
        action = rule.action
        if action is Action.REMOVE:
            continue
        if action is Action.PRIVATE:
            privates.append(one)
            continue
        value = one.value
        if action is Action.KEEP and one.vr in _NUMBERS:
            kept.append(one)
        elif isinstance(value, bytes) and len(value) <= _LARGEST_REMEMBERED:
            key = (tag, one.vr, value)
            found = treated.get(key, _MARKER)
            if found is _MARKER:
                found = treat(one, rule, rules, subject, "", 0)
                if len(treated) >= _MOST_REMEMBERED:
                    treated.clear()
                treated[key] = found
            if found is not None:
                kept.append(found)
        else:
            found = treat(one, rule, rules, subject, "", 0)
            if found is not None:
                kept.append(found)
    if privates:
        safe = _privates(privates, rules, subject, "", 0)
        if safe:
            kept += safe
            kept.sort(key=lambda one: one.tag)
    return kept


def treat(one: Element, rule: Rule, rules: Rules, subject: Subject, path: str, depth: int) -> Element | None:
    """Return what stands in the place of `one`, which lies at `path`."""
    if one.vr != "SQ":
        return apply(one, rule.action, rule.otherwise, subject)
    if rule.action is Action.REMOVE:
        return None
    if rule.action is Action.EMPTY:
        return sequence(one.tag, ())
    if depth > DEEPEST:
        raise NotUnderstood(f"sequences are nested deeper than {DEEPEST}")
    inside = items(one.value)
    below = f"{path}{one.tag:08X}/"
    if rule.action is Action.CONTENT:
        return sequence(one.tag, _content(inside, rules, subject, below, depth + 1, _is_referenced(one)))
    blank = rule.action in (Action.DUMMY, Action.RECURSE_DUMMY)
    return sequence(one.tag, [_item(item, rules, subject, below, depth + 1, blank=blank) for item in inside])


def _item(
    item: Sequence[Element],
    rules: Rules,
    subject: Subject,
    path: str,
    depth: int,
    *,
    blank: bool = False,
    referenced: bool = False,
    overrides: Mapping[int, Rule] | None = None,
) -> list[Element]:
    """Treat the elements of one item; `blank` overwrites its text leaves (D on a sequence keeps structure, not content)."""
    declared = find(item, values.SPECIFIC_CHARACTER_SET)
    if declared is not None:
        subject = replace(subject, charsets=values.charsets_of(bytes(declared.value)))
    meaning = content.meaning_rule(item)
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
            if tag == _MEANING and meaning is not None:
                rule = meaning
            if blank:
                rule = _blanked(rule, one)
        if rule.action is Action.CONTENT and one.vr == "SQ":
            found: Element | None = sequence(
                tag, _content(items(one.value), rules, subject, f"{path}{tag:08X}/", depth + 1, referenced)
            )
        else:
            found = treat(one, rule, rules, subject, path, depth)
        if found is not None:
            kept.append(found)
    if has_private and "retain_safe_private" in rules.policy.options:
        kept += _privates(item, rules, subject, path, depth)
        kept.sort(key=lambda one: one.tag)
    return kept


def _content(
    inside: Sequence[Sequence[Element]], rules: Rules, subject: Subject, path: str, depth: int, referenced: bool
) -> list[list[Element]]:
    if depth > DEEPEST:
        raise NotUnderstood(f"sequences are nested deeper than {DEEPEST}")
    kept = []
    for item in inside:
        chosen = (
            content.item_rules(item, rules.policy, referenced) if find(item, content.VALUE_TYPE) is not None else content.Item()
        )
        if not chosen.removed:
            kept.append(_item(item, rules, subject, path, depth, referenced=referenced, overrides=chosen.overrides))
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
    rules: Rules,
    subject: Subject,
    path: str,
    depth: int,
) -> list[Element]:
    """Return the safe private elements of one data set or item, and the creators of their blocks."""
    blocks = private.blocks(elements)
    if not blocks:
        return []
    kept: list[Element] = []
    used: set[int] = set()
    for one in elements:
        creator = blocks.get(one.tag >> 8)
        known = private.safe(one, creator) if creator else None
        if known is None:
            continue
        if known.vr == "SQ":
            found = treat(known, Rule(Action.RECURSE), rules, subject, path, depth)
        else:
            action = (
                Action.SHIFT if known.vr in ("DA", "DT") else Action.KEEP if known.vr not in _PRIVATE_TEXT else Action.CLEAN
            )
            found = apply(known, action, Action.REMOVE, subject)
        if found is not None:
            kept.append(found)
            used.add(one.tag >> 8)
    kept += [element((block >> 8 << 16) | (block & 0xFF), "LO", blocks[block].encode("latin-1")) for block in used]
    return kept


_PRIVATE_TEXT = frozenset({"LO", "SH", "ST", "LT", "UC", "UT"})


def _is_referenced(one: Element) -> bool:
    """Say whether any item within refers to another by its place: Referenced Content Item Identifier (0040,DB73)."""
    return b"\x40\x00\x73\xdb" in bytes(one.value)
