"""The measuring script works, and de-identification stays a small multiple of copying (no seconds: machines differ)."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).parent / "bench_deid.py"


def test_the_cost_is_measured_and_remembering_pays() -> None:
    """One line a kind of object; after the first slice the others cost a fraction of it."""
    surroundings = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=150, check=True, env=surroundings
    )

    lines = re.findall(r"copy +([\d.]+) ms +de-identify +([\d.]+) ms.* ratio +([\d.]+) +first +([\d.]+) ms", done.stdout)
    assert len(lines) == 3 and "the budget is 0.5 ms" in done.stdout
    for _, working, _, first in lines:
        assert float(working) < float(first)
