"""`pacs demo` holds all its checks, and says so by its exit code."""

import json
import subprocess
import sys


def test_demo_exits_0_and_every_check_holds() -> None:
    """The demo's own table, as JSON: every line holds."""
    done = subprocess.run([sys.executable, "-m", "pacs", "demo", "--json"], capture_output=True, text=True, timeout=400)

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows) >= 12 and all(row["ok"] for row in rows), rows
