"""C-MOVE and C-GET as SCP: sub-operations from the sealed store to the peer, without a data set object in between.

PS3.4 C.4.2 and C.4.3, PS3.7 9.1.3 and 9.1.4. pynetdicom's own provider names itself as Move Originator, drops the priority,
answers A801 where a known destination does not answer, and decodes every data set; so this is ours. Each sub-operation sends
what is stored if the peer accepts that transfer syntax, and otherwise what the codec makes of it; one that fails never stops
the others. The final status follows from the counters alone (PS3.4 C.4.2.1.5).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pacs import reidentify
from pacs.archive import Archive
from pacs.dimse import abreast, contexts, identifier, messages, query, status
from pacs.dimse.abreast import Stopped
from pacs.dimse.ahead import Ahead
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.dimse.onward import SUB_OPERATION_LIMIT, Onward, message_ids, send_stored
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotAuthorized, NotUnderstood
from pacs.model.instance import Stored
from pacs.reidentify import Originals

log = get_logger(__name__)
_PATIENCE_S = 0.4
"""How long a sub-operation that is under way may still take after a C-CANCEL."""


class _Sender(Protocol):
    """Performs one C-STORE sub-operation after another."""

    def send(self, stored: Stored, ahead: Ahead, meanwhile: Callable[[], None]) -> int:
        """Return the peer's status. Raises `ArchiveError` or `AssociationLost` where there is none."""

    @property
    def gone(self) -> bool:
        """Whether no further sub-operation can succeed."""

    @property
    def originals(self) -> Originals | None:
        """What restores the instances, if the receiver gets them so."""

    @property
    def prefers(self) -> tuple[str, ...]:
        """The transfer syntaxes that the receiver wants before others."""

    def ordered(self, instances: Sequence[Stored]) -> Sequence[Stored]:
        """Return the order to send in."""

    def close(self) -> None:
        """Release what the sub-operations needed."""

    def abandon(self) -> None:
        """Break the sub-operation off that is under way."""


@dataclass(slots=True)
class _Tally:
    """Counters of one retrieval; their sum stays what it was."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def count(self, code: int | None, sop_instance_uid: str) -> None:
        """Count one sub-operation by its status; None is one that never got an answer."""
        self.remaining -= 1
        if code == status.SUCCESS:
            self.completed += 1
        elif code is not None and status.is_warning(code):
            self.warning += 1
        else:
            self.failed += 1
            self.failed_uids.append(sop_instance_uid)

    def final(self) -> int:
        """Return the final status (PS3.4 Tables C.4-2 and C.4-3)."""
        if self.failed and not self.completed and not self.warning:
            return status.CANNOT_PERFORM
        return status.SUB_OPERATIONS_WARNING if self.failed or self.warning else status.SUCCESS


class _Cancelled(Stopped):
    """The requestor does not want the rest, and the sub-operation that is under way takes long."""


class _Refusal(Exception):
    """The retrieval ends before its first sub-operation, with this status and comment."""

    def __init__(self, code: int, comment: str) -> None:
        super().__init__(comment)
        self.code, self.comment = code, comment


def get(
    archive: Archive, association: LaneAssociation, message: Message, *, allowed: bool, sees_originals: bool = False
) -> None:
    """Answer one C-GET on the association it came by; restored objects, by original identifiers, where the caller may."""

    def sender(instances: Sequence[Stored]) -> _Sender:
        return _Back(archive, association, message, _originals(archive, association, "C-GET", instances, sees_originals))

    _retrieve(archive, association, message, contexts.GET_CLASSES, sender, allowed=allowed, sees_originals=sees_originals)


def move(
    archive: Archive, association: LaneAssociation, message: Message, *, allowed: bool, sees_originals: bool = False
) -> None:
    """Answer one C-MOVE; its sub-operations go to a configured peer on associations of their own.

    The destination decides whether it gets restored objects, the caller by which identifiers they are asked for.
    """
    destination = message.text(messages.MOVE_DESTINATION)
    peer = archive.index.peers.get(destination) if destination and allowed else None

    def sender(instances: Sequence[Stored]) -> _Sender:
        assert peer is not None
        restored = _originals(archive, association, "C-MOVE", instances, peer.identity == "original", peer.ae_title)
        # PS3.7 9.1.1.1: the AE that asked for the C-MOVE, and its Message ID; not ours.
        originator = (association.requestor.ae_title.strip(), message.message_id)
        return Onward(archive, peer, instances, restored, priority=_priority(message), originator=originator)

    _retrieve(
        archive,
        association,
        message,
        contexts.MOVE_CLASSES,
        sender,
        allowed=allowed,
        destination_known=peer is not None,
        sees_originals=sees_originals,
    )


def _originals(
    archive: Archive, association: LaneAssociation, operation: str, instances: Sequence[Stored], wanted: bool, to: str = ""
) -> Originals | None:
    """Return what restores the instances, if the receiver gets originals, and note for the audit that it does."""
    if not wanted or not instances:
        return None
    reidentify.vault_of(archive)
    caller = association.requestor.ae_title.strip()
    archive.index.note("identity_restored", operation=operation, caller=caller, receiver=to or caller, count=len(instances))
    return Originals(archive)


def _retrieve(
    archive: Archive,
    association: LaneAssociation,
    message: Message,
    classes: frozenset[str],
    sender: Callable[[Sequence[Stored]], _Sender],
    *,
    allowed: bool,
    destination_known: bool = True,
    sees_originals: bool = False,
) -> None:
    response = _Responses(archive, association, message)
    tally = _Tally(0)
    try:
        instances = _instances(archive, association, message, classes, allowed, destination_known, sees_originals)
        way = sender(instances)
    except _Refusal as refusal:
        response.final(refusal.code, tally, refusal.comment)
        return
    except ArchiveError as error:
        response.final(status.status(error, status.C_RETRIEVE), tally, status.comment(error))
        return
    tally.remaining = len(instances)
    # The list of what failed speaks the language of who asked.
    names = Originals(archive) if sees_originals and archive.vault is not None else None
    code = None
    order = way.ordered(instances)
    cancelled = partial(association.dimse.cancelled.__contains__, message.message_id)
    # On the requestor's own association a sub-operation cannot be broken off without ending it all.
    pace = _Pace(response, tally, archive.settings.dicom.pending_s, cancelled if isinstance(way, Onward) else lambda: False)

    def count(stored: Stored, code_of_one: int | None) -> None:
        tally.count(code_of_one, names.key(stored).sop_instance_uid if names else stored.key.sop_instance_uid)
        if not way.gone:
            pace.pending()

    ahead = None
    try:
        if isinstance(way, Onward) and way.originals is None:
            count_of = abreast.how_many(archive.settings.dicom.move_associations, len(order))
            ways = [way, *(one for one in map(sender, [instances] * (count_of - 1)) if isinstance(one, Onward))]
            if len(ways) > 1:
                order = abreast.send_abreast(archive, ways, order, _attempt, count, pace.waiting, cancelled)
        ahead = Ahead(archive, order, way.originals, way.prefers)
        for stored in order:
            if cancelled():
                break
            count(stored, _attempt(way, stored, ahead, pace.waiting))
        if cancelled() and tally.remaining:
            code = status.CANCEL
    except _Cancelled:
        way.abandon()
        code = status.CANCEL
    finally:
        if ahead is not None:
            ahead.close()
        way.close()
    code = tally.final() if code is None else code
    response.final(code, tally, "")


def _instances(
    archive: Archive,
    association: LaneAssociation,
    message: Message,
    classes: frozenset[str],
    allowed: bool,
    destination_known: bool,
    sees_originals: bool,
) -> list[Stored]:
    context = association._accepted_cx[message.context_id]
    sop_class_uid = str(context.abstract_syntax)
    if not allowed:
        raise NotAuthorized("this application entity may not retrieve")
    if sop_class_uid not in classes or message.sop_class_uid != sop_class_uid or message.too_large:
        raise NotUnderstood("not a retrieval of the SOP Class of the presentation context")
    wanted = identifier.wanted(
        identifier.parse(message.data_set, str(context.transfer_syntax[0])),
        patient_root=sop_class_uid in contexts.PATIENT_ROOT,
        relational=query.relational(association, sop_class_uid),
    )
    if not destination_known:
        raise _Refusal(status.DESTINATION_UNKNOWN, "the move destination is not configured here")
    keys = wanted.keys
    locate = partial(reidentify.locate, archive) if sees_originals else archive.index.locate
    instances = locate(
        patient_ids=keys.get("PatientID", ()),
        study_instance_uids=keys.get("StudyInstanceUID", ()),
        series_instance_uids=keys.get("SeriesInstanceUID", ()),
        sop_instance_uids=keys.get("SOPInstanceUID", ()),
    )
    if len(instances) > SUB_OPERATION_LIMIT:
        raise _Refusal(status.CANNOT_COUNT, f"more than {SUB_OPERATION_LIMIT} instances; ask for less at once")
    return instances


def _attempt(way: _Sender, stored: Stored, ahead: Ahead, meanwhile: Callable[[], None]) -> int | None:
    """Perform one sub-operation; None where it failed without an answer of the peer."""
    if way.gone:
        return None
    try:
        return way.send(stored, ahead, meanwhile)
    except ArchiveError as error:
        log.warning("sub_operation_failed", sop_instance_uid=stored.key.sop_instance_uid, error=type(error).__name__)
    except AssociationLost:
        if isinstance(way, _Back):
            raise
        log.warning("sub_operation_failed", sop_instance_uid=stored.key.sop_instance_uid, error="AssociationLost")
    except Stopped:
        raise
    except Exception as error:
        log.exception("sub_operation_failed", error, sop_instance_uid=stored.key.sop_instance_uid)
    return None


class _Responses:
    """Pending and final responses of one retrieval (PS3.7 9.3.3.2, 9.3.4.2)."""

    def __init__(self, archive: Archive, association: LaneAssociation, message: Message) -> None:
        self._archive = archive
        self._association = association
        self._message = message
        self._command = Command.C_GET_RSP if message.command_field == Command.C_GET_RQ else Command.C_MOVE_RSP
        syntax = str(association._accepted_cx[message.context_id].transfer_syntax[0])
        self._explicit = syntax == contexts.EXPLICIT_LITTLE_ENDIAN

    def pending(self, tally: _Tally) -> None:
        self._send(status.PENDING, {messages.REMAINING: tally.remaining, **_counts(tally)}, b"")

    def final(self, code: int, tally: _Tally, comment: str) -> None:
        counters: dict[int, int | str] = {}
        if code in (status.SUCCESS, status.SUB_OPERATIONS_WARNING, status.CANNOT_PERFORM, status.CANCEL):
            counters = _counts(tally)
        if code == status.CANCEL:
            # Remaining appears in Pending and Cancel only (PS3.7 9.3.4.2).
            counters[messages.REMAINING] = tally.remaining
        if comment:
            counters[messages.ERROR_COMMENT] = comment
        body = identifier.failed_list(tally.failed_uids, explicit=self._explicit) if tally.failed_uids else b""
        operation = self._command.name.removesuffix("_RSP")
        log.info(
            "retrieve_answered", operation=operation, status=f"{code:04X}", sub_operations=tally.completed, failed=tally.failed
        )
        self._note(operation, code, tally)
        self._send(code, counters, body)

    def _note(self, operation: str, code: int, tally: _Tally) -> None:
        """Write into the audit who retrieved how much, and to where."""
        caller = self._association.requestor.ae_title.strip().replace("\0", "")
        receiver = self._message.text(messages.MOVE_DESTINATION).replace("\0", "") or caller
        counts = {"completed": tally.completed, "failed": tally.failed, "warning": tally.warning}
        try:
            self._archive.index.note(
                "retrieve_answered", operation=operation, caller=caller, receiver=receiver, status=f"{code:04X}", **counts
            )
        except ArchiveError as error:
            log.exception("retrieval_not_noted", error)

    def _send(self, code: int, counters: dict[int, int | str], body: bytes) -> None:
        values = {
            messages.AFFECTED_SOP_CLASS_UID: self._message.sop_class_uid,
            messages.MESSAGE_ID_RESPONDED_TO: self._message.message_id,
            messages.STATUS: code,
            **counters,
        }
        command = messages.encode(self._command, values, data_set=bool(body))
        self._association.dimse.send(self._message.context_id, command, [body] if body else ())


class _Pace:
    """Sends a Pending response after each sub-operation, and now and then while one takes long (PS3.4 C.4.2.3.1)."""

    def __init__(self, response: _Responses, tally: _Tally, every_s: float, cancelled: Callable[[], bool]) -> None:
        self._response, self._tally, self._every_s, self._cancelled = response, tally, every_s, cancelled
        self._last = time.monotonic()
        self._cancelled_at = 0.0

    def pending(self) -> None:
        """Send one."""
        self._response.pending(self._tally)
        self._last = time.monotonic()

    def waiting(self) -> None:
        """Send one if the last is long ago: the requestor must not take us for dead. Raises `_Cancelled`."""
        if self._cancelled():
            self._cancelled_at = self._cancelled_at or time.monotonic()
            if time.monotonic() - self._cancelled_at >= _PATIENCE_S:
                raise _Cancelled
        if time.monotonic() - self._last >= self._every_s:
            self.pending()


def _counts(tally: _Tally) -> dict[int, int | str]:
    return {messages.COMPLETED: tally.completed, messages.FAILED: tally.failed, messages.WARNING: tally.warning}


class _Back:
    """C-GET: sub-operations on the requestor's own association, where it took the SCP role (PS3.4 C.4.3)."""

    gone = False

    def __init__(
        self, archive: Archive, association: LaneAssociation, message: Message, originals: Originals | None = None
    ) -> None:
        self._association = association
        self.originals = originals
        peer = archive.index.peers.get(association.requestor.ae_title)
        self.prefers = peer.prefers if peer is not None else ()
        self._priority = _priority(message)
        self._message_ids = message_ids()

    def send(self, stored: Stored, ahead: Ahead, meanwhile: Callable[[], None]) -> int:
        return send_stored(
            self._association, stored, ahead, meanwhile, message_id=next(self._message_ids), priority=self._priority
        )

    def ordered(self, instances: Sequence[Stored]) -> Sequence[Stored]:
        return instances

    def close(self) -> None:
        """Nothing of our own was opened."""

    def abandon(self) -> None:
        """Never asked for: it would end the requestor's association."""


def _priority(message: Message) -> int:
    """Return the request's Priority for its sub-operations (PS3.4 C.4.2.1.2); MEDIUM where it is none of PS3.7 E.1."""
    priority = message.number(messages.PRIORITY)
    return priority if priority in (0, 1, 2) else 0
