"""The house stands: imports go down, each stage has one maker, each library its rooms, doors alone know numbers.

The layers are those of `[tool.importlinter]` in pyproject.toml, read from there: there is one list. import-linter checks
them too (`.ci/run`); this is the twin that runs with the tests and names the line.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pacs

ROOT = Path(__file__).resolve().parent.parent
MAKERS = {"Deidentified": {"deid"}, "Encoded": {"codec"}, "Sealed": {"store"}, "Stored": {"index"}}
LIBRARIES = {
    "pynetdicom": {"dimse"},
    "starlette": {"web"},
    "granian": {"web"},
    "sqlalchemy": {"index"},
    "alembic": {"index"},
    "cryptography": {"store", "deid"},
    "celery": {"queue", "worker"},
    "kombu": {"queue", "worker"},
    "highdicom": {"processing"},
    "SimpleITK": {"processing"},
    "imagecodecs": {"codec"},
    "obstore": {"store"},
}
EXAMINERS = {"cli.doctor"}
"""May name any library: it asks whether each is there and works."""


def floors() -> dict[str, int]:
    """Return the floor of each room, 0 at the top."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    return {room.strip(): number for number, names in enumerate(layers) for room in names.split("|")}


def modules(package: str) -> Iterator[tuple[str, Path, ast.Module]]:
    """Yield (dotted name within the package, path, syntax tree) of every module."""
    for path in sorted((ROOT / package).rglob("*.py")):
        if "_migrations" not in path.parts:
            name = ".".join(path.relative_to(ROOT / package).with_suffix("").parts).removesuffix(".__init__")
            yield name, path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import; ``from pacs import deid`` counts as ``pacs.deid``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here: they show the room"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_every_module_has_a_floor() -> None:
    """A new module must say where it lives."""
    rooms = {name.split(".")[0] for name, _, _ in modules("pacs")} - {"__init__"}

    assert rooms <= floors().keys(), f"no floor for {rooms - floors().keys()}"


def test_imports_go_down() -> None:
    """A room imports only from floors below its own."""
    floor = floors()
    for name, path, tree in modules("pacs"):
        room = name.split(".")[0]
        for line, target in imported(tree):
            parts = target.split(".")
            if room in floor and parts[0] == "pacs" and len(parts) > 1 and parts[1] in floor and parts[1] != room:
                assert floor[room] < floor[parts[1]], f"{path}:{line} may not import {target}"


def test_processors_know_only_processing() -> None:
    """A processor is a plug-in like any other: it sees `pacs.processing` and nothing else of ours; its score sees phantoms."""
    for _, path, tree in modules("processors"):
        allowed = ("pacs.processing", "pacs.phantoms") if path.parent.name == "scores" else ("pacs.processing",)
        for line, target in imported(tree):
            assert not target.startswith("pacs") or target.startswith(allowed), f"{path}:{line} imports {target}"


def test_one_room_per_library() -> None:
    """An outside library can be replaced by changing the rooms listed here."""
    for name, path, tree in modules("pacs"):
        for line, target in imported(tree):
            allowed = LIBRARIES.get(target.split(".")[0])
            if allowed is not None and name not in EXAMINERS:
                assert name.split(".")[0] in allowed, f"{path}:{line} may not import {target}"


def test_each_stage_has_one_maker() -> None:
    """Only its room calls the constructor of a stage; a `Sealed` made elsewhere could hold plaintext."""
    for name, path, tree in modules("pacs"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if called in MAKERS:
                    assert name.split(".")[0] in MAKERS[called], f"{path}:{node.lineno} makes {called}"


def test_the_package_is_ours() -> None:
    """Another distribution on PyPI is called pacs too; what is imported here is this checkout."""
    assert Path(pacs.__file__).resolve().parent == ROOT / "pacs"


@pytest.mark.parametrize("package", ["pacs", "processors"])
def test_every_module_opens_with_what_it_is_for(package: str) -> None:
    """A reader learns from the first lines what a module does and where it stands."""
    for _, path, tree in modules(package):
        assert ast.get_docstring(tree), f"{path} has no docstring"
