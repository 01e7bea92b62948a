"""Two jobs side by side: what differs in version, parameters and inputs, and by how much their results differ.

Images are compared in modality units, image by image; segmentations by the Dice coefficient of each segment (Dice LR, Ecology
26 (1945) 297-302) over the planes of both; reports number by number and answer by answer. Recalled results are compared, too.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from pacs.archive import Archive
from pacs.model.instance import Stored
from pacs.model.job import Job
from pacs.processing.findings import findings
from pacs.processing.series import rescale
from pacs.retrieve import data_set

Planes = dict[str, dict[tuple[float, ...], NDArray[np.bool_]]]


def compare(archive: Archive, one: Job, other: Job) -> dict[str, Any]:
    """Return how two jobs and their results differ.

    ``{"jobs": [of one, of other], "parameters": {name: [value, value]} that differ, "same_inputs": bool, "outputs": [...]}``;
    an output has ``modality``, ``description``, ``digests``, ``equal``, and ``differences``: what differs, with numbers.
    """
    names = sorted({*one.parameters, *other.parameters})
    pairs = {name: [one.parameters.get(name), other.parameters.get(name)] for name in names}
    return {
        "jobs": [_job(job) for job in (one, other)],
        "parameters": {name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
        "same_inputs": one.series_instance_uids == other.series_instance_uids,
        "outputs": [_output(archive, *pair) for pair in _paired(_results(archive, one), _results(archive, other))],
    }


def _job(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "processor": job.processor,
        "version": job.version,
        "state": job.state.value,
        "rule": job.rule,
    }


def _results(archive: Archive, job: Job) -> list[list[Stored]]:
    if not job.output_series_instance_uids:
        return []
    series: dict[str, list[Stored]] = {}
    for stored in archive.index.locate(
        study_instance_uids=[job.study_instance_uid],
        series_instance_uids=list(job.output_series_instance_uids),
        include_held=True,
    ):
        series.setdefault(stored.key.series_instance_uid, []).append(stored)
    return list(series.values())


def _paired(one: list[list[Stored]], other: list[list[Stored]]) -> Iterator[tuple[list[Stored], list[Stored]]]:
    """Pair results that are the same kind of object, in their order; what has no counterpart stands beside nothing."""
    left = list(other)
    for series in one:
        found = next((candidate for candidate in left if candidate[0].sop_class_uid == series[0].sop_class_uid), [])
        if found:
            left.remove(found)
        yield series, found
    for series in left:
        yield [], series


def _output(archive: Archive, one: Sequence[Stored], other: Sequence[Stored]) -> dict[str, Any]:
    first = (one or other)[0]
    digests = [_digest(series) for series in (one, other)]
    differences: list[dict[str, Any]] = []
    if not one or not other:
        differences = [{"what": "only one of the two made it"}]
    elif _pixel_data(archive, one) != _pixel_data(archive, other) or digests[0] != digests[1]:
        differences = list(_differences(archive, one, other))
    return {
        "modality": first.attributes.get("Modality", ""),
        "description": first.attributes.get("SeriesDescription", ""),
        "instances": [len(one), len(other)],
        "digests": digests,
        "equal": not differences and len(one) == len(other),
        "differences": differences,
    }


def _digest(series: Sequence[Stored]) -> str:
    """A digest of what a series holds; UIDs and provenance are part of it, so that only the same job makes the same."""
    return hashlib.sha256(b"".join(stored.digest for stored in series)).hexdigest() if series else ""


def _pixel_data(archive: Archive, series: Sequence[Stored]) -> list[bytes]:
    """Digests of the pixel data alone."""
    return [hashlib.sha256(_dataset(archive, stored).get("PixelData") or b"").digest() for stored in series]


def _dataset(archive: Archive, stored: Stored) -> Dataset:
    parts = data_set(archive, stored, [ExplicitVRLittleEndian])
    dataset: Dataset = dcmread(BytesIO(b"".join(parts.buffers)), force=True)
    dataset.file_meta.TransferSyntaxUID = UID(parts.transfer_syntax_uid)
    return dataset


def _differences(archive: Archive, one: Sequence[Stored], other: Sequence[Stored]) -> Iterator[dict[str, Any]]:
    first, second = _dataset(archive, one[0]), _dataset(archive, other[0])
    if "ContentSequence" in first:
        yield from _of_reports(findings(first), findings(second))
    elif "SegmentSequence" in first:
        yield from _of_segments(_planes(first), _planes(second))
    elif "PixelData" in first:
        yield from _of_images(archive, one, other)


def _of_reports(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    def by_name(found: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
        return {(str(each.get("of", "")), each["name"][1]): each for each in found}

    left, right = by_name(one), by_name(other)
    for key in dict.fromkeys([*left, *right]):
        a, b = left.get(key), right.get(key)
        said = [None if each is None else each.get("value", each.get("answer", ["", ""])[-1]) for each in (a, b)]
        sure = [None if each is None else each.get("certainty") for each in (a, b)]
        if said[0] != said[1] or sure[0] != sure[1]:
            told: dict[str, Any] = {"what": " ".join(part for part in key if part), "values": said}
            if sure != [None, None]:
                told["certainty"] = sure
            yield told


def _of_segments(one: Planes, other: Planes) -> Iterator[dict[str, Any]]:
    for label in dict.fromkeys([*one, *other]):
        a, b = one.get(label, {}), other.get(label, {})
        both = sum(int(np.count_nonzero(a[at] & b[at])) for at in a.keys() & b.keys())
        sizes = [sum(int(np.count_nonzero(plane)) for plane in planes.values()) for planes in (a, b)]
        dice = 1.0 if not sum(sizes) else 2 * both / sum(sizes)
        if dice < 1:
            yield {"what": f"segment {label}", "dice": round(dice, 6), "voxels": sizes}


def _planes(dataset: Dataset) -> Planes:
    """The masks of a segmentation: by label, then by the place of the plane (PS3.3 C.8.20.2)."""
    labels = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.SegmentSequence}
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    planes: Planes = {}
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0] if "PlanePositionSequence" in groups else Dataset()
        at = tuple(round(float(value), 2) for value in position.get("ImagePositionPatient") or [len(planes)])
        if "SegmentIdentificationSequence" in groups:
            number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            half = int(dataset.get("MaximumFractionalValue") or 0) / 2
            planes.setdefault(labels.get(number, str(number)), {})[at] = frame > half
        else:
            for number in np.unique(frame[frame > 0]):
                planes.setdefault(labels.get(int(number), str(number)), {})[at] = frame == number
    return planes


def _of_images(archive: Archive, one: Sequence[Stored], other: Sequence[Stored]) -> Iterator[dict[str, Any]]:
    count, total, squares, largest = 0, 0.0, 0.0, 0.0
    for a, b in zip(one, other, strict=False):
        first, second = (_values(_dataset(archive, stored)) for stored in (a, b))
        if first.shape != second.shape:
            yield {"what": "sizes of images", "values": [list(first.shape), list(second.shape)]}
            return
        difference = second - first
        count += difference.size
        total += float(difference.sum())
        squares += float(np.square(difference).sum())
        largest = max(largest, float(np.abs(difference).max(initial=0)))
    if len(one) != len(other):
        yield {"what": "number of images", "values": [len(one), len(other)]}
    if largest:
        yield {
            "what": "pixels",
            "mean_difference": round(total / count, 6),
            "rms_difference": round((squares / count) ** 0.5, 6),
            "largest_difference": round(largest, 6),
        }


def _values(dataset: Dataset) -> NDArray[np.float64]:
    slope, intercept = rescale(dataset)
    return np.asarray(dataset.pixel_array, np.float64) * slope + intercept
