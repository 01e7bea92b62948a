"""Images as files for programs, and the files and JSON that programs make as outputs: the `[[output]]` tables of a manifest.

    [[output]]                               # labels
    kind = "segmentation"                    # or "probabilities": values from 0 to 1 of one segment
    file = "lungs.nii.gz"
    description = "Lungs"
    encoding = "labelmap"                    # "binary" where absent
    segments = [{ label = 1, name = "Lung", code = ["39607008", "SCT", "Lung"] }]

    [[output]]
    kind = "map"                             # numbers with a meaning and a unit
    file = "adc.nii"
    description = "ADC"
    quantity = ["113041", "DCM", "Apparent Diffusion Coefficient"]
    unit = ["mm2/s", "UCUM", "mm2/s"]

    [[output]]
    kind = "images"                          # a derived series, in modality units
    file = "smooth.nii"
    description = "smoothed"

NIfTI is written and read by SimpleITK, which turns between its axes (RAS) and DICOM's (LPS). A file named here and not made is
an error. `results.json`, where there is one, may hold `skip` (why the images are not what the program is for), `measurements`
(`label`, `name`, `value`, `unit`; of the first segmentation) and `findings` (`question`, `answer`, `certainty`, `reason`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.model.errors import ConfigurationError
from pacs.processing.api import NotApplicable
from pacs.processing.concepts import Code
from pacs.processing.outputs import (
    Finding,
    Images,
    Map,
    Measurements,
    Output,
    Probabilities,
    Report,
    Segment,
    Segmentation,
    Value,
)
from pacs.processing.series import Geometry, Series
from pacs.processing.volumes import Storage

KINDS = ("segmentation", "probabilities", "map", "images")
_LARGEST_JSON = 1 << 20


def code(given: Any) -> Code:
    """Return a concept from its [value, scheme, meaning]."""
    if not (isinstance(given, list) and len(given) == 3 and all(isinstance(one, str) and one for one in given)):
        raise ConfigurationError('a code is written ["39607008", "SCT", "Lung"]: value, coding scheme, meaning')
    return Code(*given)


def segments(given: Any) -> dict[int, Segment]:
    """Return the segments of an output by their label."""
    found = {}
    for one in given:
        color = tuple(one["color_rgb"]) if "color_rgb" in one else Segment.color_rgb
        found[int(one["label"])] = Segment(str(one["name"]), code(one["code"]), color_rgb=color)
    if not found or min(found) < 1:
        raise ConfigurationError("a segmentation needs segments, labelled from 1")
    return found


def check(outputs: Sequence[Mapping[str, Any]]) -> None:
    """Raise `ConfigurationError` where an output is not described as it must be."""
    for one in outputs:
        if one.get("kind") not in KINDS:
            raise ConfigurationError(f"kind must be one of {', '.join(KINDS)}")
        if not str(one.get("file", "")) or Path(str(one["file"])).name != one["file"]:
            raise ConfigurationError("file must be a name, without a folder")
        if one["kind"] in ("segmentation", "probabilities"):
            segments(one["segments"])
        if one["kind"] == "map":
            code(one["quantity"]), code(one["unit"])


def write(series: Series, folder: Path, kind: str) -> dict[str, Any]:
    """Write a series as one NIfTI file or as DICOM files, named by number; return what the program is told of it.

    Raises `NotApplicable` where NIfTI is wanted and the series is no volume.
    """
    about: dict[str, Any] = {"modality": series.modality, "images": len(series)}
    if kind == "nifti":
        path = folder.with_suffix(".nii")
        sitk.WriteImage(series.volume(), str(path))
        return about | {"file": path.name}
    folder.mkdir()
    for number, one in enumerate(series.instances, 1):
        if series.instances is not series.datasets:
            raise NotApplicable("needs single-frame images for DICOM files")
        dataset = Dataset()
        dataset.update(one)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = one.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian)
        dataset.save_as(folder / f"{number:05}.dcm", enforce_file_format=True)
    return about | {"folder": folder.name}


def outputs(series: Series, folder: Path, described: Sequence[Mapping[str, Any]]) -> Iterator[Output]:
    """Yield what a program has made. Raises `NotApplicable` where it says so, `FileNotFoundError` for what it has not made."""
    told = _results(folder)
    if told.get("skip"):
        raise NotApplicable(str(told["skip"])[:500])
    labelled: Segmentation | None = None
    for one in described:
        path = folder / str(one["file"])
        if path.is_symlink() or not path.is_file():
            raise FileNotFoundError(str(one["file"]))
        image = sitk.ReadImage(str(path))
        made = _output(series, image, one)
        if labelled is None and isinstance(made, Segmentation):
            labelled = made
        yield made
    if told.get("measurements"):
        if labelled is None:
            raise ValueError("measurements need a segmentation")
        yield Measurements(labelled, _measured(told["measurements"]), "Measurements")
    if told.get("findings"):
        found = [
            Finding(
                code(one["question"]),
                code(one["answer"]) if one.get("answer") else None,
                float(one.get("certainty", 0)),
                str(one.get("reason", "")),
            )
            for one in told["findings"]
        ]
        yield Report(series, found, "Findings")


def _results(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    if not path.is_file() or path.is_symlink():
        return {}
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError("results.json is too large")
    told = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(told, dict):
        raise ValueError("results.json must be an object")
    return told


def _output(series: Series, image: Any, one: Mapping[str, Any]) -> Output:
    description, kind = str(one.get("description", one["kind"])), one["kind"]
    if kind == "images":
        geometry = _grid(image)
        values = sitk.GetArrayFromImage(image).astype(np.float32)
        same = geometry.shape == series.geometry().shape and _is_on(image, series)
        storage = Storage.of(series, float(values.min()), float(values.max()))
        return Images(
            pixels=[storage.stored(plane) for plane in values],
            like=series.datasets if same else [series.first] * len(values),
            sources=None if same else [series.datasets] * len(values),
            geometry=None if same else geometry,
            description=description,
            slope=storage.slope,
            intercept=storage.intercept,
            bits_stored=storage.bits,
        )
    # Labels and numbers lie on the source's grid, so that they can be shown on it; another grid is brought there.
    if kind == "segmentation":
        labels = sitk.GetArrayFromImage(_on(image, series, sitk.sitkNearestNeighbor))
        return Segmentation(
            series, np.rint(labels).astype(np.uint8), segments(one["segments"]), description, one.get("encoding", "binary")
        )
    values = sitk.GetArrayFromImage(_on(sitk.Cast(image, sitk.sitkFloat32), series, sitk.sitkLinear))
    if kind == "probabilities":
        return Probabilities(series, np.clip(values, 0, 1), list(segments(one["segments"]).values()), description)
    return Map(series, values, code(one["quantity"]), code(one["unit"]), description)


def _is_on(image: Any, series: Series) -> bool:
    grid = series.geometry()
    wanted = grid.image(np.zeros((1, 1, 1), np.uint8))
    return (
        tuple(reversed(image.GetSize())) == grid.shape
        and np.allclose(image.GetSpacing(), wanted.GetSpacing(), rtol=1e-3)
        and np.allclose(image.GetOrigin(), wanted.GetOrigin(), atol=0.05 * min(grid.spacing_mm))
        and np.allclose(image.GetDirection(), wanted.GetDirection(), atol=1e-3)
    )


def _on(image: Any, series: Series, method: int) -> Any:
    if image.GetDimension() != 3:
        raise ValueError("images of programs have three dimensions")
    if _is_on(image, series):
        return image
    grid = series.geometry()
    reference = sitk.Image([grid.shape[2], grid.shape[1], grid.shape[0]], sitk.sitkUInt8)
    wanted = grid.image(np.zeros((1, 1, 1), np.uint8))
    reference.SetSpacing(wanted.GetSpacing())
    reference.SetOrigin(wanted.GetOrigin())
    reference.SetDirection(wanted.GetDirection())
    return sitk.Resample(image, reference, sitk.Transform(), method, 0)


def _grid(image: Any) -> Geometry:
    directions = np.array(image.GetDirection()).reshape(3, 3)
    if not np.allclose(np.cross(directions[:, 0], directions[:, 1]), directions[:, 2], atol=1e-3):
        raise ValueError("images of programs need a right-handed grid")
    spacing, origin = image.GetSpacing(), image.GetOrigin()
    row, column = directions[:, 0], directions[:, 1]
    return Geometry(
        (origin[0], origin[1], origin[2]),
        (float(row[0]), float(row[1]), float(row[2])),
        (float(column[0]), float(column[1]), float(column[2])),
        (spacing[2], spacing[1], spacing[0]),
        tuple(reversed(image.GetSize())),
    )


def _measured(given: Any) -> dict[int, list[Value]]:
    found: dict[int, list[Value]] = {}
    for one in given:
        value = Value(code(one["name"]), float(one["value"]), code(one["unit"]))
        found.setdefault(int(one.get("label", 1)), []).append(value)
    return found
