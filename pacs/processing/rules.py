"""Rules: which processor runs on what, and when. TOML in, validated values out; matching is pure.

`where` speaks the language of `pacs.dicom.conditions`, of the attributes of a series or study.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pacs.dicom.conditions import check
from pacs.model.errors import ConfigurationError
from pacs.processing.api import ParameterError, Spec

DEFAULT_RULES = files("pacs.processing").joinpath("rules.toml").read_text(encoding="utf-8")
"""The rules that a new home begins with."""

TRIGGERS = ("series", "study", "manual")


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
        check(keyword, condition)
    run = table.get("run", [])
    if not isinstance(run, list) or not run:
        raise ValueError('run must be a list such as [{ use = "ct-lungs" }]')
    return Rule(name, on, where, tuple(_use(one, on, registry) for one in run))


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
