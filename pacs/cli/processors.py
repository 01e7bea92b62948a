"""`pacs processors`: which there are, what one of them takes and makes, a new one, and one tried on files."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, one_line_errors, out, show
from pacs.settings import load

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from pacs.processing.trial import Trial

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
    from pacs import recalls as recalling
    from pacs.cli.console import open_archive

    with open_archive("cli") as (_, archive):
        if undo:
            series, instances = recalling.end(archive, name, version)
        else:
            series, instances = recalling.begin(archive, name, version, reason)
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


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="What it will be called: lower-case letters, digits and hyphens.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to; else the folder where the archive finds it.")
    ] = None,
) -> None:
    """Write a working plug-in and its test, to be changed into yours."""
    from pacs.processing import template

    with one_line_errors():
        plugin, test = template.write(name, folder or load().plugins_path)
    out.print(str(plugin), highlight=False, soft_wrap=True)
    out.print(str(test), highlight=False, soft_wrap=True)
    err.print(f"Try it: pacs processors test {name} FILE… ; its test: pytest {test}", highlight=False, soft_wrap=True)


@app.command("test")
def test(
    name: str,
    files: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.", exists=True)],
    output: Annotated[Path, typer.Option("--out", help="Folder for the results and the picture.")] = Path("results"),
    parameters: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter; may be given several times.")
    ] = None,
    any_input: Annotated[bool, typer.Option("--any", help="Give it every series, whatever its own conditions say.")] = False,
    as_json: Json = False,
) -> None:
    """Run a processor on files as a job would, write what it makes and a picture, and say what is wrong.

    It runs in the same isolated process as in the archive, which is not touched; results go through the same checks. Errors are
    quoted in full, as no job does. Exit code 1 where it failed or nothing was for it.
    """
    from dataclasses import replace

    from pacs.processing import trial
    from pacs.processing.api import ParameterError
    from pacs.processing.registry import survey

    with one_line_errors():
        settings = load()
        found, problems = survey(settings.plugins_path)
    if name not in found:
        for problem in problems:
            err.print(f"{problem.source} cannot be loaded: {problem.error} {problem.place}", highlight=False, soft_wrap=True)
        raise fail(f"there is no processor {name}; there are {', '.join(sorted(found))}")
    spec = replace(found[name], when={}) if any_input else found[name]
    series, others = trial.read(files)
    runs, reasons = trial.inputs_of(spec, series)
    for reason in reasons:
        err.print(f"not for it: {reason}", highlight=False, soft_wrap=True)
    if not runs:
        raise fail(f"none of {len(series)} series is for {name} ({others} files were no images); --any gives it all of them")
    given = dict(one.partition("=")[::2] for one in parameters or ())
    limits = settings.processing
    failed = False
    for number, one in enumerate(runs):
        try:
            ended = trial.run(spec, one, given, timeout_s=limits.timeout_s, memory_mb=limits.memory_mb, folder=limits.scratch)
        except ParameterError as error:
            raise fail(str(error)) from error
        row = _written(ended, one, output if len(runs) == 1 else output / str(number + 1))
        failed |= not ended.succeeded
        if as_json:
            emit([{"processor": name, "version": spec.version} | row])
        else:
            _tell(f"{name} {spec.version}", ended, row)
    raise typer.Exit(1 if failed else 0)


def _written(ended: "Trial", series: "Sequence[Sequence[Dataset]]", folder: Path) -> dict[str, Any]:
    """Write results and picture; return what was made."""
    import cv2

    from pacs.processing.series import Series
    from pacs.processing.sheet import sheet

    objects = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(ended.results, 1):
        path = folder / f"{number:04}-{one.Modality}.dcm"
        one.save_as(path, enforce_file_format=True)
        objects.append({"modality": str(one.Modality), "description": str(one.get("SeriesDescription", "")), "file": str(path)})
    picture = ""
    if ended.results:
        picture = str(folder / "picture.png")
        cv2.imwrite(picture, sheet([Series(one) for one in series], ended.results)[..., ::-1])
    return {
        "inputs": [len(one) for one in series],
        "state": str(ended.state),
        "reason": ended.reason,
        "duration_s": round(ended.duration_s, 2),
        "peak_mb": ended.peak_mb,
        "objects": objects,
        "picture": picture,
        "trace": ended.trace,
    }


def _tell(title: str, ended: "Trial", row: dict[str, Any]) -> None:
    images = ", ".join(f"{count} images" for count in row["inputs"])
    out.print(f"{title} on {images}: {row['state']} in {row['duration_s']} s", style="bold", highlight=False, soft_wrap=True)
    if row["peak_mb"]:
        out.print(f"  most memory: {row['peak_mb']} MiB", highlight=False)
    if row["reason"]:
        out.print(f"  {row['reason']}", highlight=False, soft_wrap=True, markup=False)
    if row["trace"] and ended.state == "failed":
        out.print(row["trace"], highlight=False, soft_wrap=True, markup=False)
    together: dict[tuple[str, str], list[str]] = {}
    for one in row["objects"]:
        together.setdefault((one["modality"], one["description"]), []).append(one["file"])
    for (modality, description), paths in together.items():
        told = f"  {modality}  {description}  {len(paths)} valid object{'s' if len(paths) > 1 else ''}: {paths[0]}"
        out.print(told, highlight=False, soft_wrap=True, markup=False)
    if row["picture"]:
        out.print(f"  picture: {row['picture']}", highlight=False, soft_wrap=True)
