"""Back an archive up into a folder or a bucket (`restore.py` brings it back).

Either holds `files/` with every file under its SHA-256, and `backup.json`, which names them; it is replaced in one step
when all of it is durable, so a backup that was cut short leaves the one before whole. What has not changed is not copied again.
The index is copied first: records are durable before their rows, so every row of the copy finds its record. Segments that the
archive's own bucket has are named and not copied, unless the whole is asked for.
"""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from pacs.archive import Archive, bucket_at
from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError, NotFound
from pacs.ports import Bucket
from pacs.store.bucket import FolderBucket
from pacs.store.ledger import FILE as LEDGER
from pacs.store.sending import digest_of_file
from pacs.store.tiers import FOLDER as SEGMENTS
from pacs.upkeep.compact import segments_held
from pacs.upkeep.repair import Backup
from pacs.upkeep.rotate import keys_held

log = get_logger(__name__)
FORMAT = 1
MANIFEST = "backup.json"
KEY_FILES = (
    *(f"keys/{name}{which}.key" for name in ("image", "identity") for which in ("", ".next", ".old")),
    "keys/exported.json",
)
INDEX, DUMP, RING, LEDGER_COPY = "index.db", "index.pgdump", "keys/study-keys.db", f"store/{LEDGER}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a backup or restore did. `elsewhere` segments are in the archive's bucket and nowhere in the backup."""

    files: int
    copied: int
    copied_bytes: int
    with_index: bool
    with_keys: bool
    elsewhere: int = 0


def place(where: Path | str) -> Bucket:
    """Return where a backup is or goes: a folder, or a bucket's URL. Raises `ConfigurationError` for what cannot be one."""
    text = str(where)
    return bucket_at(text) if "://" in text and not text.startswith("file://") else FolderBucket(folder_of(where))


def copies(where: Path | str) -> Backup:
    """Return the records of a backup, for a repair. Raises `ConfigurationError` if there is no backup."""
    bucket = place(where)
    files = manifest(bucket, where)["files"]
    segments = {name: entry for name, entry in files.items() if name.startswith("store/") and name.endswith(".seg")}
    return Backup(
        bucket, {name.removeprefix("store/"): (f"files/{one['sha256']}", one["size"]) for name, one in segments.items()}
    )


def back_up(
    archive: Archive,
    where: Path | str,
    *,
    with_keys: bool = False,
    without_index: bool = False,
    whole: bool = False,
    on_file: Callable[[str], object] | None = None,
) -> Report:
    """Copy all that this archive needs to come back into a folder or bucket; safe while it serves.

    Key-encryption keys come along only `with_keys`: kept beside the data they protect nothing. Segments that the archive's own
    bucket has come along only for the `whole`.

    Raises
    ------
    ConfigurationError
        The folder or bucket cannot be used, or PostgreSQL's pg_dump is not there.
    Unavailable
        A compaction or a rotation is at work, or the bucket does not answer.
    """
    home, bucket = archive.settings.home, place(where)
    if isinstance(bucket, FolderBucket):
        _check_folder(folder_of(where), home)
    if archive.settings.store.url and str(where).rstrip("/").startswith(archive.settings.store.url.rstrip("/")):
        raise ConfigurationError("a backup does not go to the place that it is to replace; give it a prefix of its own")
    with (
        segments_held(home, exclusive=False),
        keys_held(home, exclusive=False),
        tempfile.TemporaryDirectory(dir=home / "run", prefix="backup-") as staging,
    ):
        return _Copying(archive, bucket, where, Path(staging), on_file or (lambda _: None)).run(with_keys, without_index, whole)


def _check_folder(folder: Path, home: Path) -> None:
    if folder.resolve().is_relative_to(home.resolve()):
        raise ConfigurationError(f"{folder} is within the home; a backup belongs elsewhere")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot use the folder {folder}: {error.strerror}") from error
    if not (folder / MANIFEST).exists() and any(folder.iterdir()) and not (folder / "files").is_dir():
        raise ConfigurationError(f"{folder} holds other things; name an empty folder, or one of an earlier backup")
    for left in (folder / "files").glob("*.part"):
        left.unlink()


class _Copying:
    def __init__(
        self, archive: Archive, bucket: Bucket, where: Path | str, staging: Path, on_file: Callable[[str], object]
    ) -> None:
        self._archive = archive
        self._home = archive.settings.home
        self._bucket = bucket
        self._staging = staging
        self._on_file = on_file
        self._there = bucket.list("files")
        self._before: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(NotFound):
            document = json.loads(bucket.read(MANIFEST))
            if document.get("archive", self._name_of_archive) != self._name_of_archive:
                raise ConfigurationError(f"{where} holds the backup of another archive; name another place")
            self._before = manifest(bucket, where)["files"]
        self._named: dict[str, dict[str, Any]] = {}
        self._elsewhere: dict[str, dict[str, Any]] = {}
        self._copied = self._copied_bytes = 0

    @property
    def _name_of_archive(self) -> str:
        return self._archive.identity.derive("backup").hex()[:32]

    def run(self, with_keys: bool, without_index: bool, whole: bool) -> Report:
        if not without_index:
            self._index()
        self._segments(whole)
        for path in self._plain(
            "quarantine/*.sealed", "forgotten/*.json", "pacs.toml", "rules.toml", "routes.toml", "recalls.json"
        ):
            self._keep(path.relative_to(self._home).as_posix(), path)
        for path in self._plain("processors/**/*"):
            if path.suffix != ".pyc":
                self._keep(path.relative_to(self._home).as_posix(), path)
        self._identities()
        if (self._home / LEDGER_COPY).exists():
            self._snapshot(LEDGER_COPY, lambda target: _copy_sqlite(self._home / LEDGER_COPY, target))
        # The ring last: every record that was copied finds its key.
        self._snapshot(RING, self._archive.ring.copy_to)
        if with_keys:
            for path in self._plain(*KEY_FILES):
                self._keep(path.relative_to(self._home).as_posix(), path)
        document = {
            "mini-pacs-backup": FORMAT,
            "archive": self._name_of_archive,
            "made_at": time.time(),
            "image_key_id": self._archive.image_key_id,
            "with_keys": with_keys,
            "files": self._named,
            "elsewhere": self._elsewhere,
        }
        self._bucket.replace(MANIFEST, json.dumps(document, indent=1).encode("ascii"))
        # Only now is nothing of the last backup needed: a forgotten study's key must not live on in an older copy of the ring.
        wanted = {f"files/{entry['sha256']}" for entry in self._named.values()}
        for name in self._there.keys() - wanted:
            self._bucket.delete(name)
        log.info("backup_made", count=len(self._named), size_bytes=self._copied_bytes)
        counts = (len(self._named), self._copied, self._copied_bytes)
        return Report(*counts, not without_index, with_keys, len(self._elsewhere))

    def _plain(self, *patterns: str) -> Iterator[Path]:
        for pattern in patterns:
            yield from (path for path in sorted(self._home.glob(pattern)) if path.is_file())

    def _segments(self, whole: bool) -> None:
        tiers = self._archive.tiers
        for segment in self._archive.objects.segments():
            name = f"store/{segment.container}"
            sent = tiers.ledger.copies().get(segment.container) if tiers is not None else None
            if sent is not None and not whole:
                self._elsewhere[name] = {"sha256": sent.sha256, "size": sent.size_bytes}
            elif tiers is not None and not tiers.local.holds(segment.container):
                self._fetch(name, f"{SEGMENTS}/{segment.container}", tiers.bucket)
            else:
                # The newest of a writer changes while it is read: what is named by its digest must be what was read.
                self._keep(name, self._home / name, changing=segment.newest)

    def _fetch(self, name: str, object_name: str, bucket: Bucket) -> None:
        before = self._before.get(name)
        if before is not None and f"files/{before['sha256']}" in self._there:
            self._named[name] = before
            return
        temporary = self._staging / "fetched"
        with temporary.open("wb") as file:
            for block in bucket.blocks(object_name):
                file.write(block)
        self._put(name, temporary, stamp=None)

    def _index(self) -> None:
        url = self._archive.settings.database_url
        if url.startswith("sqlite"):
            source = Path(url.split("///", 1)[1])
            self._snapshot(INDEX, lambda target: _copy_sqlite(source, target))
            return
        tool = shutil.which("pg_dump")
        if tool is None:
            raise ConfigurationError(
                "the index is in PostgreSQL, and pg_dump is not on PATH: install PostgreSQL's client programs, or back up "
                "--without-index and let `pacs rebuild-index` write it anew (jobs, peers and tokens are lost then)"
            )
        self._snapshot(DUMP, lambda target: run_tool([tool, "-Fc", "-f", str(target), libpq(url)]))

    def _identities(self) -> None:
        """The vault: its logs before its rows, because a log is begun anew only after its rows are in the database."""
        folder = self._archive.settings.vault_folder
        if not folder.is_dir():
            return
        for path in sorted(folder.glob("*.log")):
            self._keep(f"identity/{path.name}", path, changing=True)
        for path in sorted(folder.glob("*.db")):
            self._snapshot(f"identity/{path.name}", lambda target, path=path: _copy_sqlite(path, target))  # type: ignore[misc]

    def _snapshot(self, name: str, write: Callable[[Path], object]) -> None:
        temporary = self._staging / "snapshot"
        write(temporary)
        self._put(name, temporary, stamp=None)

    def _keep(self, name: str, path: Path, *, changing: bool = False) -> None:
        """Copy a file unless it is as it was at the last backup."""
        try:
            stamp = _stamp(path)
            before = self._before.get(name)
            if before is not None and before["stamp"] == stamp and f"files/{before['sha256']}" in self._there:
                self._named[name] = before
                return
            if not changing:
                digest, size = digest_of_file(path)
                self._create(digest, size, path)
                if _stamp(path) == stamp:
                    self._name(name, digest, size, stamp)
                    return
                self._bucket.delete(f"files/{digest}")
                self._there.pop(f"files/{digest}", None)
            shutil.copyfile(path, self._staging / "copied")
        except FileNotFoundError:
            self._gone(name)
            return
        self._put(name, self._staging / "copied", stamp)

    def _gone(self, name: str) -> None:
        """Discarded meanwhile; or a segment that went to the bucket meanwhile."""
        tiers = self._archive.tiers
        sent = tiers.ledger.copies().get(name.removeprefix("store/")) if tiers is not None else None
        if sent is not None:
            self._elsewhere[name] = {"sha256": sent.sha256, "size": sent.size_bytes}

    def _put(self, name: str, temporary: Path, stamp: list[int] | None) -> None:
        digest, size = digest_of_file(temporary)
        self._create(digest, size, temporary)
        temporary.unlink()
        self._name(name, digest, size, stamp)

    def _create(self, digest: str, size: int, path: Path) -> None:
        if f"files/{digest}" in self._there:
            return
        with contextlib.suppress(FileExistsError):
            self._bucket.create(f"files/{digest}", path)
        self._there[f"files/{digest}"] = size
        self._copied += 1
        self._copied_bytes += size

    def _name(self, name: str, digest: str, size: int, stamp: list[int] | None) -> None:
        self._named[name] = {"sha256": digest, "size": size, "stamp": stamp}
        self._on_file(name)


def manifest(bucket: Bucket, where: Path | str) -> dict[str, Any]:
    if isinstance(bucket, FolderBucket) and not folder_of(where).is_dir():
        raise ConfigurationError(f"there is no folder {where}")
    try:
        document: dict[str, Any] = json.loads(bucket.read(MANIFEST))
    except NotFound as error:
        raise ConfigurationError(f"there is no backup in {where}") from error
    except ValueError as error:
        raise ConfigurationError(f"{MANIFEST} in {where} cannot be read") from error
    if document.get("mini-pacs-backup") != FORMAT:
        raise ConfigurationError(f"{MANIFEST} in {where} is of a version that this release does not know")
    return document


def folder_of(where: Path | str) -> Path:
    text = str(where)
    return Path(unquote(urlsplit(text).path)) if text.startswith("file://") else Path(text)


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _copy_sqlite(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as database,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        database.backup(copy)


def libpq(url: str) -> str:
    """Return a URL that PostgreSQL's own programs understand."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme="postgresql"))


def run_tool(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        # What the program says may name tables, never a value of a row.
        raise ConfigurationError(f"{Path(command[0]).name} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
