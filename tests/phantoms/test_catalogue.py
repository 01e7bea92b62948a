"""The phantoms people can ask for: the same wish makes the same study, valid objects, and the truth beside them."""

import json
from pathlib import Path

import judges
import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from pacs.cli.app import app
from pacs.phantoms.base import encode
from pacs.phantoms.catalogue import PHANTOMS, Wish, make


@pytest.mark.parametrize("name", PHANTOMS)
def test_the_same_wish_makes_the_same_valid_study(name: str, tmp_path: Path) -> None:
    """Bytes are equal over two calls, UIDs are another study's for another seed, and dciodvfy has no error to tell."""
    once, again, other = make(name), make(name), make(name, Wish(seed=2))
    for images, same in zip(once.series, again.series, strict=True):
        assert encode(images[0]) == encode(same[0])
    assert once.series[0][0].StudyInstanceUID != other.series[0][0].StudyInstanceUID
    paths = [judges.written(tmp_path / str(number), images[:1])[0] for number, images in enumerate(once.series)]
    assert [error for path in paths for error in judges.errors(path)] == []


def test_lesions_noise_and_motion_are_as_asked() -> None:
    """Two nodules where two are wished, noisier images where noise is wished, moved slices where motion is."""
    plain, noisy = make("ct-chest", Wish(lesions=2)), make("ct-chest", Wish(lesions=2, noise=40))
    assert len(plain.truth["lesions"]) == 2
    corner = np.s_[:12, :12]
    assert noisy.series[0][5].pixel_array[corner].std() > 3 * plain.series[0][5].pixel_array[corner].std()
    moved = make("ct-chest", Wish(lesions=2, motion_mm=5.4))
    assert np.array_equal(moved.series[0][1].pixel_array, np.roll(plain.series[0][1].pixel_array, 3, axis=0))
    assert np.array_equal(moved.series[0][2].pixel_array, plain.series[0][2].pixel_array)


def test_command_writes_images_labels_and_truth(tmp_path: Path) -> None:
    """The folder holds DICOM files, the masks as a segmentation of them, and what is true in words."""
    folder = tmp_path / "lungs"
    result = CliRunner().invoke(app, ["phantom", "make", "ct-lungs", "--into", str(folder)])
    assert result.exit_code == 0, result.output
    assert len(list(folder.glob("1-CT-*.dcm"))) == 40
    labels = dcmread(folder / "labels.dcm")
    assert [one.SegmentLabel for one in labels.SegmentSequence] == ["Right lung", "Left lung"]
    assert json.loads((folder / "truth.json").read_text())["phantom"] == "ct-lungs"
    again = CliRunner().invoke(app, ["phantom", "make", "cr", "--into", str(folder)])
    assert again.exit_code == 1, "a folder that holds something is not written into"


def test_names_that_are_not_there_are_told(tmp_path: Path) -> None:
    """A wrong name gets the right ones."""
    for arguments in (["nobody"], ["cr", "--defect", "nothing"]):
        result = CliRunner().invoke(app, ["phantom", "make", *arguments, "--into", str(tmp_path / "x")])
        assert result.exit_code == 1
