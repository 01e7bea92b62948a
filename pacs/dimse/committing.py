"""Storage Commitment as SCU: ask a peer to take responsibility for instances, and wait for its report (PS3.4 Annex J).

The report comes on the same association or on one that the peer opens to us; so we listen while we wait, where a port is given.
"""

import contextlib
import queue
import ssl
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pynetdicom import AE, evt

from pacs.dimse import contexts, datasets, messages, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.dimse.requestor import PeerUnavailable, accepted, associate, response
from pacs.model.errors import NotUnderstood, Unavailable

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""
NO_WORD = 0x0110
"""Failure Reason of what the report does not name at all (PS3.3 C.14.1.1: processing failure)."""
_REQUEST = 1


class _Report(Exception):
    """It has come while we looked elsewhere."""


def commit(
    host: str,
    port: int,
    ae_title: str,
    references: Sequence[Reference],
    *,
    calling: str = "MINIPACS",
    listen: tuple[str, int] | None = None,
    wait_s: float = 120.0,
    tls: ssl.SSLContext | None = None,
) -> dict[Reference, int]:
    """Ask for commitment and return the Failure Reason of every reference, 0 for those that the peer keeps.

    Parameters
    ----------
    listen : (str, int), optional
        Address and port where the peer reaches us under `calling`; without it the report must come on our association.

    Raises `PeerUnavailable`, `NotUnderstood` where the peer refuses, and `Unavailable` where no report comes in time.
    """
    transaction_uid = f"2.25.{uuid.uuid4().int}"
    reports: queue.Queue[dict[str, Any]] = queue.Queue()

    def look() -> None:
        if not reports.empty():
            raise _Report

    with _listening(calling, listen, reports), _asked(host, port, ae_title, calling, tls) as association:
        _ask(association, transaction_uid, references)
        with contextlib.suppress(_Report, AssociationLost):
            reports.put(_received(association, association.dimse.receive(wait_s, look)))
        if listen is not None and reports.empty():
            # The peer has ended our association, which it may; its own is still to come.
            with contextlib.suppress(queue.Empty):
                reports.put(reports.get(timeout=wait_s))
        while not reports.empty():
            report = reports.get()
            if _text(report, "00081195") == transaction_uid:
                return _reasons(report, references)
    raise Unavailable(f"{ae_title} has not reported within {wait_s:g} s; ask again, or let it reach us at --listen")


@contextlib.contextmanager
def _asked(host: str, port: int, called: str, calling: str, tls: ssl.SSLContext | None) -> Iterator[LaneAssociation]:
    proposals = [(contexts.STORAGE_COMMITMENT, contexts.MESSAGE_SYNTAXES)]
    association = associate(host, port, called=called, calling=calling, proposals=proposals, tls=tls)
    try:
        yield association
    except BaseException:
        association.terminate()
        raise
    association.release_and_wait()


def _ask(association: LaneAssociation, transaction_uid: str, references: Sequence[Reference]) -> None:
    ways = accepted(association, contexts.STORAGE_COMMITMENT)
    if not ways:
        raise NotUnderstood("the peer does not offer storage commitment")
    syntax, context_id = next(iter(ways.items()))
    items = [{"00081150": _uid(sop_class), "00081155": _uid(instance)} for sop_class, instance in references]
    asked = {"00081195": _uid(transaction_uid), "00081199": {"vr": "SQ", "Value": items}}
    command: dict[int, int | str] = {
        messages.REQUESTED_SOP_CLASS_UID: contexts.STORAGE_COMMITMENT,
        messages.REQUESTED_SOP_INSTANCE_UID: contexts.STORAGE_COMMITMENT_INSTANCE,
        messages.MESSAGE_ID: 1,
        messages.ACTION_TYPE_ID: _REQUEST,
    }
    body = datasets.encode(asked, explicit=syntax == contexts.EXPLICIT_LITTLE_ENDIAN)
    try:
        association.dimse.send(context_id, messages.encode(Command.N_ACTION_RQ, command, data_set=True), [body])
        answer = response(association, Command.N_ACTION_RSP, 1)
    except AssociationLost as error:
        raise PeerUnavailable("the peer ended the association or fell silent") from error
    if answer.status != status.SUCCESS:
        raise NotUnderstood(f"the peer answered status {answer.status:04X}")


def _received(association: LaneAssociation, message: Message) -> dict[str, Any]:
    """Answer a report on our own association, and return what it says."""
    if message.command_field != Command.N_EVENT_REPORT_RQ:
        raise NotUnderstood("the peer sent something else than a report")
    context = association._accepted_cx[message.context_id]
    report, _ = datasets.decode(message.data_set, str(context.transfer_syntax[0]))
    answer: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: contexts.STORAGE_COMMITMENT,
        messages.AFFECTED_SOP_INSTANCE_UID: contexts.STORAGE_COMMITMENT_INSTANCE,
        messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
        messages.EVENT_TYPE_ID: message.number(messages.EVENT_TYPE_ID),
        messages.STATUS: status.SUCCESS,
    }
    association.dimse.send(message.context_id, messages.encode(Command.N_EVENT_REPORT_RSP, answer))
    return dict(report)


@contextlib.contextmanager
def _listening(ae_title: str, listen: tuple[str, int] | None, reports: "queue.Queue[dict[str, Any]]") -> Iterator[None]:
    if listen is None:
        yield
        return
    ae = AE(ae_title=ae_title)
    ae.add_supported_context(contexts.STORAGE_COMMITMENT, list(contexts.MESSAGE_SYNTAXES), scu_role=False, scp_role=True)

    def reported(event: Any) -> tuple[int, None]:
        report, _ = datasets.decode(event.request.EventInformation.getvalue(), str(event.context.transfer_syntax))
        reports.put(dict(report))
        return status.SUCCESS, None

    try:
        server = ae.start_server(listen, block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reported)])
    except OSError as error:
        raise Unavailable(f"port {listen[1]} is in use or not ours to listen on; name another with --listen") from error
    try:
        yield
    finally:
        server.shutdown()


def _reasons(report: Mapping[str, Any], references: Sequence[Reference]) -> dict[Reference, int]:
    committed = {_text(item, "00081155") for item in _items(report, "00081199")}
    failed = {_text(item, "00081155"): item for item in _items(report, "00081198")}
    reasons = {}
    for reference in references:
        uid = reference[1]
        if uid in failed:
            reasons[reference] = int(_text(failed[uid], "00081197") or NO_WORD)
        else:
            reasons[reference] = 0 if uid in committed else NO_WORD
    return reasons


def _items(data_set: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return list(data_set.get(name, {}).get("Value", ()))


def _text(data_set: Mapping[str, Any], name: str) -> str:
    return str((data_set.get(name, {}).get("Value") or [""])[0])


def _uid(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]}
