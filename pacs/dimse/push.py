"""Sends stored instances to a peer by C-STORE, as the carrier of sending jobs (`pacs.processing.sending`)."""

from collections.abc import Callable, Sequence

from pacs.archive import Archive
from pacs.dimse import status
from pacs.dimse.ahead import Ahead
from pacs.dimse.lane import AssociationLost
from pacs.dimse.onward import Onward
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, Unavailable
from pacs.model.instance import Stored
from pacs.model.peer import Peer
from pacs.processing.sending import Delivery
from pacs.reidentify import Originals

log = get_logger(__name__)


def carry(
    archive: Archive,
    peer: Peer,
    instances: Sequence[Stored],
    originals: Originals | None,
    progress: Callable[[int], None],
) -> Delivery:
    """Send instances to a peer; see `pacs.processing.sending.Carrier`."""
    delivery = Delivery()
    way = Onward(archive, peer, instances, originals)
    order = way.ordered(instances)
    ahead = Ahead(archive, order, originals, peer.prefers)
    try:
        for done, stored in enumerate(order):
            progress(done)
            try:
                code = way.send(stored, ahead, lambda done=done: progress(done))  # type: ignore[misc]
            except (AssociationLost, Unavailable) as error:
                if way.gone and not delivery.delivered and isinstance(error, Unavailable):
                    raise
                delivery.missed += len(order) - done if way.gone else 1
            except ArchiveError as error:
                log.warning("not_sent", sop_instance_uid=stored.key.sop_instance_uid, error=type(error).__name__)
                _refused(delivery, type(error).__name__)
            else:
                _count(delivery, code)
            if way.gone:
                break
    except BaseException:
        way.abandon()
        raise
    finally:
        ahead.close()
        way.close()
    return delivery


def _count(delivery: Delivery, code: int) -> None:
    if code == status.SUCCESS or status.is_warning(code):
        delivery.delivered += 1
    elif code >> 8 == status.OUT_OF_RESOURCES >> 8:
        delivery.missed += 1
    else:
        _refused(delivery, f"{code:04X}")


def _refused(delivery: Delivery, reason: str) -> None:
    delivery.refused[reason] = delivery.refused.get(reason, 0) + 1
