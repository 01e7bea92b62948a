"""Measuring any processor on labelled images: masks, answers and places against what came with the images."""

import csv
from pathlib import Path

import making
import numpy as np
from pydicom.dataset import Dataset
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
