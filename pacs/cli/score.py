"""`pacs score`: how well processors do, on phantoms of known truth or on a labelled folder; and their pages."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, one_line_errors, out
from pacs.settings import load


def score(
    names: Annotated[list[str] | None, typer.Argument(help="Which processors; all where none is named.")] = None,
    pages: Annotated[
        Path | None, typer.Option("--pages", help="Write each processor's page and picture into this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure processors against truth: Dice, Hausdorff distance, errors of volume and place, sensitivity, confusion."""
    import cv2

    from pacs.processing.pages import page
    from pacs.processing.registry import discover
    from pacs.processing.scoring import scored

    with one_line_errors():
        found = discover(load().plugins_path)
    scores = scored()
    unknown = [name for name in names or () if name not in scores]
    if unknown:
        raise fail(f"there is no score of {unknown[0]}; there are scores of {', '.join(sorted(scores))}")
    if pages is not None:
        pages.mkdir(parents=True, exist_ok=True)
    for name in names or sorted(scores):
        with err.status(f"Measuring {name} …"):
            measured = scores[name]()
        if pages is not None:
            (pages / f"{name}.md").write_text(page(found[name], measured), encoding="utf-8")
            cv2.imwrite(str(pages / f"{name}.png"), measured.picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        row: dict[str, Any] = {"processor": name, "version": found[name].version, "on": measured.phantom}
        if as_json:
            emit([row | {"scores": measured.scores, "tables": measured.tables}])
            continue
        out.print(f"{name} {found[name].version}, on {measured.phantom}", style="bold", highlight=False, soft_wrap=True)
        for measure, value in measured.scores.items():
            out.print(f"  {measure}: {value:g}", highlight=False, soft_wrap=True)
        for title, rows in measured.tables.items():
            out.print(f"  {title}", highlight=False)
            for line in rows:
                out.print("    " + "  ".join(line), highlight=False, soft_wrap=True)
