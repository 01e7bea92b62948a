"""C-FIND as SCP: one Pending response a match, streamed from the index as it is read (PS3.4 C.4.1, PS3.7 9.1.2)."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import cast

from pacs import reidentify
from pacs.archive import Archive
from pacs.dimse import contexts, identifier, messages, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.dimse.moments import OFFSET, Moments
from pacs.dimse.moments import moments as taken
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotAuthorized, NotUnderstood

log = get_logger(__name__)


def find(
    archive: Archive, association: LaneAssociation, message: Message, *, allowed: bool, sees_originals: bool = False
) -> None:
    """Answer one C-FIND; with original identities where the caller may see them."""
    count = 0
    ask = partial(reidentify.search, archive) if sees_originals else archive.index.search
    try:
        sop_class_uid, asked, explicit, moments = _asked(association, message, allowed)
        pending = status.PENDING_UNSUPPORTED_KEYS if asked.unsupported else status.PENDING
        command = _response(message, sop_class_uid, pending, data_set=True)
        ae_title, limit = archive.settings.dicom.ae_title, archive.settings.dicom.maximum_answers
        code, comment = status.SUCCESS, ""
        answers = cast("Generator[dict[str, str]]", ask(moments.widened(asked.query)))
        with closing(answers):
            for found in answers if moments.idle else moments.answers(answers):
                if message.message_id in association.dimse.cancelled:
                    code = status.CANCEL
                    break
                if limit and count >= limit:
                    # Never a silent cut (PS3.4 Table C.4-1: out of resources).
                    code, comment = status.OUT_OF_RESOURCES, f"more than {limit} matches; ask more narrowly"
                    break
                body = identifier.answer(asked, found, ae_title, explicit=explicit)
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
    log.info("query_answered", count=count, status=f"{code:04X}")
    association.dimse.send(message.context_id, _response(message, message.sop_class_uid, code, comment=comment))


def relational(association: LaneAssociation, sop_class_uid: str) -> bool:
    """Say whether relational queries or retrievals were negotiated for a class (PS3.4 C.5.1.1)."""
    return _negotiated(association, sop_class_uid, contexts.RELATIONAL)


def _negotiated(association: LaneAssociation, sop_class_uid: str, option: int) -> bool:
    proposed = {str(uid): bytes(value) for uid, value in association.requestor.sop_class_extended.items()}
    return contexts.negotiated(proposed, sop_class_uid, option)


def _asked(association: LaneAssociation, message: Message, allowed: bool) -> tuple[str, identifier.Asked, bool, Moments]:
    context = association._accepted_cx[message.context_id]
    sop_class_uid = str(context.abstract_syntax)
    if not allowed:
        raise NotAuthorized("this application entity may not query")
    if sop_class_uid not in contexts.FIND_CLASSES or message.sop_class_uid != sop_class_uid or message.too_large:
        raise NotUnderstood("not a query of the SOP Class of the presentation context")
    syntax = str(context.transfer_syntax[0])
    combined = _negotiated(association, sop_class_uid, contexts.DATE_TIME)
    asked = identifier.asked(
        identifier.parse(message.data_set, syntax),
        patient_root=sop_class_uid in contexts.PATIENT_ROOT,
        relational=relational(association, sop_class_uid),
        fuzzy=_negotiated(association, sop_class_uid, contexts.FUZZY),
        empty_values=_negotiated(association, sop_class_uid, contexts.EMPTY_VALUES),
        several_values=_negotiated(association, sop_class_uid, contexts.SEVERAL_VALUES),
        combined=combined,
    )
    zone = asked.timezone if _negotiated(association, sop_class_uid, contexts.TIMEZONE) else ""
    moments = taken(asked.query, combined=combined, zone=zone)
    if zone:
        asked = replace(asked, query=replace(asked.query, return_keys=(*asked.query.return_keys, OFFSET)))
    return sop_class_uid, asked, syntax == contexts.EXPLICIT_LITTLE_ENDIAN, moments


def _response(message: Message, sop_class_uid: str, code: int, *, comment: str = "", data_set: bool = False) -> bytes:
    values: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: sop_class_uid,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.STATUS: code,
    }
    if comment:
        values[messages.ERROR_COMMENT] = comment
    return messages.encode(Command.C_FIND_RSP, values, data_set=data_set)
