"""Bring an archive back from a backup (`backup.py`) into an empty home: every file is compared with its digest on the way."""

import contextlib
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from pacs.index import schema
from pacs.model.errors import ConfigurationError, IntegrityError, NotFound
from pacs.ports import Bucket
from pacs.settings import Settings
from pacs.store.ledger import Ledger
from pacs.store.providers import sync_folder
from pacs.upkeep.backup import DUMP, INDEX, LEDGER_COPY, Report, libpq, manifest, place, run_tool


def restore(settings: Settings, where: Path | str, on_file: Callable[[str], object] | None = None) -> Report:
    """Bring a backup back into an empty home; every file is compared with its digest on the way.

    Raises
    ------
    ConfigurationError
        There is no backup, the home is not empty, or pg_restore is not there.
    IntegrityError
        A file of the backup is damaged or missing. The home is then incomplete: empty it and take another backup.
    """
    home, bucket = settings.home, place(where)
    document = manifest(bucket, where)
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
        _bring(bucket, target, entry["sha256"])
        size += entry["size"]
        if name == DUMP:
            dump = target
        if on_file is not None:
            on_file(name)
    if LEDGER_COPY in document["files"]:
        # The bucket may have gone on since: the first start must see it, before a name is given to a new segment.
        with contextlib.closing(Ledger(home / "store")) as ledger:
            ledger.note(claimed="")
    sqlite = settings.database_url.startswith("sqlite")
    with_index = dump is not None or INDEX in document["files"]
    if dump is not None and not sqlite:
        tool = shutil.which("pg_restore")
        if tool is None:
            raise ConfigurationError("pg_restore is not on PATH: install PostgreSQL's client programs, then restore again")
        run_tool([tool, "--no-owner", "-d", libpq(settings.database_url), str(dump)])
        dump.unlink()
    if not with_index or (dump is not None) == sqlite:
        schema.upgrade(settings.database_url)
        with_index = False
    count = len(document["files"])
    return Report(count, count, size, with_index, document["with_keys"], len(document.get("elsewhere", {})))


def _bring(bucket: Bucket, target: Path, expected: str) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = sha256()
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            for block in bucket.blocks(f"files/{expected}"):
                digest.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
    except NotFound as error:
        raise IntegrityError(f"the backup lacks {target.name}") from error
    except FileExistsError as error:
        raise ConfigurationError(f"{target} is there already; restore into empty folders") from error
    if digest.hexdigest() != expected:
        raise IntegrityError(f"the backup's copy of {target.name} is damaged; take another backup")
    sync_folder(target.parent)
