"""A trial on images at hand: what an author sees, from a new plug-in to its results in a folder."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import making
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from typer.testing import CliRunner

from pacs.cli.app import app
from pacs.model.errors import ConfigurationError
from pacs.phantoms import head, stack
from pacs.processing import template, trial
from pacs.processing.registry import survey

BROKEN = '''
from pacs.processing import Series, processor

@processor("broken", version="1", when={"Modality": "CT"})
def broken(series: Series):
    """Fail."""
    yield from []
    raise ValueError("the author wants to read this")
'''


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PACS_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "processors").mkdir(parents=True)
    return tmp_path / "home"


def block() -> list[Dataset]:
    volume = np.zeros((8, 40, 40))
    volume[2:6, 10:20, 10:20] = 900
    return stack(volume, (5, 2, 2))


def other_series() -> list[Dataset]:
    images = head()[0][:2]
    for one in images:
        one.SeriesInstanceUID += ".7"
    return images


def pacs(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["processors", *map(str, arguments)])
    return result.exit_code, result.output


def test_a_new_plug_in_works_as_it_stands(home: Path) -> None:
    """Written by `new` it is found, its test passes, and the test is not taken for a plug-in."""
    code, told = pacs("new", "ct-dense")
    assert code == 0
    plugin, test = (Path(line) for line in told.split("\n")[:2])
    assert len([line for line in plugin.read_text().splitlines() if line]) <= 26
    found, problems = survey(home / "processors")
    assert problems == []
    assert found["ct-dense"].path == str(plugin)

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name],
        cwd=test.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )

    assert "2 passed" in ran.stdout, ran.stdout
    assert pacs("new", "ct-dense")[0] == 1, "what is there is never overwritten"


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    """A file name is made of it."""
    with pytest.raises(ConfigurationError, match="lower-case"):
        template.write("../evil", tmp_path)


def test_results_and_a_picture_are_written(home: Path, tmp_path: Path) -> None:
    """Of a folder with two series, the one that it is for is taken; the other is named, with the reason."""
    template.write("ct-dense", home / "processors")
    making.write_files(tmp_path / "in" / "ct", block())
    making.write_files(tmp_path / "in" / "mr", other_series())
    (tmp_path / "in" / "readme.txt").write_text("no image")

    code, told = pacs("test", "ct-dense", tmp_path / "in", "--out", tmp_path / "out", "--set", "threshold=500")

    assert code == 0, told
    assert "not for it: MR series of 2: Modality is not 'CT'" in told
    assert "ct-dense 0.1.0 on 8 images: succeeded" in told
    segmentation = dcmread(tmp_path / "out" / "0001-SEG.dcm")
    assert segmentation.pixel_array.sum() == 400
    picture = cv2.imread(str(tmp_path / "out" / "picture.png"))
    assert picture.shape == (342, 3 * 320, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_it_speaks_json(home: Path, tmp_path: Path) -> None:
    """For scripts: state, reason, time, memory, objects and picture."""
    template.write("ct-dense", home / "processors")
    making.write_files(tmp_path / "in", stack(np.zeros((4, 20, 20)), (5, 2, 2)))

    code, told = pacs("test", "ct-dense", tmp_path / "in", "--json", "--out", tmp_path / "out")

    row = json.loads(told.splitlines()[-1])
    assert code == 1
    assert (row["state"], row["reason"]) == ("skipped", "nothing is as dense as the threshold")
    assert (row["inputs"], row["objects"], row["picture"]) == ([4], [], "")


def test_an_error_is_quoted_in_full(home: Path, tmp_path: Path) -> None:
    """Message and traceback, which a job would keep to itself."""
    (home / "processors" / "broken.py").write_text(BROKEN)
    making.write_files(tmp_path / "in", block())

    code, told = pacs("test", "broken", tmp_path / "in", "--out", tmp_path / "out")

    assert code == 1
    assert "ValueError at broken.py:8: the author wants to read this" in told
    assert "Traceback" in told


def test_what_cannot_be_loaded_is_told(home: Path, tmp_path: Path) -> None:
    """A plug-in with a mistake is named with class and place; so are names that do not exist, and input that is not for it."""
    (home / "processors" / "typo.py").write_text("import numpyy\n")
    making.write_files(tmp_path / "in", head()[0][:2])

    assert "typo.py cannot be loaded: ModuleNotFoundError typo.py:1" in pacs("test", "typo", tmp_path / "in")[1]
    assert "none of 1 series is for ct-lungs" in pacs("test", "ct-lungs", tmp_path / "in")[1]


def test_files_of_any_native_syntax_are_read(tmp_path: Path) -> None:
    """Implicit VR, too, as many archives write it."""
    for number, one in enumerate(block()):
        one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        one.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True, implicit_vr=True, little_endian=True)
    plugin, _ = template.write("ct-dense", tmp_path / "p")

    ((series,), others) = trial.read([tmp_path])
    ended = trial.run(survey(plugin.parent)[0]["ct-dense"], [series], {})

    assert others == 2
    assert ended.succeeded, ended.reason + ended.trace
