"""Rules: which processor runs on what, and when. TOML in, validated values out.

What `where` may say is in `pacs.dicom.conditions`; what a rule comes to for a series or study is decided in `planning.py`. A
rule is known by its name and by the digest of its definition, which every job of it keeps: comments and order do not count.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pacs.dicom.conditions import check_condition, check_path
from pacs.model.errors import ConfigurationError
from pacs.processing.api import ParameterError, Spec
from pacs.processing.hours import Window, parse
from pacs.processing.places import Places

DEFAULT_RULES = files("pacs.processing").joinpath("rules.toml").read_text(encoding="utf-8")
"""The rules that a new home begins with."""

TRIGGERS = ("series", "study", "manual")
INPUTS = ("results", "source", "both")
PRIORITIES = {"urgent": 1, "normal": 5, "low": 9}
KEYS = (*"name on where after input take results run priority hours per_hour at_once send".split(),)
FOLLOWING = ("input", "take", "results")
"""Keys that say something only of a rule with `after`."""
_RESULT_KEYS = ("rule", "finding", "is", "certainty", "measure", "of", "value")


@dataclass(frozen=True, slots=True)
class Use:
    """One processor of a rule, with the parameters that differ from its defaults.

    `step` tells several uses of the same processor in one rule apart; the first has none.
    """

    processor: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    step: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an earlier result must say: an answer to a coded question, or a measured number.

    `name` is the code value or the meaning of question or quantity; `answer`, `certainty`, `value` and `of` (what was measured)
    are conditions, None where anything will do. `rule` names the rule whose result it is, where it matters.
    """

    name: str
    measured: bool
    answer: Any = None
    certainty: Any = None
    value: Any = None
    of: Any = None
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the file. `lines` says where its keys stand ("", "where.Modality", "results.0")."""

    name: str
    on: str
    where: Mapping[str, Any]
    run: tuple[Use, ...]
    after: tuple[str, ...] = ()
    input: str = "results"
    take: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[Wanted, ...] = ()
    priority: int = PRIORITIES["normal"]
    hours: tuple[Window, ...] = ()
    per_hour: int = 0
    at_once: int = 0
    send: tuple[str, ...] = ()
    digest: str = ""
    definition: Mapping[str, Any] = field(default_factory=dict, repr=False)
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)

    def line(self, key: str = "") -> int:
        """Line of a key in the file, or of the rule itself."""
        return self.lines.get(key, self.lines.get("", 0))


class _At(ValueError):
    """A mistake, and the keys that lead to it."""

    def __init__(self, message: str, *keys: str, nth: int = 0) -> None:
        super().__init__(message)
        self.keys = keys
        self.nth = nth


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
        line = _line_of(text, sorted(unknown or ["rule"])[0])
        raise ConfigurationError(
            f"{source} line {line}: only [[rule]] tables are understood, not {sorted(unknown or ['rule'])[0]}"
        )
    places = Places(text)
    rules: list[Rule] = []
    for index, table in enumerate(tree.get("rule", [])):
        name = str(table.get("name", "")).partition("\n")[0] if isinstance(table, dict) else ""
        try:
            rules.append(_rule(table, registry, places, index))
            if any(rules[-1].name == one.name for one in rules[:-1]):
                raise _At("another rule has the same name", "name")
        except _At as error:
            line = places.line(index, *error.keys, nth=error.nth)
            raise ConfigurationError(f"{source} line {line}, rule {name or index + 1}: {error}") from error
    _check_order(rules, source)
    return tuple(rules)


def _line_of(text: str, key: str) -> int:
    return next((number for number, line in enumerate(text.splitlines(), 1) if key in line.partition("#")[0]), 1)


def _check_order(rules: Sequence[Rule], source: str) -> None:
    """Refuse an `after` that names no rule, one whose result is no series', and circles."""
    by_name = {rule.name: rule for rule in rules}
    for rule in rules:
        where = f"{source} line {rule.line('after')}, rule {rule.name}"
        for name in (*rule.after, *(one.rule for one in rule.results if one.rule)):
            if name not in by_name:
                raise ConfigurationError(f"{where}: there is no rule {name} to come after; there are {', '.join(by_name)}")
            if name not in rule.after:
                raise ConfigurationError(f"{where}: results names the rule {name}, which after does not")
            if rule.on == "series" and by_name[name].on == "study":
                raise ConfigurationError(f'{where}: {name} works on a study, so what comes after it must say on = "study"')
        circle = _circle(rule, by_name)
        if circle:
            raise ConfigurationError(f"{where}: the rules wait for each other: {' after '.join(circle)}")


def _circle(rule: Rule, by_name: Mapping[str, Rule]) -> list[str]:
    """The way from a rule over `after` back to itself, empty where there is none."""
    ways = [[rule.name, name] for name in rule.after]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == rule.name:
            return way
        if way[-1] not in seen and way[-1] in by_name:
            seen.add(way[-1])
            ways += [[*way, name] for name in by_name[way[-1]].after]
    return []


def _rule(table: Any, registry: Mapping[str, Spec], places: Places, index: int) -> Rule:
    if not isinstance(table, dict):
        raise _At("must be a table")
    for key in table:
        if key not in KEYS:
            raise _At(f"unknown key {key}; a rule has {', '.join(KEYS)}", key)
    name = table.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > 64 or not name.isprintable():
        raise _At("name must be a text of 1 to 64 characters, in one line", "name")
    on = table.get("on", "series")
    if on not in TRIGGERS:
        raise _At(f"on must be one of {', '.join(TRIGGERS)}", "on")
    after = _names(table.get("after", []), "after", "rules")
    if after and on == "manual":
        raise _At("a rule that nobody's result wakes (manual) cannot come after another", "after")
    for key in FOLLOWING:
        if key in table and not after:
            raise _At(f"{key} says something only of a rule that comes after others", key)
    given = table.get("input", "results")
    if given not in INPUTS:
        raise _At(f"input must be one of {', '.join(INPUTS)}", "input")
    where, take = _where(table, "where"), _where(table, "take")
    run = table.get("run", [])
    if not isinstance(run, list) or not run:
        raise _At('run must be a list such as [{ use = "ct-lungs" }]', "run")
    wanted = table.get("results", [])
    if not isinstance(wanted, list):
        raise _At('results must be a list such as [{ finding = "Finding Site", is = "Chest" }]', "results")
    keys = [*table, *(f"where.{key}" for key in where), *(f"take.{key}" for key in take)]
    lines = {key: places.line(index, *key.split(".")[:2]) for key in keys}
    lines |= {f"results.{number}": places.line(index, "results") for number in range(len(wanted))}
    return Rule(
        name=name,
        on=on,
        where=where,
        run=_uses(run, "" if after else on, registry),
        after=after,
        input=given,
        take=take,
        results=tuple(_wanted(one, number) for number, one in enumerate(wanted)),
        priority=_priority(table.get("priority", "normal")),
        hours=_hours(table.get("hours", [])),
        per_hour=_count(table, "per_hour"),
        at_once=_count(table, "at_once"),
        send=_names(table.get("send", []), "send", "peers, by AE title"),
        digest=hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest(),
        definition=table,
        lines={"": places.line(index), **lines},
    )


def _names(value: Any, key: str, what: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(one, str) and one for one in names):
        raise _At(f"{key} must be a text or a list of them: {what}", key)
    return tuple(dict.fromkeys(names))


def _where(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    where = _flat(table.get(key, {}), key)
    for keyword, condition in where.items():
        try:
            check_path(keyword)
        except ValueError as error:
            raise _At(str(error), key, keyword.split(".")[0]) from error
        try:
            check_condition(condition)
        except ValueError as error:
            raise _At(f"{key}.{keyword}: {error}", key, keyword.split(".")[0]) from error
    return where


def _flat(where: Any, key: str) -> dict[str, Any]:
    """Join the keywords of nested attributes by dots: { A = { B = 1 } } and { A.B = 1 } are the same in TOML."""
    if not isinstance(where, dict):
        raise _At(f"{key} must be a table of attributes", key)
    flat: dict[str, Any] = {}
    for keyword, condition in where.items():
        if isinstance(condition, dict) and condition and not condition.keys() & {"all", "any", "none"}:
            if not keyword.endswith("Sequence"):
                raise _At(f"{key}.{keyword} may be a table of the lists all, any and none", key, keyword)
            flat |= {f"{keyword}.{inner}": one for inner, one in _flat(condition, key).items()}
        else:
            flat[keyword] = condition
    return flat


def _uses(run: Sequence[Any], on: str, registry: Mapping[str, Spec]) -> tuple[Use, ...]:
    uses: list[Use] = []
    for number, table in enumerate(run):
        try:
            uses.append(_use(table, on, registry, uses))
        except (ValueError, ParameterError) as error:
            raise _At(str(error), "run", "use", nth=number) from error
    return tuple(uses)


def _use(table: Any, on: str, registry: Mapping[str, Spec], before: Sequence[Use]) -> Use:
    if not isinstance(table, dict) or not isinstance(table.get("use"), str):
        raise ValueError('each entry of run names a processor: { use = "ct-lungs" }')
    name = table["use"]
    if name not in registry:
        raise ValueError(f"there is no processor {name}; there are {', '.join(sorted(registry))}")
    spec = registry[name]
    if on in ("series", "study") and spec.level != on:
        raise ValueError(f'{name} works on a {spec.level}, so the rule must say on = "{spec.level}" or "manual"')
    given = {key: value for key, value in table.items() if key != "use"}
    spec.bind(given)
    same = sum(one.processor == name for one in before)
    return Use(name, given, str(same + 1) if same else "")


def _wanted(table: Any, number: int) -> Wanted:
    try:
        if not isinstance(table, dict) or ("finding" in table) == ("measure" in table):
            raise ValueError("each entry of results has either finding or measure")
        for key in table:
            if key not in _RESULT_KEYS:
                raise ValueError(f"results has no {key}; it has {', '.join(_RESULT_KEYS)}")
        measured = "measure" in table
        allowed = ("rule", "measure", "value", "of") if measured else ("rule", "finding", "is", "certainty")
        for key in table:
            if key not in allowed:
                raise ValueError(f"{key} does not go with {'measure' if measured else 'finding'}")
            if key in ("is", "certainty", "value", "of"):
                check_condition(table[key])
        name = table["measure" if measured else "finding"]
        if not isinstance(name, str) or not name or not isinstance(table.get("rule", ""), str):
            raise ValueError("finding, measure and rule are texts")
    except ValueError as error:
        raise _At(str(error), "results", nth=0) from error
    return Wanted(
        name,
        measured,
        table.get("is"),
        table.get("certainty"),
        table.get("value"),
        table.get("of"),
        table.get("rule", ""),
    )


def _priority(value: Any) -> int:
    number = PRIORITIES.get(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 9:
        raise _At(f"priority is {', '.join(PRIORITIES)} or a number from 1 (first) to 9 (last)", "priority")
    return number


def _hours(value: Any) -> tuple[Window, ...]:
    try:
        return tuple(parse(str(one)) for one in (value if isinstance(value, list) else [value]))
    except ValueError as error:
        raise _At(str(error), "hours") from error


def _count(table: Mapping[str, Any], key: str) -> int:
    value = table.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (key in table and value == 0):
        raise _At(f"{key} must be a whole number of at least 1", key)
    return value
