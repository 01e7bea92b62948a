"""Policies: which options of PS3.15 Annex E a name stands for, and what each row of the tables then says.

A policy is a set of the ten option columns of Table E.1-1 and of the two options about pixels; `make` refuses a set that
contradicts itself. `Rules` resolves an attribute at a place in an IOD to one action. Table E.1-1 speaks first, then the
options, then the supplementary rules for what no table names; a supplementary rule may only strengthen. Compound codes are
resolved by the Type of the attribute in the IOD (PS3.15 E.1.1, Table E.1-1a).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import resources

from pacs.dicom.dictionary import is_known, vr_of
from pacs.model.errors import ConfigurationError
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
    KEEP_MEANING = 17


@dataclass(frozen=True, slots=True)
class Rule:
    """An action, what to do where cleaning leaves nothing, and the option that asked for it ("" for the Basic Profile)."""

    action: Action
    otherwise: Action = Action.EMPTY
    option: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A named choice of options, made by `make`. `methods` are the codes of CID 7050 that it can lead to.

    `options` are columns of Table E.1-1. The two flags ask for options that no row speaks of: they are about pixels, and who
    cleans those says so. `temporal` is the value of Longitudinal Temporal Information Modified (0028,0303).
    """

    name: str
    options: tuple[str, ...]
    methods: tuple[str, ...]
    temporal: str
    clean_pixel_data: bool = False
    clean_recognizable_visual_features: bool = False

    @property
    def chosen(self) -> tuple[str, ...]:
        """All options, those about pixels among them, in the order of CID 7050."""
        flags = {"clean_pixel_data": self.clean_pixel_data, VISUAL_FEATURES: self.clean_recognizable_visual_features}
        return tuple(option for option in METHODS if option in self.options or flags.get(option, False))


RULES_EDITION = 2
"""Raised whenever the engine treats the same input differently."""

BASIC_PROFILE = "113100"
VISUAL_FEATURES = "clean_recognizable_visual_features"
METHODS: Mapping[str, str] = {
    "clean_pixel_data": "113101",
    VISUAL_FEATURES: "113102",
    "clean_graphics": "113103",
    "clean_structured_content": "113104",
    "clean_descriptors": "113105",
    "retain_long_full_dates": "113106",
    "retain_long_modified_dates": "113107",
    "retain_patient_characteristics": "113108",
    "retain_device_identity": "113109",
    "retain_uids": "113110",
    "retain_safe_private": "113111",
    "retain_institution_identity": "113112",
}
"""Every option of PS3.15 E.3 and its code in CID 7050."""

CONTRADICTIONS: tuple[tuple[str, str, str], ...] = (
    (
        "retain_long_full_dates",
        "retain_long_modified_dates",
        "dates can be kept or moved, not both (PS3.15 E.3.6)",
    ),
    (
        "retain_device_identity",
        "retain_long_modified_dates",
        "calibration dates kept for the device would disclose by how much the others were moved (PS3.15 E.3.6, E.3.7)",
    ),
)
"""Two options that cannot go together, and why."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")


def make(name: str, options: Iterable[str]) -> Policy:
    """Return the policy that follows these options.

    Raises
    ------
    ConfigurationError
        The name cannot stand in a data set, an option is unknown, or two contradict each other; the message says why.
    """
    wanted = list(options)
    if not _NAME.match(name):
        raise ConfigurationError("a policy's name is 1 to 32 lower-case letters, digits, - and _, beginning with no sign")
    for option in wanted:
        if option not in METHODS:
            raise ConfigurationError(f"policies.{name}: {option!r} is no option; there are {', '.join(METHODS)}")
    for first, second, reason in CONTRADICTIONS:
        if first in wanted and second in wanted:
            raise ConfigurationError(f"policies.{name}: {first} contradicts {second}: {reason}")
    columns = tuple(option for option in METHODS if option in wanted and option in tables.OPTIONS)
    return Policy(
        name,
        columns,
        (BASIC_PROFILE, *sorted(METHODS[option] for option in METHODS if option in wanted)),
        "UNMODIFIED"
        if "retain_long_full_dates" in wanted
        else "MODIFIED"
        if "retain_long_modified_dates" in wanted
        else "REMOVED",
        clean_pixel_data="clean_pixel_data" in wanted,
        clean_recognizable_visual_features=VISUAL_FEATURES in wanted,
    )


_RESEARCH = (
    "clean_pixel_data",
    "clean_graphics",
    "clean_structured_content",
    "clean_descriptors",
    "retain_long_modified_dates",
    "retain_patient_characteristics",
    "retain_safe_private",
)

POLICIES: Mapping[str, Policy] = {
    "basic": make("basic", ()),
    "research": make("research", _RESEARCH),
    "research-faceless": make("research-faceless", (*_RESEARCH, VISUAL_FEATURES)),
}
"""The policies that are always there."""


def with_own(own: Mapping[str, Iterable[str]]) -> Mapping[str, Policy]:
    """Return `POLICIES` and the user's own, given as name -> options. Raises `ConfigurationError` like `make`."""
    for name in own:
        if name in POLICIES:
            raise ConfigurationError(f"policies.{name}: this name is taken by a policy that is always there")
    return {**POLICIES, **{name: make(name, options) for name, options in own.items()}}


CONTENT_SEQUENCES = frozenset({0x0040A730, 0x00400555, 0x00400610, 0x0040B020})
"""Content, Acquisition Context, Specimen Preparation and Waveform Annotation Sequence (PS3.15 E.3.4)."""

CLASS_UIDS = frozenset(
    {0x00080016, 0x00081150, 0x0008001A, 0x0008001B, 0x00080062, 0x0008115A, 0x0008010C, 0x00080117, 0x00080118}
)
"""UIDs that say what something is, not which one: SOP classes, coding schemes, context groups, mapping resources."""

_ALWAYS_REMOVED = frozenset(
    {0x00880200, 0x00120062, 0x00120063, 0x00120064, 0x00280303, 0x00080300, 0x4FFE0001, 0x04000561, 0x04000550}
)
"""Icon, incoming de-identification claims, private data characteristics, MAC parameters, original and modified attributes."""

_VOCABULARY_DATES = frozenset({0x00080106, 0x00080107})
_EXPLANATIONS = frozenset({0x00281055, 0x00283003})
"""Window Center & Width Explanation and LUT Explanation: free text in which people have written names, and no row."""
_SHARED, _PER_FRAME = "52009229/", "52009230/"
_FUNCTIONAL_GROUP_TYPES = {0x00189074: "1C", 0x00189151: "1C", 0x00189516: "1C", 0x00189517: "1C", 0x00209158: "3"}
"""Frame dates and Frame Comments (PS3.3 C.7.6.16.2.2), which the Type tables lack."""
_SAFE_PRIVATE = Rule(Action.PRIVATE, option="retain_safe_private")
_DROPPED_GROUPS = frozenset({0x0000, 0x0002, 0x0004, 0x0012, 0xFFFA, 0xFFFC})
"""Commands, file meta, directory, Clinical Trial modules (only configuration may fill them), signatures, padding."""


class Rules:
    """The rules of one policy for one IOD; answers are remembered."""

    def __init__(self, policy: Policy, iod: str) -> None:
        self.policy = policy
        self._types = tables.types_of(iod)
        self._options = frozenset(policy.options)
        self.date = Action.DUMMY if policy.temporal == "REMOVED" else Action.SHIFT
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
            return _SAFE_PRIVATE if "retain_safe_private" in self._options else Rule(Action.REMOVE)
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
            return self._supplementary(tag)
        return self._tabled(path, tag, row)

    def _tabled(self, path: str, tag: int, row: tables.ProfileRow) -> Rule:
        basic = self._by_type(row.basic, path, tag)
        chosen = {option: action for option, action in row.options.items() if option in self._options}
        vr = row.vr or vr_of(tag)
        if not chosen:
            return Rule(_for_sequence(basic, tag) if vr == "SQ" else basic)
        # Of several options one that keeps goes before one that cleans: cleaning looks at what is kept as well.
        option = next((option for option, action in chosen.items() if action == "K"), next(iter(chosen)))
        cleaned = "C" in chosen.values()
        if vr in ("DA", "DT", "TM"):
            # Moving a date that says when a device or a vocabulary was made would disclose by how much (PS3.15 E.3.6).
            fixed = "retain_device_identity" in row.options or tag in _VOCABULARY_DATES
            return Rule(basic) if fixed and cleaned else Rule(Action.SHIFT, basic, option)
        if vr == "SQ":
            return Rule(Action.CONTENT if tag in CONTENT_SEQUENCES else Action.RECURSE, option=option)
        if vr == "AE":
            return Rule(Action.DUMMY, option=option)
        if vr == "UI":
            return Rule(Action.KEEP_UID, basic, option)
        if cleaned:
            if set(chosen) == {"clean_descriptors"} and not row.in_standard_composite_iod:
                return Rule(Action.REMOVE)
            return Rule(Action.CLEAN, basic, next(option for option, action in chosen.items() if action == "C"))
        return Rule(self._supplementary(tag).action, basic, option)

    def _supplementary(self, tag: int) -> Rule:
        """Return the rule for an attribute that no row names: by its VR, always at least looked at."""
        vr = vr_of(tag)
        if tag in _EXPLANATIONS:
            return Rule(Action.CLEAN if "clean_descriptors" in self._options else Action.REMOVE, Action.REMOVE)
        if vr in ("ST", "LT", "UT"):
            return Rule(Action.CLEAN, Action.DUMMY)
        return Rule(self.date if vr in ("DA", "DT", "TM") else _BY_VR.get(vr, Action.KEEP))

    def _by_type(self, code: str, path: str, tag: int) -> Action:
        if code in _SIMPLE:
            return _SIMPLE[code]
        if code == "X/Z/U*":
            return Action.RECURSE
        kind = self._type(path, tag)
        if not kind:
            # The Type tables do not know every macro: inside a sequence an unknown attribute may well be required.
            kind = "1" if path else "3"
        wanted = Action.DUMMY if kind.startswith("1") else Action.EMPTY if kind.startswith("2") else Action.REMOVE
        allowed = [_SIMPLE[part] for part in code.split("/")]
        if wanted in allowed:
            return wanted
        if wanted is Action.REMOVE:
            return Action.EMPTY
        # X/D for a Type 2 is empty; X/Z for a Type 1 cannot stay empty. Both are allowed: Z and D may strengthen each other.
        return Action.EMPTY if wanted is Action.EMPTY else Action.DUMMY

    def _type(self, path: str, tag: int) -> str:
        """Return the Type of an attribute, "" if it is not known. A functional group may be shared or stand with each frame."""
        for group, other in (("", ""), (_SHARED, _PER_FRAME), (_PER_FRAME, _SHARED)):
            if path.startswith(group):
                found = self._types.get(f"{other}{path[len(group) :]}{tag:08X}", "").partition("|")[0]
                if found:
                    return found
        return _FUNCTIONAL_GROUP_TYPES.get(tag, "") if path.startswith((_SHARED, _PER_FRAME)) else ""


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


@cache
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
        ("pacs.standard", "code_meanings.json.gz"),
        ("pacs.standard", "tcia_numeric.json"),
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


_SIMPLE = {"X": Action.REMOVE, "Z": Action.EMPTY, "D": Action.DUMMY, "K": Action.KEEP, "U": Action.UID}
_STRUCTURE_ONLY = frozenset({0x00700001, 0x0040A073, 0x00340001})
"""Graphic annotations, verifying observers, flows: their leaves have rows of their own."""

_BY_VR = {
    "SQ": Action.RECURSE, "UI": Action.UID, "PN": Action.EMPTY, "AE": Action.EMPTY, "UR": Action.EMPTY, "UN": Action.REMOVE,
    **dict.fromkeys(("CS", "LO", "SH", "ST", "LT", "UC", "UT"), Action.SCRUB),
}  # fmt: skip
_FIXED: dict[int, Action] = {
    0x00080005: Action.KEEP_CHARACTER_SET,
    0x00100010: Action.PATIENT_NAME,
    0x00100020: Action.PATIENT_ID,
    0x00080050: Action.ACCESSION,
    **dict.fromkeys(CLASS_UIDS, Action.KEEP_UID),
}
