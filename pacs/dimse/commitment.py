"""Storage Commitment Push Model as SCP (PS3.4 Annex J; PS3.7 10.1.1 and 10.1.4).

A request is answered at once and kept, sealed, because it names instances by their senders' UIDs; a thread checks it
and reports on an association of its own, again and again until the peer takes the report or the tries are used up. "Committed"
is said only of an instance whose record was read again, decrypted, and compared with its digest.
"""

import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from pacs.archive import Archive
from pacs.dicom import elements, values
from pacs.dimse import contexts, due, encoding, identifier, messages, requestor, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.logs import get_logger
from pacs.model.commitment import Commitment
from pacs.model.errors import ArchiveError, ConfigurationError, IntegrityError, NotFound, NotUnderstood, Unavailable
from pacs.model.instance import Element, Stored
from pacs.model.sealed import Kind
from pacs.model.waiting import wait_s

log = get_logger(__name__)

# Failure Reason (0008,1197), PS3.3 C.14.1.1; as statuses of PS3.7 C.5 they answer N-ACTION.
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
NO_SUCH_CLASS = 0x0118
CLASS_INSTANCE_CONFLICT = 0x0119
MISSING_ATTRIBUTE = 0x0120
MISSING_VALUE = 0x0121
CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION = 0x0123
RESOURCE_LIMITATION = 0x0213
DUPLICATE_TRANSACTION = 0x0131

ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event Types (PS3.4 Table J.3-2)."""
_RETRIEVE_AE_TITLE, _CLASS, _INSTANCE = 0x00080054, 0x00081150, 0x00081155
_TRANSACTION, _FAILURE_REASON, _FAILED, _REFERENCED = 0x00081195, 0x00081197, 0x00081198, 0x00081199
_LOOK_EVERY_S = 5.0
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: (SOP Class UID, SOP Instance UID) as the asker knows them."""

    transaction_uid: str
    references: Sequence[tuple[str, str]]


class _Refused(Exception):
    """The N-ACTION ends with this status."""

    def __init__(self, code: int, comment: str) -> None:
        super().__init__(comment)
        self.code, self.comment = code, comment


class Desk:
    """Takes requests in, works on those that are due, and reports them."""

    def __init__(self, archive: Archive, clock: Callable[[], float] = time.time) -> None:
        self._archive = archive
        self._clock = clock
        self._bell = threading.Event()

    def take(self, ae_title: str, request: Request) -> None:
        """Keep a request; durable on return."""
        sealed = orjson.dumps([request.transaction_uid, request.references])
        key_id, wrapped = self._archive.notes.seal(Kind.COMMITMENT, ae_title, sealed)
        transaction = self._archive.deidentifier.pseudonymous_uid(request.transaction_uid)
        self._archive.index.commitments.add(ae_title, transaction, wrapped, key_id, len(request.references))
        self._bell.set()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""

        def rest() -> None:
            self._bell.wait(1.0)
            self._bell.clear()

        due.keep_on(self.turn, stop, rest, failed="commitment_failed")

    def turn(self) -> int:
        """Work on what is due now; returns how many requests were looked at."""
        return due.turn(self._archive.index.commitments, self._work, self._clock)

    def _work(self, row: Commitment) -> None:
        commitments, settings = self._archive.index.commitments, self._archive.settings.dicom
        try:
            request = self._opened(row)
            failures: Mapping[int, int] | None = row.failures
            if row.state == "waiting":
                found = self._checked(row, request)
                if found is None:
                    commitments.later(row.commitment_id, self._clock() + _LOOK_EVERY_S, attempts=0)
                    return
                failures, studies = found
                commitments.checked(row.commitment_id, failures, studies)
            assert failures is not None
            self._report(row.ae_title, request, failures)
        except (ArchiveError, AssociationLost) as error:
            attempts = row.attempts + 1
            log.warning("commitment_not_reported", ae_title=row.ae_title, attempt=attempts, error=type(error).__name__)
            if attempts >= settings.commitment_attempts:
                commitments.end(row.commitment_id, "given up", attempts=attempts)
                log.error("commitment_given_up", ae_title=row.ae_title, attempt=attempts)
                return
            again_at = self._clock() + wait_s(settings.commitment_retry_s, attempts)
            commitments.later(row.commitment_id, again_at, attempts=attempts)
            return
        commitments.end(row.commitment_id, "reported", attempts=row.attempts + 1)
        log.info("commitment_reported", ae_title=row.ae_title, count=row.instances, failed=len(failures))

    def _opened(self, row: Commitment) -> Request:
        opened = self._archive.notes.open(Kind.COMMITMENT, row.ae_title, row.key_id, row.request)
        transaction_uid, references = orjson.loads(opened)
        return Request(transaction_uid, [(str(one), str(other)) for one, other in references])

    def _checked(self, row: Commitment, request: Request) -> tuple[dict[int, int], set[str]] | None:
        """Return Failure Reasons by position, and the studies of what is committed; None while it is too early to say.

        Raises `Unavailable`.
        """
        index = self._archive.index
        if index.commitments.known(row.ae_title, row.transaction_uid, row.commitment_id):
            return dict.fromkeys(range(len(request.references)), DUPLICATE_TRANSACTION), set()
        held = self._held([uid for _, uid in request.references])
        grace = self._archive.settings.dicom.commitment_grace_s
        patient = self._clock() < row.received_at + grace
        if patient and any(uid not in held and sop_class in contexts.STORAGE_CLASSES for sop_class, uid in request.references):
            return None
        failures: dict[int, int] = {}
        studies = set()
        for place, (sop_class, uid) in enumerate(request.references):
            stored = held.get(uid)
            reason = self._reason(sop_class, stored)
            if reason:
                failures[place] = reason
            elif stored is not None:
                studies.add(stored.key.study_instance_uid)
        return failures, studies

    def _held(self, uids: Sequence[str]) -> dict[str, Stored]:
        """Return what the archive holds of instances named by original UIDs (or by ours, which we gave out)."""
        found: dict[str, Stored] = {}
        for start in range(0, len(uids), _AT_ONCE):
            some = uids[start : start + _AT_ONCE]
            names = {self._archive.deidentifier.pseudonymous_uid(uid): uid for uid in some}
            for stored in self._archive.index.locate(sop_instance_uids=[*names, *some], include_held=True):
                own = stored.key.sop_instance_uid
                found[own] = stored
                if own in names:
                    found[names[own]] = stored
        return found

    def _reason(self, sop_class_uid: str, stored: Stored | None) -> int:
        """Return the Failure Reason for one instance, 0 if we take responsibility for it."""
        if stored is None:
            return NO_SUCH_INSTANCE if sop_class_uid in contexts.STORAGE_CLASSES else CLASS_NOT_SUPPORTED
        if stored.sop_class_uid != sop_class_uid:
            return CLASS_INSTANCE_CONFLICT
        archive = self._archive
        try:
            entry = archive.sealer.open_entry(archive.sealer.beginning(stored.location, archive.objects))
            header, frames = archive.sealer.open(stored, archive.objects)
            if entry.digest != stored.digest or entry.key != stored.key:
                raise IntegrityError("the record is not the one of the index")
            archive.codec.check(header, frames, stored.transfer_syntax_uid, stored.digest, repeatable=entry.repeatable)
        except (Unavailable, ConfigurationError):
            raise
        except ArchiveError as error:
            log.error("commitment_denied", sop_instance_uid=stored.key.sop_instance_uid, error=type(error).__name__)
            return PROCESSING_FAILURE
        return 0

    def _report(self, ae_title: str, request: Request, failures: Mapping[int, int]) -> None:
        """Send the N-EVENT-REPORT on a new association, where we are SCP (PS3.4 J.3.3). Raises if it is not taken."""
        archive, settings, uid = self._archive, self._archive.settings.dicom, contexts.STORAGE_COMMITMENT
        peer = archive.index.peers.get(ae_title)
        if peer is None:
            raise NotFound("the peer that asked is no longer configured")
        association = requestor.associate_with(settings, peer, [(uid, contexts.MESSAGE_SYNTAXES)], [uid])
        try:
            # Some peers accept the context and forget the role; the report is no less welcome to them.
            ways = requestor.accepted(association, uid, as_scp=True) or requestor.accepted(association, uid)
            if not ways:
                raise NotUnderstood("the peer takes no reports of storage commitment")
            syntax, context_id = next(iter(ways.items()))
            values: dict[int, int | str] = {
                messages.AFFECTED_SOP_CLASS_UID: uid,
                messages.AFFECTED_SOP_INSTANCE_UID: contexts.STORAGE_COMMITMENT_INSTANCE,
                messages.MESSAGE_ID: 1,
                messages.EVENT_TYPE_ID: SOME_FAILED if failures else ALL_COMMITTED,
            }
            body = _report(request, failures, settings.ae_title, explicit=syntax == contexts.EXPLICIT_LITTLE_ENDIAN)
            command = messages.encode(Command.N_EVENT_REPORT_RQ, values, data_set=True)
            association.dimse.send(context_id, command, [body])
            code = requestor.response(association, Command.N_EVENT_REPORT_RSP, 1).status
            if code != status.SUCCESS and not status.is_warning(code):
                raise NotUnderstood(f"the peer answered status {code:04X}")
        except BaseException:
            association.terminate()
            raise
        association.release_and_wait()


def action(archive: Archive, desk: Desk, association: LaneAssociation, message: Message, *, allowed: bool) -> None:
    """Answer one N-ACTION: 0000 as soon as the request is safe (PS3.4 J.3.2)."""
    code, comment = status.SUCCESS, ""
    ae_title = association.requestor.ae_title.strip()
    try:
        desk.take(ae_title, _asked(archive, association, message, ae_title, allowed))
    except _Refused as refused:
        code, comment = refused.code, refused.comment
    except ArchiveError as error:
        code = PROCESSING_FAILURE if isinstance(error, NotUnderstood) else RESOURCE_LIMITATION
        comment = status.comment(error)
    except Exception as error:
        code, comment = PROCESSING_FAILURE, status.comment(error)
        log.exception("commitment_failed", error)
    log.info("commitment_asked", status=f"{code:04X}")
    answer: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: contexts.STORAGE_COMMITMENT,
        messages.AFFECTED_SOP_INSTANCE_UID: contexts.STORAGE_COMMITMENT_INSTANCE,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.ACTION_TYPE_ID: message.number(messages.ACTION_TYPE_ID),
        messages.STATUS: code,
    }
    if comment:
        answer[messages.ERROR_COMMENT] = comment
    association.dimse.send(message.context_id, messages.encode(Command.N_ACTION_RSP, answer))


def _asked(archive: Archive, association: LaneAssociation, message: Message, ae_title: str, allowed: bool) -> Request:
    context = association._accepted_cx[message.context_id]
    if message.sop_class_uid != contexts.STORAGE_COMMITMENT or context.abstract_syntax != contexts.STORAGE_COMMITMENT:
        raise _Refused(NO_SUCH_CLASS, "not the Storage Commitment Push Model")
    if message.requested_sop_instance_uid != contexts.STORAGE_COMMITMENT_INSTANCE:
        raise _Refused(NO_SUCH_INSTANCE, "not the well-known instance of storage commitment")
    if message.number(messages.ACTION_TYPE_ID) != 1:
        raise _Refused(NO_SUCH_ACTION, "the only action is 1, request storage commitment")
    if not allowed:
        raise _Refused(status.NOT_AUTHORIZED, "this application entity may not ask for commitment")
    if archive.index.peers.get(ae_title) is None:
        raise _Refused(PROCESSING_FAILURE, "no configured peer: nobody would get the report")
    if message.too_large:
        raise _Refused(RESOURCE_LIMITATION, "the request is larger than this archive takes")
    return parse(elements.read(message.data_set or b"", str(context.transfer_syntax[0])))


def parse(data_set: Sequence[Element]) -> Request:
    """Return what an N-ACTION asks for (PS3.4 Table J.3-1)."""
    transaction_uid = _uid(data_set, _TRANSACTION, "Transaction UID")
    sequence = elements.find(data_set, _REFERENCED)
    if sequence is None:
        raise _Refused(MISSING_ATTRIBUTE, "Referenced SOP Sequence is missing")
    references = [
        (_uid(item, _CLASS, "Referenced SOP Class UID"), _uid(item, _INSTANCE, "Referenced SOP Instance UID"))
        for item in elements.items(sequence.value)
    ]
    if not references:
        raise _Refused(MISSING_VALUE, "Referenced SOP Sequence is empty")
    return Request(transaction_uid, references)


def _uid(data_set: Sequence[Element], tag: int, name: str) -> str:
    one = elements.find(data_set, tag)
    if one is None:
        raise _Refused(MISSING_ATTRIBUTE, f"{name} is missing")
    said = [value for value in values.text(one) if value]
    if not said:
        raise _Refused(MISSING_VALUE, f"{name} is empty")
    if len(said) > 1 or not identifier.is_uid(said[0]):
        raise _Refused(INVALID_ARGUMENT, f"{name} is not a UID")
    return said[0]


def _report(request: Request, failures: Mapping[int, int], ae_title: str, *, explicit: bool) -> bytes:
    """Return the Event Information (PS3.4 Table J.3-2): every instance of the request is in one of its sequences."""

    def items(failed: bool) -> Iterator[bytes]:
        for place, (sop_class, uid) in enumerate(request.references):
            if (place in failures) == failed:
                rows = [(_CLASS, "UI", sop_class.encode()), (_INSTANCE, "UI", uid.encode())]
                if failed:
                    rows.append((_FAILURE_REASON, "US", struct.pack("<H", failures[place])))
                body = encoding.encode(rows, explicit=explicit)
                yield struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body

    rows = [(_RETRIEVE_AE_TITLE, "AE", ae_title.encode()), (_TRANSACTION, "UI", request.transaction_uid.encode())]
    for tag, failed in ((_FAILED, True), (_REFERENCED, False)):
        sequence = b"".join(items(failed))
        if sequence:
            rows.append((tag, "SQ", sequence))
    return encoding.encode(rows, explicit=explicit)
