"""Conditions on attributes, as they are written in `pacs.toml` and `rules.toml`: "CT", "LUNG*", "/^T[12]/", ["CR", "DX"],
"!LOCALIZER", ">=20", "2..5", 512, "" or false for absent, true for present, { all = [...], any = [...], none = [...] }.

`where` compares attributes (keyword -> value, several values joined by a backslash) case-insensitively; every attribute named
must match. "*" and "?" are wildcards as in PS3.4 C.2.2.2.4. Pure: who reads the file says where a mistake stands.
"""

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pacs.dicom.dictionary import tag_of

_NUMBER = r"-?\d+(?:\.\d+)?"
_COMPARISON = re.compile(rf"(<=|>=|<|>)\s*({_NUMBER})$")
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})$")
_ONE = (str, int, float)


def matches(where: Mapping[str, Any], attributes: Mapping[str, str]) -> bool:
    """Whether every condition holds."""
    return mismatch(where, attributes) is None


def mismatch(where: Mapping[str, Any], attributes: Mapping[str, str]) -> str | None:
    """Return the first condition that does not hold, as "Keyword: condition", or None where all do."""
    failed = first_failing(where, attributes)
    return None if failed is None else f"{failed}: {where[failed]}"


def first_failing(where: Mapping[str, Any], attributes: Mapping[str, str]) -> str | None:
    """Return the keyword of the first condition that does not hold."""
    for keyword, condition in where.items():
        if not holds(condition, values_of(attributes.get(keyword, ""))):
            return keyword
    return None


def values_of(text: str) -> list[str]:
    """Return the values of an attribute that are not empty."""
    return [value for one in text.split("\\") if (value := one.strip())]


def holds(condition: Any, values: Sequence[str]) -> bool:
    """Whether a condition holds for an attribute's values (none of them empty)."""
    if isinstance(condition, Mapping):
        every = all(holds(one, values) for one in condition.get("all", ()))
        some = "any" not in condition or any(holds(one, values) for one in condition["any"])
        none = not any(holds(one, values) for one in condition.get("none", ()))
        return every and some and none
    if isinstance(condition, list | tuple):
        # "!" in a list takes away: ["CT", "!LOCALIZER"] is any of the plain ones and none of the negated ones.
        negated = [one for one in condition if isinstance(one, str) and one.startswith("!")]
        plain = [one for one in condition if one not in negated]
        return all(holds(one, values) for one in negated) and (not plain or any(holds(one, values) for one in plain))
    if isinstance(condition, bool):
        return bool(values) is condition
    if isinstance(condition, int | float):
        return any(_number(value) == condition for value in values)
    return _text_holds(str(condition), values)


def _text_holds(text: str, values: Sequence[str]) -> bool:
    if text.startswith("!"):
        return not _text_holds(text[1:], values)
    if text == "":
        return not values
    if comparison := _COMPARISON.match(text):
        sign, bound = comparison[1], float(comparison[2])
        return any(_compare(_number(value), sign, bound) for value in values)
    if between := _RANGE.match(text):
        return any(float(between[1]) <= _number(value) <= float(between[2]) for value in values)
    if _is_expression(text):
        return any(re.search(text[1:-1], value, re.IGNORECASE) for value in values)
    # A bracket is an ordinary character in PS3.4 C.2.2.2.4.
    pattern = text.casefold().replace("[", "[[]")
    return any(fnmatch.fnmatchcase(value.casefold(), pattern) for value in values)


def _is_expression(text: str) -> bool:
    return len(text) > 2 and text[0] == text[-1] == "/"


def _number(value: str) -> float:
    """A value as a number; not a number (which satisfies no comparison) where it is none."""
    try:
        return float(value)
    except ValueError:
        return math.nan


def _compare(number: float, sign: str, bound: float) -> bool:
    return {"<=": number <= bound, ">=": number >= bound, "<": number < bound, ">": number > bound}[sign]


def check(keyword: str, condition: Any) -> None:
    """Raise `ValueError` where a condition of `where` is not one, or the keyword is none of an attribute."""
    check_path(keyword, nested=False)
    try:
        check_condition(condition)
    except ValueError as error:
        raise ValueError(f"where.{keyword}: {error}") from error


def check_path(path: str, *, nested: bool = True) -> None:
    """Raise `ValueError` unless it is the keyword of an attribute or, `nested`, of one in sequences, joined by dots (PS3.6)."""
    for keyword in path.split(".") if nested else [path]:
        try:
            tag_of(keyword)
        except KeyError:
            raise ValueError(f"where.{path} is not the keyword of a DICOM attribute (PS3.6)") from None


def check_condition(condition: Any) -> None:
    """Raise `ValueError` where a condition is not one."""
    if isinstance(condition, dict):
        unknown = condition.keys() - {"all", "any", "none"}
        if unknown or not condition or not all(isinstance(one, list) for one in condition.values()):
            raise ValueError("may be a table of the lists all, any and none")
        parts = [part for one in condition.values() for part in one]
    else:
        parts = list(condition) if isinstance(condition, list) else [condition]
    for part in parts:
        if not isinstance(part, _ONE):
            raise ValueError("must be a text, a number, true, false or a list of them")
        if isinstance(part, str):
            _check_text(part.removeprefix("!"))


def _check_text(text: str) -> None:
    if text[:1] in ("<", ">") and not _COMPARISON.match(text):
        raise ValueError("a comparison is <=, >=, < or > and a number")
    if _is_expression(text):
        try:
            re.compile(text[1:-1])
        except re.error as error:
            raise ValueError(f"the expression is wrong: {error.msg}") from error
