"""Policies: which options of PS3.15 Annex E a name stands for, and what each row of the tables then says.

`Rules` resolves an attribute at a place in an IOD to one action. Table E.1-1 speaks first, then the options, then the
supplementary rules for what no table names; a supplementary rule may only strengthen. Compound codes are resolved by the
Type of the attribute in the IOD (PS3.15 E.1.1, Table E.1-1a).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from importlib import resources

from pacs.dicom.dictionary import is_known, vr_of
from pacs.standard import tables


class Action(IntEnum):
    """What happens to an element; each VR has its own way of obeying (`actions.py`)."""

    REMOVE = 0
    KEEP = 1
    EMPTY = 2
    DUMMY = 3
    UID = 4
    SHIFT = 5
    CLEAN = 6
    SCRUB = 7
    RECURSE = 8
    CONTENT = 9
    PATIENT_NAME = 10
    PATIENT_ID = 11
    ACCESSION = 12
    KEEP_CHARACTER_SET = 13
    PRIVATE = 14
    KEEP_UID = 15
    RECURSE_DUMMY = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """An action, and what to do where cleaning leaves nothing."""

    action: Action
    otherwise: Action = Action.EMPTY


@dataclass(frozen=True, slots=True)
class Policy:
    """A named choice of options. `methods` are the codes of CID 7050 that are always satisfied.

    The two flags ask for options that no row of Table E.1-1 speaks of: they are about pixels, and who cleans those says so.
    """

    name: str
    options: tuple[str, ...]
    methods: tuple[str, ...]
    temporal: str
    clean_pixel_data: bool = False
    clean_recognizable_visual_features: bool = False


RULES_EDITION = 1
"""Raised whenever the engine treats the same input differently."""

_RESEARCH = Policy(
    "research",
    (
        "clean_graphics",
        "clean_structured_content",
        "clean_descriptors",
        "retain_long_modified_dates",
        "retain_patient_characteristics",
        "retain_safe_private",
    ),
    ("113100", "113104", "113105", "113107", "113108", "113111"),
    "MODIFIED",
    clean_pixel_data=True,
)

POLICIES: Mapping[str, Policy] = {
    "basic": Policy("basic", (), ("113100",), "REMOVED"),
    "research": _RESEARCH,
    "research-faceless": replace(_RESEARCH, name="research-faceless", clean_recognizable_visual_features=True),
}

CONTENT_SEQUENCES = frozenset({0x0040A730, 0x00400555, 0x00400610, 0x0040B020})
"""Content, Acquisition Context, Specimen Preparation and Waveform Annotation Sequence (PS3.15 E.3.4)."""

_CLASS_UIDS = frozenset(
    {0x00080016, 0x00081150, 0x0008001A, 0x0008001B, 0x00080062, 0x0008115A, 0x0008010C, 0x00080117, 0x00080118}
)
"""UIDs that say what something is, not which one: SOP classes, coding schemes, context groups, mapping resources."""

_ALWAYS_REMOVED = frozenset(
    {0x00880200, 0x00120062, 0x00120063, 0x00120064, 0x00280303, 0x00080300, 0x4FFE0001, 0x04000561, 0x04000550}
)
"""Icon, incoming de-identification claims, private data characteristics, MAC parameters, original and modified attributes."""

_VOCABULARY_DATES = frozenset({0x00080106, 0x00080107})
_DROPPED_GROUPS = frozenset({0x0000, 0x0002, 0x0004, 0x0012, 0xFFFA, 0xFFFC})
"""Commands, file meta, directory, Clinical Trial modules (only configuration may fill them), signatures, padding."""


class Rules:
    """The rules of one policy for one IOD; answers are remembered."""

    def __init__(self, policy: Policy, iod: str) -> None:
        self.policy = policy
        self._types = tables.types_of(iod)
        self._options = frozenset(policy.options)
        self._known: dict[tuple[str, int], Rule] = {}

    def rule(self, path: str, tag: int) -> Rule:
        """Return the rule for `tag` in the item at `path` ("" at the top, else "TAG/TAG/")."""
        rule = self._known.get((path, tag))
        if rule is None:
            rule = self._resolve(path, tag)
            if len(self._known) < 20_000:
                self._known[path, tag] = rule
        return rule

    def _resolve(self, path: str, tag: int) -> Rule:
        group = tag >> 16
        if group & 1:
            return Rule(Action.PRIVATE if "retain_safe_private" in self._options else Action.REMOVE)
        fixed = _FIXED.get(tag)
        if fixed is not None:
            return Rule(fixed)
        if (
            group in _DROPPED_GROUPS
            or tag in _ALWAYS_REMOVED
            or tag & 0xFFFF == 0
            or 0x5000 <= group <= 0x50FF
            or 0x6000 <= group <= 0x60FF
        ):
            return Rule(Action.REMOVE)
        if not is_known(tag):
            return Rule(Action.REMOVE)
        row = table().get(tag)
        if row is None:
            return _supplementary(tag)
        return self._tabled(path, tag, row)

    def _tabled(self, path: str, tag: int, row: tables.ProfileRow) -> Rule:
        basic = self._by_type(row.basic, path, tag)
        chosen = {option: action for option, action in row.options.items() if option in self._options}
        vr = row.vr or vr_of(tag)
        if vr in ("DA", "DT", "TM"):
            # Moving a date that says when a device or a vocabulary was made would disclose by how much (PS3.15 E.3.6).
            fixed = "retain_device_identity" in row.options or tag in _VOCABULARY_DATES
            return Rule(Action.SHIFT, basic) if chosen and not fixed else Rule(basic)
        if not chosen:
            return Rule(_for_sequence(basic, tag) if vr == "SQ" else basic)
        if vr == "SQ":
            return Rule(Action.CONTENT if tag in CONTENT_SEQUENCES else Action.RECURSE)
        if "C" in chosen.values():
            only_descriptors = set(chosen) == {"clean_descriptors"}
            if only_descriptors and not row.in_standard_composite_iod:
                return Rule(Action.REMOVE)
            return Rule(Action.CLEAN, basic)
        return Rule(_supplementary(tag).action, basic)

    def _by_type(self, code: str, path: str, tag: int) -> Action:
        if code in _SIMPLE:
            return _SIMPLE[code]
        if code == "X/Z/U*":
            return Action.RECURSE
        kind = self._types.get(f"{path}{tag:08X}", "").partition("|")[0]
        if not kind:
            # The Type tables know no functional groups: inside a sequence an unknown attribute may well be required.
            kind = "1" if path else "3"
        wanted = Action.DUMMY if kind.startswith("1") else Action.EMPTY if kind.startswith("2") else Action.REMOVE
        allowed = [_SIMPLE[part] for part in code.split("/")]
        if wanted in allowed:
            return wanted
        if wanted is Action.REMOVE:
            return Action.EMPTY
        # X/D for a Type 2 is empty; X/Z for a Type 1 cannot stay empty. Both are allowed: Z and D may strengthen each other.
        return Action.EMPTY if wanted is Action.EMPTY else Action.DUMMY


@cache
def table() -> Mapping[int, tables.ProfileRow]:
    """Table E.1-1 by tag; its four rows for families of elements are in `Rules._resolve`."""
    found = {}
    for row in tables.profile_rows():
        digits = row.tag.strip("()").replace(",", "")
        if len(digits) == 8 and "x" not in digits:
            found[int(digits, 16)] = row
    return found


@cache
def content_actions() -> Mapping[tuple[str, str, str], tables.ContentRow]:
    """Table E.3.4-1 by (code, scheme, value type)."""
    return {(row.code, row.scheme, row.value_type): row for row in tables.content_rows()}


def digest(policy: Policy) -> str:
    """Return 16 hexadecimal digits that change when this policy would treat an object differently."""
    content = hashlib.sha256(
        json.dumps(
            [
                RULES_EDITION,
                policy.name,
                policy.options,
                policy.methods,
                policy.temporal,
                policy.clean_pixel_data,
                policy.clean_recognizable_visual_features,
            ]
        ).encode()
    )
    for package, name in (
        ("pacs.standard", "table_e1_1.json"),
        ("pacs.standard", "table_e3_4_1.json"),
        ("pacs.standard", "table_e3_10_1.json"),
        ("pacs.standard", "iod_types.json.gz"),
        ("pacs.standard", "dictionary_2026c.json"),
        ("pacs.deid", "vocabulary.txt"),
    ):
        content.update(hashlib.sha256(resources.files(package).joinpath(name).read_bytes()).digest())
    return content.hexdigest()[:16]


def _for_sequence(basic: Action, tag: int) -> Action:
    """D keeps a sequence's structure and acts on its leaves."""
    if basic is not Action.DUMMY:
        return basic
    if tag in CONTENT_SEQUENCES:
        return Action.CONTENT
    return Action.RECURSE if tag in _STRUCTURE_ONLY else Action.RECURSE_DUMMY


def _supplementary(tag: int) -> Rule:
    """Return the rule for an attribute that no row names: by its VR, always at least looked at."""
    return Rule(_BY_VR.get(vr_of(tag), Action.KEEP))


_SIMPLE = {"X": Action.REMOVE, "Z": Action.EMPTY, "D": Action.DUMMY, "K": Action.KEEP, "U": Action.UID}
_STRUCTURE_ONLY = frozenset({0x00700001, 0x0040A073, 0x00340001})
"""Graphic annotations, verifying observers, flows: their leaves have rows of their own."""

_BY_VR = {
    "SQ": Action.RECURSE, "UI": Action.UID, "PN": Action.EMPTY, "AE": Action.EMPTY, "UR": Action.EMPTY, "UN": Action.REMOVE,
    **dict.fromkeys(("DA", "DT", "TM"), Action.SHIFT),
    **dict.fromkeys(("CS", "LO", "SH", "ST", "LT", "UC", "UT"), Action.SCRUB),
}  # fmt: skip
_FIXED: dict[int, Action] = {
    0x00080005: Action.KEEP_CHARACTER_SET,
    0x00100010: Action.PATIENT_NAME,
    0x00100020: Action.PATIENT_ID,
    0x00080050: Action.ACCESSION,
    **dict.fromkeys(_CLASS_UIDS, Action.KEEP_UID),
}
