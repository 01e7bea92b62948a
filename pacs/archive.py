"""Composition root: the only file that names concrete classes. `Archive.open(settings)` builds the house."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pacs.codec import packing
from pacs.codec.haste import Haste
from pacs.codec.transcode import Codec
from pacs.committer import Committer, replay
from pacs.deid.devices import devices
from pacs.deid.markers import TRIAL_KEYWORDS
from pacs.deid.policy import with_own
from pacs.deid.profile import Deidentifier
from pacs.index.database import Index
from pacs.lifecycle import Quotas, quotas, retention_rules
from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError
from pacs.ports import Bucket, KeyProvider, ObjectStore
from pacs.settings import Settings
from pacs.store.bucket import open_bucket
from pacs.store.envelope import Sealer
from pacs.store.identity_keys import IdentityKeys, there
from pacs.store.keyhouse import KeyHouse
from pacs.store.keys import KeyRing
from pacs.store.ledger import FILE as LEDGER
from pacs.store.ledger import Ledger
from pacs.store.notes import Notes
from pacs.store.quarantine import Quarantine
from pacs.store.scratch import Intake, Scratch
from pacs.store.segments import SegmentStore
from pacs.store.tiers import TieredStore
from pacs.store.vault import Vault
from pacs.store.vault_file import NAME as VAULT

log = get_logger(__name__)
_AT_ONCE = 3
"""Objects of the largest size that is held in memory; all that arrive at once share their room."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The parts of one archive. A test says `replace(archive, objects=FullDisk())`; there is nothing to patch."""

    settings: Settings
    deidentifier: Deidentifier
    codec: Codec
    haste: Haste
    sealer: Sealer
    objects: ObjectStore
    index: Index
    quarantine: Quarantine
    committer: Committer
    vault: Vault | None
    notes: Notes
    identity: IdentityKeys
    image_key_id: str
    ring: KeyRing
    keys: KeyHouse
    intake: Intake
    quotas: Quotas
    tiers: TieredStore | None = None
    """The same as `objects`, where there is a bucket: for whoever sends, verifies and repairs."""

    @classmethod
    def open(cls, settings: Settings, *, writer: str, share: int = 1) -> "Archive":
        """Open the archive of `settings.home`, which `pacs.sweep.prepare` has made.

        Parameters
        ----------
        writer : str
            Name of this process among those that write at the same time ("scp", "web", "worker-3"): each has its own segment.
        share : int
            How many processes like this one share the cores.

        Raises
        ------
        ConfigurationError
            The home was never prepared, a key is missing or wrong, or the database is of another revision.
        """
        home = settings.home
        retention_rules(settings.store.retain)  # a wrong rule is said at the start
        keys = key_house(settings)
        image_keys = keys.open("image")
        index = Index.open(settings.database_url, conflict=settings.store.conflict)
        ring = KeyRing.open(keys.ring, image_keys)
        identity = identity_keys(settings, keys)
        segments, tiers = _stores(settings, writer, identity.derive("bucket").hex()[:32])
        objects: ObjectStore = tiers or segments
        sealer = Sealer(ring, packing=packing)
        # Rows that a power cut undid must be back before a record behind them has its row (docs/adr/0019).
        segments.reopened = partial(replay, segments, sealer, index)
        vault = _vault(settings, identity, writer) if settings.deid.vault else None
        scratch = Scratch(home / "scratch", floor_bytes=settings.store.floor_mb << 20)
        large_bytes = settings.store.large_mb << 20
        return cls(
            settings=settings,
            deidentifier=Deidentifier(
                policy=settings.deid.policy,
                identity_key=identity.derive("pseudonym"),
                policies=with_own(dict(settings.policies)),
                by_source=dict(settings.deid.by_source),
                rules=settings.deid.rules,
                devices=devices(settings.deid.devices),
                clinical_trial=_clinical_trial(settings),
                collect_taken=vault is not None,
            ),
            codec=Codec(settings.store.codec, settings.store.prove_every, scratch),
            haste=Haste(
                settings.store.compress,
                max(1, len(os.sched_getaffinity(0)) // share) if hasattr(os, "sched_getaffinity") else 1,
                backlog=index.upkeep.count_deferred,
                backlog_limit=settings.store.compress_backlog,
            ),
            sealer=sealer,
            objects=objects,
            index=index,
            quarantine=Quarantine(home / "quarantine", image_keys, index.quarantine, floor_bytes=settings.store.floor_mb << 20),
            committer=Committer(objects, index, vault),
            vault=vault,
            notes=Notes(identity),
            identity=identity,
            image_key_id=image_keys.key_id,
            ring=ring,
            keys=keys,
            quotas=Quotas(
                quotas(settings.store.quotas, settings.store.quota_gb), settings.store.quota_warn, index.lifecycle.usage
            ),
            tiers=tiers,
            intake=Intake(scratch, large_bytes=large_bytes, memory_bytes=_AT_ONCE * large_bytes),
        )

    def close(self) -> None:
        """Finish what is waiting and release everything."""
        self.committer.close()
        self.objects.close()
        if self.vault is not None:
            self.vault.close()
        self.index.close()

    @classmethod
    @contextmanager
    def opened(cls, settings: Settings, *, writer: str, share: int = 1) -> Iterator["Archive"]:
        """Open for a `with` block."""
        archive = cls.open(settings, writer=writer, share=share)
        try:
            yield archive
        finally:
            archive.close()


def _vault(settings: Settings, keys: KeyProvider, writer: str) -> Vault:
    folder = settings.vault_folder
    if not (folder / VAULT).exists():
        # Also for a home that is older than its vault: what is sent again gets its row.
        Vault.create(folder, keys)
        log.warning("vault_made")
    return Vault.open(folder, keys, writer)


def _stores(settings: Settings, writer: str, owner: str) -> tuple[SegmentStore, TieredStore | None]:
    folder, url = settings.home / "store", settings.store.url
    ledger = Ledger(folder) if (folder / LEDGER).exists() or url else None
    segments = SegmentStore(
        folder,
        writer=writer,
        segment_bytes=settings.store.segment_mb << 20,
        floor_bytes=settings.store.floor_mb << 20,
        last_number=ledger.last_number if ledger is not None else lambda writer: 0,
    )
    if ledger is None:
        return segments, None
    if url:
        return segments, TieredStore(segments, bucket_at(url), ledger, owner=owner, turn_over_s=settings.store.ship_after_s)
    away = ledger.copies().keys() - set(segments.containers())
    ledger.close()
    if away:
        raise ConfigurationError(f"{len(away)} segments lie in a bucket only: set store.url to the one they were sent to")
    return segments, None


def bucket_at(url: str) -> Bucket:
    """Return the bucket of a URL; its credentials, and whether plain HTTP will do, come from the environment."""
    return open_bucket(url, allow_http=os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes"))


def key_house(settings: Settings) -> KeyHouse:
    """Return where the key-encryption keys of a home come from. Raises `ConfigurationError`."""
    keys = settings.keys
    service_key = keys.kms_key if keys.provider == "aws-kms" else keys.vault_key
    return KeyHouse(settings.home / "keys", keys.provider, os.environ, service_key=service_key, service_url=keys.vault_url)


def identity_keys(settings: Settings, keys: KeyHouse) -> IdentityKeys:
    """Return what names and seals identities in a home. Raises `ConfigurationError`."""
    provider = keys.open("identity")
    if not there(keys.ring):
        # A home of an older release, where the key itself named and sealed: its names stay for good.
        held = IdentityKeys.fresh(provider.reveal())
        if (settings.vault_folder / VAULT).exists():
            Vault.open(settings.vault_folder, held, "").close()
        held.keep(keys.ring, provider)
    return IdentityKeys.open(keys.ring, provider)


def _clinical_trial(settings: Settings) -> dict[str, str]:
    deid = settings.deid
    values = (
        deid.clinical_trial_sponsor_name,
        deid.clinical_trial_protocol_id,
        deid.clinical_trial_protocol_name,
        deid.clinical_trial_site_id,
        deid.clinical_trial_site_name,
        deid.clinical_trial_coordinating_center_name,
    )
    return dict(zip(TRIAL_KEYWORDS, values, strict=True))
