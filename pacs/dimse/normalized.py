"""N-CREATE, N-SET, N-GET and N-ACTION as SCP: the answer's shape and status, and which service is asked (PS3.7 10.1).

A service is a function that takes a `Request` and returns what to answer; what goes wrong it raises. Storage Commitment, older
than this, answers its own N-ACTION.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pacs.archive import Archive
from pacs.dimse import contexts, datasets, messages, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NoLongerUpdatable, NotAuthorized, OutOfResources, SOPClassNotSupported
from pacs.model.workitem import Notice
from pacs.workflow.attributes import Attributes, text
from pacs.workflow.performed import Performed
from pacs.workflow.workitems import Workitems

log = get_logger(__name__)
_MAY_NO_LONGER_BE_UPDATED = 0xA710
"""Error ID of PS3.4 Table F.7.2-2."""
CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND = 1, 2, 3, 4, 5
"""Action Types of workitems (PS3.4 Table CC.2-1)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a normalized service. `wanted` are the tags that N-GET lists, as eight hexadecimal digits."""

    command: int
    abstract_syntax: str
    sop_instance_uid: str
    ae_title: str
    action: int
    data_set: Attributes
    wanted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with."""

    sop_instance_uid: str = ""
    data_set: Attributes | None = None
    status: int = status.SUCCESS
    comment: str = ""


Service = Callable[[Archive, Request], Answer]


def is_asked(association: LaneAssociation, message: Message) -> bool:
    """Say whether a message is for a service of this module."""
    asked = message.command_field in (Command.N_CREATE_RQ, Command.N_SET_RQ, Command.N_GET_RQ, Command.N_ACTION_RQ)
    commitment = association._accepted_cx[message.context_id].abstract_syntax == contexts.STORAGE_COMMITMENT
    return asked and not (commitment and message.command_field == Command.N_ACTION_RQ)


def serve(archive: Archive, association: LaneAssociation, message: Message, *, may: Callable[[str], bool]) -> None:
    """Answer one request."""
    context = association._accepted_cx[message.context_id]
    abstract_syntax, syntax = str(context.abstract_syntax), str(context.transfer_syntax[0])
    error_id = 0
    try:
        permission, service = SERVICES.get(abstract_syntax, ("", None))
        if service is None:
            raise SOPClassNotSupported("this SOP Class has no such operation here")
        if not may(permission):
            raise NotAuthorized("this application entity may not do this")
        if message.too_large:
            raise OutOfResources("the data set is larger than this archive takes")
        answer = service(archive, _request(association, message, abstract_syntax, syntax))
    except ArchiveError as error:
        answer = Answer(status=status.status(error, status.N_SERVICE), comment=status.comment(error))
        error_id = _MAY_NO_LONGER_BE_UPDATED if isinstance(error, NoLongerUpdatable) else 0
        log.info("request_refused", status=f"{answer.status:04X}", error=type(error).__name__)
    except AssociationLost:
        raise
    except Exception as error:
        answer = Answer(status=status.PROCESSING_FAILURE, comment=status.comment(error))
        log.exception("request_failed", error)
    uid = answer.sop_instance_uid or message.sop_instance_uid or message.requested_sop_instance_uid
    values: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: message.sop_class_uid,
        messages.AFFECTED_SOP_INSTANCE_UID: uid,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.STATUS: answer.status,
    }
    if message.command_field == Command.N_ACTION_RQ:
        values[messages.ACTION_TYPE_ID] = message.number(messages.ACTION_TYPE_ID)
    if answer.comment:
        values[messages.ERROR_COMMENT] = answer.comment
    if error_id:
        values[messages.ERROR_ID] = error_id
    explicit = syntax == contexts.EXPLICIT_LITTLE_ENDIAN
    body = [] if answer.data_set is None else [datasets.encode(answer.data_set, explicit=explicit)]
    response = messages.encode(Command(message.command_field | 0x8000), values, data_set=bool(body))
    association.dimse.send(message.context_id, response, body)


def performed(archive: Archive, request: Request) -> Answer:
    """Modality Performed Procedure Step (PS3.4 F.7) and its retrieval (F.8)."""
    steps, asked = Performed(archive), (request.abstract_syntax, request.command)
    if asked == (contexts.PERFORMED_STEP_RETRIEVE, Command.N_GET_RQ):
        return Answer(data_set=_wanted(steps.get(request.sop_instance_uid), request.wanted))
    if asked == (contexts.PERFORMED_STEP, Command.N_CREATE_RQ):
        uid = steps.create(request.sop_instance_uid, request.data_set, request.ae_title)
        log.info("performed_step_begun")
        return Answer(uid)
    if asked == (contexts.PERFORMED_STEP, Command.N_SET_RQ):
        steps.change(request.sop_instance_uid, request.data_set)
        log.info("performed_step_changed")
        return Answer()
    raise SOPClassNotSupported("this SOP Class has no such operation")


def workitem(archive: Archive, request: Request) -> Answer:
    """Unified Procedure Step Push, Pull, Watch and Query (PS3.4 Table CC.2-1 says which has which operation)."""
    if (request.command, request.action) not in _OPERATIONS[request.abstract_syntax]:
        raise SOPClassNotSupported("this SOP Class has no such operation")
    workitems, uid, given = Workitems(archive), request.sop_instance_uid, request.data_set
    receiver = text(given, "ReceivingAE") or request.ae_title
    notice: Notice | None = None
    if request.command == Command.N_GET_RQ:
        return Answer(data_set=_wanted(workitems.get(uid), request.wanted))
    if request.command == Command.N_CREATE_RQ:
        uid, notice = workitems.create(uid, given)
        log.info("workitem_created")
    elif request.command == Command.N_SET_RQ:
        workitems.change(uid, given)
    elif request.action == CHANGE_STATE:
        notice = workitems.move(uid, given)
    elif request.action == REQUEST_CANCEL:
        notice = workitems.cancel(uid, request.ae_title)
    elif request.action == SUBSCRIBE:
        workitems.subscribe(uid, receiver)
    else:
        workitems.unsubscribe(uid, receiver, suspend=request.action == SUSPEND)
    if notice is None:
        return Answer(uid)
    return Answer(uid, status=status.WORKITEM[notice], comment=notice.value[:64])


_WATCHED = (REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND)
_OPERATIONS: Mapping[str, frozenset[tuple[int, int]]] = {
    contexts.UPS_PUSH: frozenset({(Command.N_CREATE_RQ, 0), (Command.N_GET_RQ, 0), (Command.N_ACTION_RQ, REQUEST_CANCEL)}),
    contexts.UPS_PULL: frozenset({(Command.N_GET_RQ, 0), (Command.N_SET_RQ, 0), (Command.N_ACTION_RQ, CHANGE_STATE)}),
    contexts.UPS_WATCH: frozenset({(Command.N_GET_RQ, 0), *((Command.N_ACTION_RQ, action) for action in _WATCHED)}),
    contexts.UPS_QUERY: frozenset({(Command.N_GET_RQ, 0)}),
}
"""Command and Action Type, by the service that was negotiated."""
SERVICES: Mapping[str, tuple[str, Service]] = {
    contexts.PERFORMED_STEP: ("worklist", performed),
    contexts.PERFORMED_STEP_RETRIEVE: ("worklist", performed),
    **dict.fromkeys(_OPERATIONS, ("workitems", workitem)),
}
"""Abstract syntax -> what a peer must be allowed, and the service."""


def _request(association: LaneAssociation, message: Message, abstract_syntax: str, syntax: str) -> Request:
    tags = message.elements.get(messages.ATTRIBUTE_IDENTIFIER_LIST, b"")
    pairs = struct.unpack(f"<{len(tags) // 4 * 2}H", tags[: len(tags) // 4 * 4])
    data_set: Attributes = {}
    if message.data_set:
        data_set, _ = datasets.decode(message.data_set, syntax)
    return Request(
        command=message.command_field,
        abstract_syntax=abstract_syntax,
        sop_instance_uid=message.sop_instance_uid or message.requested_sop_instance_uid,
        ae_title=association.requestor.ae_title.strip(),
        action=message.number(messages.ACTION_TYPE_ID),
        data_set=datasets.of_ours(data_set),
        wanted=tuple(f"{group:04X}{number:04X}" for group, number in zip(pairs[::2], pairs[1::2], strict=True)),
    )


def _wanted(data_set: Attributes, wanted: tuple[str, ...]) -> Attributes:
    return {name: element for name, element in data_set.items() if not wanted or name in wanted}
