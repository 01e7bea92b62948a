"""Where a job that needs files has them: in memory (tmpfs), so that no pixel reaches a disk in the clear.

What the kernel swaps out it writes to the swap device; a machine that swaps should encrypt it.
"""

import os
from pathlib import Path

NONE = "it needs files, and there is no folder in memory; set processing.scratch to one on an encrypted disk"


def in_memory(chosen: str = "") -> str | None:
    """Return `chosen`, else a folder that is kept in memory, None where there is none that may be written."""
    if chosen:
        return chosen
    kinds = _mounts()
    for folder in ("/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "")):
        if folder and kinds.get(_mount_of(folder, kinds)) in ("tmpfs", "ramfs") and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


def _mounts() -> dict[str, str]:
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {line.split()[1]: line.split()[2] for line in lines if len(line.split()) > 2}


def _mount_of(folder: str, mounts: dict[str, str]) -> str:
    path = os.path.realpath(folder)
    return max((one for one in mounts if path == one or path.startswith(one.rstrip("/") + "/")), key=len, default="")
