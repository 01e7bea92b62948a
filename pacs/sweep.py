"""Before and beside serving: make a home, bring its database up to date, and replay what a crash left between store and index.

A record is durable before its rows are; a crash in between leaves bytes without rows. `recover` writes those rows from the
records themselves, so that the log is the truth and the index follows it.
"""

import os
import stat
from functools import partial
from pathlib import Path

from pacs import recalls
from pacs.archive import Archive, key_house
from pacs.committer import replay
from pacs.index import schema
from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError, IntegrityError, Unavailable
from pacs.model.instance import IndexEntry, Location
from pacs.settings import Settings, as_toml
from pacs.store.identity_keys import IdentityKeys
from pacs.store.keyhouse import NAMES
from pacs.store.keys import KeyRing
from pacs.store.ledger import FILE as LEDGER
from pacs.store.tiers import TieredStore

log = get_logger(__name__)
FOLDERS = ("keys", "store", "quarantine", "processors", "run", "logs", "scratch")


def prepare(settings: Settings) -> bool:
    """Make the home on first use, and bring its database to the current revision. Returns true if the home is new.

    Raises
    ------
    ConfigurationError
        The home cannot be used, or it holds records whose keys are missing: a new key would never open them.
    """
    home = settings.home
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if home.stat().st_uid == os.geteuid() and stat.S_IMODE(home.stat().st_mode) & 0o077:
            home.chmod(0o700)
        for name in FOLDERS:
            (home / name).mkdir(exist_ok=True, mode=0o700)
        _write_once(home / "pacs.toml", as_toml())
    except OSError as error:
        raise ConfigurationError(f"cannot use the home {home}: {error.strerror}; set PACS_HOME to a folder of yours") from error
    new = _prepare_keys(settings)
    schema.upgrade(settings.database_url)
    return new


def recover(archive: Archive) -> int:
    """Write the rows of records that have none; call it before anything serves. Returns how many were restored."""
    if archive.vault is not None:
        archive.vault.recover()
    restored = 0
    if archive.tiers is not None:
        _begin(archive.tiers)
    for container in archive.objects.containers(local=True):
        restored += replay(archive.objects, archive.sealer, archive.index, container, otherwise=partial(_moved, archive))
        archive.objects.trim(container, archive.index.high_water(container))
    if archive.tiers is not None:
        archive.tiers.walked()
    restored += _recover_quarantine(archive)
    recalls.settle(archive)
    if restored:
        log.info("records_replayed", records=restored)
    return restored


def _begin(tiers: TieredStore) -> None:
    """Hold bucket and ledger against each other; an archive that has done so before starts without its bucket, too."""
    try:
        begun = tiers.begin(settle=True)
        log.info("bucket_begun", count=begun.found, failed=begun.lost)
    except Unavailable:
        if not tiers.was_claimed():
            raise
        log.warning("bucket_away")


def _moved(archive: Archive, entry: IndexEntry, location: Location) -> bool:
    """Point a row here whose own segment is gone: a compaction moved the record after the index was backed up."""
    here = {one.container for one in archive.objects.segments()}
    rows = [row for row in archive.index.upkeep.rows_of(entry.key.sop_instance_uid) if row.stored.digest == entry.digest]
    lost = [(row, location) for row in rows if row.stored.location.container not in here]
    return bool(lost) and archive.index.upkeep.move(lost[:1])[0]


def _recover_quarantine(archive: Archive) -> int:
    listed = {row.quarantine_id for row in archive.index.quarantine.list()}
    unlisted = [one for one in archive.quarantine.files() if one not in listed]
    for quarantine_id in unlisted:
        try:
            received = archive.quarantine.open(quarantine_id)
        except IntegrityError:
            log.error("quarantine_unreadable", quarantine_id=quarantine_id)
            continue
        size_bytes = len(received.data_set)
        archive.index.quarantine.add(
            quarantine_id, "Quarantined", "listed again after a crash", received.origin.value, size_bytes
        )
    return len(unlisted)


def _prepare_keys(settings: Settings) -> bool:
    home, house = settings.home, key_house(settings)
    ring = house.ring
    missing = house.missing()
    lacking = [*missing, *([] if ring.exists() else [ring.name])]
    if not lacking:
        return False
    if any(home.glob("store/*.seg")) or (home / "store" / LEDGER).exists() or any(home.glob("quarantine/*")):
        raise ConfigurationError(
            f"{home / 'keys'}: {', '.join(lacking)} is missing, but this home holds records. "
            "Put it back from your backup (`pacs keys import`, or by hand); a new one could not open what is stored."
        )
    made = [name for name in NAMES if missing and (not house.kept_here or house.path(name).name in missing)]
    for name in made:
        house.create(name)
    if not ring.exists():
        KeyRing.create(ring, house.open("image")).close()
        if "identity" in made:
            # Whoever brings an identity key gets its names; one that is made here shall be good for nothing but to wrap.
            IdentityKeys.fresh().keep(ring, house.open("identity"))
    return True


def _write_once(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
