"""The DIMSE door: listens, decides who may come in, and hands each request to its service.

PS3.8 9.3.4 (rejections), PS3.7 Annex D (negotiation). The association itself is `lane`'s, what is negotiated is `contexts`',
and the services are `storage`, `query` and `retrieve`. TLS, user identity and storage commitment are deliberately absent yet.
"""

import ipaddress
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.transport import AssociationServer, RequestHandler

from pacs.archive import Archive
from pacs.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.dimse import contexts, messages, query, retrieve, status, storage
from pacs.dimse.lane import Budget, LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.dimse.upper_layer import LaneSocket
from pacs.logs import bind, get_logger
from pacs.model.errors import ConfigurationError
from pacs.model.peer import SERVICES
from pacs.settings import Settings

log = get_logger(__name__)

ARTIM_S = 15.0
"""How long a connection may take to ask for an association, or to close after we ended one (PS3.8 9.1.5)."""
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


def serve(archive: Archive, *, ready: Callable[[], None] | None = None, stop: threading.Event) -> None:
    """Serve until `stop` is set; then let open associations finish for `dicom.drain_s` seconds and abort the rest.

    Raises `ConfigurationError` where the port cannot be had.
    """
    server = listen(archive)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="dicom-listener", daemon=True)
    thread.start()
    host, port = server.server_address[:2]
    log.info("dicom_listening", host=host, port=port, ae_title=archive.settings.dicom.ae_title)
    try:
        if ready is not None:
            ready()
        stop.wait()
    finally:
        server.drain(archive.settings.dicom.drain_s)
        thread.join(5.0)
        log.info("dicom_stopped")


def listen(archive: Archive) -> "DicomServer":
    """Bind the port and return the server; its `serve_forever` accepts associations."""
    dicom = archive.settings.dicom
    ae = _Entity(ae_title=dicom.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_associations = dicom.maximum_associations
    ae.maximum_pdu_size = dicom.maximum_pdu_size
    ae.acse_timeout = ARTIM_S
    ae.dimse_timeout = dicom.idle_timeout_s
    ae.network_timeout = dicom.idle_timeout_s
    # pynetdicom wants to know at least one context; what counts is decided for each association in `_requested`.
    ae.add_supported_context(contexts.VERIFICATION)
    try:
        server = DicomServer(
            ae,
            (dicom.host, dicom.port),
            dicom.ae_title,
            ae.supported_contexts,
            evt_handlers=[(evt.EVT_REQUESTED, _requested), (evt.EVT_SOP_EXTENDED, _extended)],
            request_handler=_Handler,
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"DICOM port {dicom.port} is in use or not available on {dicom.host} ({reason}); "
            "stop the other program or set PACS_DICOM_PORT"
        ) from error
    server.open_to(archive)
    return server


class DicomServer(AssociationServer):
    """pynetdicom's listener with our associations behind it."""

    request_queue_size = 128
    archive: Archive
    budget: Budget

    def open_to(self, archive: Archive) -> None:
        """Tell the server whose door it is."""
        self.archive = archive
        limit = archive.settings.dicom.maximum_object_mb << 20
        self.object_limit = limit
        self.budget = Budget(2 * limit)
        self.open_to_all = is_loopback(archive.settings)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse connections that are far beyond the limit of associations; those just beyond it get a proper answer."""
        return len(self.active_associations) < 4 * self.ae.maximum_associations + 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with one connection; the others go on."""
        error = sys.exc_info()[1]
        if error is not None:
            log.exception("connection_failed", error)

    def service_actions(self) -> None:
        """Do nothing between connections (the library would collect garbage here)."""

    def drain(self, seconds: float) -> None:
        """Stop listening, wait for open associations, then abort those that are left."""
        super(AssociationServer, self).shutdown()
        self.server_close()
        deadline = time.monotonic() + seconds
        while self.active_associations and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.active_associations
        if left:
            log.warning("associations_aborted", count=len(left))
        for association in left:
            association.terminate()
        for association in left:
            association.join(3.0)


def is_loopback(settings: Settings) -> bool:
    """Say whether we listen on this machine only."""
    try:
        return ipaddress.ip_address(settings.dicom.host).is_loopback
    except ValueError:
        return settings.dicom.host == "localhost"


class _Entity(AE):
    """Counts an association from its request on: connections that say nothing take no place from those that do."""

    @property
    def active_associations(self) -> list[LaneAssociation]:
        return [one for one in super().active_associations if one.requestor.primitive is not None]


class _Handler(RequestHandler):
    """Makes our kind of association for a new connection."""

    server: DicomServer

    def _create_association(self) -> LaneAssociation:
        server = self.server
        association = LaneAssociation(self.ae, "acceptor", object_limit=server.object_limit, budget=server.budget)
        association._server = server
        # pynetdicom finds its acceptors by the name of their thread.
        association.name = f"AcceptorThread@{datetime.now():%Y%m%d%H%M%S}"
        association.association_id = str(uuid.uuid4())
        service = _Service(server.archive, association)
        association.serve, association.ended = service.serve, service.ended
        association.set_socket(LaneSocket(association, client_socket=self.request))
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
    bind(calling_ae_title=calling, address=association.requestor.address_info.address)
    reason = 0
    if primitive.application_context_name != APPLICATION_CONTEXT:
        reason = 2
    elif archive.settings.dicom.require_called_ae_title and called != archive.settings.dicom.ae_title.strip():
        reason = 7
    elif not server.open_to_all and archive.index.peers.get(calling) is None:
        reason = 3
    if reason:
        log.warning("association_rejected", called_ae_title=called, reason=reason)
        association.acse.send_reject(1, 1, reason)
        association.is_rejected = True
        association.kill()
        return
    association.acceptor.supported_contexts = contexts.supported(primitive.presentation_context_definition_list)


def _extended(event: Any) -> dict[str, bytes]:
    return contexts.extended({str(uid): bytes(value) for uid, value in event.app_info.items()})


class _Service:
    """What one association may do, and has done."""

    def __init__(self, archive: Archive, association: LaneAssociation) -> None:
        self._archive = archive
        self._association = association
        self._may: frozenset[str] | None = None
        self._originals = False
        self._stored = 0
        self._ended = False

    def serve(self, association: LaneAssociation, message: Message) -> None:
        """Answer one request."""
        command = message.command_field
        if command == Command.C_STORE_RQ:
            if storage.store(self._archive, association, message, allowed=self._allowed("store")):
                self._stored += 1
        elif command == Command.C_ECHO_RQ:
            # Verification is always answered 0000 (PS3.4 A.4).
            self._answer(message, status.SUCCESS)
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
        elif not command & 0x8000:
            self._answer(message, status.UNRECOGNIZED_OPERATION)

    def ended(self, association: LaneAssociation) -> None:
        """Say that nothing more will come through this association, and how it ended."""
        if self._ended:
            return
        self._ended = True
        evidence = "association released" if association.is_released else "association ended"
        log.info("association_closed", evidence=evidence, instances=self._stored)
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
            stranger = frozenset(SERVICES if self._association._server.open_to_all else ())
            self._may = peer.may if peer is not None else stranger
            self._originals = peer is not None and peer.identity == "original" and self._calls_from(peer.host)
        return service in self._may

    def _sees_originals(self) -> bool:
        """Say whether the caller is a peer marked so; asked after `_allowed`."""
        return self._originals

    def _calls_from(self, host: str) -> bool:
        """Say whether the association comes from `host`: an AE title alone is no proof of who calls."""
        try:
            known = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
        except OSError:
            known = set()
        if self._association.requestor.address_info.address in known:
            return True
        log.warning("original_identity_refused", reason="the address is not that of the peer")
        return False

    def _answer(self, message: Message, code: int) -> None:
        values: dict[int, int | str] = {messages.MESSAGE_ID_RESPONDED_TO: message.message_id, messages.STATUS: code}
        if message.sop_class_uid:
            values[messages.AFFECTED_SOP_CLASS_UID] = message.sop_class_uid
        self._association.dimse.send(message.context_id, messages.encode(message.command_field | 0x8000, values))
