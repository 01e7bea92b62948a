"""Back an archive up into a folder, and bring it back from there.

The folder holds `files/` with every file under its SHA-256, and `backup.json`, which names them; it is replaced in one step
when all of it is durable, so a backup that was cut short leaves the one before whole. What has not changed is not copied again.
The index is copied first: records are durable before their rows, so every row of the copy finds its record.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pacs.archive import Archive
from pacs.index import schema
from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError, IntegrityError
from pacs.settings import Settings
from pacs.store.providers import sync_folder
from pacs.upkeep.compact import segments_held

log = get_logger(__name__)
FORMAT = 1
MANIFEST = "backup.json"
KEY_FILES = ("keys/image.key", "keys/identity.key", "keys/image.next.key", "keys/image.old.key", "keys/exported.json")
_INDEX, _DUMP, _RING = "index.db", "index.pgdump", "keys/study-keys.db"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """What a backup or restore did."""

    files: int
    copied: int
    copied_bytes: int
    with_index: bool
    with_keys: bool


def back_up(
    archive: Archive,
    folder: Path,
    *,
    with_keys: bool = False,
    without_index: bool = False,
    on_file: Callable[[str], object] | None = None,
) -> Report:
    """Copy all that this archive needs to come back into `folder`; safe while it serves.

    Key-encryption keys come along only `with_keys`: kept beside the data they protect nothing.

    Raises
    ------
    ConfigurationError
        The folder cannot be used, or PostgreSQL's pg_dump is not there.
    Unavailable
        A compaction is at work.
    """
    home = archive.settings.home
    if folder.resolve().is_relative_to(home.resolve()):
        raise ConfigurationError(f"{folder} is within the home; a backup belongs elsewhere")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot use the folder {folder}: {error.strerror}") from error
    if not (folder / MANIFEST).exists() and any(folder.iterdir()) and not (folder / "files").is_dir():
        raise ConfigurationError(f"{folder} holds other things; name an empty folder, or one of an earlier backup")
    with segments_held(home, exclusive=False):
        return _Backup(archive, folder, on_file or (lambda _: None)).run(with_keys, without_index)


class _Backup:
    def __init__(self, archive: Archive, folder: Path, on_file: Callable[[str], object]) -> None:
        self._archive = archive
        self._home = archive.settings.home
        self._folder = folder
        self._files = folder / "files"
        self._on_file = on_file
        self._before: dict[str, dict[str, Any]] = _manifest(folder)["files"] if (folder / MANIFEST).exists() else {}
        self._named: dict[str, dict[str, Any]] = {}
        self._copied = self._copied_bytes = 0

    def run(self, with_keys: bool, without_index: bool) -> Report:
        self._files.mkdir(mode=0o700, exist_ok=True)
        for left in self._files.glob("*.part"):
            left.unlink()
        if not without_index:
            self._index()
        for path in self._plain("store/*.seg", "quarantine/*.sealed", "forgotten/*.json", "pacs.toml", "rules.toml"):
            self._keep(path.relative_to(self._home).as_posix(), path)
        for path in self._plain("processors/**/*"):
            if path.suffix != ".pyc":
                self._keep(path.relative_to(self._home).as_posix(), path)
        self._identities()
        # The ring last: every record that was copied finds its key.
        self._snapshot(_RING, self._archive.ring.copy_to)
        if with_keys:
            for path in self._plain(*KEY_FILES):
                self._keep(path.relative_to(self._home).as_posix(), path)
        document = {
            "mini-pacs-backup": FORMAT,
            "made_at": time.time(),
            "image_key_id": self._archive.image_key_id,
            "with_keys": with_keys,
            "files": self._named,
        }
        self._finish(document)
        log.info("backup_made", count=len(self._named), size_bytes=self._copied_bytes)
        return Report(len(self._named), self._copied, self._copied_bytes, not without_index, with_keys)

    def _plain(self, *patterns: str) -> Iterator[Path]:
        for pattern in patterns:
            yield from (path for path in sorted(self._home.glob(pattern)) if path.is_file())

    def _index(self) -> None:
        url = self._archive.settings.database_url
        if url.startswith("sqlite"):
            source = Path(url.split("///", 1)[1])
            self._snapshot(_INDEX, lambda target: _copy_sqlite(source, target))
            return
        tool = shutil.which("pg_dump")
        if tool is None:
            raise ConfigurationError(
                "the index is in PostgreSQL, and pg_dump is not on PATH: install PostgreSQL's client programs, or back up "
                "--without-index and let `pacs rebuild-index` write it anew (jobs, peers and tokens are lost then)"
            )
        self._snapshot(_DUMP, lambda target: _run([tool, "-Fc", "-f", str(target), _libpq(url)]))

    def _identities(self) -> None:
        """The vault: its logs before its rows, because a log is begun anew only after its rows are in the database."""
        folder = self._archive.settings.vault_folder
        if not folder.is_dir():
            return
        for path in sorted(folder.glob("*.log")):
            self._keep(f"identity/{path.name}", path)
        for path in sorted(folder.glob("*.db")):
            self._snapshot(f"identity/{path.name}", lambda target, path=path: _copy_sqlite(path, target))  # type: ignore[misc]

    def _snapshot(self, name: str, write: Callable[[Path], object]) -> None:
        temporary = self._files / f"{uuid.uuid4()}.part"
        write(temporary)
        temporary.chmod(0o600)
        digest = sha256()
        with temporary.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
            os.fsync(file.fileno())
        self._name(name, temporary, digest.hexdigest(), stamp=None)

    def _keep(self, name: str, path: Path) -> None:
        """Copy a file unless it is as it was at the last backup."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return  # discarded meanwhile
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        before = self._before.get(name)
        if before is not None and before["stamp"] == stamp and (self._files / before["sha256"]).exists():
            self._named[name] = before
            return
        temporary = self._files / f"{uuid.uuid4()}.part"
        digest = sha256()
        with path.open("rb") as source, temporary.open("xb") as target:
            while block := source.read(_BLOCK):
                digest.update(block)
                # The zeros ahead of a segment's last record take no room.
                if block.count(0) == len(block):
                    target.seek(len(block), os.SEEK_CUR)
                else:
                    target.write(block)
            target.truncate(target.tell())
            target.flush()
            os.fsync(target.fileno())
        temporary.chmod(0o600)
        self._name(name, temporary, digest.hexdigest(), stamp)

    def _name(self, name: str, temporary: Path, digest: str, stamp: list[int] | None) -> None:
        size = temporary.stat().st_size
        if (self._files / digest).exists():
            temporary.unlink()
        else:
            temporary.rename(self._files / digest)
            self._copied += 1
            self._copied_bytes += size
        self._named[name] = {"sha256": digest, "size": size, "stamp": stamp}
        self._on_file(name)

    def _finish(self, document: dict[str, Any]) -> None:
        sync_folder(self._files)
        temporary = self._folder / f"{MANIFEST}.part"
        with temporary.open("w", encoding="ascii") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o600)
        temporary.replace(self._folder / MANIFEST)
        sync_folder(self._folder)
        # Only now is nothing of the last backup needed: a forgotten study's key must not live on in an older copy of the ring.
        wanted = {entry["sha256"] for entry in self._named.values()}
        for path in self._files.iterdir():
            if path.name not in wanted:
                path.unlink()


def restore(settings: Settings, folder: Path, on_file: Callable[[str], object] | None = None) -> Report:
    """Bring a backup back into an empty home; every file is compared with its digest on the way.

    Raises
    ------
    ConfigurationError
        There is no backup, the home is not empty, or pg_restore is not there.
    IntegrityError
        A file of the backup is damaged or missing. The home is then incomplete: empty it and take another backup.
    """
    home = settings.home
    document = _manifest(folder)
    if home.exists() and any(home.iterdir()):
        raise ConfigurationError(f"{home} is not empty; restore into an empty home, and only then start the archive")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    size = 0
    dump: Path | None = None
    for name, entry in document["files"].items():
        target = settings.vault_folder / name.removeprefix("identity/") if name.startswith("identity/") else home / name
        if not name.startswith("identity/") and not target.resolve().is_relative_to(home.resolve()):
            raise IntegrityError(f"the backup names a file outside the home: {name}")
        _bring(folder / "files" / entry["sha256"], target, entry["sha256"])
        size += entry["size"]
        if name == _DUMP:
            dump = target
        if on_file is not None:
            on_file(name)
    sqlite = settings.database_url.startswith("sqlite")
    with_index = dump is not None or _INDEX in document["files"]
    if dump is not None and not sqlite:
        tool = shutil.which("pg_restore")
        if tool is None:
            raise ConfigurationError("pg_restore is not on PATH: install PostgreSQL's client programs, then restore again")
        _run([tool, "--no-owner", "-d", _libpq(settings.database_url), str(dump)])
        dump.unlink()
    if not with_index or (dump is not None) == sqlite:
        schema.upgrade(settings.database_url)
        with_index = False
    return Report(len(document["files"]), len(document["files"]), size, with_index, document["with_keys"])


def _bring(source: Path, target: Path, expected: str) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = sha256()
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with source.open("rb") as file, os.fdopen(descriptor, "wb") as out:
            while block := file.read(_BLOCK):
                digest.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
    except FileNotFoundError as error:
        raise IntegrityError(f"the backup lacks {target.name}") from error
    except FileExistsError as error:
        raise ConfigurationError(f"{target} is there already; restore into empty folders") from error
    if digest.hexdigest() != expected:
        raise IntegrityError(f"the backup's copy of {target.name} is damaged; take another backup")
    sync_folder(target.parent)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="ascii"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no backup in {folder}") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder / MANIFEST} cannot be read") from error
    if document.get("mini-pacs-backup") != FORMAT:
        raise ConfigurationError(f"{folder / MANIFEST} is of a version that this release does not know")
    return document


def _copy_sqlite(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as database,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        database.backup(copy)


def _libpq(url: str) -> str:
    """Return a URL that PostgreSQL's own programs understand."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme="postgresql"))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        # What the program says may name tables, never a value of a row.
        raise ConfigurationError(f"{Path(command[0]).name} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
