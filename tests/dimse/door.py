"""A real archive behind a real DIMSE door on a loopback port, and what talks to it."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import making
import pausing
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    ServiceParameter,
)
from pynetdicom.presentation import build_context

from pacs.archive import Archive
from pacs.dicom import elements, values
from pacs.dicom.dictionary import tag_of, vr_of
from pacs.dimse import encoding, messages, requestor, scu, server
from pacs.dimse.lane import LaneAssociation
from pacs.dimse.messages import Command, Message
from pacs.model.instance import Stored
from pacs.model.query import Level, Query


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


def associate_bytes(
    called: str = "MINIPACS",
    *,
    calling: str = "RAW",
    abstract_syntax: str = "1.2.840.10008.1.1",
    context_name: str = "",
    items: Sequence[ServiceParameter] = (),
) -> bytes:
    """Return an A-ASSOCIATE-RQ PDU proposing one presentation context."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = calling, called
    context = build_context(abstract_syntax)
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3"
    request.user_information = [length, implementation, *items]
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
    association = pausing.associate(ae, "127.0.0.1", port, ae_title="MINIPACS")
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


def stored(door: Door, *data_sets: Dataset, transfer_syntax_uid: str = "1.2.840.10008.1.2.1") -> list[int]:
    """Send data sets over one association; returns their statuses."""
    classes = sorted({str(ds.SOPClassUID) for ds in data_sets})
    with scu._open(
        "127.0.0.1", door.port, "MINIPACS", "MODALITY", [(one, (transfer_syntax_uid,)) for one in classes], 20
    ) as association:
        return [
            requestor.store(
                association,
                1 + 2 * classes.index(str(ds.SOPClassUID)),
                sop_class_uid=str(ds.SOPClassUID),
                sop_instance_uid=str(ds.SOPInstanceUID),
                data_set=[making.encode(ds, transfer_syntax_uid)],
                message_id=number + 1,
            )
            for number, ds in enumerate(data_sets)
        ]


def ask(
    association: LaneAssociation,
    command: Command,
    sop_class_uid: str,
    keys: Mapping[str, str],
    *,
    destination: str = "",
    priority: int = 0,
    message_id: int = 1,
) -> None:
    """Send a C-FIND, C-MOVE or C-GET request in the association's first context."""
    rows = sorted((tag_of(keyword), vr_of(tag_of(keyword)), value.encode()) for keyword, value in keys.items())
    context_id, syntax = scu._context(association, sop_class_uid)
    asked: dict[int, int | str] = {
        messages.AFFECTED_SOP_CLASS_UID: sop_class_uid,
        messages.MESSAGE_ID: message_id,
        messages.PRIORITY: priority,
    }
    if destination:
        asked[messages.MOVE_DESTINATION] = destination
    body = encoding.encode(rows, explicit=syntax != "1.2.840.10008.1.2")
    association.dimse.send(context_id, messages.encode(command, asked, data_set=True), [body])


def answers(
    door: Door,
    command: Command,
    sop_class_uid: str,
    keys: Mapping[str, str],
    *,
    destination: str = "",
    priority: int = 0,
    calling: str = "ASKER",
) -> list[Message]:
    """Ask and return all responses, the final one last."""
    proposals = [(sop_class_uid, ("1.2.840.10008.1.2.1",))]
    with scu._open("127.0.0.1", door.port, "MINIPACS", calling, proposals, 20) as association:
        ask(association, command, sop_class_uid, keys, destination=destination, priority=priority)
        found = [association.dimse.receive(20)]
        while found[-1].status >> 8 == 0xFF:
            found.append(association.dimse.receive(20))
        return found


def read(message: Message) -> dict[str, str]:
    """Return a response's identifier as keyword -> value."""
    return values.attributes(elements.read(message.data_set or b"", "1.2.840.10008.1.2.1"))


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait until `true()`; False if it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


def held(archive: Archive, *, include_held: bool = False) -> list[Stored]:
    """Return every instance the archive holds, in the order of its studies, series and instance numbers."""
    studies = [row["StudyInstanceUID"] for row in archive.index.search(Query(Level.STUDY), include_held=include_held)]
    return archive.index.locate(study_instance_uids=studies, include_held=include_held)
