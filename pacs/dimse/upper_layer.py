"""The upper layer of an association: pynetdicom's state machine, woken by events, with a bound for everything that is read.

pynetdicom 3.0.4 polls its socket and its queues with sleeps, reads 4 KiB at a time, and trusts every length. Here the reactor
waits for the socket or for a bell, a PDU has a largest length and a deadline, and P-DATA-TF goes to `lane` without passing
through PDU objects. States, events and timers stay pynetdicom's: PS3.8 9.2.
"""

import contextlib
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pynetdicom import _config
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE
from pynetdicom.transport import AddressInformation, AssociationSocket

from pacs.dimse.tls import TlsConnection
from pacs.logs import get_logger
from pacs.model.instance import Buffer

if TYPE_CHECKING:
    from pacs.dimse.lane import LaneAssociation

# The library logs identifiers and AE titles in its own words; our log lines come from here only.
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

log = get_logger(__name__)

ASSOCIATE_PDU_LIMIT = 1 << 20
GOODBYE_S = 1.0
"""How long the other side may take to close after a reject, release or abort; a close with unread data would be a reset."""

Connection = socket.socket | TlsConnection

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_PDU = struct.Struct(">BBI")


class LaneSocket(AssociationSocket):
    """A socket with TCP_NODELAY, one writer at a time, and a deadline for every PDU."""

    socket: Any

    def __init__(
        self, assoc: "LaneAssociation", client_socket: socket.socket | TlsConnection | None = None, address: Any = None
    ) -> None:
        self._write_lock = threading.Lock()
        super().__init__(assoc, client_socket=client_socket, address=address)
        if self.socket is not None:
            # Without it, Nagle and delayed acknowledgement stall every small message for 40 ms.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if client_socket is not None:
                self.socket.settimeout(assoc.network_timeout)

    def connect(self, primitive: Any) -> None:
        """Reach the peer, and agree on keys where TLS is asked for; why it failed is kept as the association's `failure`.

        pynetdicom's own way tells nobody, and cannot tell a port where nobody listens from keys that were refused.
        """
        primitive.result = "Evt17"
        try:
            self.socket.settimeout(self.assoc.connection_timeout)
            self.socket.connect(primitive.address_info.as_tuple)
            if self.tls_args:
                context, host = self.tls_args
                self.socket = TlsConnection(context.wrap_socket(self.socket, server_hostname=host))
            self.socket.settimeout(self.assoc.network_timeout)
            self.assoc.requestor.address_info = AddressInformation.from_tuple(self.socket.getsockname())
            self._is_connected = self.assoc.reached = True
            primitive.result = "Evt2"
        except OSError as error:
            self.assoc.failure = error
            self.socket.close()
            self.socket = None
        finally:
            self.provider_queue.put(primitive)
            self._ready.set()

    @property
    def ready(self) -> bool:
        connected = self.socket
        if connected is None or not self._is_connected:
            return False
        try:
            if isinstance(connected, TlsConnection):
                return connected.ready
            return connected in readable([connected], 0)
        except (OSError, ValueError) as error:
            self.assoc.failure = error
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
        self.rejection: A_ASSOCIATE | None = None
        self.broken_off = False
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._closing_since: float | None = None

    def _announced(self, primitive: Any) -> None:
        """Wake the thread that waits for messages, for a release or an abort; remember a rejection and an abort.

        pynetdicom forgets a rejection that comes before it looked whether the connection stands.
        """
        if isinstance(primitive, A_RELEASE | A_ABORT | A_P_ABORT):
            self.broken_off |= not isinstance(primitive, A_RELEASE)
            self.assoc.dimse.msg_queue.put((None, None))
        elif isinstance(primitive, A_ASSOCIATE) and primitive.result:
            self.rejection = primitive

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
            self._shake_hands()
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

    def _shake_hands(self) -> None:
        """Agree on keys with a caller, in this thread: it holds up its own association only."""
        connection = self.socket.socket if self.socket is not None else None
        if isinstance(connection, TlsConnection):
            try:
                connection.handshake(self.assoc.acse_timeout)
            except OSError as error:
                log.warning("tls_refused", error=type(error).__name__)
                self.socket.close()

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
        sockets: list[Connection] = [self._alarm]
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
        except OSError as error:
            self.assoc.failure = error
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


class _Announcing(queue.Queue):  # type: ignore[type-arg]
    """A queue that tells somebody else what was put."""

    def __init__(self, announce: Callable[[Any], None]) -> None:
        super().__init__()
        self._announce = announce

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._announce(item)


def readable(sockets: Sequence[Connection], timeout_s: float) -> list[Connection]:
    """Return those of `sockets` that have something to read (or have ended); `select` alone stops at descriptor 1023."""
    waiting: list[Connection] = [one for one in sockets if isinstance(one, TlsConnection) and one.waits]
    if waiting:
        return waiting
    if not hasattr(select, "poll"):
        return select.select(sockets, [], [], timeout_s)[0]
    poller = select.poll()
    by_number = {}
    for one in sockets:
        poller.register(one, select.POLLIN)
        by_number[one.fileno()] = one
    return [by_number[number] for number, _ in poller.poll(timeout_s * 1000)]
