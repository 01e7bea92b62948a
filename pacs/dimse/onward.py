"""C-STORE sub-operations towards a peer: stored instances out of the archive, as they are stored wherever the peer takes that.

C-MOVE and our own sending stand on this. Each transfer syntax is proposed in a context of its own, because in one together the
peer would choose, and rarely the stored one. PS3.4 C.4.2.1.4, PS3.7 9.1.1, PS3.8 9.3.2 (at most 128 contexts an association).
"""

from collections.abc import Callable, Iterator, Sequence

from pacs.archive import Archive
from pacs.dimse import contexts, requestor
from pacs.dimse.ahead import Ahead
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.model.errors import NotTranscodable
from pacs.model.instance import Stored
from pacs.model.peer import Peer
from pacs.reidentify import Originals

SUB_OPERATION_LIMIT = 65535
"""The counters are US (PS3.7 E.1); a larger retrieval is refused, never wrapped."""


class Onward:
    """Sends instances to a peer on associations of its own, opened again once if the peer breaks off.

    Parameters
    ----------
    originals : Originals, optional
        What restores the instances, where the peer gets them so.
    originator : (str, int), optional
        AE title and Message ID of the C-MOVE that is being served (PS3.7 9.1.1.1).
    """

    def __init__(
        self,
        archive: Archive,
        peer: Peer,
        instances: Sequence[Stored],
        originals: Originals | None = None,
        *,
        priority: int = 0,
        originator: tuple[str, int] | None = None,
    ) -> None:
        self._archive = archive
        self.originals = originals
        self.prefers = peer.prefers
        self._peer = peer
        self._priority = priority
        self._originator = originator
        self._batches = _batches(instances, self.prefers)
        self._proposed: set[requestor.Proposal] = set()
        self._association: LaneAssociation | None = None
        self._message_ids = message_ids()
        self._second_chance = True
        self._gone = False

    @property
    def gone(self) -> bool:
        """Whether no further instance can be sent."""
        return self._gone

    def send(self, stored: Stored, ahead: Ahead, meanwhile: Callable[[], None]) -> int:
        """Send one instance and return the peer's status. Raises `ArchiveError` or `AssociationLost` where there is none."""
        if not set(_needs(stored, self.prefers)) <= self._proposed:
            self.close()
            self._proposed = self._batches[self._batch_of(stored)]
        try:
            return self._send(stored, ahead, meanwhile)
        except AssociationLost:
            # Once it may have been an accident; a peer that breaks off twice does not want to go on.
            self.abandon()
            if not self._second_chance:
                self._gone = True
                raise
            self._second_chance = False
        except requestor.PeerUnavailable:
            self._gone = True
            raise
        try:
            return self._send(stored, ahead, meanwhile)
        except (AssociationLost, requestor.PeerUnavailable):
            self.abandon()
            self._gone = True
            raise

    def ordered(self, instances: Sequence[Stored]) -> Sequence[Stored]:
        """Bring together what goes by the same association."""
        if len(self._batches) == 1:
            return instances
        return sorted(instances, key=self._batch_of)

    def _batch_of(self, stored: Stored) -> int:
        needed = set(_needs(stored, self.prefers))
        return next(index for index, batch in enumerate(self._batches) if needed <= batch)

    def close(self) -> None:
        """Release the association."""
        if self._association is not None:
            self._association.release_and_wait()
            self._association = None

    def _send(self, stored: Stored, ahead: Ahead, meanwhile: Callable[[], None]) -> int:
        if self._association is None:
            settings = self._archive.settings.dicom
            self._association = requestor.associate_with(settings, self._peer, sorted(self._proposed))
        return send_stored(
            self._association,
            stored,
            ahead,
            meanwhile,
            message_id=next(self._message_ids),
            priority=self._priority,
            originator=self._originator,
        )

    def abandon(self) -> None:
        """Break the association off."""
        if self._association is not None:
            self._association.terminate()
            self._association = None


def send_stored(
    association: LaneAssociation,
    stored: Stored,
    ahead: Ahead,
    meanwhile: Callable[[], None],
    *,
    message_id: int,
    priority: int,
    originator: tuple[str, int] | None = None,
) -> int:
    """Send an instance as it is stored, or in the best transfer syntax the peer accepted for its class."""
    ways = requestor.accepted(association, stored.sop_class_uid)
    if not ways:
        raise NotTranscodable("the peer accepted no presentation context for this SOP Class")
    prepared = ahead.take(stored, lambda sop_class_uid: tuple(requestor.accepted(association, sop_class_uid)), meanwhile)
    return requestor.store(
        association,
        ways[prepared.parts.transfer_syntax_uid],
        sop_class_uid=stored.sop_class_uid,
        sop_instance_uid=prepared.sop_instance_uid,
        data_set=prepared.parts.buffers,
        message_id=message_id,
        priority=priority,
        originator=originator,
        meanwhile=meanwhile,
    )


def message_ids() -> Iterator[int]:
    """Yield Message IDs, which are US: after 65535 comes 1."""
    while True:
        yield from range(1, SUB_OPERATION_LIMIT + 1)


def _needs(stored: Stored, prefers: Sequence[str] = ()) -> tuple[requestor.Proposal, ...]:
    """Return the contexts to propose for an instance: what the peer prefers, as stored, and the two that every peer should
    take, each apart.

    In one context together the peer would choose, and rarely the stored one.
    """
    usual = (stored.transfer_syntax_uid, contexts.EXPLICIT_LITTLE_ENDIAN, contexts.IMPLICIT_LITTLE_ENDIAN)
    syntaxes = dict.fromkeys((*prefers, *usual))
    return tuple((stored.sop_class_uid, (syntax,)) for syntax in syntaxes)


def _batches(instances: Sequence[Stored], prefers: Sequence[str] = ()) -> list[set[requestor.Proposal]]:
    """Return sets of contexts, at most 128 each, so that every instance finds all of its own in one of them."""
    batches: list[set[requestor.Proposal]] = []
    for stored in instances:
        needed = set(_needs(stored, prefers))
        if any(needed <= batch for batch in batches):
            continue
        for batch in batches:
            if len(batch | needed) <= requestor.CONTEXT_LIMIT:
                batch |= needed
                break
        else:
            batches.append(needed)
    return batches
