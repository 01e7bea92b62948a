"""Typed, lazy, cached loaders of the tables in this folder; the JSON files are facts of the standard, never edited by hand."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class DictionaryEntry:
    """A row of PS3.6 Table 6-1."""

    vrs: tuple[str, ...]
    keyword: str
    name: str


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """A row of PS3.15 Table E.1-1: the Basic Profile's action, and what options say instead (option column -> action)."""

    tag: str
    vr: str
    basic: str
    options: Mapping[str, str]
    in_standard_composite_iod: bool


@dataclass(frozen=True, slots=True)
class ContentRow:
    """A row of PS3.15 Table E.3.4-1: a content item by its concept name."""

    code: str
    scheme: str
    value_type: str
    basic: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SafePrivateRow:
    """A row of PS3.15 Table E.3.10-1: group, low byte of the element, the creator that owns the block."""

    group: int
    number: int
    creator: str
    vrs: tuple[str, ...]
    vm: str


OPTIONS = (
    "retain_safe_private",
    "retain_uids",
    "retain_device_identity",
    "retain_institution_identity",
    "retain_patient_characteristics",
    "retain_long_full_dates",
    "retain_long_modified_dates",
    "clean_descriptors",
    "clean_structured_content",
    "clean_graphics",
)
"""The option columns of Table E.1-1 in its order."""


@cache
def dictionary_additions() -> Mapping[int, DictionaryEntry]:
    """Elements of PS3.6 2026c that pydicom's dictionary lacks, by tag."""
    rows = _load("dictionary_2026c.json")["rows"]
    return MappingProxyType(
        {int(tag, 16): DictionaryEntry(tuple(row["vr"]), row["keyword"], row["name"]) for tag, row in rows.items()}
    )


@cache
def profile_rows() -> tuple[ProfileRow, ...]:
    """PS3.15 Table E.1-1; `tag` may hold x for any digit, or words for whole families of elements."""
    return tuple(
        ProfileRow(row["tag"], row["vr"], row["basic"], _options(row), row["in_std_composite_iod"])
        for row in _load("table_e1_1.json")["rows"]
    )


@cache
def content_rows() -> tuple[ContentRow, ...]:
    """PS3.15 Table E.3.4-1."""
    return tuple(
        ContentRow(row["code"], row["scheme"], row["value_type"], row["basic"], _options(row))
        for row in _load("table_e3_4_1.json")["rows"]
    )


@cache
def safe_private_rows() -> tuple[SafePrivateRow, ...]:
    """PS3.15 Table E.3.10-1."""
    rows = []
    for row in _load("table_e3_10_1.json")["rows"]:
        group, number = row["tag"].strip("()").split(",")
        vrs = tuple(vr for vr in row["vr"].split("/") if vr)
        rows.append(SafePrivateRow(int(group, 16), int(number[2:], 16), row["creator"], vrs, row["vm"]))
    return tuple(rows)


@cache
def numeric_private_rows() -> frozenset[tuple[int, int, str, str]]:
    """Numeric private elements that TCIA keeps, beyond Table E.3.10-1: (group, low byte of the element, creator, VR)."""
    return frozenset(
        (int(group, 16), int(number, 16), creator, vr)
        for group, number, creator, vrs in _load("tcia_numeric.json")["rows"]
        for vr in vrs
    )


def code_meaning(code: str, scheme: str) -> str:
    """Return the meaning that PS3.16 gives a code, or "" if it has none; retired SNOMED-RT codes have their successor's."""
    meanings = _codes()["meanings"]
    successor = current_code(code, scheme)
    return str(meanings.get(successor[1], {}).get(successor[0], ""))


def current_code(code: str, scheme: str) -> tuple[str, str]:
    """Return (code, scheme), a retired SNOMED-RT code (SRT, SNM3, 99SDM) replaced by its successor (PS3.16 section 8)."""
    if scheme in RETIRED_SNOMED:
        successor = _codes()["srt_to_sct"].get(code)
        if successor is not None:
            return str(successor), "SCT"
    return code, scheme


RETIRED_SNOMED = frozenset({"SRT", "SNM3", "99SDM"})


@cache
def _codes() -> dict[str, Any]:
    packed = resources.files(__package__).joinpath("code_meanings.json.gz").read_bytes()
    loaded: dict[str, Any] = json.loads(gzip.decompress(packed))
    return loaded


@cache
def deidentification_methods() -> Mapping[str, str]:
    """CID 7050: code value -> meaning, scheme DCM."""
    return MappingProxyType({str(code): str(meaning) for code, meaning in _load("cid_7050.json")["rows"]})


@cache
def iod_of(sop_class_uid: str) -> str:
    """Return the name of the IOD that a storage SOP Class carries, or "" if the tables do not know it."""
    return str(_iods()["sop_class_to_iod"].get(sop_class_uid, ""))


@cache
def types_of(iod: str) -> Mapping[str, str]:
    """Return Type and module usage in `iod`: "TAG/TAG/TAG" -> "1C|M"; only attributes of Table E.1-1."""
    return MappingProxyType(_iods()["iod"].get(iod, {}))


def _options(row: Mapping[str, Any]) -> Mapping[str, str]:
    return MappingProxyType({option: row[option] for option in OPTIONS if option in row})


@cache
def _iods() -> dict[str, Any]:
    packed = resources.files(__package__).joinpath("iod_types.json.gz").read_bytes()
    loaded: dict[str, Any] = json.loads(gzip.decompress(packed))
    return loaded


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
    return loaded
