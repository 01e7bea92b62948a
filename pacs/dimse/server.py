"""The DIMSE door: listens, decides who may come in, and hands each request to its service.

PS3.8 9.3.4 (rejections), PS3.7 Annex D (negotiation). The association itself is `lane`'s, what is negotiated is `contexts`',
who may come in is `entrance`'s, and the services are `storage`, `query` and `retrieve`. One archive may listen twice, plainly
and over TLS; the limits hold for both together.
"""

import contextlib
import socket
import ssl
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.transport import AssociationServer, RequestHandler

from pacs.archive import Archive
from pacs.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.dimse import (
    availability,
    commitment,
    contexts,
    entrance,
    messages,
    normalized,
    query,
    retrieve,
    status,
    storage,
    tls,
    watch,
    worklist,
)
from pacs.dimse.lane import Budget, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.dimse.tally import Tally
from pacs.dimse.tls import TlsConnection
from pacs.dimse.upper_layer import LaneSocket
from pacs.logs import bind, get_logger
from pacs.model.errors import ConfigurationError
from pacs.model.peer import USUAL, Peer
from pacs.settings import Settings

log = get_logger(__name__)

ARTIM_S = 15.0
"""How long a connection may take to ask for an association, or to close after we ended one (PS3.8 9.1.5)."""
PERMANENT, TRANSIENT = 1, 2
SERVICE_USER, ACSE, PRESENTATION = 1, 2, 3
LOCAL_LIMIT_EXCEEDED = 2
_NO_LIMIT = 1 << 30


def serve(archive: Archive, *, ready: Callable[[], None] | None = None, stop: threading.Event) -> None:
    """Serve until `stop` is set; then let open associations finish for `dicom.drain_s` seconds and abort the rest.

    Raises `ConfigurationError` where the port cannot be had.
    """
    dicom = archive.settings.dicom
    with contextlib.ExitStack() as stack:
        servers = [listen(archive)]
        stack.callback(_stop, servers, dicom.drain_s)
        if dicom.tls_port:
            servers.append(listen(archive, beside=servers[0]))
        for server in servers:
            thread = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="dicom-listener", daemon=True
            )
            thread.start()
            host, port = server.server_address[:2]
            kind = "tls" if server.tls is not None else "plain"
            log.info("dicom_listening", host=host, port=port, ae_title=dicom.ae_title, kind=kind)
        report(archive, servers[0].desk, stop, stack)
        if ready is not None:
            ready()
        stop.wait()


def report(archive: Archive, desk: commitment.Desk, stop: threading.Event, stack: contextlib.ExitStack) -> None:
    """Start the threads that report to peers by themselves; one process of an archive has them. `stack` waits for their end."""
    works = {"commitments": desk.run, "notifications": availability.Herald(archive).run, "events": watch.Watcher(archive).run}
    for name, work in works.items():
        thread = threading.Thread(target=work, args=(stop,), name=name, daemon=True)
        thread.start()
        stack.callback(thread.join, 5.0)


def _stop(servers: "list[DicomServer]", drain_s: float) -> None:
    drain(servers, drain_s)
    log.info("dicom_stopped")


def drain(servers: "Sequence[DicomServer]", seconds: float) -> None:
    """Stop listening, wait for open associations, then abort those that are left."""
    for server in servers:
        server.close()
    deadline = time.monotonic() + seconds
    while any(server.active_associations for server in servers) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [association for server in servers for association in server.active_associations]
    if left:
        log.warning("associations_aborted", count=len(left))
    for association in left:
        association.terminate()
    for association in left:
        association.join(3.0)


def listen(archive: Archive, *, beside: "DicomServer | None" = None) -> "DicomServer":
    """Bind the port and return the server; its `serve_forever` accepts associations.

    With `beside`, bind the TLS port too, and count its associations with those of that server. Raises `ConfigurationError`.
    """
    dicom = archive.settings.dicom
    secured = tls.server_context(dicom) if dicom.tls or beside is not None else None
    port = dicom.port if beside is None else dicom.tls_port
    ae = beside.ae if beside is not None else _entity(archive)
    try:
        server = DicomServer(
            ae,
            (dicom.host, port),
            dicom.ae_title,
            ae.supported_contexts,
            evt_handlers=[(evt.EVT_REQUESTED, _requested), (evt.EVT_SOP_EXTENDED, _extended)],
            request_handler=_Handler,
        )
    except OSError as error:
        raise port_refused(dicom.host, port, error, secured=beside is not None) from error
    server.open_to(archive, secured, beside)
    return server


def fed(archive: Archive, places: Budget, *, secured: bool, beside: "DicomServer | None") -> "DicomServer":
    """Return a server that does not listen: another process accepts connections for it and hands them over (`receive`).

    `places` bounds the associations of all such processes together. Raises `ConfigurationError`.
    """
    dicom = archive.settings.dicom
    ae = beside.ae if beside is not None else _entity(archive)
    address = (dicom.host, dicom.tls_port if beside is not None else dicom.port)
    handlers = [(evt.EVT_REQUESTED, _requested), (evt.EVT_SOP_EXTENDED, _extended)]
    server = _Fed(ae, address, dicom.ae_title, ae.supported_contexts, evt_handlers=handlers, request_handler=_Handler)
    server.open_to(archive, tls.server_context(dicom) if secured else None, beside)
    server.places = places
    return server


def port_refused(host: str, port: int, error: OSError, *, secured: bool) -> ConfigurationError:
    """Return what to say of a port that cannot be had."""
    reason = error.strerror or type(error).__name__
    variable = "PACS_DICOM_TLS_PORT" if secured else "PACS_DICOM_PORT"
    return ConfigurationError(
        f"DICOM port {port} is in use or not available on {host} ({reason}); stop the other program or set {variable}"
    )


def object_limit(settings: Settings) -> int:
    """Return the largest data set that is accepted, in bytes."""
    return settings.dicom.maximum_object_mb << 20


def connection_limit(settings: Settings) -> int:
    """Return how many connections may be open: those just beyond the limit of associations get a proper answer."""
    return 4 * settings.dicom.maximum_associations + 64


def _entity(archive: Archive) -> AE:
    dicom = archive.settings.dicom
    ae = AE(ae_title=dicom.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    # The library would count connections that say nothing, and in one process only; see `_requested`.
    ae.maximum_associations = _NO_LIMIT
    ae.maximum_pdu_size = dicom.maximum_pdu_size
    ae.acse_timeout = ARTIM_S
    ae.dimse_timeout = dicom.idle_timeout_s
    ae.network_timeout = dicom.idle_timeout_s
    # pynetdicom wants to know at least one context; what counts is decided for each association in `_requested`.
    ae.add_supported_context(contexts.VERIFICATION)
    return ae


class DicomServer(AssociationServer):
    """pynetdicom's listener with our associations behind it."""

    request_queue_size = 128
    archive: Archive
    places: Budget
    tls: ssl.SSLContext | None

    desk: commitment.Desk
    on_end: Callable[[], None] | None = None

    def open_to(self, archive: Archive, secured: ssl.SSLContext | None, beside: "DicomServer | None" = None) -> None:
        """Tell the server whose door it is, over what it speaks, and with whom it shares what is one for the archive."""
        self.archive = archive
        self.tls = secured
        self.object_limit = object_limit(archive.settings)
        self.places = beside.places if beside is not None else Budget(archive.settings.dicom.maximum_associations)
        self.desk = beside.desk if beside is not None else commitment.Desk(archive)
        self.open_to_all = entrance.is_loopback(archive.settings)
        self._serving = self._closed = False

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept connections until `close`."""
        self._serving = True
        super().serve_forever(poll_interval)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse connections that are far beyond the limit of associations."""
        return len(self.active_associations) < connection_limit(self.archive.settings)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with one connection; the others go on."""
        error = sys.exc_info()[1]
        if error is not None:
            log.exception("connection_failed", error)

    def service_actions(self) -> None:
        """Do nothing between connections (the library would collect garbage here)."""

    def close(self) -> None:
        """Stop listening; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            if self._serving:
                super(AssociationServer, self).shutdown()
            self.server_close()

    def receive(self, connection: socket.socket, ended: Callable[[], None]) -> None:
        """Serve a connection that another process has accepted; `ended` is called once, when it is over."""
        try:
            address = connection.getpeername()
            # The handler is made by the library; what it should say at the end travels beside.
            self.on_end = ended
            self.process_request(connection, address)
        except Exception:
            self.handle_error(connection, None)
            self.shutdown_request(connection)
            ended()
        finally:
            self.on_end = None

    def drain(self, seconds: float) -> None:
        """Stop listening, and end what is open as `drain` does."""
        drain([self], seconds)


class _Fed(DicomServer):
    """A server to which connections are given."""

    def server_bind(self) -> None:
        """Another process has the port."""

    def server_activate(self) -> None:
        """Another process listens."""


class _Handler(RequestHandler):
    """Makes our kind of association for a new connection."""

    server: DicomServer

    def _create_association(self) -> LaneAssociation:
        server = self.server
        association = LaneAssociation(self.ae, "acceptor", object_limit=server.object_limit, intake=server.archive.intake)
        association._server = server
        # pynetdicom finds its acceptors by the name of their thread.
        association.name = f"AcceptorThread@{datetime.now():%Y%m%d%H%M%S}"
        association.association_id = str(uuid.uuid4())
        service = _Service(server.archive, association)
        association.serve, association.ended = service.serve, service.ended
        association.over = server.on_end
        connection = self.request if server.tls is None else TlsConnection.accepted(self.request, server.tls)
        association.set_socket(LaneSocket(association, client_socket=connection))
        association.acceptor.maximum_length = self.ae.maximum_pdu_size
        association.acceptor.ae_title = server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        association.acceptor.implementation_version_name = self.ae.implementation_version_name
        association.requestor.address_info = self.remote
        for event in server._handlers:
            if event.is_intervention:
                association.bind(event, *server._handlers[event])
            else:
                for handler in server._handlers[event]:
                    association.bind(event, handler[0], handler[1])
        return association


def _requested(event: Any) -> None:
    """Reject who may not come in (PS3.8 Table 9-21), and set out what we accept of what was proposed."""
    association: LaneAssociation = event.assoc
    server = association._server
    archive: Archive = server.archive
    primitive = association.requestor.primitive
    calling, called = primitive.calling_ae_title.strip(), primitive.called_ae_title.strip()
    address = association.requestor.address_info.address
    bind(calling_ae_title=calling, address=address)
    source, reason = SERVICE_USER, entrance.refusal(archive, primitive, address)
    item = association.requestor.user_identity
    given = None
    if item is not None:
        given = entrance.Identity(item.user_identity_type, bytes(item.primary_field), bytes(item.secondary_field or b""))
    if not reason and not entrance.believed(archive, calling, given):
        log.warning("user_identity_refused")
        # PS3.7 D.3.3.7 leaves result and reason to us: ACSE, no reason given.
        source, reason = ACSE, 1
    if reason:
        log.warning("association_rejected", called_ae_title=called, reason=reason)
        association.acse.send_reject(PERMANENT, source, reason)
        association.is_rejected = True
        association.kill()
        return
    # Counted from the request on: connections that say nothing take no place from those that do.
    if not association.take_place(server.places):
        log.warning("association_rejected", called_ae_title=called, reason=LOCAL_LIMIT_EXCEEDED)
        association.acse.send_reject(TRANSIENT, PRESENTATION, LOCAL_LIMIT_EXCEEDED)
        association.is_rejected = True
        association.kill()
        return
    if given is not None and given.kind == entrance.USERNAME_AND_PASSCODE and item.positive_response_requested:
        # PS3.7 D.3.3.7.2: the response is empty for kinds 1 and 2; pynetdicom leaves it out.
        confirmed = UserIdentityNegotiation()
        confirmed.server_response = b""
        association.acceptor.add_negotiation_item(confirmed)
    peer = archive.index.peers.get(calling)
    association.acceptor.supported_contexts = contexts.supported(
        primitive.presentation_context_definition_list,
        peer.private if peer is not None else (),
        peer.prefers if peer is not None else (),
    )


def _extended(event: Any) -> dict[str, bytes]:
    return contexts.extended({str(uid): bytes(value) for uid, value in event.app_info.items()})


class _Service:
    """What one association may do, and has done."""

    def __init__(self, archive: Archive, association: LaneAssociation) -> None:
        self._archive = archive
        self._association = association
        self._may: frozenset[str] | None = None
        self._originals = self._warn = False
        self._stored = 0
        self._ended = False
        self._tally = Tally(archive.index.tallies)
        association.dimse.answered = self._tally.answered

    def serve(self, association: LaneAssociation, message: Message) -> None:
        """Answer one request."""
        command = message.command_field
        if command == Command.C_STORE_RQ:
            if storage.store(self._archive, association, message, allowed=self._allowed("store"), warn=self._warn):
                self._stored += 1
        elif command == Command.C_ECHO_RQ:
            # Verification is always answered 0000 (PS3.4 A.4).
            self._answer(message, status.SUCCESS)
        elif command == Command.C_FIND_RQ and worklist.is_asked(association, message):
            worklist.find(self._archive, association, message, may=self._may_now)
        elif command == Command.C_FIND_RQ:
            query.find(
                self._archive, association, message, allowed=self._allowed("find"), sees_originals=self._sees_originals()
            )
        elif command == Command.C_MOVE_RQ:
            retrieve.move(
                self._archive, association, message, allowed=self._allowed("move"), sees_originals=self._sees_originals()
            )
        elif command == Command.C_GET_RQ:
            retrieve.get(
                self._archive, association, message, allowed=self._allowed("get"), sees_originals=self._sees_originals()
            )
        elif normalized.is_asked(association, message):
            normalized.serve(self._archive, association, message, may=self._may_now)
        elif command == Command.N_ACTION_RQ:
            desk = self._association._server.desk
            commitment.action(self._archive, desk, self._association, message, allowed=self._allowed("commit"))
        elif not command & 0x8000:
            self._answer(message, status.UNRECOGNIZED_OPERATION)

    def ended(self, association: LaneAssociation) -> None:
        """Say that nothing more will come through this association, and how it ended."""
        if self._ended:
            return
        self._ended = True
        evidence = "association released" if association.is_released else "association ended"
        log.info("association_closed", evidence=evidence, instances=self._stored)
        requestor = association.requestor
        self._tally.close(requestor.ae_title.strip(), requestor.address_info.address if requestor.address_info else "")
        if self._stored:
            try:
                self._archive.index.end_association(association.association_id, evidence)
            except Exception as error:
                # Nobody waits for an answer any more; without this evidence the series completes by silence.
                log.exception("evidence_lost", error, evidence=evidence)

    def _allowed(self, service: str) -> bool:
        if self._may is None:
            peer = self._archive.index.peers.get(self._association.requestor.ae_title.strip())
            # On loopback callers need no introduction; a configured peer is held to its permissions everywhere.
            stranger = frozenset(USUAL if self._association._server.open_to_all else ())
            self._may = peer.may if peer is not None else stranger
            self._warn = peer is not None and "warn" in peer.options
            self._originals = peer is not None and peer.identity == "original" and self._calls_from(peer)
        return service in self._may

    def _may_now(self, service: str) -> bool:
        """Say whether the caller may ask for a service; for what shows identities, also whether it calls from where it may."""
        if not self._allowed(service) or service != "worklist":
            return self._allowed(service)
        peer = self._archive.index.peers.get(self._association.requestor.ae_title.strip())
        return peer is not None and ("any-address" in peer.options or self._calls_from(peer))

    def _sees_originals(self) -> bool:
        """Say whether the caller is a peer marked so; asked after `_allowed`."""
        return self._originals

    def _calls_from(self, peer: Peer) -> bool:
        """Say whether the association comes from the peer's host: an AE title alone is no proof of who calls."""
        if entrance.calls_from(peer, self._association.requestor.address_info.address):
            return True
        log.warning("original_identity_refused", reason="the address is not that of the peer")
        return False

    def _answer(self, message: Message, code: int) -> None:
        values: dict[int, int | str] = {messages.MESSAGE_ID_RESPONDED_TO: message.message_id, messages.STATUS: code}
        if message.sop_class_uid:
            values[messages.AFFECTED_SOP_CLASS_UID] = message.sop_class_uid
        self._association.dimse.send(message.context_id, messages.encode(message.command_field | 0x8000, values))
