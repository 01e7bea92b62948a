"""Finds DCMTK's command line tools; pynetdicom installs others of the same names, so each is asked who it is.

Where they are missing a test skips with the reason in view; with PACS_REQUIRE_SERVICES=1 it fails instead.
"""

import functools
import os
import socket
import subprocess
from pathlib import Path

import pytest

TOOLS = ("echoscu", "storescu", "findscu", "getscu", "movescu", "storescp", "dcmsend")


@functools.cache
def _find(name: str) -> str | None:
    for folder in dict.fromkeys(
        (*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")
    ):
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            said = subprocess.run([path, "--version"], capture_output=True, timeout=20, check=False).stdout
        except OSError:
            continue
        if b"$dcmtk:" in said:
            return str(path)
    return None


def tool(name: str) -> str:
    """Return the path of a DCMTK tool, or skip (fail under PACS_REQUIRE_SERVICES=1)."""
    path = _find(name)
    if path is None:
        reason = f"DCMTK's {name} is not installed (Debian: apt-get install dcmtk)"
        if os.environ.get("PACS_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def run(name: str, *arguments: object, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a DCMTK tool to its end; stdout and stderr together."""
    return subprocess.run(
        [tool(name), *(str(one) for one in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
