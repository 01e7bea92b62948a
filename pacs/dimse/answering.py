"""The answers of every C-FIND: one Pending response a match, streamed as they are found, then the final one (PS3.7 9.1.2).

What is asked and what matches is the business of `query` and `worklist`; here are cancelling, the limit, and statuses.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

from pacs.archive import Archive
from pacs.dimse import messages, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Matches:
    """What a query found: encoded identifiers, made while they are asked for, and the status that goes with each."""

    sop_class_uid: str
    bodies: Generator[bytes]
    pending: int = status.PENDING


def answer(archive: Archive, association: LaneAssociation, message: Message, ask: Callable[[], Matches]) -> None:
    """Answer one C-FIND by what `ask` returns or raises. Raises `AssociationLost`."""
    count, code, comment = 0, status.SUCCESS, ""
    limit = archive.settings.dicom.maximum_answers
    try:
        found = ask()
        command = _response(message, found.sop_class_uid, found.pending, data_set=True)
        with closing(found.bodies) as bodies:
            for body in bodies:
                if message.message_id in association.dimse.cancelled:
                    code = status.CANCEL
                    break
                if limit and count >= limit:
                    # Never a silent cut (PS3.4 Table C.4-1: out of resources).
                    code, comment = status.OUT_OF_RESOURCES, f"more than {limit} matches; ask more narrowly"
                    break
                association.dimse.send(message.context_id, command, [body])
                count += 1
    except ArchiveError as error:
        code, comment = status.status(error, status.C_FIND), status.comment(error)
        log.info("query_refused", status=f"{code:04X}", error=type(error).__name__)
    except AssociationLost:
        raise
    except Exception as error:
        code, comment = status.UNEXPECTED, status.comment(error)
        log.exception("query_failed", error)
    log.info("query_answered", count=count, status=f"{code:04X}", sop_class_uid=message.sop_class_uid)
    association.dimse.send(message.context_id, _response(message, message.sop_class_uid, code, comment=comment))


def _response(message: Message, sop_class_uid: str, code: int, *, comment: str = "", data_set: bool = False) -> bytes:
    values: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: sop_class_uid,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.STATUS: code,
    }
    if comment:
        values[messages.ERROR_COMMENT] = comment
    return messages.encode(Command.C_FIND_RSP, values, data_set=data_set)
