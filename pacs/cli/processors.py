"""`pacs processors`: which there are, and what one of them takes and makes."""

from typing import Any

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
