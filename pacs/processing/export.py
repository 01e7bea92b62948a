"""A query's images as a data set for model builders: volumes with masks, split by patient, standardised, augmented, explained.

Everything is decided by the seed and by UIDs: the same archive and the same plan give the same files, and a patient stays in
its split when others are added. `manifest.jsonl` says of every file where it came from and what was done to it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs import __version__
from pacs.archive import Archive
from pacs.dicom.conditions import matches
from pacs.model.errors import ConfigurationError
from pacs.model.instance import Stored
from pacs.model.query import Level, Query
from pacs.processing.api import NotApplicable
from pacs.processing.series import Geometry, Series
from pacs.processing.truth import SEGMENTATION, segments
from pacs.processing.volumes import grid_over, resampled
from pacs.retrieve import part10_file

FORMATS = ("nifti", "dicom", "zarr")
MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Plan:
    """What an export does.

    `where` are conditions on attributes of a series as in rules. `splits` are shares by name. `spacing_mm` resamples to cubes,
    `window` (low, high, in modality units) clips and maps to 0..1, `zscore` subtracts the mean and divides by the deviation.
    `augment` adds so many variants of each volume, turned, scaled and made noisier at random.
    """

    format: str = "nifti"
    where: Mapping[str, Any] = field(default_factory=dict)
    splits: Mapping[str, float] = field(default_factory=lambda: {"train": 1.0})
    seed: int = 1
    spacing_mm: float | None = None
    window: tuple[float, float] | None = None
    zscore: bool = False
    augment: int = 0
    masks_only: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigurationError(f"there is no format {self.format}; there are {', '.join(FORMATS)}")
        if self.format == "dicom" and (self.spacing_mm or self.window or self.zscore or self.augment):
            raise ConfigurationError("DICOM files are exported as they are: standardise and augment with nifti or zarr")
        if self.window is not None and self.zscore:
            raise ConfigurationError("choose one: a window, or the mean and deviation of each volume")
        if not self.splits or min(self.splits.values()) < 0 or abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ConfigurationError("the shares of the splits must add up to 1")

    def split_of(self, patient_id: str) -> str:
        """Return a patient's split: by a digest, so that it does not depend on who else is there."""
        digest = hashlib.sha256(f"{self.seed}|{patient_id}".encode()).digest()
        place, bound = int.from_bytes(digest[:8], "big") / 2**64, 0.0
        for name, share in self.splits.items():
            bound += share
            if place < bound:
                return name
        return list(self.splits)[-1]


def export(archive: Archive, folder: Path, plan: Plan) -> Iterator[dict[str, Any]]:
    """Write what the plan asks for into `folder`; yield the manifest's rows, one a file, and one for each series left out.

    Raises
    ------
    ConfigurationError
        Where the folder already holds an export: two of them must not be mixed.
    """
    if (folder / MANIFEST).exists():
        raise ConfigurationError(f"{folder} already holds an export: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / MANIFEST).open("w", encoding="utf-8") as manifest:
        for found in archive.index.search(Query(Level.SERIES, return_keys=("PatientID", "Modality"))):
            stored = archive.index.locate(series_instance_uids=(found["SeriesInstanceUID"],))
            if not stored or not matches(plan.where, {**stored[0].attributes, **found}):
                continue
            # Masks go with their images; reports and presentation states are no images.
            if stored[0].sop_class_uid in SEGMENTATION or not stored[0].attributes.get("Rows"):
                continue
            for row in _series(archive, folder, plan, stored, found):
                manifest.write(json.dumps(row, ensure_ascii=False) + "\n")
                yield row


def _series(
    archive: Archive, folder: Path, plan: Plan, stored: Sequence[Stored], found: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    patient = found.get("PatientID", "")
    split = plan.split_of(patient)
    place = folder / split / _safe(patient) / found["SeriesInstanceUID"]
    common = {
        "split": split,
        "patient_id": patient,
        "study_instance_uid": found["StudyInstanceUID"],
        "series_instance_uid": found["SeriesInstanceUID"],
        "modality": found.get("Modality", ""),
        "instances": len(stored),
        # What the volume was made of: the digests of the stored objects, in their order.
        "source_sha256": hashlib.sha256(b"".join(one.digest for one in stored)).hexdigest(),
        "software": f"mini-pacs {__version__}",
        "plan": {key: value for key, value in asdict(plan).items() if value not in (None, False, 0, {})},
    }
    labels = list(_labels(archive, found))
    if plan.format == "dicom":
        yield from _dicom(archive, folder, place, [*stored], labels, common)
        return
    series = Series([_dataset(archive, one) for one in stored])
    try:
        geometry, values = series.geometry(), series.array()
    except NotApplicable as reason:
        yield common | {"left_out": str(reason)}
        return
    mask, meanings = _mask(series, labels)
    if plan.masks_only and not meanings:
        yield common | {"left_out": "no segmentation of it"}
        return
    values, mask, geometry = standardised(values, mask, geometry, plan)
    for number in range(plan.augment + 1):
        image, label = (values, mask) if number == 0 else augmented(values, mask, plan.seed, found["SeriesInstanceUID"], number)
        paths = _write(place, plan.format, number, image, label if meanings else None, geometry)
        for kind, path in paths:
            row = common | {"file": str(path.relative_to(folder)), "kind": kind, "variant": number, "sha256": _digest(path)}
            yield row | ({"labels": meanings} if kind == "mask" or path.suffix == ".zarr" else {})


def _labels(archive: Archive, found: Mapping[str, str]) -> Iterator[tuple[Stored, Dataset]]:
    """Yield the segmentations of a series."""
    for one in archive.index.locate(study_instance_uids=(found["StudyInstanceUID"],)):
        if one.sop_class_uid in SEGMENTATION:
            dataset = _dataset(archive, one)
            referenced = {str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence", [])}
            if found["SeriesInstanceUID"] in referenced:
                yield one, dataset


def _mask(series: Series, labels: Sequence[tuple[Stored, Dataset]]) -> tuple[NDArray[np.uint8], dict[str, dict[str, str]]]:
    """Return one label map of all segments, later ones over earlier ones, and what each number means and who made it."""
    first = series.first
    mask = np.zeros((len(series), first.Rows, first.Columns), np.uint8)
    meanings: dict[str, dict[str, str]] = {}
    for _, dataset in labels:
        made = (dataset.get("ContributingEquipmentSequence") or [Dataset()])[0]
        for name, part in segments(dataset, series).items():
            number = len(meanings) + 1
            mask[part] = number
            meanings[str(number)] = {
                "label": name,
                "made_by": str(made.get("ManufacturerModelName", "")),
                "version": str(made.get("SoftwareVersions", "")),
                "sop_instance_uid": str(dataset.SOPInstanceUID),
            }
    return mask, meanings


def standardised(
    values: NDArray[np.float32], mask: NDArray[np.uint8], geometry: Geometry, plan: Plan
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Geometry]:
    """Return volume and mask resampled to cubes and with values in the plan's range; masks keep whole numbers."""
    if plan.spacing_mm:
        step = plan.spacing_mm
        target = grid_over(geometry, geometry.row, geometry.column, (step, step, step))
        values = resampled(values, geometry, target, outside=float(values.min()))
        mask = np.rint(resampled(mask.astype(np.float32), geometry, target, interpolation="nearest")).astype(np.uint8)
        geometry = target
    if plan.window is not None:
        low, high = plan.window
        values = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    if plan.zscore:
        values = ((values - values.mean()) / (values.std() + 1e-6)).astype(np.float32)
    return values, mask, geometry


def augmented(
    values: NDArray[np.float32], mask: NDArray[np.uint8], seed: int, uid: str, number: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return a variant: turned by up to 10 degrees about the slices' normal, scaled by up to 10 %, noisier by up to 3 %.

    The same seed, series and number give the same variant; the mask moves with the volume. Nothing is mirrored: sides matter.
    """
    import cv2

    random = np.random.default_rng([seed, number, int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4], "big")])
    angle, scale = random.uniform(-10, 10), random.uniform(0.9, 1.1)
    noise = random.uniform(0, 0.03) * float(np.ptp(values))
    rows, columns = values.shape[1:]
    move = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), angle, scale)
    low = float(values.min())
    image = np.stack([cv2.warpAffine(plane, move, (columns, rows), borderValue=low) for plane in values])
    label = np.stack([cv2.warpAffine(plane, move, (columns, rows), flags=cv2.INTER_NEAREST) for plane in mask])
    return (image + random.normal(0, noise, image.shape)).astype(np.float32), label


def _write(
    place: Path, kind: str, number: int, image: NDArray[np.float32], mask: NDArray[np.uint8] | None, geometry: Geometry
) -> Iterator[tuple[str, Path]]:
    place.mkdir(parents=True, exist_ok=True)
    suffix = f"_{number}" if number else ""
    if kind == "zarr":
        import zarr

        path = place / f"volume{suffix}.zarr"
        group = zarr.create_group(path)
        group.create_array("image", data=image)
        if mask is not None:
            group.create_array("mask", data=mask)
        group.attrs["geometry"] = asdict(geometry)
        yield "volume", path
        return
    import SimpleITK as sitk

    for name, array in (("image", image), ("mask", mask)):
        if array is not None:
            path = place / f"{name}{suffix}.nii.gz"
            sitk.WriteImage(geometry.image(array), str(path))
            yield name, path


def _dicom(
    archive: Archive,
    folder: Path,
    place: Path,
    stored: Sequence[Stored],
    labels: Sequence[tuple[Stored, Dataset]],
    common: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    place.mkdir(parents=True, exist_ok=True)
    for kind, one in [*(("image", one) for one in stored), *(("mask", one) for one, _ in labels)]:
        path = place / f"{one.key.sop_instance_uid}.dcm"
        with path.open("wb") as sink:
            for buffer in part10_file(archive, one, (ExplicitVRLittleEndian,)):
                sink.write(buffer)
        yield dict(common) | {"file": str(path.relative_to(folder)), "kind": kind, "variant": 0, "sha256": _digest(path)}


def _dataset(archive: Archive, stored: Stored) -> Dataset:
    return dcmread(BytesIO(b"".join(part10_file(archive, stored, (ExplicitVRLittleEndian,)))))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for part in sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]:
        digest.update(part.read_bytes())
    return digest.hexdigest()


def _safe(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text) or "unknown"
