"""Conditions on attributes, as they are written in `pacs.toml` and `rules.toml`: "CT", "LUNG*", ["CR", "DX"], "!LOCALIZER",
">=20", "", { all = [...], any = [...], none = [...] }.

`where` compares attributes (keyword -> value, several values joined by a backslash) case-insensitively; every attribute named
must match. Pure: who reads the file says where a mistake stands.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pacs.dicom.dictionary import tag_of

_COMPARISON = re.compile(r"(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)$")


def check(keyword: str, condition: Any) -> None:
    """Raise `ValueError` where a condition of `where` is not one."""
    try:
        tag_of(keyword)
    except KeyError:
        raise ValueError(f"where.{keyword} is not the keyword of a DICOM attribute (PS3.6)") from None
    if isinstance(condition, dict):
        unknown = condition.keys() - {"all", "any", "none"}
        if unknown or not condition or not all(isinstance(one, list) for one in condition.values()):
            raise ValueError(f"where.{keyword} may be a table of the lists all, any and none")
        parts = [part for one in condition.values() for part in one]
    else:
        parts = list(condition) if isinstance(condition, list) else [condition]
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str | int | float):
            raise ValueError(f"where.{keyword} must be a text, a number or a list of them")
        if isinstance(part, str) and part[:1] in ("<", ">") and not _COMPARISON.match(part):
            raise ValueError(f"where.{keyword}: a comparison is <=, >=, < or > and a number")


def matches(where: Mapping[str, Any], attributes: Mapping[str, str]) -> bool:
    """Whether every condition holds."""
    return mismatch(where, attributes) is None


def mismatch(where: Mapping[str, Any], attributes: Mapping[str, str]) -> str | None:
    """Return the first condition that does not hold, as "Keyword: condition", or None where all do."""
    for keyword, condition in where.items():
        values = [one.strip() for one in attributes.get(keyword, "").split("\\")]
        present = [one for one in values if one]
        if not _holds(condition, present):
            return f"{keyword}: {condition}"
    return None


def _holds(condition: Any, values: Sequence[str]) -> bool:
    if isinstance(condition, Mapping):
        every = all(_holds(one, values) for one in condition.get("all", ()))
        some = "any" not in condition or any(_holds(one, values) for one in condition["any"])
        none = not any(_holds(one, values) for one in condition.get("none", ()))
        return every and some and none
    if isinstance(condition, list | tuple):
        # "!" in a list takes away: ["CT", "!LOCALIZER"] is any of the plain ones and none of the negated ones.
        negated = [one for one in condition if isinstance(one, str) and one.startswith("!")]
        plain = [one for one in condition if one not in negated]
        return all(_holds(one, values) for one in negated) and (not plain or any(_holds(one, values) for one in plain))
    text = str(condition)
    if text.startswith("!"):
        return not _holds(text[1:], values)
    comparison = _COMPARISON.match(text)
    if comparison:
        sign, bound = comparison[1], float(comparison[2])
        return any(_compare(value, sign, bound) for value in values)
    if text == "":
        return not values
    return any(fnmatch.fnmatchcase(value.casefold(), _literal(text.casefold())) for value in values)


def _literal(pattern: str) -> str:
    # "*" and "?" are wildcards as in PS3.4 C.2.2.2.4; a bracket is an ordinary character there.
    return pattern.replace("[", "[[]")


def _compare(value: str, sign: str, bound: float) -> bool:
    try:
        number = float(value)
    except ValueError:
        return False
    return {"<=": number <= bound, ">=": number >= bound, "<": number < bound, ">": number > bound}[sign]
