"""Composition root: the only file that names concrete classes. `Archive.open(settings)` builds the house."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pacs.codec.transcode import Codec
from pacs.committer import Committer
from pacs.deid.profile import Deidentifier
from pacs.index.database import Index
from pacs.model.errors import ConfigurationError
from pacs.ports import ObjectStore
from pacs.settings import Settings
from pacs.store.envelope import Sealer
from pacs.store.keys import FileKeyProvider, KeyRing
from pacs.store.quarantine import Quarantine
from pacs.store.segments import SegmentStore


@dataclass(frozen=True, slots=True)
class Archive:
    """The parts of one archive. A test says `replace(archive, objects=FullDisk())`; there is nothing to patch."""

    settings: Settings
    deidentifier: Deidentifier
    codec: Codec
    sealer: Sealer
    objects: ObjectStore
    index: Index
    quarantine: Quarantine
    committer: Committer
    image_key_id: str

    @classmethod
    def open(cls, settings: Settings, *, writer: str) -> "Archive":
        """Open the archive of `settings.home`, which `pacs.sweep.prepare` has made.

        Parameters
        ----------
        writer : str
            Name of this process among those that write at the same time ("scp", "web", "worker-3"): each has its own segment.

        Raises
        ------
        ConfigurationError
            The home was never prepared, a key is missing or wrong, or the database is of another revision.
        """
        if settings.store.url:
            raise ConfigurationError("store.url: this version keeps records in local segments only; leave it empty")
        home = settings.home
        image_keys = FileKeyProvider.open(home / "keys" / "image.key")
        identity_keys = FileKeyProvider.open(home / "keys" / "identity.key")
        index = Index.open(settings.database_url)
        ring = KeyRing.open(home / "keys" / "study-keys.db", image_keys)
        objects = SegmentStore(
            home / "store",
            writer=writer,
            segment_bytes=settings.store.segment_mb << 20,
            floor_bytes=settings.store.floor_mb << 20,
        )
        return cls(
            settings=settings,
            deidentifier=Deidentifier(policy=settings.deid.policy, identity_key=identity_keys.derive("pseudonym")),
            codec=Codec(archive_codec=settings.store.codec, prove_every=settings.store.prove_every),
            sealer=Sealer(ring),
            objects=objects,
            index=index,
            quarantine=Quarantine(home / "quarantine", image_keys, index.quarantine, floor_bytes=settings.store.floor_mb << 20),
            committer=Committer(objects, index),
            image_key_id=image_keys.key_id,
        )

    def close(self) -> None:
        """Finish what is waiting and release everything."""
        self.committer.close()
        self.objects.close()
        self.index.close()

    @classmethod
    @contextmanager
    def opened(cls, settings: Settings, *, writer: str) -> Iterator["Archive"]:
        """Open for a `with` block."""
        archive = cls.open(settings, writer=writer)
        try:
            yield archive
        finally:
            archive.close()
