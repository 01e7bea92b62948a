"""`pacs phantom`: images whose truth is known, to try an archive, a processor or a viewer with."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pacs.cli.console import Json, emit, err, fail, show

app = typer.Typer(help="Images whose truth is known, with lesions, noise, motion and defects as you ask.", no_args_is_help=True)


@app.command("list")
def list_phantoms(as_json: Json = False) -> None:
    """List the phantoms and the defects that can be put into them."""
    from pacs.phantoms.catalogue import PHANTOMS
    from pacs.phantoms.defects import DEFECTS

    rows = [{"name": name, "summary": summary} for name, (summary, _) in PHANTOMS.items()]
    show(rows, columns={"name": "Name", "summary": "What it is"}, as_json=as_json, empty="")
    if not as_json:
        err.print(f"Defects: {', '.join(DEFECTS)}")


@app.command("make")
def make_phantom(
    name: Annotated[str, typer.Argument(help="Which one; `pacs phantom list` names them.")],
    into: Annotated[Path, typer.Option("--into", help="Folder for the DICOM files, truth.json and the label masks as a SEG.")],
    lesions: Annotated[int | None, typer.Option("--lesions", min=0, help="How many lesions, where it has any.")] = None,
    noise: Annotated[
        float | None, typer.Option("--noise", min=0, help="Further noise: standard deviation in stored values.")
    ] = None,
    motion: Annotated[float, typer.Option("--motion", min=0, help="Every other slice is shifted by this many mm.")] = 0.0,
    defect: Annotated[str | None, typer.Option("--defect", help="One defect, as `pacs phantom list` names them.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed makes another study, the same one the same.")] = 1,
    as_json: Json = False,
) -> None:
    """Write a phantom as DICOM files with a planted, invented identity, and the truth about it beside them."""
    from pydicom.uid import ExplicitVRLittleEndian

    from pacs.phantoms.catalogue import PHANTOMS, Wish, make
    from pacs.phantoms.defects import DEFECTS

    if name not in PHANTOMS:
        raise fail(f"there is no phantom {name}; there are {', '.join(PHANTOMS)}")
    if defect is not None and defect not in DEFECTS:
        raise fail(f"there is no defect {defect}; there are {', '.join(DEFECTS)}")
    made = make(name, Wish(lesions, noise, motion, defect, seed))
    into.mkdir(parents=True, exist_ok=True)
    if any(into.iterdir()):
        raise fail(f"{into} is not empty: name a new folder, so that two phantoms are not mixed")
    count = 0
    for number, images in enumerate(made.series, start=1):
        for one in images:
            count += 1
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
            one.save_as(into / f"{number}-{one.Modality}-{count:04}.dcm", enforce_file_format=True)
    if made.labels is not None and defect is None:
        _write_labels(into / "labels.dcm", made.series[0], made.labels, dict(made.names))
    truth = {"phantom": name, "seed": seed, "labels": made.names, **made.truth}
    (into / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    if as_json:
        emit([{"phantom": name, "folder": str(into), "images": count, "labels": len(made.names)}])
    else:
        err.print(f"{count} images in {into}; what is true of them stands in truth.json. Send them with `pacs send {into}`.")


def _write_labels(path: Path, images: list, labels: object, names: dict[int, str]) -> None:  # type: ignore[type-arg]
    """Write label masks as a segmentation of the first series."""
    from pacs.processing import Segment, Segmentation, Series, private_code
    from pacs.processing.derive import Provenance, derive

    segments = {
        number: Segment(text, private_code(text.upper().replace(" ", "-")[:16], text)) for number, text in names.items()
    }
    output = Segmentation(Series(images), labels, segments, "Truth")
    (made,) = derive([output], Provenance(str(images[0].SeriesInstanceUID), "phantom", "1.0.0"))
    made.dataset.save_as(path, enforce_file_format=True)
