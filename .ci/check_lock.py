"""Fail if requirements.lock holds an address, lacks hashes, or is not what pyproject.toml resolves to."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILE = (
    "pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --all-extras --group dev "
    "--no-header --no-annotate --quiet --output-file"
).split()
"""The one way the lock is made; an existing lock is kept where it still fits, so that new releases alone change nothing."""


def main() -> int:
    """Return 0 if the lock is current; with --write, make it so."""
    path = ROOT / "requirements.lock"
    if "--write" in sys.argv:
        return subprocess.run([sys.executable, "-m", "uv", *COMPILE, str(path)], cwd=ROOT).returncode
    lock = path.read_text(encoding="utf-8")
    faults = []
    if "://" in lock or "--index" in lock:
        faults.append("holds an address")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", lock.strip())
    faults += [f"{block.split()[0]} has no hash" for block in blocks if "--hash=sha256:" not in block]
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "requirements.lock"
        again.write_text(lock, encoding="utf-8")
        subprocess.run([sys.executable, "-m", "uv", *COMPILE, str(again)], cwd=ROOT, check=True)
        if again.read_text(encoding="utf-8") != lock:
            faults.append("is not what pyproject.toml resolves to")
    for fault in faults:
        print(f"requirements.lock {fault}; make it anew with: .venv/bin/python .ci/check_lock.py --write", file=sys.stderr)
    print(f"{len(blocks)} packages pinned")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
