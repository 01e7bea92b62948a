"""`pacs deid`: what de-identification would do to a file and why, and what identity any file may still hold."""

import secrets
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, one_line_errors, out, progress, show
from pacs.cli.studies import walk
from pacs.model.errors import ConfigurationError, NotUnderstood

if TYPE_CHECKING:
    from pacs.deid.explain import Explanation
    from pacs.deid.profile import Deidentifier

app = typer.Typer(
    help="Try de-identification without storing anything; judge what others have de-identified.", no_args_is_help=True
)
Policy = Annotated[str, typer.Option(help="Policy to follow; empty: what the settings choose (deid.rules, deid.policy).")]
Paths = Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files or folders; folders are searched.", exists=True)]
LINE_COLUMNS = {"where": "Element", "keyword": "Name", "vr": "VR", "fate": "Becomes", "action": "Action", "why": "Because"}


@app.command()
def explain(
    paths: Paths,
    policy: Policy = "",
    values: Annotated[bool, typer.Option("--values", help="Show values, before and after: they identify the patient.")] = False,
    changed: Annotated[bool, typer.Option("--changed", help="Leave out what is kept.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Write the first frame as PNG with the regions that would be blanked marked.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say element by element what would happen to a file, and by which row of which table. Nothing is stored."""
    from pacs.deid.explain import KEPT, explain

    with one_line_errors():
        deidentifier = _deidentifier(policy)
        for path in walk(paths):
            received = _received(path)
            found = explain(deidentifier, received)
            rows = [
                {
                    "where": f"{line.path}{line.name}",
                    "keyword": line.keyword,
                    "vr": line.vr,
                    "fate": line.fate,
                    "action": line.action,
                    "why": line.why,
                    **({"before": line.before, "after": line.after} if values else {}),
                }
                for line in found.lines
                if not changed or line.fate != KEPT
            ]
            if as_json:
                emit([{"path": str(path), **_summary(found)}, *({"path": str(path), **row} for row in rows)])
                continue
            columns = {**LINE_COLUMNS, **({"before": "Before", "after": "After"} if values else {})}
            out.print(f"[bold]{path}[/]: {found.outcome}{f' ({found.reason})' if found.reason else ''}, policy {found.policy}")
            show(rows, columns=columns, as_json=False, empty="Nothing would change.")
        if picture is not None:
            _picture(next(walk(paths)), picture)


@app.command()
def check(
    paths: Paths,
    policy: Policy = "",
    search_all: Annotated[
        bool, typer.Option("--search-all", help="Search pixels at risk for text even where the header says that it was done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge DICOM files, wherever they were de-identified, for what may still tell who it is. Exit code 1 if anything may."""
    from pacs.cli import burned_in
    from pacs.deid.check import check

    totals: Counter[str] = Counter()
    doubtful = judged = unread = 0
    with one_line_errors(), progress(as_json) as bar:
        deidentifier = _deidentifier(policy, ours=True)
        files = list(walk(paths))
        task = bar.add_task("Judging", total=len(files))
        for path in files:
            try:
                judgement = check(deidentifier, path.read_bytes(), look=burned_in.look, believe=not search_all)
            except NotUnderstood as error:
                unread += 1
                emit([{"path": str(path), "read": False, "reason": str(error)}]) if as_json else None
            else:
                judged += 1
                doubtful += bool(judgement.findings)
                totals.update(judgement.counts)
                if as_json:
                    findings = [{"kind": one.kind, "where": one.where, "why": one.why} for one in judgement.findings]
                    emit([{"path": str(path), "read": True, "counts": judgement.counts, "findings": findings}])
                elif judgement.findings:
                    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(judgement.counts.items()))
                    out.print(f"{path}: {counts}", highlight=False, soft_wrap=True)
                    for one in judgement.findings:
                        out.print(f"    {one.kind}: {one.where or 'the object'} – {one.why}", highlight=False, soft_wrap=True)
            bar.advance(task)
    if not as_json:
        said = ", ".join(f"{count} {kind}" for kind, count in totals.most_common()) or "nothing found"
        out.print(f"{judged} files judged, {doubtful} with findings: {said}; {unread} files are no DICOM or cannot be read")
    if not judged:
        raise fail("there was no DICOM file to judge")
    if doubtful:
        raise typer.Exit(1)


@app.command()
def statement() -> None:
    """Print the de-identification section of docs/conformance.md, written from the tables in force."""
    from pacs.deid.statement import section

    typer.echo(section(), nl=False)


def _summary(found: "Explanation") -> dict[str, Any]:
    return {"outcome": found.outcome, "reason": found.reason, "policy": found.policy, "methods": list(found.methods)}


def _deidentifier(policy: str, *, ours: bool = False) -> "Deidentifier":
    """Return the de-identifier of the settings; without an identity key that we may read, one of a throw-away key.

    With `ours` the words of the processors that are installed here may stand in descriptors.
    """
    from pacs.archive import identity_keys, key_house
    from pacs.deid.policy import with_own
    from pacs.deid.profile import Deidentifier
    from pacs.processing.registry import discover
    from pacs.processing.words import words
    from pacs.settings import load

    settings = load()
    try:
        key = identity_keys(settings, key_house(settings)).derive("pseudonym")
    except ConfigurationError:
        key = secrets.token_bytes(32)
        err.print("no identity key here: pseudonyms shown are not those of an archive", highlight=False)
    found = Deidentifier(
        settings.deid.policy,
        key,
        policies=with_own(dict(settings.policies)),
        rules=settings.deid.rules,
        words=words(discover(settings.plugins_path).values()) if ours else frozenset(),
    )
    return found.under(policy) if policy else found


def _received(path: Path) -> Any:
    from pacs.dicom import part10
    from pacs.model.instance import Origin, Received

    parts = part10.split(path.read_bytes())
    return Received(
        parts.data_set, parts.transfer_syntax_uid, Origin.IMPORT, "explain", parts.sop_class_uid, parts.sop_instance_uid
    )


def _picture(path: Path, target: Path) -> None:
    """Write the first frame of a file with the text that would be blanked marked in red."""
    from pacs.cli import burned_in
    from pacs.settings import load

    count = burned_in.draw(path, target, load().deid.devices)
    err.print(f"{target}: {count} regions would be blanked", highlight=False)
