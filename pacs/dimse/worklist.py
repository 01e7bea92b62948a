"""Modality Worklist as SCP: C-FIND on what is scheduled (PS3.4 Annex K; PS3.7 9.1.2).

The answers name patients as the hospital does, because a modality needs that. So only a configured peer that may `worklist`
gets them, from its own address, and each answer that named somebody is in the change feed as an audit.
"""

from pacs.archive import Archive
from pacs.dimse import contexts, datasets, messages, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotAuthorized, NotUnderstood
from pacs.workflow.worklist import Worklist

log = get_logger(__name__)


def is_asked(association: LaneAssociation, message: Message) -> bool:
    """Say whether a C-FIND came in a presentation context of the Modality Worklist."""
    return bool(association._accepted_cx[message.context_id].abstract_syntax == contexts.WORKLIST_FIND)


def find(archive: Archive, association: LaneAssociation, message: Message, *, allowed: bool) -> None:
    """Answer one query of the worklist (PS3.4 K.4.1.1)."""
    count, code, comment = 0, status.SUCCESS, ""
    syntax = str(association._accepted_cx[message.context_id].transfer_syntax[0])
    try:
        if not allowed:
            raise NotAuthorized("this application entity may not ask for the worklist")
        if message.sop_class_uid != contexts.WORKLIST_FIND or message.too_large:
            raise NotUnderstood("not a query of the Modality Worklist")
        keys, character_set = datasets.decode(message.data_set, syntax)
        pending = _response(message, status.PENDING, data_set=True)
        limit = archive.settings.dicom.maximum_answers
        for found in Worklist(archive).find(keys):
            if message.message_id in association.dimse.cancelled:
                code = status.CANCEL
                break
            if limit and count >= limit:
                code, comment = status.OUT_OF_RESOURCES, f"more than {limit} matches; ask more narrowly"
                break
            body = datasets.encode(found, explicit=syntax == contexts.EXPLICIT_LITTLE_ENDIAN, character_set=character_set)
            association.dimse.send(message.context_id, pending, [body])
            count += 1
    except ArchiveError as error:
        code, comment = status.status(error, status.C_FIND), status.comment(error)
        log.info("query_refused", status=f"{code:04X}", error=type(error).__name__)
    except AssociationLost:
        raise
    except Exception as error:
        code, comment = status.UNEXPECTED, status.comment(error)
        log.exception("query_failed", error)
    finally:
        if count:
            archive.index.note("worklist_shown", ae_title=association.requestor.ae_title.strip(), count=count)
    log.info("worklist_answered", count=count, status=f"{code:04X}")
    association.dimse.send(message.context_id, _response(message, code, comment=comment))


def _response(message: Message, code: int, *, comment: str = "", data_set: bool = False) -> bytes:
    values: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: contexts.WORKLIST_FIND,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.STATUS: code,
    }
    if comment:
        values[messages.ERROR_COMMENT] = comment
    return messages.encode(Command.C_FIND_RSP, values, data_set=data_set)
