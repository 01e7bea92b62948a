"""`pacs score`: how well processors do, on phantoms of known truth or on a labelled folder; and their pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, one_line_errors, out
from pacs.settings import load

if TYPE_CHECKING:
    from pacs.processing.api import Spec
    from pacs.processing.scoring import Measured


def score(
    names: Annotated[list[str] | None, typer.Argument(help="Which processors; all where none is named.")] = None,
    pages: Annotated[
        Path | None, typer.Option("--pages", help="Write each processor's page and picture into this folder.")
    ] = None,
    public: Annotated[
        Path | None, typer.Option("--public", help="Folder of the public image sets that pages speak of, measured as well.")
    ] = None,
    on: Annotated[
        Path | None,
        typer.Option("--on", help="Measure one processor on this folder instead: images with SEG, RTSTRUCT or labels.csv."),
    ] = None,
    called: Annotated[
        list[str] | None, typer.Option("--called", help='What a segment is called in the labels: "Left lung=Lung_L".')
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure processors against truth: Dice, Hausdorff distance, errors of volume and place, sensitivity, confusion."""
    from pacs.processing.registry import discover
    from pacs.processing.scoring import scored

    with one_line_errors():
        found = discover(load().plugins_path)
    if on is not None:
        if names is None or len(names) != 1 or names[0] not in found:
            raise fail(f"name one processor to measure on a folder; there are {', '.join(sorted(found))}")
        _on_folder(found[names[0]], on, called or [], as_json)
        return
    scores, shipped = scored(), discover()
    unknown = [name for name in names or () if name not in scores]
    if unknown:
        raise fail(f"there is no score of {unknown[0]}; there are scores of {', '.join(sorted(scores))}")
    for name in names or sorted(scores):
        with err.status(f"Measuring {name} …"):
            measured = scores[name].score()
            more = None if public is None else scores[name].publicly(public, shipped[name], found[name])
        if pages is not None:
            _write(pages, shipped[name], measured, more)
        for one in (measured, more):
            if one is not None:
                _tell(shipped[name], one, as_json)


def _write(folder: Path, spec: "Spec", measured: "Measured", public: "Measured | None") -> None:
    import cv2

    from pacs.processing.pages import page

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{spec.name}.md"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(page(spec, measured, public, before), encoding="utf-8")
    for suffix, one in (("", measured), ("-public", public)):
        if one is not None:
            cv2.imwrite(str(folder / f"{spec.name}{suffix}.png"), one.picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _tell(spec: "Spec", measured: "Measured", as_json: bool) -> None:
    if as_json:
        row: dict[str, Any] = {"processor": spec.name, "version": spec.version, "on": measured.phantom}
        emit([row | {"scores": measured.scores, "tables": measured.tables}])
        return
    out.print(f"{spec.name} {spec.version}, on {measured.phantom}", style="bold", highlight=False, soft_wrap=True)
    for measure, value in measured.scores.items():
        out.print(f"  {measure}: {value:g}", highlight=False, soft_wrap=True)
    _tell_tables(measured.tables)


def _tell_tables(tables: "Mapping[str, Sequence[Sequence[str]]]") -> None:
    for title, rows in tables.items():
        out.print(f"  {title}", highlight=False)
        for line in rows:
            out.print("    " + "  ".join(line), highlight=False, soft_wrap=True)


def _on_folder(spec: "Spec", folder: Path, called: list[str], as_json: bool) -> None:
    from pacs.processing.labelled import score_folder

    if not folder.is_dir():
        raise fail(f"{folder} is not a folder")
    if any("=" not in one for one in called):
        raise fail("--called needs two names: what the processor says, =, what the labels say")
    with err.status(f"Measuring {spec.name} …"):
        result = score_folder(spec, folder, dict(one.split("=", 1) for one in called))
    if not result.rows:
        raise fail(f"{folder} holds no images with labels that {spec.name} could be compared with")
    if as_json:
        emit(result.rows)
        return
    for row in result.rows:
        out.print("  ".join(f"{key}={value}" for key, value in row.items()), highlight=False, soft_wrap=True)
    _tell_tables(result.tables)
    if result.pairs:
        out.print(f"wrong with a certainty over 0.9: {result.certain_and_wrong}", highlight=False)
