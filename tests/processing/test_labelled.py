"""Measuring any processor on labelled images: masks, answers and places against what came with the images."""

import csv
from pathlib import Path

import making
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from typer.testing import CliRunner

from pacs import phantoms
from pacs.cli.app import app
from pacs.processing import Series, scoring, truth
from pacs.processing.labelled import score_folder
from processors.classify_series import classify_series
from processors.ct_tissues import ct_tissues
from processors.nodule_candidates import nodule_candidates


def test_masks_of_a_segmentation_are_compared(tmp_path: Path) -> None:
    """`pacs phantom` writes labels, `pacs score --on` measures against them; a segment may be called otherwise in them."""
    folder = tmp_path / "thigh"
    assert CliRunner().invoke(app, ["phantom", "make", "ct-thigh", "--into", str(folder)]).exit_code == 0
    found = {row["outcome"]: row for row in score_folder(scoring.spec_of(ct_tissues), folder).rows}
    assert set(found) >= {"Bone", "Fat"}
    assert all(row["dice"] > 0.9 and row["hausdorff95_mm"] < 3 for row in found.values()), found
    wrong = score_folder(scoring.spec_of(ct_tissues), folder, {"Bone": "Fat"}).rows[0]
    assert wrong["dice"] < 0.1


def test_contours_become_masks() -> None:
    """A circle drawn in patient coordinates comes back as the pixels within it; a hole is not filled."""
    datasets = phantoms.tissue(frames=3)[0]
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    height = float(datasets[1].ImagePositionPatient[2])

    def circle(radius: float) -> Dataset:
        contour = Dataset()
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full_like(angle, height)], axis=1)
        contour.ContourData = [f"{value:.3f}" for value in points.ravel()]
        return contour

    roi, shape, whole = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName = 1, "Ring"
    shape.ReferencedROINumber, shape.ContourSequence = 1, Sequence([circle(40), circle(20)])
    whole.SOPClassUID = truth.STRUCTURE_SET
    whole.StructureSetROISequence, whole.ROIContourSequence = Sequence([roi]), Sequence([shape])
    mask = truth.structures(whole, Series(datasets))["Ring"]
    assert mask.sum(axis=(1, 2)).tolist()[::2] == [0, 0]
    assert abs(mask[1].sum() * 4 / (np.pi * (40**2 - 20**2)) - 1) < 0.05


def test_places_and_answers_come_from_a_table(tmp_path: Path) -> None:
    """Nodules by place and diameter, a region by code meaning; a wrong answer that is sure of itself is counted."""
    folder = tmp_path / "set"
    making.write_files(folder / "chest", phantoms.chest())
    with (folder / "labels.csv").open("w", newline="") as lines:
        table = csv.DictWriter(lines, ["series", "question", "answer", "x", "y", "z", "diameter"])
        table.writeheader()
        for (x, y, z), diameter in phantoms.NODULES:
            table.writerow({"series": "chest", "x": x, "y": y, "z": z, "diameter": diameter})
        table.writerow({"series": "chest", "question": "Acquisition Plane", "answer": "Coronal"})
    (places,) = score_folder(scoring.spec_of(nodule_candidates), folder).rows
    assert places["of"] == 6 and places["sensitivity"] >= 5 / 6
    result = score_folder(scoring.spec_of(classify_series), folder)
    assert result.tables["Acquisition Plane"] == [["truth", "Axial"], ["Coronal", "1"]]
    assert result.certain_and_wrong == 1


def test_what_cannot_be_measured_is_told(tmp_path: Path) -> None:
    """A processor that refuses says why; a folder without labels is an error with a next step."""
    making.write_files(tmp_path / "one", making.ct_series(1))
    (row,) = score_folder(scoring.spec_of(ct_tissues), tmp_path).rows
    assert row["outcome"] == "not applicable" and row["reason"]
    empty = CliRunner().invoke(app, ["score", "enhance", "--on", str(tmp_path)])
    assert empty.exit_code == 1


def test_a_segmentation_is_found_by_its_place_however_it_is_turned(tmp_path: Path) -> None:
    """Rows and columns exchanged or mirrored, finer pixels: found; beside the slice, across it, elsewhere: not."""
    datasets = phantoms.tissue(frames=3, size=32)[0]
    series = Series(datasets)
    mask = np.zeros((3, 32, 32), np.bool_)
    mask[1, 4:9, 10:20] = True

    def labelled(frame: np.ndarray, position: list[float], orientation: list[float], spacing: float, **other: str) -> int:
        one, item, segment = Dataset(), Dataset(), Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        one.SOPClassUID, one.FrameOfReferenceUID = truth.SEGMENTATION[0], datasets[0].FrameOfReferenceUID
        one.Rows, one.Columns, one.NumberOfFrames, one.SamplesPerPixel = *frame.shape, 1, 1
        one.BitsAllocated = one.BitsStored = 8
        one.HighBit, one.PixelRepresentation, one.PhotometricInterpretation = 7, 0, "MONOCHROME2"
        one.add_new(0x7FE00010, "OB", frame.astype(np.uint8).tobytes())
        segment.SegmentNumber, segment.SegmentLabel = 1, "Box"
        one.SegmentSequence = Sequence([segment])
        plane, direction, measures, which = Dataset(), Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient, direction.ImageOrientationPatient = position, orientation
        measures.PixelSpacing, which.ReferencedSegmentNumber = [spacing, spacing], 1
        item.PlanePositionSequence, item.SegmentIdentificationSequence = Sequence([plane]), Sequence([which])
        shared = Dataset()
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([direction]), Sequence([measures])
        one.PerFrameFunctionalGroupsSequence, one.SharedFunctionalGroupsSequence = Sequence([item]), Sequence([shared])
        for keyword, value in other.items():
            setattr(one, keyword, value)
        found = truth.segments(one, series).get("Box")
        return -1 if found is None else int((found != mask).sum())

    x, y, z = (float(v) for v in datasets[1].ImagePositionPatient)
    assert labelled(mask[1], [x, y, z], [1, 0, 0, 0, 1, 0], 2.0) == 0
    assert labelled(mask[1].T, [x, y, z], [0, 1, 0, 1, 0, 0], 2.0) == 0
    assert labelled(mask[1][::-1, ::-1], [x + 62, y + 62, z], [-1, 0, 0, 0, -1, 0], 2.0) == 0
    fine = np.kron(mask[1, :16], np.ones((2, 2), np.uint8))
    assert labelled(fine, [x - 0.5, y - 0.5, z], [1, 0, 0, 0, 1, 0], 1.0) == 0
    assert labelled(mask[1], [x, y, z + 2], [1, 0, 0, 0, 1, 0], 2.0) == -1, "between two slices"
    assert labelled(mask[1], [x, y, z], [1, 0, 0, 0, 0, 1], 2.0) == -1, "through the same corner, but coronal"
    assert labelled(mask[1], [x, y, z], [1, 0, 0, 0, 1, 0], 2.0, FrameOfReferenceUID="2.25.1") == -1, (
        "another frame of reference"
    )


def test_contours_belong_to_the_slice_they_lie_in() -> None:
    """Coronal slices get coronal contours, at their own depth; a contour across the slices, or an open one, is no mask."""
    coronal = phantoms.tissue(frames=4, size=32)[0]
    for number, one in enumerate(coronal):
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [-31, 10.0 * number, 31]
    series = Series(coronal)

    def drawn(points: list[tuple[float, float, float]], kind: str = "CLOSED_PLANAR") -> list[int]:
        contour, roi, shape, whole = Dataset(), Dataset(), Dataset(), Dataset()
        contour.ContourData = [f"{value:g}" for point in points for value in point]
        contour.ContourGeometricType = kind
        roi.ROINumber, roi.ROIName = 1, "Box"
        shape.ReferencedROINumber, shape.ContourSequence = 1, Sequence([contour])
        whole.StructureSetROISequence, whole.ROIContourSequence = Sequence([roi]), Sequence([shape])
        found = truth.structures(whole, series)
        return [int(one.sum()) for one in found["Box"]] if found else []

    box = [(-10.0, 20.0, 10.0), (10.0, 20.0, 10.0), (10.0, 20.0, -10.0), (-10.0, 20.0, -10.0)]
    by_place = {float(one.ImagePositionPatient[1]): size for one, size in zip(series.datasets, drawn(box), strict=True)}
    assert by_place[20.0] > 90 and by_place[0.0] == by_place[10.0] == by_place[30.0] == 0
    assert drawn([(x, 5.0, z) for x, _, z in box]) == []
    assert drawn([(x, z + 20, 0.0) for x, _, z in box]) == []
    assert drawn(box, "OPEN_PLANAR") == []
