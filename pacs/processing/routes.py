"""Routes: which complete series go to which peer. TOML in, validated values and sending jobs out.

`routes.toml` lies beside the rules file. Series that came and series that were made here are routed alike when they are
complete; `what` chooses. Results never wake rules, but they may be sent: sending makes nothing new.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs.dicom.conditions import check, matches
from pacs.index.database import Index
from pacs.model.errors import ConfigurationError
from pacs.model.job import NewJob, SettledSeries
from pacs.processing.sending import send_job

SOURCE, DERIVED, ALL = "source", "derived", "all"
WHAT = (SOURCE, DERIVED, ALL)


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the file."""

    name: str
    peer: str
    where: Mapping[str, Any]
    what: str


def routes_path(rules_path: Path) -> Path:
    """Return where the routes of a home lie."""
    return rules_path.with_name("routes.toml")


def load_routes(path: Path) -> tuple[Route, ...]:
    """Read the routes; none where there is no file. Raises `ConfigurationError` naming file, route and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    return parse_routes(text, source=str(path))


def parse_routes(text: str, *, source: str = "routes.toml") -> tuple[Route, ...]:
    """Parse and check routes. Raises `ConfigurationError`."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source}: {error}") from error
    tables = tree.pop("route", [])
    if tree or not isinstance(tables, list):
        raise ConfigurationError(f"{source}: only [[route]] tables are understood, not {sorted(tree or ['route'])[0]}")
    routes: list[Route] = []
    for number, table in enumerate(tables, 1):
        try:
            routes.append(_route(table))
            if any(routes[-1].name == one.name for one in routes[:-1]):
                raise ValueError("another route has the same name")
        except ValueError as error:
            name = table.get("name") if isinstance(table, dict) else None
            raise ConfigurationError(f"{source}, route {name or number}: {error}") from error
    return tuple(routes)


def plan(index: Index, routes: Iterable[Route], settled: SettledSeries, *, derived: bool) -> list[NewJob]:
    """Return the jobs that send a complete series to where the routes say; one a peer."""
    planned: dict[str, NewJob] = {}
    for route in routes:
        wanted = route.what in (ALL, DERIVED if derived else SOURCE)
        if not settled.series_instance_uid or not wanted or not matches(route.where, settled.attributes):
            continue
        job = send_job(
            index,
            route.peer,
            settled.study_instance_uid,
            [settled.series_instance_uid],
            rule=f"route {route.name}",
            completion=settled.completion,
        )
        planned.setdefault(job.job_key, job)
    return list(planned.values())


def _route(table: Any) -> Route:
    if not isinstance(table, dict):
        raise ValueError("must be a table")
    unknown = table.keys() - {"name", "peer", "where", "what"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]}; a route has name, peer, where and what")
    for key in ("name", "peer"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise ValueError(f"{key} must be a text that is not empty")
    where = table.get("where", {})
    if not isinstance(where, dict):
        raise ValueError("where must be a table of attributes")
    for keyword, condition in where.items():
        check(keyword, condition)
    what = table.get("what", ALL)
    if what not in WHAT:
        raise ValueError(f"what must be one of {', '.join(WHAT)}")
    return Route(table["name"].strip(), table["peer"].strip(), where, what)
