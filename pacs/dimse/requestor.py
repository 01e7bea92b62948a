"""Associations that we ask for: opening one, what the peer accepted, and C-STORE on it.

Such an association has no thread that serves requests: its owner sends and waits. `scu` and C-MOVE stand on this. PS3.8 9.3.2
(at most 128 presentation contexts), PS3.7 9.1.1 and D.3.3.4.
"""

import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import gettempdir

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.presentation import PresentationContext, build_context, build_role
from pynetdicom.transport import AddressInformation

from pacs.dicom import part10
from pacs.dimse import messages
from pacs.dimse.lane import LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.dimse.tls import for_peer
from pacs.dimse.upper_layer import LaneSocket
from pacs.model.errors import Unavailable
from pacs.model.instance import Buffer
from pacs.model.peer import Peer
from pacs.settings import DicomSettings
from pacs.store.scratch import Intake, Scratch

_LARGE_BYTES = 32 << 20
_SLOWEST_BYTES_S = 2 << 20
"""A peer that takes in less than this in a second is taken for dead."""
CONTEXT_LIMIT = 128
"""Presentation context IDs are the odd numbers from 1 to 255 (PS3.8 9.3.2.2)."""
Proposal = tuple[str, tuple[str, ...]]
"""An abstract syntax and the transfer syntaxes offered for it in one context."""


REJECTIONS = {
    (1, 1): "it gives no reason",
    (1, 2): "it does not know the application context of DICOM",
    (1, 3): "it does not know our AE title; add it there",
    (1, 7): "it has another AE title",
    (2, 1): "it gives no reason",
    (2, 2): "it speaks another version of the protocol",
    (3, 1): "it is too busy",
    (3, 2): "it serves as many associations as it may",
}
"""What an A-ASSOCIATE-RJ means, by source and reason (PS3.8 Table 9-21)."""
_FOR_NOW = 2


class PeerUnavailable(Unavailable):
    """The other side cannot be reached, or does not want us now."""


def associate(
    host: str,
    port: int,
    *,
    called: str,
    calling: str,
    proposals: Sequence[Proposal],
    as_scp: Iterable[str] = (),
    timeout_s: float = 60.0,
    object_limit: int = 1 << 40,
    tls: ssl.SSLContext | None = None,
) -> LaneAssociation:
    """Open an association. Raises `PeerUnavailable` where there is no connection, or it is rejected or aborted.

    Parameters
    ----------
    proposals : sequence of (abstract syntax, transfer syntaxes)
        At most 128, each a presentation context of its own.
    as_scp : iterable of str
        SOP Classes for which we want to be SCP too (PS3.7 D.3.3.4), as C-GET needs.
    tls : ssl.SSLContext, optional
        Speak TLS; the peer's certificate must be one of `host`.
    """
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    ae.connection_timeout = min(timeout_s, 10.0)
    # What a C-GET brings back may be large, too; it is somebody else's, so it goes to the machine's folder for such things.
    intake = Intake(Scratch(Path(gettempdir()), floor_bytes=0), large_bytes=_LARGE_BYTES, memory_bytes=2 * _LARGE_BYTES)
    association = LaneAssociation(ae, "requestor", object_limit=object_limit, intake=intake)
    try:
        remote = AddressInformation.from_addr_port(host, port)
        local = AddressInformation.from_tuple(("", 0) if remote.is_ipv4 else ("::0", 0))
        connection = LaneSocket(association, address=local)
        if tls is not None:
            connection.tls_args = (tls, host)
        association.set_socket(connection)
    except (OSError, ValueError) as error:
        raise PeerUnavailable(f"cannot reach {host}:{port}: {_said(error)}") from error
    association.acceptor.ae_title = called
    association.acceptor.address_info = remote
    association.requestor.address_info = local
    association.requestor.ae_title = calling
    association.requestor.maximum_length = 131072
    association.requestor.implementation_class_uid = UID(part10.IMPLEMENTATION_CLASS_UID)
    association.requestor.implementation_version_name = part10.IMPLEMENTATION_VERSION_NAME
    association.requestor.requested_contexts = _numbered(proposals)
    for uid in as_scp:
        association.requestor.add_negotiation_item(build_role(uid, scp_role=True))
    association.request()
    if not association.is_established:
        why = _why(association, tls is not None)
        association.kill()
        raise PeerUnavailable(f"{called} at {host}:{port} {why}")
    return association


def associate_with(
    settings: DicomSettings, peer: Peer, proposals: Sequence[Proposal], as_scp: Iterable[str] = ()
) -> LaneAssociation:
    """Open an association with a configured peer, as the settings say. Raises as `associate`, and `ConfigurationError`."""
    return associate(
        peer.host,
        peer.port,
        called=peer.ae_title,
        calling=settings.ae_title,
        proposals=proposals,
        as_scp=as_scp,
        timeout_s=settings.idle_timeout_s,
        tls=for_peer(settings, peer),
    )


def accepted(association: LaneAssociation, sop_class_uid: str, *, as_scp: bool = False) -> dict[str, int]:
    """Return transfer syntax -> presentation context ID of what the peer accepted for a class."""
    known = association.ways.get((sop_class_uid, as_scp))
    if known is None:
        known = {
            str(context.transfer_syntax[0]): int(context.context_id)
            for context in association.accepted_contexts
            if context.abstract_syntax == sop_class_uid and (context.as_scp if as_scp else context.as_scu)
        }
        if association.is_established:
            # Once negotiated it stays so; a retrieval asks several times an instance.
            association.ways[sop_class_uid, as_scp] = known
    return known


def store(
    association: LaneAssociation,
    context_id: int,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    data_set: Iterable[Buffer],
    message_id: int,
    priority: int = 0,
    originator: tuple[str, int] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> int:
    """Send one instance and return the peer's status (PS3.7 9.1.1). Raises `AssociationLost`."""
    asked: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: sop_class_uid,
        messages.MESSAGE_ID: message_id,
        messages.PRIORITY: priority,
        messages.AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
    }
    if originator is not None:
        asked[messages.MOVE_ORIGINATOR], asked[messages.MOVE_ORIGINATOR_MESSAGE_ID] = originator
    size = association.dimse.send(context_id, messages.encode(Command.C_STORE_RQ, asked, data_set=True), data_set)
    return response(association, Command.C_STORE_RSP, message_id, meanwhile, patience_s=size / _SLOWEST_BYTES_S).status


def response(
    association: LaneAssociation,
    command: Command,
    message_id: int,
    meanwhile: Callable[[], None] | None = None,
    *,
    patience_s: float = 0.0,
) -> Message:
    """Wait for the response to `message_id`; anything else that comes meanwhile is not for us.

    `patience_s` is added to the timeout: a peer needs its time for a large object.
    """
    timeout_s = None if association.dimse_timeout is None else association.dimse_timeout + patience_s
    while True:
        message = association.dimse.receive(timeout_s, meanwhile)
        if message.command_field == command and message.number(messages.MESSAGE_ID_RESPONDED_TO) == message_id:
            return message
        association.dimse.give_back(message.content)


def _why(association: LaneAssociation, over_tls: bool) -> str:
    """Say why an association did not come about, so that whoever looks after the peer knows where to look."""
    rejection, failure = association.dul.rejection, association.failure
    if rejection is not None:
        source, reason = rejection.result_source, rejection.diagnostic
        said = REJECTIONS.get((source, reason), f"source {source}, reason {reason}")
        return f"rejected the association{' for now' if rejection.result == _FOR_NOW else ''}: {said}"
    if association.acceptor.primitive is not None:
        return "takes the association, but none of the services that we propose"
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"shows a certificate that does not count here: {failure.verify_message}"
    if isinstance(failure, ssl.SSLError):
        return f"refuses TLS: {(failure.reason or 'without a reason').lower().replace('_', ' ')}"
    if isinstance(failure, ConnectionRefusedError):
        return "does not answer: nothing listens there"
    if association.dul.broken_off and association.reached:
        return f"breaks off before it answers; {'it may want another certificate' if over_tls else 'it may want TLS'}"
    return f"does not answer: {_said(failure)}" if isinstance(failure, OSError) else "does not answer in time"


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "not in time"
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _numbered(proposals: Sequence[Proposal]) -> list[PresentationContext]:
    if len(proposals) > CONTEXT_LIMIT:
        raise ValueError(f"{len(proposals)} presentation contexts do not fit into one association")
    built = [build_context(abstract_syntax, list(syntaxes)) for abstract_syntax, syntaxes in proposals]
    for index, context in enumerate(built):
        context.context_id = 2 * index + 1
    return built
