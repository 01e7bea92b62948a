"""Recall a version of a processor, and keep what is recalled beside the records as well as in the index.

`recalls.json` in the home is what a start and `pacs rebuild-index` read: without it, what was hidden would be shown again by an
index that was lost, or is older than the recall. It names processors and versions, and the reason that was given.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from pacs.archive import Archive
from pacs.model.errors import ConfigurationError
from pacs.model.job import Recall

FILE = "recalls.json"


def begin(archive: Archive, processor: str, version: str, reason: str = "") -> tuple[int, int]:
    """Hide what a version made, and what was made of it; returns how many series and instances became hidden.

    Raises `NotFound` if it never made a job.
    """
    hidden = archive.index.recalls.begin(processor, version, reason)
    keep(archive)
    return hidden


def end(archive: Archive, processor: str, version: str) -> tuple[int, int]:
    """Take a recall back; returns how many series and instances are shown again. Raises `NotFound` if there is none."""
    shown = archive.index.recalls.end(processor, version)
    keep(archive)
    return shown


def settle(archive: Archive) -> int:
    """Hide what is recalled beside the records and not in the index, and write down the rest; returns how many were lacking.

    A recall that one of both says was taken back and the other not is in force: what is hidden can be shown again, not the
    other way round. Raises `ConfigurationError` if what is recalled cannot be read.
    """
    known = {(one.processor, one.version, one.at) for one in archive.index.recalls.all()}
    lacking = [one for one in kept(archive.settings.home) if (one.processor, one.version, one.at) not in known]
    archive.index.recalls.restore(lacking)
    keep(archive)
    return len(lacking)


def keep(archive: Archive) -> None:
    """Write the recalls of the index beside the records, durably; without a recall there is no file."""
    path = archive.settings.home / FILE
    text = json.dumps([asdict(one) for one in reversed(archive.index.recalls.all())], indent=1) + "\n"
    if text == "[]\n" or (path.exists() and path.read_text(encoding="utf-8") == text):
        return
    beside = path.with_name(f"{FILE}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def kept(home: Path) -> list[Recall]:
    """Return the recalls beside the records. Raises `ConfigurationError` if they cannot be read: nothing may be shown then."""
    try:
        return [Recall(**one) for one in json.loads((home / FILE).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{home / FILE} cannot be read: it says which results are hidden; put it back from your backup, or move it away "
            "if everything may be shown"
        ) from error
