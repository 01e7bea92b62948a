"""Send closed segments to the bucket, prove that they arrived, and let local copies go when their room is needed."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from pacs.logs import get_logger
from pacs.model.errors import IntegrityError, NotFound
from pacs.store.bucket import digest_of
from pacs.store.ledger import SENDING, SHIPPED
from pacs.store.tiers import FOLDER, TieredStore

log = get_logger(__name__)
_BLOCK = 1 << 20


def waiting(tiers: TieredStore) -> list[str]:
    """Return the closed segments here that are not in the bucket yet, each writer's in order."""
    sent = tiers.ledger.copies()
    return [one.container for one in tiers.local.segments() if not one.newest and one.container not in sent]


def send(tiers: TieredStore, container: str) -> bool:
    """Send a closed segment and read it back; false if it changed meanwhile, or is gone: the next pass sees to it.

    Raises
    ------
    IntegrityError
        There is an object of that name and other content, which this archive did not send.
    Unavailable
        The bucket does not answer. What was begun is begun anew by the next pass.
    """
    path, name, bucket = tiers.local.path(container), f"{FOLDER}/{container}", tiers.bucket
    before = tiers.ledger.copy(container)
    try:
        expected = digest_of_file(path)
        tiers.ledger.write(container, SENDING)
        try:
            bucket.create(name, path)
        except FileExistsError:
            # Cut short between the upload and its note, or in the middle of a change here: ours to put right.
            if digest_of(bucket, name) != expected:
                if before is None:
                    raise IntegrityError(f"the bucket has a {container} already, of other content") from None
                bucket.delete(name)
                bucket.create(name, path)
        arrived = digest_of(bucket, name)
    except (FileNotFoundError, NotFound):
        # A compaction has dropped it.
        bucket.delete(name)
        tiers.ledger.remove(container, given_up=False)
        return False
    except IntegrityError:
        tiers.ledger.remove(container, given_up=False)
        raise
    if arrived != expected:
        log.warning("segment_changed_on_its_way", segment=container)
        bucket.delete(name)
        return False
    tiers.ledger.write(container, SHIPPED, expected[1], expected[0])
    return True


def send_again(tiers: TieredStore, container: str) -> bool:
    """Put a segment that is here in the place of its damaged copy in the bucket."""
    tiers.ledger.write(container, SENDING)
    tiers.bucket.delete(f"{FOLDER}/{container}")
    return send(tiers, container)


def make_room(tiers: TieredStore, *, keep_bytes: int, free_bytes: int, before: Callable[[], object] = lambda: None) -> int:
    """Let local copies of sent segments go, the oldest first; returns how many bytes that gave.

    Parameters
    ----------
    keep_bytes : int
        So much of them may stay; 0: no bound but the disk's.
    free_bytes : int
        So much of the disk shall be free.
    before : callable
        Called once before the first goes: its rows must be durable by then, for nobody replays what is not here.
    """
    sent = tiers.ledger.copies()
    held = sorted(
        (one for one in tiers.local.segments() if one.container in sent and not one.newest), key=lambda one: one.changed_at
    )
    total, given = sum(one.size_bytes for one in held), 0
    for segment in held:
        if (keep_bytes <= 0 or total <= keep_bytes) and _free(tiers, segment.container) >= free_bytes:
            break
        if not is_there(tiers, segment.container):
            continue
        if not given:
            before()
        tiers.local.drop(segment.container)
        log.info("segment_let_go", segment=segment.container, size_bytes=segment.size_bytes)
        total, given = total - segment.size_bytes, given + segment.size_bytes
    return given


def is_there(tiers: TieredStore, container: str) -> bool:
    """Tell whether the bucket has the copy that the ledger names, by name and size; one that is not is sent again."""
    copy = tiers.ledger.copy(container)
    try:
        # The last byte, and the one behind it that must not be there: one small question to any provider.
        right = copy is not None and len(tiers.bucket.read(f"{FOLDER}/{container}", (copy.size_bytes - 1, 2))) == 1
    except NotFound:
        right = False
    if not right and tiers.local.holds(container):
        log.error("segment_missing", segment=container)
        tiers.ledger.remove(container, given_up=False)
    return right


def digest_of_file(path: Path) -> tuple[str, int]:
    """Return a file's SHA-256, in hex, and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def _free(tiers: TieredStore, container: str) -> int:
    status = os.statvfs(tiers.local.path(container).parent)
    return status.f_bavail * status.f_frsize
