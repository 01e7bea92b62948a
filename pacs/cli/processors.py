"""`pacs processors`: which there are, and what one of them takes and makes."""

import time
from typing import Annotated, Any

import typer

from pacs.cli.console import Json, emit, fail, one_line_errors, out, show
from pacs.settings import load

app = typer.Typer(help="Processors that run on arrival.", no_args_is_help=True)


@app.command("list")
def list_processors(as_json: Json = False) -> None:
    """List the processors found: those that ship, other packages' and files in the home's folder `processors`."""
    from pacs.processing.registry import describe, discover

    with one_line_errors():
        rows = [describe(spec) for _, spec in sorted(discover(load().plugins_path).items())]
    columns = {
        "name": "Name",
        "version": "Version",
        "level": "On",
        "queue": "Queue",
        "makes": "Makes",
        "summary": "What it does",
    }
    show(rows, columns=columns, as_json=as_json, empty="No processors.")


@app.command("show")
def show_one(name: str, as_json: Json = False) -> None:
    """Show one processor: applicability, parameters with units and ranges, outputs."""
    from pacs.processing.registry import describe, discover

    with one_line_errors():
        found = discover(load().plugins_path)
    if name not in found:
        raise fail(f"there is no processor {name}; there are {', '.join(sorted(found))}")
    row: dict[str, Any] = describe(found[name])
    if as_json:
        emit([row])
        return
    for key, value in row.items():
        if key == "parameters":
            out.print("parameters")
            for parameter in value:
                out.print("  " + "  ".join(f"{k}={v}" for k, v in parameter.items() if v not in (None, "")), highlight=False)
        else:
            out.print(f"{key}: {value}", highlight=False, soft_wrap=True)


@app.command("recall")
def recall(
    name: Annotated[str, typer.Argument(help="The processor.")],
    version: Annotated[str, typer.Option("--version", help="The version whose results must not be seen any more.")],
    reason: Annotated[str, typer.Option(help="Why, for those who come after; never a value of a data set.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take the recall back: show its results again.")] = False,
    as_json: Json = False,
) -> None:
    """Hide everything that a version of a processor made from queries and retrievals, and all that was made of it.

    Nothing is deleted, and --undo shows it again. Jobs of that version that wait or run are cancelled, and none is made.
    """
    from pacs.cli.console import open_archive

    with open_archive("cli") as (_, archive):
        recalls = archive.index.recalls
        series, instances = recalls.end(name, version) if undo else recalls.begin(name, version, reason)
    row = {"processor": name, "version": version, "recalled": not undo, "series": series, "instances": instances}
    if as_json:
        emit([row])
    else:
        out.print(
            f"{name} {version}: {series} series, {instances} objects {'shown again' if undo else 'hidden'}", highlight=False
        )


@app.command("recalls")
def recalls(as_json: Json = False) -> None:
    """List the versions that were recalled, and when that was taken back."""
    from pacs.cli.console import open_archive

    with open_archive("cli") as (_, archive):
        found = archive.index.recalls.all()
    rows = [
        {
            "processor": one.processor,
            "version": one.version,
            "reason": one.reason,
            "at": _moment(one.at),
            "ended_at": _moment(one.ended_at) if one.ended_at else "",
        }
        for one in found
    ]
    columns = {"processor": "Processor", "version": "Version", "at": "Recalled", "ended_at": "Taken back", "reason": "Reason"}
    show(rows, columns=columns, as_json=as_json, empty="Nothing was recalled.")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
