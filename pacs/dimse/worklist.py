"""Modality Worklist and workitems as SCP of C-FIND: queries on data sets in memory (PS3.4 K.4.1, CC.2.8; PS3.7 9.1.2).

The worklist names patients as the hospital does, because a modality needs that. So only a configured peer that may `worklist`
gets it, from its own address, and each answer that named somebody is in the change feed as an audit. Workitems name nobody.
"""

from collections.abc import Callable, Iterator

from pacs.archive import Archive
from pacs.dimse import contexts, datasets, messages, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotAuthorized, NotUnderstood
from pacs.workflow.attributes import Attributes
from pacs.workflow.workitems import Workitems
from pacs.workflow.worklist import Worklist

log = get_logger(__name__)


def is_asked(association: LaneAssociation, message: Message) -> bool:
    """Say whether a C-FIND came in a presentation context of the worklist or of workitems."""
    abstract_syntax = association._accepted_cx[message.context_id].abstract_syntax
    return abstract_syntax == contexts.WORKLIST_FIND or abstract_syntax in contexts.UPS_FIND_CLASSES


def find(archive: Archive, association: LaneAssociation, message: Message, *, may: Callable[[str], bool]) -> None:
    """Answer one query."""
    count, code, comment = 0, status.SUCCESS, ""
    context = association._accepted_cx[message.context_id]
    syntax, of_worklist = str(context.transfer_syntax[0]), context.abstract_syntax == contexts.WORKLIST_FIND
    try:
        if not may("worklist" if of_worklist else "workitems"):
            raise NotAuthorized("this application entity may not ask for this")
        # All services of workitems may be called by the name of the first (PS3.4 CC.3.1).
        called = (context.abstract_syntax,) if of_worklist else (context.abstract_syntax, contexts.UPS_PUSH)
        if message.sop_class_uid not in called or message.too_large:
            raise NotUnderstood("not a query of the SOP Class of the presentation context")
        keys, character_set = datasets.decode(message.data_set, syntax)
        pending = _response(message, status.PENDING, data_set=True)
        limit = archive.settings.dicom.maximum_answers
        ask: Callable[[Attributes], Iterator[Attributes]] = Worklist(archive).find if of_worklist else Workitems(archive).find
        for found in ask(keys):
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
        if count and of_worklist:
            archive.index.note("worklist_shown", ae_title=association.requestor.ae_title.strip(), count=count)
    log.info("worklist_answered", count=count, status=f"{code:04X}")
    association.dimse.send(message.context_id, _response(message, code, comment=comment))


def _response(message: Message, code: int, *, comment: str = "", data_set: bool = False) -> bytes:
    values: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: message.sop_class_uid,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.STATUS: code,
    }
    if comment:
        values[messages.ERROR_COMMENT] = comment
    return messages.encode(Command.C_FIND_RSP, values, data_set=data_set)
