"""`pacs export`: a query's images as a data set for model builders."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, one_line_errors, open_archive


def export(
    folder: Annotated[Path, typer.Argument(help="New folder for the files and manifest.jsonl.")],
    format_: Annotated[str, typer.Option("--format", help="nifti, dicom or zarr.")] = "nifti",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help='Which series: "Modality=CT", "SliceThickness=<=3", "BodyPartExamined=CHEST*".'),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help='Shares of patients: "train=0.7", "test=0.3". One patient, one split.')
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides splits and augmentation; keep it to add patients later.")] = 1,
    spacing_mm: Annotated[float | None, typer.Option("--spacing", min=0.1, help="Resample to cubes of this edge (mm).")] = None,
    window: Annotated[
        str | None, typer.Option("--window", help='Clip to "LOW,HIGH" in modality units (HU, SUV) and map to 0..1.')
    ] = None,
    zscore: Annotated[bool, typer.Option("--zscore", help="Subtract each volume's mean, divide by its deviation.")] = False,
    augment: Annotated[
        int, typer.Option("--augment", min=0, max=100, help="Variants of each volume: turned, scaled, noisy.")
    ] = 0,
    masks_only: Annotated[bool, typer.Option("--with-masks", help="Only series that have a segmentation.")] = False,
    as_json: Json = False,
) -> None:
    """Write a query's images as NIfTI, DICOM or Zarr with masks, splits by patient and a manifest of where all came from.

    What is written is de-identified but in the clear: protect the folder as your data use agreement asks.
    """
    from pacs.processing.export import Plan
    from pacs.processing.export import export as run

    with one_line_errors():
        plan = Plan(
            format=format_,
            where=dict(_pair(one) for one in where or ()),
            splits={name: _number(share) for name, share in map(_pair, split or ("train=1",))},
            seed=seed,
            spacing_mm=spacing_mm,
            window=_window(window),
            zscore=zscore,
            augment=augment,
            masks_only=masks_only,
        )
    rows: list[dict[str, Any]] = []
    with open_archive("cli") as (_, archive), err.status("Exporting …") as status:
        for row in run(archive, folder, plan):
            rows.append(row)
            status.update(f"Exporting … {len(rows)} files")
            if as_json:
                emit([row])
    files, left = [row for row in rows if "file" in row], [row for row in rows if "left_out" in row]
    if as_json:
        return
    series = {row["series_instance_uid"] for row in files}
    by_split = {name: {row["series_instance_uid"] for row in files if row["split"] == name} for name in plan.splits}
    counted = ", ".join(f"{name} {len(uids)}" for name, uids in by_split.items())
    err.print(f"{len(files)} files of {len(series)} series ({counted}) in {folder}; manifest.jsonl says where each came from.")
    for row in left:
        err.print(f"left out: {row['series_instance_uid']}: {row['left_out']}", highlight=False, soft_wrap=True)
    if not rows:
        raise fail("no series matches: loosen --where, or look with `pacs studies`")


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise fail(f'"{text}" is not NAME=VALUE')
    return name.strip(), value.strip()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise fail(f'"{text}" is not a number') from None


def _window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    low, _, high = text.partition(",")
    found = _number(low), _number(high)
    if found[0] >= found[1]:
        raise fail("--window needs LOW,HIGH with LOW below HIGH")
    return found
