"""The module tables of PS3.3, as highdicom carries them: which attributes an IOD asks for, and of which type.

highdicom keeps them as data files of its package (`highdicom/_standard`); this is the one place that reads them.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from pydicom.dataset import Dataset

NESTED = ("multi-frame-functional-groups", "sr-document-content")
"""Modules whose attributes are conditional on nesting that the tables do not tell; checking them only makes noise."""


@cache
def _table(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("highdicom").joinpath("_standard", f"{name}.json").read_text(encoding="utf-8"))
    return loaded


@cache
def mandatory_modules(sop_class_uid: str) -> tuple[str, ...] | None:
    """Keys of the mandatory modules of a SOP Class's IOD, or None where the tables do not know the class."""
    iod = _table("sop_class_iod_map").get(sop_class_uid)
    if iod is None:
        return None
    return tuple(
        module["key"]
        for module in _table("iod_module_map")[iod]
        if module["usage"] == "M" and not module["key"].endswith(NESTED)
    )


@cache
def modules(sop_class_uid: str) -> frozenset[str]:
    """Keys of all modules of a SOP Class's IOD."""
    iod = _table("sop_class_iod_map").get(sop_class_uid)
    return frozenset(module["key"] for module in _table("iod_module_map")[iod]) if iod else frozenset()


@cache
def attributes(module: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Attributes of a module as (keyword, type, path of the sequences around it), outer ones first."""
    found = [(one["keyword"], one["type"], tuple(one["path"])) for one in _table("module_attribute_map")[module]]
    return tuple(sorted(found, key=lambda one: len(one[2])))


@cache
def top_level(module: str) -> frozenset[str]:
    """Keywords of a module that stand outside any sequence."""
    return frozenset(keyword for keyword, _, path in attributes(module) if not path)


def problems(dataset: Dataset) -> list[str]:
    """Return what is missing or empty against the mandatory modules (PS3.5 7.4: types 1 and 2); names only, no values."""
    keys = mandatory_modules(str(dataset.get("SOPClassUID", "")))
    if keys is None:
        return ["SOP Class is not in the tables"]
    found: list[str] = []
    for module in keys:
        for keyword, kind, path in attributes(module):
            if kind not in ("1", "2"):
                continue
            for item in _items(dataset, path):
                where = "/".join((*path, keyword))
                if keyword not in item:
                    found.append(f"{module}: {where} is missing (type {kind})")
                elif kind == "1" and item[keyword].is_empty:
                    found.append(f"{module}: {where} is empty (type 1)")
    return found


def _items(dataset: Dataset, path: tuple[str, ...]) -> list[Dataset]:
    level = [dataset]
    for keyword in path:
        level = [item for outer in level for item in (outer.get(keyword) or [])]
    return level
