"""The register of the conformance lines: each has a test that bears its number, so that `pytest -k s10` shows the proof."""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
LINES = {"a": 14, "s": 21, "f": 19, "m": 16, "c": 9, "x": 7}
"""Association, Storage, C-FIND, C-MOVE and C-GET, Storage Commitment, and what cuts across."""
BEARING = re.compile(r"test((?:_[a-z]\d+)+)_")


def numbers(name: str) -> list[str]:
    """Return the lines that a test bears: ``test_m4_m5_pending`` bears m4 and m5."""
    found = BEARING.match(name)
    return found[1].strip("_").split("_") if found else []


@cache
def bearing_tests() -> dict[str, list[ast.FunctionDef]]:
    """Return all tests by the lines that they bear."""
    by_line: dict[str, list[ast.FunctionDef]] = defaultdict(list)
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for line in numbers(node.name):
                    by_line[line].append(node)
    return by_line


def checks(test: ast.FunctionDef) -> bool:
    """Say whether a test can fail by itself: it asserts, expects an error, or lets none pass but one."""
    named = {one.func.attr if isinstance(one.func, ast.Attribute) else getattr(one.func, "id", "") for one in _calls(test)}
    return any(isinstance(one, ast.Assert) for one in ast.walk(test)) or bool(named & {"raises", "suppress"})


def _calls(test: ast.FunctionDef) -> list[ast.Call]:
    return [one for one in ast.walk(test) if isinstance(one, ast.Call)]


@pytest.mark.parametrize("line", [f"{letter}{number}" for letter, last in LINES.items() for number in range(1, last + 1)])
def test_every_line_has_a_test(line: str) -> None:
    """At least one test bears the number, and every one that does checks something."""
    bearing = bearing_tests()[line]

    assert bearing, f"no test is named after line {line.upper()}"
    assert all(checks(test) for test in bearing), f"a test of {line.upper()} checks nothing"


def test_no_test_bears_a_line_that_there_is_not() -> None:
    """A slip of the pen in a name would prove nothing."""
    known = {f"{letter}{number}" for letter, last in LINES.items() for number in range(1, last + 1)}
    of_letters = {line for line in bearing_tests() if line[0] in LINES}

    assert of_letters <= known
