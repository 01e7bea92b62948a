"""C-STORE as SCP: the data set's bytes go to `ingest` as they came (PS3.4 Annex B, PS3.7 9.1.1). Nothing is decoded here."""

from pacs.archive import Archive
from pacs.dimse import contexts, messages, status
from pacs.dimse.lane import LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.ingest import ingest
from pacs.logs import get_logger
from pacs.model.errors import (
    ArchiveError,
    DataSetMismatch,
    NotAuthorized,
    NotUnderstood,
    Quarantined,
    SOPClassNotSupported,
)
from pacs.model.instance import Origin, Received, Stored

log = get_logger(__name__)


def store(archive: Archive, association: LaneAssociation, message: Message, *, allowed: bool, warn: bool = False) -> bool:
    """Take one instance in and answer; True if the archive or its quarantine has it now. 0000 is said after the commit only.

    With `warn` it is B000 instead, coercion of data elements: de-identification always changes some (PS3.4 Table B.2-1).
    """
    code, comment, kept = status.SUCCESS, "", True
    try:
        stored = _ingest(archive, association, message, allowed)
        if warn:
            code = status.COERCED
        log.debug("instance_stored", sop_instance_uid=stored.key.sop_instance_uid, status=f"{code:04X}")
    except Quarantined as error:
        # Deliberate: by default the sender keeps its copy; a policy may spare modalities that treat any failure as fatal.
        code = int(archive.settings.deid.quarantine_status, 16)
        comment = status.comment(error) if code else ""
    except ArchiveError as error:
        code, comment, kept = status.status(error, status.C_STORE), status.comment(error), False
        log.warning("store_refused", status=f"{code:04X}", error=type(error).__name__)
    except Exception as error:
        code, comment, kept = status.UNEXPECTED, status.comment(error), False
        log.exception("store_failed", error, status=f"{code:04X}")
    values: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: message.sop_class_uid,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.STATUS: code,
        messages.AFFECTED_SOP_INSTANCE_UID: message.sop_instance_uid,
    }
    if comment:
        values[messages.ERROR_COMMENT] = comment
    association.dimse.send(message.context_id, messages.encode(Command.C_STORE_RSP, values))
    return kept


def _ingest(archive: Archive, association: LaneAssociation, message: Message, allowed: bool) -> Stored:
    context = association._accepted_cx[message.context_id]
    if not allowed:
        raise NotAuthorized("this application entity may not store")
    if not context.as_scp or message.sop_class_uid != context.abstract_syntax:
        raise SOPClassNotSupported("the SOP Class is not the one of the presentation context")
    if message.refused is not None:
        raise message.refused
    if not message.sop_instance_uid or message.content is None:
        raise DataSetMismatch("the command lacks a SOP Instance UID or a data set")
    received = Received(
        data_set=message.content,
        transfer_syntax_uid=str(context.transfer_syntax[0]),
        origin=Origin.STORAGE_SCU,
        source=association.requestor.ae_title.strip(),
        sop_class_uid=message.sop_class_uid,
        sop_instance_uid=message.sop_instance_uid,
        association=association.association_id,
    )
    try:
        return ingest(archive, received)
    except (SOPClassNotSupported, NotUnderstood) as error:
        if contexts.is_private(received.sop_class_uid, received.transfer_syntax_uid):
            # Invited by the peer's policy, and in quarantine as nobody can prove it clean; that is how it is answered.
            raise Quarantined(str(error)) from error
        raise
