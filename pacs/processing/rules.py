"""Rules: which processor runs on what, and when. TOML in, validated values out; matching is pure.

`where` compares attributes of a series or study (keyword -> value, several values joined by a backslash) case-insensitively.
Every attribute named must match; `mismatch` says which did not and why, so that people can ask "why did it not run".
"""

import fnmatch
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from pacs.model.errors import ConfigurationError
from pacs.processing.api import ParameterError, Spec

DEFAULT_RULES = files("pacs.processing").joinpath("rules.toml").read_text(encoding="utf-8")
"""The rules that a new home begins with."""

TRIGGERS = ("series", "study", "manual")
_COMPARISON = re.compile(r"(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)$")


@dataclass(frozen=True, slots=True)
class Use:
    """One processor of a rule, with the parameters that differ from its defaults."""

    processor: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the file."""

    name: str
    on: str
    where: Mapping[str, Any]
    run: tuple[Use, ...]


def load_rules(path: Path, registry: Mapping[str, Spec]) -> tuple[Rule, ...]:
    """Read a rules file; raises `ConfigurationError` naming file, line, rule and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    return parse_rules(text, registry, source=str(path))


def parse_rules(text: str, registry: Mapping[str, Spec], *, source: str = "rules.toml") -> tuple[Rule, ...]:
    """Parse and check rules against the processors there are."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source}: {error}") from error
    unknown = tree.keys() - {"rule"}
    if unknown or not isinstance(tree.get("rule", []), list):
        raise ConfigurationError(f"{source}: only [[rule]] tables are understood, not {sorted(unknown or ['rule'])[0]}")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*rule\s*\]\]", line)]
    rules: list[Rule] = []
    for index, table in enumerate(tree.get("rule", [])):
        line = f" line {lines[index]}" if index < len(lines) else ""
        name = table.get("name") if isinstance(table.get("name"), str) else ""
        where = f"{source}{line}, rule {name or index + 1}"
        try:
            rules.append(_rule(table, registry))
        except (ValueError, ParameterError) as error:
            raise ConfigurationError(f"{where}: {error}") from error
        if any(rules[-1].name == one.name for one in rules[:-1]):
            raise ConfigurationError(f"{where}: another rule has the same name")
    return tuple(rules)


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


def _rule(table: Any, registry: Mapping[str, Spec]) -> Rule:
    if not isinstance(table, dict):
        raise ValueError("must be a table")
    unknown = table.keys() - {"name", "on", "where", "run"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]}; a rule has name, on, where and run")
    name = table.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > 64:
        raise ValueError("name must be a text of 1 to 64 characters")
    on = table.get("on", "series")
    if on not in TRIGGERS:
        raise ValueError(f"on must be one of {', '.join(TRIGGERS)}")
    where = table.get("where", {})
    if not isinstance(where, dict):
        raise ValueError("where must be a table of attributes")
    for keyword, condition in where.items():
        check_condition(keyword, condition)
    run = table.get("run", [])
    if not isinstance(run, list) or not run:
        raise ValueError('run must be a list such as [{ use = "ct-lungs" }]')
    return Rule(name, on, where, tuple(_use(one, on, registry) for one in run))


def check_condition(keyword: str, condition: Any) -> None:
    """Raise `ValueError` where a condition of `where` is not one."""
    if tag_for_keyword(keyword) is None:
        raise ValueError(f"where.{keyword} is not the keyword of a DICOM attribute (PS3.6)")
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


def _use(table: Any, on: str, registry: Mapping[str, Spec]) -> Use:
    if not isinstance(table, dict) or not isinstance(table.get("use"), str):
        raise ValueError('each entry of run names a processor: { use = "ct-lungs" }')
    name = table["use"]
    if name not in registry:
        raise ValueError(f"there is no processor {name}; there are {', '.join(sorted(registry))}")
    spec = registry[name]
    if on != "manual" and spec.level != on:
        raise ValueError(f'{name} works on a {spec.level}, so the rule must say on = "{spec.level}" or "manual"')
    given = {key: value for key, value in table.items() if key != "use"}
    spec.bind(given)
    return Use(name, given)
