"""What a query asks, after a door has parsed it: a `Query` is valid, so nobody checks it twice (PS3.4 C.2.2.2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Answer = Mapping[str, str]
"""One match: keyword -> value, several values joined by a backslash."""


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


@dataclass(frozen=True, slots=True)
class Single:
    """Single Value Matching, PS3.4 C.2.2.2.1; case-insensitive for PN."""

    value: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Wild Card Matching, PS3.4 C.2.2.2.4: "*" any characters or none, "?" exactly one; everything else is literal."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Between:
    """Range Matching, PS3.4 C.2.2.2.5, both ends included; "" is an open end. Values compare as DICOM strings (DA, TM, DT)."""

    low: str
    high: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """List of UID Matching, PS3.4 C.2.2.2.2, and lists of values where a door allows them."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Empty:
    """Empty Value Matching, PS3.4 C.2.2.2.7: the attribute is missing or has no value."""


@dataclass(frozen=True, slots=True)
class Within:
    """Sequence Matching, PS3.4 C.2.2.2.6: one item of the sequence meets all of `keys`."""

    keys: "Mapping[str, Match]"


Valued = Single | Wildcard | Between | AnyOf
Match = Valued | Empty | Within


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the index.

    `matches` holds only keys that restrict (universal matching is absence), by keyword. `return_keys` are keywords asked for;
    an answer holds those it can and always the unique keys of its level and above. Answers come newest study first, then by
    UID, so that paging is stable.
    """

    level: Level
    matches: Mapping[str, Match] = field(default_factory=dict)
    return_keys: tuple[str, ...] = ()
    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False
