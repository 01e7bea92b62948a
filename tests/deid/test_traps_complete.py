"""Every trap of the design has a test that bears its number."""

import re
from pathlib import Path

NUMBER_OF_TRAPS = 68
TESTS = Path(__file__).resolve().parents[1]


def test_every_trap_has_a_test_of_its_number() -> None:
    """For each of 1 to 68 there is a function `test_trap_NN_…` somewhere under tests/."""
    found = {
        int(number)
        for path in TESTS.rglob("test_*.py")
        for number in re.findall(r"^\s*def test_trap_(\d\d)_", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert not set(range(1, NUMBER_OF_TRAPS + 1)) - found
