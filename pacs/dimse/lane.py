"""The association's data path: pynetdicom negotiates and keeps the state machine, these subclasses move the bytes.

pynetdicom 3.0.4 polls with sleeps, copies each fragment five times, queues without bounds and trusts every length;
docs/adr). Here the upper layer waits for events, P-DATA-TF goes straight into one buffer a message, sending blocks until the
peer takes it, and everything that a peer can make grow has a bound: a PDU, a command set, a data set, the data sets of all
associations together, waiting messages, and the time that a PDU may take. PS3.8 9.2 (states), 9.3.5 and Annex E (P-DATA-TF).
"""

import contextlib
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE
from pynetdicom.transport import AssociationSocket

from pacs.dimse import messages
from pacs.dimse.messages import Command, Message
from pacs.logs import get_logger
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Buffer

# The library logs identifiers and AE titles in its own words; our log lines come from here only.
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

log = get_logger(__name__)

ASSOCIATE_PDU_LIMIT = 1 << 20
COMMAND_LIMIT = 1 << 16
WAITING_LIMIT = 16
GOODBYE_S = 1.0
"""How long the other side may take to close after a reject, release or abort; a close with unread data would be a reset."""

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_PDU = struct.Struct(">BBI")
_PDV = struct.Struct(">IBB")
_P_DATA_HEADER = struct.Struct(">BBIIBB")


class AssociationLost(Exception):
    """The association ended (or its peer fell silent) in the middle of an operation."""


class Budget:
    """Bytes of data sets that all associations together may hold."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> bool:
        """Reserve; False if that is more than is left."""
        with self._lock:
            if self._used + size_bytes > self._limit:
                return False
            self._used += size_bytes
            return True

    def give(self, size_bytes: int) -> None:
        """Give a reservation back."""
        with self._lock:
            self._used -= size_bytes


class LaneSocket(AssociationSocket):
    """A socket with TCP_NODELAY, one writer at a time, and a deadline for every PDU."""

    def __init__(self, assoc: "LaneAssociation", client_socket: socket.socket | None = None, address: Any = None) -> None:
        self._write_lock = threading.Lock()
        super().__init__(assoc, client_socket=client_socket, address=address)
        if self.socket is not None:
            # Without it, Nagle and delayed acknowledgement stall every small message for 40 ms.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if client_socket is not None:
                self.socket.settimeout(assoc.network_timeout)

    def connect(self, primitive: Any) -> None:
        super().connect(primitive)
        if self.socket is not None:
            self.socket.settimeout(self.assoc.network_timeout)

    @property
    def ready(self) -> bool:
        connected = self.socket
        if connected is None or not self._is_connected:
            return False
        try:
            return connected in readable([connected], 0)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`; fewer where the peer closed. Raises TimeoutError when they take too long."""
        connected = self.socket
        if connected is None:
            return bytearray()
        deadline = None if self.assoc.network_timeout is None else time.monotonic() + self.assoc.network_timeout
        if _QUICK_ACK is not None:
            # Many senders leave Nagle's algorithm on: the end of each message then waits for our delayed acknowledgement
            # (DCMTK 3.6.7 storescu, 190 KB: 26 ms an instance without this). Linux forgets the option, so say it each time.
            connected.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        data = bytearray(nr_bytes)
        view, got = memoryview(data), 0
        while got < nr_bytes:
            count = connected.recv_into(view[got:])
            if count == 0:
                break
            got += count
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
        view.release()
        del data[got:]
        return data

    def send(self, bytestream: bytes) -> None:
        try:
            self.send_all([bytestream])
        except OSError:
            self.event_queue.put("Evt17")

    def send_all(self, buffers: Sequence[Buffer]) -> None:
        """Write `buffers` one after another, blocking until the peer's window took them. Raises OSError."""
        with self._write_lock:
            if self.socket is None:
                raise ConnectionError("the connection is closed")
            rest = [memoryview(buffer) for buffer in buffers]
            while rest:
                sent = self.socket.sendmsg(rest[:512])
                while rest and sent >= len(rest[0]):
                    sent -= len(rest[0])
                    rest.pop(0)
                if sent:
                    rest[0] = rest[0][sent:]


class LaneDul(DULServiceProvider):
    """pynetdicom's upper layer, woken by events instead of polling; P-DATA-TF bypasses its queues."""

    def __init__(self, assoc: "LaneAssociation") -> None:
        super().__init__(assoc)
        self.daemon = True
        self._kill_thread: bool = False
        self.to_user_queue = _Announcing(self._announced)
        self.rejected = False
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._closing_since: float | None = None

    def _announced(self, primitive: Any) -> None:
        """Wake the thread that waits for messages, for a release or an abort; remember a rejection.

        pynetdicom forgets a rejection that comes before it looked whether the connection stands.
        """
        if isinstance(primitive, A_RELEASE | A_ABORT | A_P_ABORT):
            self.assoc.dimse.msg_queue.put((None, None))
        elif isinstance(primitive, A_ASSOCIATE) and primitive.result:
            self.rejected = True

    def wake(self) -> None:
        """Make the reactor look at its queues."""
        # An error means that it is awake already (the buffer is full) or gone.
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def send_pdu(self, primitive: Any) -> None:
        super().send_pdu(primitive)
        self.wake()

    def kill_dul(self) -> None:
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        if self is not threading.current_thread():
            self.join()
        return True

    def run_reactor(self) -> None:
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        try:
            while not self._kill_thread:
                self._turn()
        except Exception as error:
            # Whatever broke, this association is over; the others must not notice.
            log.exception("upper_layer_failed", error)
            self.assoc.is_aborted = True
            self.assoc.is_established = False
            self.assoc._kill = True
            self._kill_thread = True
            self.state_machine.current_state = "Sta1"
            if self.socket is not None:
                self.socket._shutdown_socket()
        finally:
            # Whoever still waits for a message, or for the association request that never came, need not wait for a timer.
            self.assoc.dimse.msg_queue.put((None, None))
            self.to_user_queue.put(None)
            self._alarm.close()
            self._bell.close()

    def _turn(self) -> None:
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        if self.event_queue.empty() and not self._process_recv_primitive():
            self._wait()
            if self._kill_thread:
                return
            if self._is_transport_event():
                self._idle_timer.restart()
        try:
            event = self.event_queue.get(block=False)
        except queue.Empty:
            return
        self.state_machine.do_action(event)

    def _wait(self) -> None:
        sockets = [self._alarm]
        if self.socket is not None and self.socket.socket is not None and self.socket._is_connected:
            sockets.append(self.socket.socket)
        try:
            woken = readable(sockets, 0.5)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return
        if self._alarm in woken:
            with contextlib.suppress(OSError):
                self._alarm.recv(4096)

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state != "Sta13":
            return bool(super()._is_transport_event())
        # Waiting for the other side to close. What still comes is thrown away (PS3.8 9.2.3, AA-6 and AA-7).
        if self._closing_since is None:
            self._closing_since = time.monotonic()
        connection = self.socket
        over = time.monotonic() - self._closing_since > GOODBYE_S
        if connection.ready and not over:
            try:
                over = not connection.socket.recv(65536)
            except OSError:
                over = True
        if over or connection.socket is None:
            connection.close()
            return True
        return False

    def _read_pdu_data(self) -> None:
        try:
            head = self.socket.recv(6)
            if len(head) < 6:
                self.event_queue.put("Evt17")
                return
            kind, _, length = _PDU.unpack(head)
            if kind not in range(1, 8) or length > self._limit(kind):
                self.event_queue.put("Evt19")
                return
            body = self.socket.recv(length)
        except OSError:
            self.event_queue.put("Evt17")
            return
        if len(body) < length:
            self.event_queue.put("Evt17")
            return
        try:
            if kind == 4 and self.state_machine.current_state in ("Sta6", "Sta7"):
                self.assoc.dimse.take(body)
                return
            pdu, event = self._decode_pdu(head + body)
        except Exception:
            # Any failure to decode is the peer's doing: PS3.8 9.2.3, Evt19, invalid PDU.
            self.event_queue.put("Evt19")
            return
        self.event_queue.put(event)
        self._recv_pdu.put(pdu)

    def _limit(self, kind: int) -> int:
        if kind in (1, 2):
            return ASSOCIATE_PDU_LIMIT
        if kind != 4:
            return 1024
        ours = self.assoc.acceptor if self.assoc.is_acceptor else self.assoc.requestor
        # Some senders count the header in, some do not; twice what we said is nobody's rounding error.
        return 2 * ours.maximum_length + 65536 if ours.maximum_length else 1 << 26


class LaneDimse(DIMSEServiceProvider):
    """Fragments to messages and back, without a data set object in between."""

    def __init__(self, assoc: "LaneAssociation") -> None:
        super().__init__(assoc)
        self.cancelled: set[int] = set()
        self._command = bytearray()
        self._elements: dict[int, bytes] | None = None
        self._context_id = 0
        self._data = bytearray()
        self._too_large = False

    def take(self, body: bytearray) -> None:
        """Take the PDVs of one P-DATA-TF (PS3.8 9.3.5.1, E.2). Raises `NotUnderstood`, which aborts the association."""
        view = memoryview(body)
        offset = 0
        while offset < len(view):
            if offset + 6 > len(view):
                raise NotUnderstood("a PDV header is cut off")
            length, context_id, control = _PDV.unpack_from(view, offset)
            end = offset + 4 + length
            if length < 2 or end > len(view):
                raise NotUnderstood("a PDV has an impossible length")
            self._fragment(context_id, control, view[offset + 6 : end])
            offset = end

    def _fragment(self, context_id: int, control: int, value: memoryview) -> None:
        last = bool(control & 2)
        if control & 1:
            if self._elements is not None or len(self._command) + len(value) > COMMAND_LIMIT:
                raise NotUnderstood("a command within a data set, or without an end")
            self._command += value
            if last:
                self._elements = messages.decode(bytes(self._command))
                self._context_id = context_id
                self._command = bytearray()
                if self._number(messages.DATA_SET_TYPE) == messages.NO_DATA_SET:
                    self._deliver(None)
            return
        if self._elements is None or context_id != self._context_id:
            raise NotUnderstood("a data set without its command")
        if not self._too_large:
            if len(self._data) + len(value) > self.assoc.object_limit or not self.assoc.budget.take(len(value)):
                # Read on to the end so that the sender gets its answer; keep nothing.
                self.give_back(self._data)
                self._too_large, self._data = True, bytearray()
            else:
                self._data += value
        if last:
            self._deliver(self._data)

    def _number(self, element: int) -> int:
        assert self._elements is not None
        value = self._elements.get(element, b"")
        return int(struct.unpack("<H", value)[0]) if len(value) == 2 else messages.NO_DATA_SET

    def _deliver(self, data: bytearray | None) -> None:
        assert self._elements is not None
        message = Message(self._context_id, self._elements, data, self._too_large)
        self._elements, self._data, self._too_large = None, bytearray(), False
        if message.command_field == Command.C_CANCEL_RQ:
            if len(self.cancelled) < WAITING_LIMIT:
                self.cancelled.add(message.number(messages.MESSAGE_ID_RESPONDED_TO))
            return
        if self.msg_queue.qsize() >= WAITING_LIMIT:
            # We never accept asynchronous operations (PS3.7 D.3.3.3): a flood of requests is no dialogue.
            self.give_back(data)
            raise NotUnderstood("requests without waiting for answers")
        self.msg_queue.put((message.context_id, message))

    def give_back(self, data: Buffer | None) -> None:
        """Give the reservation of a data set back once it was dealt with."""
        if data is not None:
            self.assoc.budget.give(len(data))

    def drop_all(self) -> None:
        """Forget what the ended association left unfinished."""
        self.give_back(self._data)
        self._data = bytearray()
        while True:
            try:
                _, message = self.msg_queue.get_nowait()
            except queue.Empty:
                return
            if message is not None:
                self.give_back(message.data_set)

    def send(self, context_id: int, command: bytes, data_set: Sequence[Buffer] = ()) -> None:
        """Send a message; on return the operating system has it. Raises `AssociationLost`."""
        peer = self.assoc.requestor if self.assoc.is_acceptor else self.assoc.acceptor
        # Maximum length 0 means no limit (PS3.8 D.1). A fragment's length is even (PS3.8 E.2), its headers take 6 bytes.
        room = max(2, ((peer.maximum_length or 131072) - 6) & ~1)
        pending: list[Buffer] = []
        size = 0
        for part in _pdus(context_id, 1, [command], room):
            pending.extend(part)
        for part in _pdus(context_id, 0, data_set, room):
            pending.extend(part)
            size += room
            if size > 1 << 20:
                self._write(pending)
                pending, size = [], 0
        self._write(pending)

    def _write(self, buffers: list[Buffer]) -> None:
        if self.dul.state_machine.current_state not in ("Sta6", "Sta8"):
            raise AssociationLost("the association is not open")
        try:
            self.dul.socket.send_all(buffers)
        except OSError as error:
            self.dul.event_queue.put("Evt17")
            self.dul.wake()
            raise AssociationLost("the connection broke while sending") from error

    def receive(self, timeout_s: float | None) -> Message:
        """Return the next message. Raises `AssociationLost` if the association ends or nothing comes in time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                _, message = self.msg_queue.get(timeout=0.5)
            except queue.Empty:
                message = None
            if message is not None:
                return message
            if self.dul.state_machine.current_state != "Sta6" or not self.dul.is_alive():
                raise AssociationLost("the association ended")
            if deadline is not None and time.monotonic() > deadline:
                raise AssociationLost("no answer in time")


class LaneAssociation(Association):
    """An association whose requests go to `serve` (as acceptor), or which its owner drives itself (as requestor)."""

    def __init__(self, ae: Any, mode: str, *, object_limit: int, budget: Budget) -> None:
        super().__init__(ae, mode)
        network_timeout = self.network_timeout
        self.dul = LaneDul(self)
        self.dul.artim_timer.timeout = self.acse_timeout
        self.dul._idle_timer.timeout = network_timeout
        self.dimse = LaneDimse(self)
        self.object_limit = object_limit
        self.budget = budget
        self.is_established: bool = False
        self.association_id = ""
        self.serve: Callable[[LaneAssociation, Message], None] | None = None
        self.ended: Callable[[LaneAssociation], None] | None = None

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:
            self.dimse.drop_all()
            if self.ended is not None:
                self.ended(self)

    def _run_reactor(self) -> None:
        self._is_paused = False
        active = time.monotonic()
        while not self._kill:
            try:
                _, message = self.dimse.msg_queue.get(timeout=0.5)
            except queue.Empty:
                message = None
            if message is not None:
                self._serve_one(message)
                active = time.monotonic()
                continue
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released = True
                self.is_established = False
                self.kill()
            elif self.acse.is_aborted() or not self.dul.is_alive():
                self.dul.receive_pdu(wait=False)
                self.is_aborted = True
                self.is_established = False
                self.kill()
            elif (
                self.network_timeout is not None
                and self.dul.idle_timer_expired()
                and time.monotonic() - active > self.network_timeout
            ):
                log.info("association_idle", timeout_s=self.network_timeout)
                self.abort()

    def _serve_one(self, message: Message) -> None:
        assert self.serve is not None
        try:
            if message.context_id not in self._accepted_cx:
                # PS3.7 says nothing of a message in a context that was not accepted; nobody could read an answer.
                self.abort()
                return
            self.serve(self, message)
        except AssociationLost:
            pass
        except Exception as error:
            log.exception("request_failed", error, operation=f"{message.command_field:04X}")
            self.abort()
        finally:
            self.dimse.give_back(message.data_set)
            self.dimse.cancelled.discard(message.message_id)

    def release_and_wait(self) -> None:
        """Release as requestor; for associations that were never started as a thread."""
        if self.is_established:
            self.acse.negotiate_release()
        self.dimse.drop_all()

    def terminate(self) -> None:
        """End at once: abort, and break the connection where even that gets stuck."""
        connection = self.dul.socket
        if self.is_established:
            aborter = threading.Thread(target=self.abort, daemon=True)
            aborter.start()
            aborter.join(2.0)
        if connection is not None and connection.socket is not None:
            connection._shutdown_socket()


class _Announcing(queue.Queue):  # type: ignore[type-arg]
    """A queue that tells somebody else what was put."""

    def __init__(self, announce: Callable[[Any], None]) -> None:
        super().__init__()
        self._announce = announce

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._announce(item)


def _pdus(context_id: int, command: int, buffers: Sequence[Buffer], room: int) -> Iterator[list[Buffer]]:
    """Cut `buffers` into P-DATA-TF PDUs of one PDV each, without copying (PS3.8 9.3.5, E.2)."""
    left = sum(len(buffer) for buffer in buffers)
    sources = iter([memoryview(buffer).cast("B") for buffer in buffers if len(buffer)])
    current = memoryview(b"")
    while left:
        size = min(room, left)
        left -= size
        part: list[Buffer] = [_P_DATA_HEADER.pack(4, 0, size + 6, size + 2, context_id, command | (0 if left else 2))]
        while size:
            if not len(current):
                current = next(sources)
            piece = current[:size]
            current = current[len(piece) :]
            size -= len(piece)
            part.append(piece)
        yield part


def readable(sockets: Sequence[socket.socket], timeout_s: float) -> list[socket.socket]:
    """Return those of `sockets` that have something to read (or have ended); `select` alone stops at descriptor 1023."""
    if not hasattr(select, "poll"):
        return select.select(sockets, [], [], timeout_s)[0]
    poller = select.poll()
    by_number = {}
    for one in sockets:
        poller.register(one, select.POLLIN)
        by_number[one.fileno()] = one
    return [by_number[number] for number, _ in poller.poll(timeout_s * 1000)]
