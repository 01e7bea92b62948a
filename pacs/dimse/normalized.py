"""N-CREATE, N-SET and N-GET as SCP: the answer's shape and statuses, and which service is asked (PS3.7 10.1).

A service is a function that takes a `Request` and returns the attributes to answer with; what goes wrong it raises.
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
from pacs.workflow.attributes import Attributes
from pacs.workflow.performed import Performed

log = get_logger(__name__)
REQUESTS = frozenset({Command.N_CREATE_RQ, Command.N_SET_RQ, Command.N_GET_RQ})
_MAY_NO_LONGER_BE_UPDATED = 0xA710
"""Error ID of PS3.4 Table F.7.2-2."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a normalized service. `wanted` are the tags that N-GET lists, as eight hexadecimal digits."""

    command: int
    sop_class_uid: str
    sop_instance_uid: str
    ae_title: str
    data_set: Attributes
    wanted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with, beside success."""

    sop_instance_uid: str = ""
    data_set: Attributes | None = None
    status: int = status.SUCCESS


Service = Callable[[Archive, Request], Answer]


def serve(archive: Archive, association: LaneAssociation, message: Message, *, may_worklist: bool) -> None:
    """Answer one N-CREATE, N-SET or N-GET."""
    context = association._accepted_cx[message.context_id]
    abstract_syntax, explicit = str(context.abstract_syntax), context.transfer_syntax[0] == contexts.EXPLICIT_LITTLE_ENDIAN
    answer, comment, error_id = Answer(), "", 0
    try:
        service = SERVICES.get(abstract_syntax)
        if service is None:
            raise SOPClassNotSupported("this SOP Class has no such service here")
        if not may_worklist:
            raise NotAuthorized("this application entity may not report what it performs")
        if message.too_large:
            raise OutOfResources("the data set is larger than this archive takes")
        answer = service(archive, _request(association, message, str(context.transfer_syntax[0])))
    except ArchiveError as error:
        answer, comment = Answer(status=status.status(error, status.N_SERVICE)), status.comment(error)
        error_id = _MAY_NO_LONGER_BE_UPDATED if isinstance(error, NoLongerUpdatable) else 0
        log.info("request_refused", status=f"{answer.status:04X}", error=type(error).__name__)
    except AssociationLost:
        raise
    except Exception as error:
        answer, comment = Answer(status=status.PROCESSING_FAILURE), status.comment(error)
        log.exception("request_failed", error)
    values: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: message.sop_class_uid,
        messages.AFFECTED_SOP_INSTANCE_UID: answer.sop_instance_uid
        or message.sop_instance_uid
        or message.requested_sop_instance_uid,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.STATUS: answer.status,
    }
    if comment:
        values[messages.ERROR_COMMENT] = comment
    if error_id:
        values[messages.ERROR_ID] = error_id
    body = [] if answer.data_set is None else [datasets.encode(answer.data_set, explicit=explicit)]
    response = messages.encode(Command(message.command_field | 0x8000), values, data_set=bool(body))
    association.dimse.send(message.context_id, response, body)


def performed(archive: Archive, request: Request) -> Answer:
    """Modality Performed Procedure Step (PS3.4 F.7) and its retrieval (F.8)."""
    steps = Performed(archive)
    if request.sop_class_uid == contexts.PERFORMED_STEP_RETRIEVE and request.command == Command.N_GET_RQ:
        return Answer(data_set=_wanted(steps.get(request.sop_instance_uid), request.wanted))
    if request.sop_class_uid != contexts.PERFORMED_STEP or request.command == Command.N_GET_RQ:
        raise SOPClassNotSupported("this SOP Class has no such operation")
    if request.command == Command.N_CREATE_RQ:
        uid = steps.create(request.sop_instance_uid, request.data_set, request.ae_title)
        log.info("performed_step_begun")
        return Answer(sop_instance_uid=uid)
    steps.change(request.sop_instance_uid, request.data_set)
    log.info("performed_step_changed")
    return Answer()


SERVICES: Mapping[str, Service] = {contexts.PERFORMED_STEP: performed, contexts.PERFORMED_STEP_RETRIEVE: performed}


def _request(association: LaneAssociation, message: Message, syntax: str) -> Request:
    tags = message.elements.get(messages.ATTRIBUTE_IDENTIFIER_LIST, b"")
    pairs = struct.unpack(f"<{len(tags) // 4 * 2}H", tags[: len(tags) // 4 * 4])
    data_set: Attributes = {}
    if message.data_set:
        data_set, _ = datasets.decode(message.data_set, syntax)
    return Request(
        command=message.command_field,
        sop_class_uid=message.sop_class_uid,
        sop_instance_uid=message.sop_instance_uid or message.requested_sop_instance_uid,
        ae_title=association.requestor.ae_title.strip(),
        data_set=datasets.of_ours(data_set),
        wanted=tuple(f"{group:04X}{number:04X}" for group, number in zip(pairs[::2], pairs[1::2], strict=True)),
    )


def _wanted(data_set: Attributes, wanted: tuple[str, ...]) -> Attributes:
    return {name: element for name, element in data_set.items() if not wanted or name in wanted}
