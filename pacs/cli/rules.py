"""`pacs rules`: which there are, whether a file is right, and what rules come to for what is stored, and why not."""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs.cli.console import Json, emit, fail, one_line_errors, open_archive, out, show
from pacs.settings import Settings, load

if TYPE_CHECKING:
    from pacs.archive import Archive
    from pacs.processing.planning import Decision
    from pacs.processing.rules import Rule

app = typer.Typer(help="Rules: which processor runs on what, and when.", no_args_is_help=True)
File = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A rules file; the one in force where absent.")]
DAY_S = 86400.0
_PERIOD = re.compile(r"(\d+)\s*([hdw])")
_SECONDS = {"h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}
DECISIONS = {
    "rule": "Rule",
    "on": "On",
    "outcome": "Outcome",
    "processors": "Processors",
    "why": "Why not",
    "line": "Line",
    "uid": "Study or series",
}


@app.command("list")
def list_rules(
    ever: Annotated[bool, typer.Option("--ever", help="Every version of every rule that was ever in force.")] = False,
    as_json: Json = False,
) -> None:
    """List the rules in force, and how many jobs each made in the last 30 days."""
    with open_archive("cli") as (settings, archive):
        if ever:
            rows = [_version(one) for one in archive.index.chains.rules(ever=True)]
        else:
            counts = archive.index.chains.counts(time.time() - 30 * DAY_S)
            rows = [_rule(one, counts.get(one.name, {})) for one in _read(settings, None)]
    columns = {"name": "Rule", "on": "On", "after": "After", "run": "Runs", "jobs": "Jobs"}
    if ever:
        columns = {"name": "Rule", "digest": "Version", "since": "In force since", "until": "Until"}
    show(rows, columns=columns, as_json=as_json, empty="No rules.")


@app.command("check")
def check(file: File = None, as_json: Json = False) -> None:
    """Check a rules file: every mistake is told with its line, and exit code 1."""
    with one_line_errors():
        settings = load()
        rules = _read(settings, file)
    name = str(file or settings.rules_path)
    if as_json:
        emit([{"file": name, "rules": [rule.name for rule in rules]}])
    else:
        out.print(f"{name}: {len(rules)} rules, no mistake", highlight=False, markup=False)


@app.command("test")
def test(
    file: File = None,
    every: Annotated[bool, typer.Option("--all", help="Each series and study, not only sums.")] = False,
    as_json: Json = False,
) -> None:
    """Try a rules file on everything that is stored, without running anything: what would fire, and why not.

    For what does not fire, the first condition that stands against it is told with its line; never a value of the data.
    """
    with open_archive("cli") as (settings, archive):
        _show(_decide(settings, archive, _read(settings, file)), every, as_json)


@app.command("replay")
def replay(
    file: File = None,
    since: Annotated[str, typer.Option(help="How far back: 12h, 30d, 4w.")] = "30d",
    run: Annotated[bool, typer.Option("--run", help="Make the jobs that are not there yet, after showing them.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Each series and study, not only sums.")] = False,
    as_json: Json = False,
) -> None:
    """Show what rules would have done with what arrived lately; with --run, do it."""
    from dataclasses import replace

    period = _PERIOD.fullmatch(since.strip().lower())
    if not period:
        raise fail(f"--since is a period such as 12h, 30d or 4w, not {since}", 2)
    begin = time.time() - int(period[1]) * _SECONDS[period[2]]
    with open_archive("cli") as (settings, archive):
        decisions = list(_decide(settings, archive, _read(settings, file), since=begin))
        _show(iter(decisions), every, as_json)
        if run:
            jobs = [replace(job, completion=f"replayed since {since}") for one in decisions for job in one.jobs]
            made = archive.index.jobs.add(jobs)
            if not as_json:
                out.print(f"{len(made)} jobs made; the others were there already")


@app.command("explain")
def explain(
    uid: Annotated[str, typer.Argument(metavar="STUDY|SERIES", help="A Study or Series Instance UID.")],
    file: Annotated[Path | None, typer.Option("--rules", help="A rules file; the one in force where absent.")] = None,
    as_json: Json = False,
) -> None:
    """Explain what each rule says of one study and its series, or of one series."""
    with open_archive("cli") as (settings, archive):
        rules = _read(settings, file)
        decisions = list(_decide(settings, archive, rules, study_instance_uid=uid))
        decisions = decisions or list(_decide(settings, archive, rules, series_instance_uid=uid))
        if not decisions:
            raise fail("there is no study or series of this UID that came from outside")
        _show(iter(decisions), True, as_json)


def _read(settings: Settings, file: Path | None) -> "tuple[Rule, ...]":
    from pacs.processing.registry import discover
    from pacs.processing.rules import load_rules
    from pacs.processing.schedule import rules_in

    registry = discover(settings.plugins_path)
    return load_rules(file, registry) if file else rules_in(settings.rules_path, registry).read()


def _decide(settings: Settings, archive: "Archive", rules: "Sequence[Rule]", **which: Any) -> "Iterator[Decision]":
    from pacs.processing.planning import Planner
    from pacs.processing.registry import discover
    from pacs.processing.stored_headers import HeaderReader

    planner = Planner(archive.index, discover(settings.plugins_path), HeaderReader(settings, archive))
    for subject in archive.index.subjects(**which):
        level = "series" if subject.series_instance_uid else "study"
        for rule in rules:
            if rule.on == level:
                yield planner.decide(rule, subject)


def _show(decisions: "Iterator[Decision]", every: bool, as_json: bool) -> None:
    rows = (_decision(one) for one in decisions)
    if every or as_json:
        show(rows, columns=DECISIONS, as_json=as_json, empty="Nothing is stored that these rules look at.")
        return
    sums: dict[str, Counter[str]] = {}
    for row in rows:
        said = "fires" if row["fires"] else f"line {row['line']}: {row['why']}" if row["line"] else str(row["why"])
        sums.setdefault(row["rule"], Counter())[said] += 1
    listed = [
        {"rule": rule, "count": count, "said": said}
        for rule, found in sums.items()
        for said, count in sorted(found.items(), key=lambda one: (one[0] != "fires", -one[1]))
    ]
    columns = {"rule": "Rule", "count": "Times", "said": "Fires, or why not"}
    show(listed, columns=columns, as_json=False, empty="Nothing is stored that these rules look at.")


def _decision(one: "Decision") -> dict[str, Any]:
    subject = one.subject
    return {
        "rule": one.rule.name,
        "on": one.rule.on,
        "study_instance_uid": subject.study_instance_uid,
        "series_instance_uid": subject.series_instance_uid,
        "uid": subject.series_instance_uid or subject.study_instance_uid,
        "fires": one.fires,
        "outcome": "fires" if one.fires else "no",
        "processors": list(one.processors),
        "why": one.why,
        "line": one.line or None,
    }


def _rule(rule: "Rule", counts: dict[str, int]) -> dict[str, Any]:
    return {
        "name": rule.name,
        "on": rule.on,
        "where": dict(rule.where),
        "after": list(rule.after),
        "run": [use.processor for use in rule.run],
        "priority": rule.priority,
        "digest": rule.digest,
        "jobs": ", ".join(f"{count} {state}" for state, count in sorted(counts.items())),
        "jobs_by_state": counts,
        "line": rule.line(),
    }


def _version(one: Any) -> dict[str, Any]:
    def moment(seconds: float | None) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else ""

    return {
        "name": one.name,
        "digest": one.digest,
        "definition": one.definition["rule"],
        "since": moment(one.since),
        "until": moment(one.until),
    }
