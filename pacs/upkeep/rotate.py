"""Rotate the image key: wrap every study key anew, seal the quarantine anew, then destroy the old key. No record is touched.

Resumable at every point, and possible while others serve: the ring moves first, each process reads the key files again when it
meets a name that it does not know, and the old key goes only when nothing is wrapped with it any more.
"""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.errors import IntegrityError, Unavailable

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did. `destroyed` is the name of the key that is no more, "" where whoever gave it must do so."""

    key_id: str
    study_keys: int
    quarantined: int
    destroyed: str


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
    descriptor = os.open(archive.settings.home / "keys" / "rotation.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable("another rotation is at work") from error
        return _rotate(archive, on_progress)
    finally:
        os.close(descriptor)


def _rotate(archive: Archive, on_progress: Callable[[int], object] | None) -> Rotation:
    house, ring, quarantine = archive.keys, archive.ring, archive.quarantine
    image = ring.provider
    study_keys = 0
    if not house.only_the_end_is_left():
        new = house.next_key()
        image.use(new)
        study_keys = ring.rewrap(image, on_progress=on_progress)
        with quarantine.locked(exclusive=True):
            house.swap()
    image.refresh()
    resealed = sum(quarantine.reseal(quarantine_id) for quarantine_id in quarantine.files())
    left = {**ring.wrapped_with(), **quarantine.wrapped_with()}.keys() - {image.key_id}
    if left:
        raise IntegrityError(f"something is still wrapped with {', '.join(sorted(left))}, so that key is kept; run it again")
    destroyed = house.destroy_old()
    log.info("key_rotated", key_id=image.key_id, count=study_keys)
    return Rotation(image.key_id, study_keys, resealed, destroyed)
