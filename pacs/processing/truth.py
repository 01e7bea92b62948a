"""Truth that came with the images: masks from segmentations and structure sets, answers and places from a table.

Segmentations: PS3.3 C.8.20; structure sets: PS3.3 C.8.8.6, contours being closed polygons in patient coordinates.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from pacs.processing.image_planes import Plane, Planes
from pacs.processing.series import Series

SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"


SAME_PLANE_MM, CONTOUR_MM = 0.1, 0.5
"""How far a frame's corners, or a contour's points, may lie beside a plane; contours are often drawn to the millimetre."""


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
    """Return the segments of a SEG object on the slices of a series; empty where it labels other slices.

    A frame belongs to the slice in whose plane it lies, whichever way its rows run and whatever its pixels are; the voxel of a
    slice takes the label of the nearest pixel of the frame. What lies between slices is not taken.
    """
    planes = Planes.of(series, segmentation.get("FrameOfReferenceUID"))
    names = {int(one.SegmentNumber): str(one.SegmentLabel) for one in segmentation.SegmentSequence}
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    labelmap = segmentation.SOPClassUID == SEGMENTATION[1]
    # What holds for all frames may stand in the shared groups instead (PS3.3 C.7.6.16): one segment, for most.
    shared = next(iter(segmentation.get("SharedFunctionalGroupsSequence") or []), Dataset())
    found: dict[str, NDArray[np.bool_]] = {}
    for frame, item in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        plane = Plane.of(_groups(item, shared), frame.shape)
        index = None if plane is None else planes.holding(plane.corners(), SAME_PLANE_MM)
        if plane is None or index is None:
            continue
        owner = item if "SegmentIdentificationSequence" in item else shared
        numbers = names if labelmap else [int(owner.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
        drawn = planes[index].looking_up(plane, frame)
        for number in numbers:
            mask = found.setdefault(names[number], np.zeros((len(series), *drawn.shape), np.bool_))
            mask[index] |= drawn == number if labelmap else drawn > 0
    return found


def structures(structure_set: Dataset, series: Series) -> dict[str, NDArray[np.bool_]]:
    """Return the closed contours of an RTSTRUCT on the slices of a series, holes being contours within contours.

    A contour belongs to the slice in whose plane all its points lie; one across the slices is not taken.
    """
    rois = {int(one.ROINumber): one for one in structure_set.get("StructureSetROISequence", [])}
    found: dict[str, NDArray[np.bool_]] = {}
    for roi in structure_set.get("ROIContourSequence", []):
        named = rois.get(int(roi.ReferencedROINumber), Dataset())
        planes = Planes.of(series, named.get("ReferencedFrameOfReferenceUID"))
        for contour in roi.get("ContourSequence", []):
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            if len(points) < 3 or contour.get("ContourGeometricType", "CLOSED_PLANAR") != "CLOSED_PLANAR":
                continue
            index = planes.holding(points, CONTOUR_MM)
            if index is None:
                continue
            # Sixteenths of a pixel: polygons end between pixel centres.
            pixels = np.rint(planes[index].pixels(points) * 16).astype(np.int32)
            drawn = np.zeros(planes[index].shape, np.uint8)
            cv2.fillPoly(drawn, [pixels], 1, shift=4)
            mask = found.setdefault(str(named.get("ROIName", "")), np.zeros((len(series), *drawn.shape), np.bool_))
            mask[index] ^= drawn > 0
    return found


def answers(table: Path) -> Iterator[Mapping[str, str]]:
    """Yield the rows of a CSV table with a head: `series` (a folder or a Series Instance UID) and what is true of it."""
    with table.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(line for line in lines if not line.startswith("#"))


def _groups(item: Dataset, shared: Dataset) -> Dataset:
    """Return the geometry of a frame, from its own functional groups or the shared ones (PS3.3 C.7.6.16.2)."""
    found = Dataset()
    for sequence in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
        for group in (item.get(sequence) or shared.get(sequence) or [])[:1]:
            found.update(group)
    return found
