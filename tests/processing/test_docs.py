"""docs/processors.md: the code in it runs, the rules in it are valid, and what it says ships does."""

import re
import types
from pathlib import Path

import making
import pytest

from pacs import phantoms
from pacs.processing import Run, Series
from pacs.processing.derive import Provenance, derive, encode
from pacs.processing.registry import discover, survey
from pacs.processing.routes import parse_routes
from pacs.processing.rules import parse_rules
from pacs.processing.validate import findings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "processors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["bone.py", "smooth.py"])
def test_an_example_is_a_working_plug_in(name: str, tmp_path: Path) -> None:
    """Copied into the folder it is found, runs on a CT, and its results are valid."""
    (code,) = re.findall(rf"```python\n# file: {name}\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / name).write_text(code)
    found, problems = survey(tmp_path)
    assert problems == []
    (spec,) = (one for one in found.values() if one.path.endswith(name))
    datasets = making.ct_series(3)
    for one in datasets:
        one.PixelData = one.PixelData[: 64 * 30 * 2] + (900).to_bytes(2, "little") * (64 * 34)
    datasets = phantoms.read(datasets)

    made = list(derive(spec.call(Series(datasets), Run(), spec.bind()), Provenance("a" * 64, spec.name, spec.version)))

    known, study = {str(one.SOPInstanceUID) for one in datasets}, str(datasets[0].StudyInstanceUID)
    for one in made:
        assert findings(one, encode(one.dataset), known, study) == []
        known.add(str(one.dataset.SOPInstanceUID))
    assert isinstance(spec.function, types.FunctionType)


def test_the_rules_in_it_are_valid() -> None:
    """Every TOML block parses against the processors that ship."""
    blocks = re.findall(r"```toml\n(?!# file|# routes)(.*?)```", TEXT, re.DOTALL)

    assert [len(parse_rules(block, discover())) for block in blocks] == [2, 3]


def test_the_routes_in_it_are_valid() -> None:
    """Two: what came in, and what was made here."""
    (block,) = re.findall(r"```toml\n# routes.toml\n(.*?)```", TEXT, re.DOTALL)

    assert [(route.peer, route.what) for route in parse_routes(block)] == [("RESEARCH", "source"), ("WARD", "derived")]


def test_the_manifests_in_it_are_valid(tmp_path: Path) -> None:
    """Copied into the folder, a program, a container and a network are found."""
    blocks = re.findall(r"```toml\n# file: (\S+)\n(.*?)```", TEXT, re.DOTALL)
    for name, text in blocks:
        (tmp_path / name).write_text(text)

    found, problems = survey(tmp_path)

    assert problems == []
    assert {"site-lungs", "site-vessels", "site-contrast"} <= found.keys()
    assert len(blocks) == 3


def test_the_table_lists_what_ships() -> None:
    """Every processor of the archive, and no other."""
    assert set(re.findall(r"^\| \[?`([a-z0-9-]+)`(?:\]\([^)]*\))? \|", TEXT, re.MULTILINE)) == set(discover())
