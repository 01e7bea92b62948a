"""A real archive behind a real DIMSE door on a loopback port, and what talks to it."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from pacs.archive import Archive
from pacs.dimse import server


@dataclass
class Door:
    """An open door: connect to `port` and call `MINIPACS`."""

    archive: Archive
    server: server.DicomServer
    port: int


@contextmanager
def opened(archive: Archive) -> Iterator[Door]:
    """Open a door for an archive and close it again."""
    listening = server.listen(archive)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Door(archive, listening, listening.server_address[1])
    finally:
        listening.drain(2.0)
        thread.join(5.0)


def associate_bytes(called: str = "MINIPACS", *, abstract_syntax: str = "1.2.840.10008.1.1", context_name: str = "") -> bytes:
    """Return an A-ASSOCIATE-RQ PDU proposing one presentation context."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "RAW", called
    context = build_context(abstract_syntax)
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3"
    request.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    encoded: bytes = pdu.encode()
    if context_name:
        encoded = encoded.replace(b"1.2.840.10008.3.1.1.1", context_name.encode().ljust(21, b"1"))
    return encoded


def raw(port: int, *, associate: bool = True, abstract_syntax: str = "1.2.840.10008.1.1") -> socket.socket:
    """Return a bare TCP connection to the door, with an association on it or not."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    if associate:
        connection.sendall(associate_bytes(abstract_syntax=abstract_syntax))
        assert read_pdu(connection)[0] == 2
    return connection


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Return type and body of the next PDU; type 0 where the connection ended."""
    head = _exactly(connection, 6)
    if len(head) < 6:
        return 0, b""
    kind, _, length = struct.unpack(">BBI", head)
    return kind, _exactly(connection, length)


def p_data(context_id: int, control: int, payload: bytes) -> bytes:
    """Return a P-DATA-TF PDU of one PDV."""
    return struct.pack(">BBIIBB", 4, 0, len(payload) + 6, len(payload) + 2, context_id, control) + payload


def echo(port: int, *, calling: str = "PROBE") -> int:
    """Verify the door with pynetdicom; returns the status, -1 where there was no association."""
    ae = AE(ae_title=calling)
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", port, ae_title="MINIPACS")
    if not association.is_established:
        return -1
    status = association.send_c_echo()
    association.release()
    return int(status.Status)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            piece = connection.recv(size - len(data))
        except ConnectionError:
            return data
        if not piece:
            return data
        data += piece
    return data
