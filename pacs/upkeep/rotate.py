"""Rotate a key: wrap anew what it wraps, then destroy it. No record is touched; resumable at every point, while others serve.

The image key wraps study keys and the quarantine: the ring moves first, each process reads the key files again when it meets a
name that it does not know, and the old key goes only when nothing is wrapped with it any more. The identity key wraps two
secrets that whoever serves already holds (docs/adr/0028); what the first identity key of an older release sealed itself is
sealed anew.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError, IntegrityError, Unavailable
from pacs.store import identity_keys
from pacs.store.vault import Vault
from pacs.store.vault_file import NAME as VAULT

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did. `destroyed` is the name of the key that is no more, "" where whoever gave it must do so."""

    key_id: str
    study_keys: int
    quarantined: int
    destroyed: str


@dataclass(frozen=True, slots=True)
class IdentityRotation:
    """What a rotation of the identity key did: rows `resealed` that a first key had sealed, those `left` that do not open."""

    key_id: str
    resealed: int
    left: int
    destroyed: str


@contextmanager
def keys_held(home: Path, *, exclusive: bool) -> Iterator[None]:
    """Keep the keys as they are (a backup), or alone change them. Raises `Unavailable` where somebody else is at it."""
    descriptor = os.open(home / "keys" / "rotation.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable("another rotation, or a backup, is at work" if exclusive else "a rotation is at work") from error
        yield
    finally:
        os.close(descriptor)


def rotate(archive: Archive, on_progress: Callable[[int], object] | None = None) -> Rotation:
    """Put a new image key in force, or go on with a rotation that was cut short.

    Raises
    ------
    ConfigurationError
        Keys are given from outside, and the next one is not.
    IntegrityError
        Something is still wrapped with the old key and cannot be wrapped anew; the old key is kept.
    Unavailable
        Another rotation is at work.
    """
    with keys_held(archive.settings.home, exclusive=True):
        return _rotate(archive, on_progress)


def rotate_identity(archive: Archive, on_progress: Callable[[int], object] | None = None) -> IdentityRotation:
    """Put a new identity key in force, or go on with a rotation that was cut short; every name stays. Raises as `rotate`."""
    with keys_held(archive.settings.home, exclusive=True):
        change, ring = archive.keys.change("identity"), archive.keys.ring
        resealed, left = _reseal(archive, on_progress or (lambda _: None))
        if not change.only_the_end_is_left():
            new = change.next_key()
            identity_keys.rewrap(ring, archive.keys.open("identity"), new)
            change.swap()
        (key_id,) = identity_keys.wrapped_with(ring)
        if archive.keys.kept_here and archive.keys.open("identity").key_id != key_id:
            raise IntegrityError(f"the secrets are wrapped with {key_id}, which is not the key in force; nothing is destroyed")
        destroyed = change.destroy_old()
        log.info("key_rotated", key_id=key_id, count=resealed)
        return IdentityRotation(key_id, resealed, left, destroyed)


def sealed_by_others(archive: Archive) -> int:
    """Return how many rows, the vault's secret counted, are still sealed by a first identity key itself."""
    rows = sum(count for key_id, count in archive.index.sealed.sealed_with().items() if key_id != archive.identity.key_id)
    return rows + (archive.vault is not None and archive.vault.wrapped_with != archive.identity.key_id)


def _reseal(archive: Archive, on_progress: Callable[[int], object]) -> tuple[int, int]:
    resealed = left = 0
    folder = archive.settings.vault_folder
    if (folder / VAULT).exists():
        resealed += Vault.rewrap(folder, archive.identity)
    for batch in archive.index.sealed.under_others(archive.identity.key_id):
        for row in batch:
            try:
                anew = archive.notes.seal_anew(row)
            except ConfigurationError:
                # Damaged, or of a key that nobody has: it opens neither before nor after.
                left += 1
                continue
            resealed += archive.index.sealed.replace(row, *anew)
        on_progress(resealed)
    return resealed, left


def _rotate(archive: Archive, on_progress: Callable[[int], object] | None) -> Rotation:
    change, ring, quarantine = archive.keys.change("image"), archive.ring, archive.quarantine
    image = ring.provider
    study_keys = 0
    if not change.only_the_end_is_left():
        new = change.next_key()
        image.use(new)
        study_keys = ring.rewrap(image, on_progress=on_progress)
        with quarantine.locked(exclusive=True):
            change.swap()
    image.refresh()
    resealed = sum(quarantine.reseal(quarantine_id) for quarantine_id in quarantine.files())
    left = {**ring.wrapped_with(), **quarantine.wrapped_with()}.keys() - {image.key_id}
    if left:
        raise IntegrityError(f"something is still wrapped with {', '.join(sorted(left))}, so that key is kept; run it again")
    destroyed = change.destroy_old()
    log.info("key_rotated", key_id=image.key_id, count=study_keys)
    return Rotation(image.key_id, study_keys, resealed, destroyed)
