"""Truth that came with the images: masks from segmentations and structure sets, answers and places from a table.

Segmentations: PS3.3 C.8.20; structure sets: PS3.3 C.8.8.6, contours being closed polygons in patient coordinates.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from pacs.processing.series import Series

SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"


@dataclass(frozen=True)
class Labelled:
    """The images of a folder by series, and the objects that label them."""

    series: list[Series]
    labels: list[Dataset]

    def masks(self, series: Series) -> dict[str, NDArray[np.bool_]]:
        """Return the masks (frames, rows, columns) that label this series, by the name of the segment or structure."""
        found: dict[str, NDArray[np.bool_]] = {}
        for one in self.labels:
            found |= segments(one, series) if one.SOPClassUID in SEGMENTATION else structures(one, series)
        return found


def read(folder: Path) -> Labelled:
    """Read every DICOM file under a folder; other files are passed over."""
    images: dict[str, list[Dataset]] = {}
    labels: list[Dataset] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            one = dcmread(path)
        except (InvalidDicomError, EOFError):
            continue
        if one.get("SOPClassUID") in (*SEGMENTATION, STRUCTURE_SET):
            labels.append(one)
        elif "PixelData" in one and one.get("SeriesInstanceUID"):
            images.setdefault(str(one.SeriesInstanceUID), []).append(one)
    return Labelled([Series(datasets) for _, datasets in sorted(images.items())], labels)


def segments(segmentation: Dataset, series: Series) -> dict[str, NDArray[np.bool_]]:
    """Return the segments of a SEG object on the slices of a series; empty where it labels other slices."""
    first = series.first
    if (segmentation.Rows, segmentation.Columns) != (first.get("Rows"), first.get("Columns")):
        return {}
    places = _places(series)
    names = {int(one.SegmentNumber): str(one.SegmentLabel) for one in segmentation.SegmentSequence}
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    labelmap = segmentation.SOPClassUID == SEGMENTATION[1]
    # What holds for all frames may stand in the shared groups instead (PS3.3 C.7.6.16): one segment, for most.
    shared = next(iter(segmentation.get("SharedFunctionalGroupsSequence") or []), Dataset())
    found: dict[str, NDArray[np.bool_]] = {}
    for frame, item in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        index = _nearest(places, [float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient])
        if index is None:
            continue
        owner = item if "SegmentIdentificationSequence" in item else shared
        numbers = names if labelmap else [int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
        for number in numbers:
            mask = found.setdefault(names[number], np.zeros((len(series), *frame.shape), np.bool_))
            mask[index] |= frame == number if labelmap else frame > 0
    return found


def structures(structure_set: Dataset, series: Series) -> dict[str, NDArray[np.bool_]]:
    """Return the closed contours of an RTSTRUCT on the slices of a series, holes being contours within contours."""
    first = series.first
    places = _places(series)
    if not places or not first.get("PixelSpacing"):
        return {}
    names = {int(one.ROINumber): str(one.ROIName) for one in structure_set.get("StructureSetROISequence", [])}
    row, column = np.array(first.ImageOrientationPatient[:3], float), np.array(first.ImageOrientationPatient[3:], float)
    row_mm, column_mm = (float(v) for v in first.PixelSpacing)
    found: dict[str, NDArray[np.bool_]] = {}
    for roi in structure_set.get("ROIContourSequence", []):
        for contour in roi.get("ContourSequence", []):
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            index = _in_plane(places, points[0], np.cross(row, column))
            if index is None or len(points) < 3:
                continue
            offset = points - np.array(places[index])
            # Sixteenths of a pixel: polygons end between pixel centres.
            pixels = np.rint(np.stack([offset @ row / column_mm, offset @ column / row_mm], axis=1) * 16).astype(np.int32)
            plane = np.zeros((first.Rows, first.Columns), np.uint8)
            cv2.fillPoly(plane, [pixels], 1, shift=4)
            mask = found.setdefault(
                names.get(int(roi.ReferencedROINumber), ""), np.zeros((len(series), *plane.shape), np.bool_)
            )
            mask[index] ^= plane > 0
    return found


def answers(table: Path) -> Iterator[Mapping[str, str]]:
    """Yield the rows of a CSV table with a head: `series` (a folder or a Series Instance UID) and what is true of it."""
    with table.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(line for line in lines if not line.startswith("#"))


def _places(series: Series) -> list[Any]:
    return [one.get("ImagePositionPatient") for one in series.datasets] if series.first.get("ImagePositionPatient") else []


def _nearest(places: list[Any], at: list[float]) -> int | None:
    if not places:
        return None
    far = np.linalg.norm(np.array(places, float) - np.array(at), axis=1)
    return int(far.argmin()) if far.min() < 0.1 else None


def _in_plane(places: list[Any], point: NDArray[np.float64], normal: NDArray[np.float64]) -> int | None:
    far = np.abs((np.array(places, float) - point) @ normal)
    return int(far.argmin()) if far.min() < 0.5 else None
