"""Processors are found in packages and in the plug-in folder; a broken one is reported and stops nothing."""

from pathlib import Path

from pacs.processing.registry import describe, discover, load_one, survey

PLUGIN = '''
from collections.abc import Iterator
from typing import Annotated
from pacs.processing import Images, Range, Series, processor

@processor("mine", version="0.1", makes=("CT",))
def mine(series: Series, *, level: Annotated[float, Range(0, 9, "mm"), "how much"] = 1.0) -> Iterator[Images]:
    """Mine."""
    yield from ()
'''


def test_the_shipped_processors_are_found() -> None:
    """Those of the folder `processors` come with the archive, each by an entry point."""
    here = Path(__file__).parents[2] / "processors"
    names = {path.stem.replace("_", "-") for path in here.glob("*.py") if "@processor(" in path.read_text()}

    assert set(discover()) == names


def test_a_file_in_the_folder_is_found_and_described(tmp_path: Path) -> None:
    """Dropping a file is enough; its parameters can be shown."""
    (tmp_path / "mine.py").write_text(PLUGIN)

    found = discover(tmp_path)["mine"]

    told = describe(found)
    assert told["summary"] == "Mine."
    assert told["parameters"] == [
        {
            "name": "level",
            "type": "float",
            "default": 1.0,
            "low": 0,
            "high": 9,
            "unit": "mm",
            "choices": None,
            "help": "how much",
        }
    ]
    assert load_one(found.module, found.path, "mine").version == "0.1"


def test_a_broken_file_is_reported_by_class_and_place(tmp_path: Path) -> None:
    """The others are still found, and no message of the error is told."""
    (tmp_path / "bad.py").write_text("x = 1\nraise RuntimeError('secret')\n")
    (tmp_path / "mine.py").write_text(PLUGIN)

    found, problems = survey(tmp_path)

    assert "mine" in found
    assert [(one.source, one.error, one.place) for one in problems] == [("bad.py", "RuntimeError", "bad.py:2")]
