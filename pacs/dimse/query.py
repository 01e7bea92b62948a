"""C-FIND in the Patient and Study Root models as SCP: what is asked, and the index's answers to it (PS3.4 C.4.1)."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import cast

from pacs import reidentify
from pacs.archive import Archive
from pacs.dimse import answering, contexts, identifier, status
from pacs.dimse.answering import Matches
from pacs.dimse.lane import LaneAssociation
from pacs.dimse.messages import Message
from pacs.dimse.moments import OFFSET, Moments
from pacs.dimse.moments import moments as taken
from pacs.model.errors import NotAuthorized, NotUnderstood


def find(
    archive: Archive, association: LaneAssociation, message: Message, *, allowed: bool, sees_originals: bool = False
) -> None:
    """Answer one C-FIND; with original identities where the caller may see them."""
    search = partial(reidentify.search, archive) if sees_originals else archive.index.search

    def ask() -> Matches:
        sop_class_uid, asked, explicit, moments = _asked(association, message, allowed)
        pending = status.PENDING_UNSUPPORTED_KEYS if asked.unsupported else status.PENDING
        answers = cast("Generator[dict[str, str]]", search(moments.widened(asked.query)))

        def bodies() -> Generator[bytes]:
            with closing(answers):
                for found in answers if moments.idle else moments.answers(answers):
                    yield identifier.answer(asked, found, archive.settings.dicom.ae_title, explicit=explicit)

        return Matches(sop_class_uid, bodies(), pending)

    answering.answer(archive, association, message, ask)


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
