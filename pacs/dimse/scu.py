"""Our own asking: C-ECHO, C-FIND, C-GET and C-MOVE as SCU, for the command line and the demo.

What is sent from disk is `outbound`; asking for storage commitment is `committing`. PS3.4 Annexes A and C; PS3.7 9.1.
"""

import contextlib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pacs.dicom import elements, part10, values
from pacs.dicom.dictionary import tag_of, vr_of
from pacs.dimse import contexts, encoding, identifier, messages, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.dimse.requestor import CONTEXT_LIMIT, PeerUnavailable, Proposal, accepted, associate, response
from pacs.dimse.tls import for_peer
from pacs.model.bulk import blocks
from pacs.model.errors import ArchiveError, NotUnderstood
from pacs.model.peer import Echoed, Peer
from pacs.settings import DicomSettings


def echo(
    host: str,
    port: int,
    ae_title: str,
    *,
    calling: str = "MINIPACS",
    timeout_s: float = 10.0,
    tls: ssl.SSLContext | None = None,
) -> int:
    """Verify a peer; returns its status, 0 for success. Raises `PeerUnavailable`."""
    proposals = [(contexts.VERIFICATION, contexts.MESSAGE_SYNTAXES)]
    with _open(host, port, ae_title, calling, proposals, timeout_s, tls=tls) as association:
        context_id = _context(association, contexts.VERIFICATION)[0]
        asked: dict[int, int | str] = {messages.AFFECTED_SOP_CLASS_UID: contexts.VERIFICATION, messages.MESSAGE_ID: 1}
        association.dimse.send(context_id, messages.encode(Command.C_ECHO_RQ, asked))
        return response(association, Command.C_ECHO_RSP, 1).status


def verify(settings: DicomSettings, peer: Peer) -> Echoed:
    """Ask a peer for a C-ECHO, and say what came of it; whatever fails is an answer, too."""
    began, answers = time.perf_counter(), False
    try:
        code = echo(peer.host, peer.port, peer.ae_title, calling=settings.ae_title, tls=for_peer(settings, peer))
        answers = code == status.SUCCESS
        said = f"{peer.ae_title} answers" if answers else f"{peer.ae_title} answers status {code:04X}"
    except ArchiveError as error:
        said = str(error)
    return Echoed(answers, said, round((time.perf_counter() - began) * 1000))


def find(
    host: str,
    port: int,
    ae_title: str,
    keys: Mapping[str, str],
    *,
    calling: str = "MINIPACS",
    timeout_s: float = 60.0,
    tls: ssl.SSLContext | None = None,
    limit: int = 0,
) -> list[dict[str, str]]:
    """Query a peer; `keys` are keyword -> value, QueryRetrieveLevel among them: PATIENT asks in the Patient Root model.

    With `limit` the query is cancelled after so many answers. Raises `PeerUnavailable`, or `NotUnderstood` with the status
    where the peer refuses.
    """
    uid = contexts.PATIENT_ROOT_FIND if keys.get("QueryRetrieveLevel") == "PATIENT" else contexts.STUDY_ROOT_FIND
    with _open(host, port, ae_title, calling, [(uid, contexts.MESSAGE_SYNTAXES)], timeout_s, tls=tls) as association:
        context_id, syntax = _context(association, uid)
        _request(association, context_id, syntax, Command.C_FIND_RQ, uid, keys)
        answers: list[dict[str, str]] = []
        while True:
            answer = response(association, Command.C_FIND_RSP, 1)
            if answer.status not in (status.PENDING, status.PENDING_UNSUPPORTED_KEYS):
                if answer.status != status.CANCEL:
                    _check(answer)
                return answers[: limit or None]
            found = elements.read(answer.data_set or b"", syntax)
            answers.append(values.attributes(found))
            if len(answers) == limit:
                association.dimse.send(context_id, messages.encode(Command.C_CANCEL_RQ, {messages.MESSAGE_ID_RESPONDED_TO: 1}))
            association.dimse.give_back(answer.content)


def get(
    host: str,
    port: int,
    ae_title: str,
    study_uid: str,
    directory: Path,
    *,
    calling: str = "MINIPACS",
    timeout_s: float = 60.0,
    sop_classes: Sequence[str] | None = None,
    series_uid: str = "",
    on_progress: Callable[[int], None] | None = None,
    tls: ssl.SSLContext | None = None,
) -> int:
    """Retrieve a study, or one series of it, by C-GET into `directory`, a Part 10 file an instance; return how many came.

    Which classes the study holds is asked first, because all of them in all syntaxes would not fit into one association.
    Raises `PeerUnavailable`, or `NotUnderstood` with the status where the peer refuses or sub-operations failed.
    """
    if sop_classes is None:
        asked = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_uid, "SOPClassesInStudy": ""}
        found = find(host, port, ae_title, asked, calling=calling, timeout_s=timeout_s, tls=tls)
        sop_classes = [uid for row in found for uid in row.get("SOPClassesInStudy", "").split("\\") if uid]
    uid = contexts.STUDY_ROOT_GET
    # A context for each syntax we can expect, so that nothing needs to be decompressed for us; with many classes the likely.
    likely = (contexts.HTJ2K[0], contexts.EXPLICIT_LITTLE_ENDIAN, *contexts.COMPRESSED, contexts.IMPLICIT_LITTLE_ENDIAN)
    proposals: list[Proposal] = [(uid, contexts.MESSAGE_SYNTAXES)]
    room = (CONTEXT_LIMIT - 1) // max(1, len(sop_classes))
    for sop_class in sop_classes:
        proposals += [(sop_class, (syntax,)) for syntax in list(dict.fromkeys(likely))[:room]]
    count = 0
    directory.mkdir(parents=True, exist_ok=True)
    with _open(host, port, ae_title, calling, proposals[:CONTEXT_LIMIT], timeout_s, sop_classes, tls) as association:
        context_id, syntax = _context(association, uid)
        _request(association, context_id, syntax, Command.C_GET_RQ, uid, _keys(study_uid, series_uid))
        while True:
            message = association.dimse.receive(timeout_s)
            if message.command_field == Command.C_STORE_RQ:
                count += _keep(association, message, directory)
                if on_progress is not None:
                    on_progress(count)
            elif message.command_field == Command.C_GET_RSP and message.status != status.PENDING:
                _check(message)
                return count


@dataclass(frozen=True, slots=True)
class Moved:
    """Counters of a C-MOVE (PS3.7 9.3.4.2)."""

    remaining: int
    completed: int
    failed: int
    warning: int


def move(
    host: str,
    port: int,
    ae_title: str,
    study_uid: str,
    destination: str,
    *,
    series_uid: str = "",
    calling: str = "MINIPACS",
    timeout_s: float = 60.0,
    on_progress: Callable[[Moved], None] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Moved:
    """Have a peer send a study, or one series of it, to an application entity that it knows; return the final counters.

    Raises `PeerUnavailable`, or `NotUnderstood` with the status where the peer refuses or nothing could be sent.
    """
    uid = contexts.STUDY_ROOT_MOVE
    with _open(host, port, ae_title, calling, [(uid, contexts.MESSAGE_SYNTAXES)], timeout_s, tls=tls) as association:
        context_id, syntax = _context(association, uid)
        _request(association, context_id, syntax, Command.C_MOVE_RQ, uid, _keys(study_uid, series_uid), destination)
        while True:
            answer = response(association, Command.C_MOVE_RSP, 1)
            counts = (messages.REMAINING, messages.COMPLETED, messages.FAILED, messages.WARNING)
            moved = Moved(*(answer.number(one) for one in counts))
            if answer.status != status.PENDING:
                if answer.status not in (status.SUCCESS, status.SUB_OPERATIONS_WARNING):
                    _check(answer)
                return moved
            if on_progress is not None:
                on_progress(moved)


def _keys(study_uid: str, series_uid: str) -> dict[str, str]:
    level = {"QueryRetrieveLevel": "SERIES" if series_uid else "STUDY", "StudyInstanceUID": study_uid}
    return level | ({"SeriesInstanceUID": series_uid} if series_uid else {})


@contextlib.contextmanager
def _open(
    host: str,
    port: int,
    called: str,
    calling: str,
    proposals: Sequence[Proposal],
    timeout_s: float,
    as_scp: Iterable[str] = (),
    tls: ssl.SSLContext | None = None,
) -> Iterator[LaneAssociation]:
    association = associate(
        host, port, called=called, calling=calling, proposals=proposals, as_scp=as_scp, timeout_s=timeout_s, tls=tls
    )
    try:
        yield association
    except AssociationLost as error:
        association.terminate()
        raise PeerUnavailable(f"{called} ended the association or fell silent") from error
    except BaseException:
        association.terminate()
        raise
    association.release_and_wait()


def _context(association: LaneAssociation, sop_class_uid: str) -> tuple[int, str]:
    for syntax, context_id in accepted(association, sop_class_uid).items():
        return context_id, syntax
    raise NotUnderstood("the peer does not offer this service")


def _request(
    association: LaneAssociation,
    context_id: int,
    syntax: str,
    command: Command,
    sop_class_uid: str,
    keys: Mapping[str, str],
    destination: str = "",
) -> None:
    rows = sorted((tag_of(keyword), value) for keyword, value in keys.items())
    coded = not all(value.isascii() for _, value in rows)
    encoded = [(tag, vr_of(tag), value.encode("utf-8")) for tag, value in rows]
    if coded:
        encoded.insert(0, (identifier.SPECIFIC_CHARACTER_SET, "CS", b"ISO_IR 192"))
    body = encoding.encode(encoded, explicit=syntax == contexts.EXPLICIT_LITTLE_ENDIAN)
    asked: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: sop_class_uid,
        messages.MESSAGE_ID: 1,
        messages.PRIORITY: 0,
    }
    if destination:
        asked[messages.MOVE_DESTINATION] = destination
    association.dimse.send(context_id, messages.encode(command, asked, data_set=True), [body])


def _check(answer: Message) -> None:
    if answer.status not in (status.SUCCESS, status.SUB_OPERATIONS_WARNING):
        comment = answer.text(messages.ERROR_COMMENT)
        raise NotUnderstood(f"the peer answered status {answer.status:04X}{f' ({comment})' if comment else ''}")
    if answer.number(messages.FAILED):
        raise NotUnderstood(f"{answer.number(messages.FAILED)} instances could not be transferred")


def _keep(association: LaneAssociation, message: Message, directory: Path) -> int:
    """Write an instance that a C-GET brought, and answer; 1 if it was written."""
    context = association._accepted_cx.get(message.context_id)
    code = status.SUCCESS
    if context is None or message.content is None or not identifier.is_uid(message.sop_instance_uid):
        code = 0xC000
    else:
        meta = part10.file_meta(message.sop_class_uid, message.sop_instance_uid, str(context.transfer_syntax[0]))
        try:
            with (directory / f"{message.sop_instance_uid}.dcm").open("wb") as file:
                file.writelines(chain([meta], blocks(message.content)))
        except OSError:
            code = status.OUT_OF_RESOURCES
    association.dimse.give_back(message.content)
    answer: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: message.sop_class_uid,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.STATUS: code,
        messages.AFFECTED_SOP_INSTANCE_UID: message.sop_instance_uid,
    }
    association.dimse.send(message.context_id, messages.encode(Command.C_STORE_RSP, answer))
    return int(code == status.SUCCESS)
