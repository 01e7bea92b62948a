"""Outside judges of DICOM objects: dciodvfy and dcentvfy of dicom3tools."""

import subprocess
import sys
from pathlib import Path

import making
from pydicom.dataset import Dataset

TOOLS = Path(sys.executable).parent


def errors(path: Path) -> list[str]:
    """Return what dciodvfy calls an error in one file."""
    result = subprocess.run([TOOLS / "dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    return [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("Error")]


def errors_together(paths: list[Path]) -> list[str]:
    """Return what dcentvfy calls an error in files of one study, where entities must agree."""
    result = subprocess.run([TOOLS / "dcentvfy", *paths], capture_output=True, text=True, check=False)
    return [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("Error")]


def written(folder: Path, datasets: list[Dataset]) -> list[Path]:
    """Write data sets as Part 10 files under their position."""
    return making.write_files(folder, datasets)
