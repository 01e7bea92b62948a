"""The association's data path: pynetdicom negotiates and keeps the state machine, these subclasses move the messages.

P-DATA-TF goes straight into one buffer a message, sending blocks until the peer takes it, and everything that a peer can make
grow has a bound: a command set, a data set, the data sets of all associations together, waiting messages. A data set is never
decoded here. PS3.7 6.3, PS3.8 9.3.5 and Annex E (P-DATA-TF).
"""

import queue
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider

from pacs.dimse import messages
from pacs.dimse.messages import Command, Message
from pacs.dimse.upper_layer import LaneDul
from pacs.logs import get_logger
from pacs.model.bulk import Buffer, Content
from pacs.model.errors import ArchiveError, NotUnderstood, OutOfResources, Unavailable
from pacs.store.scratch import Arriving, Intake, ScratchFile

log = get_logger(__name__)

COMMAND_LIMIT = 1 << 16
IDENTIFIER_LIMIT = 1 << 23
WAITING_LIMIT = 16

_PDV = struct.Struct(">IBB")
_P_DATA_HEADER = struct.Struct(">BBIIBB")


class AssociationLost(Exception):
    """The association ended (or its peer fell silent) in the middle of an operation."""


class Budget:
    """What all associations together may hold."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    def take(self, amount: int) -> bool:
        """Reserve; False if that is more than is left."""
        with self._lock:
            if self._used + amount > self._limit:
                return False
            self._used += amount
            return True

    def give(self, amount: int) -> None:
        """Give a reservation back."""
        with self._lock:
            self._used -= amount


class LaneDimse(DIMSEServiceProvider):
    """Fragments to messages and back, without a data set object in between."""

    def __init__(self, assoc: "LaneAssociation") -> None:
        super().__init__(assoc)
        self.cancelled: set[int] = set()
        self._command = bytearray()
        self._elements: dict[int, bytes] | None = None
        self._context_id = 0
        self._data = Arriving(assoc.intake)
        self._refused: ArchiveError | None = None
        self.answered: Callable[[bytes], None] | None = None
        """Is told each command set that goes out, to count the statuses of our answers."""

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
        if self._refused is None:
            # Only what a C-STORE brings may be large: an identifier is parsed in memory.
            limit = self.assoc.object_limit if self._is_storing else min(self.assoc.object_limit, IDENTIFIER_LIMIT)
            if len(self._data) + len(value) > limit:
                self._refuse(OutOfResources("the data set is larger than this archive takes"))
            else:
                try:
                    self._data += value
                except Unavailable as error:
                    self._refuse(error)
        if last:
            self._deliver(self._data.content())

    def _refuse(self, error: Unavailable) -> None:
        """Read on to the end so that the sender gets its answer; keep nothing."""
        self._data.clear()
        self._refused = error

    @property
    def _is_storing(self) -> bool:
        return self._number(messages.COMMAND_FIELD) == Command.C_STORE_RQ

    def _number(self, element: int) -> int:
        assert self._elements is not None
        value = self._elements.get(element, b"")
        return int(struct.unpack("<H", value)[0]) if len(value) == 2 else messages.NO_DATA_SET

    def _deliver(self, data: bytes | bytearray | ScratchFile | None) -> None:
        assert self._elements is not None
        if isinstance(data, ScratchFile) and not self._is_storing:
            spilled, data = data, bytes(data.read(0, len(data)))
            spilled.close()
        message = Message(self._context_id, self._elements, data, self._refused)
        self._elements, self._refused = None, None
        if message.command_field == Command.C_CANCEL_RQ:
            if len(self.cancelled) < WAITING_LIMIT:
                self.cancelled.add(message.number(messages.MESSAGE_ID_RESPONDED_TO))
            self.give_back(data)
            return
        if self.msg_queue.qsize() >= WAITING_LIMIT:
            # We never accept asynchronous operations (PS3.7 D.3.3.3): a flood of requests is no dialogue.
            self.give_back(data)
            raise NotUnderstood("requests without waiting for answers")
        self.msg_queue.put((message.context_id, message))

    def give_back(self, data: Content | None) -> None:
        """Give the room of a data set back once it was dealt with."""
        self.assoc.intake.release(data)

    def drop_all(self) -> None:
        """Forget what the ended association left unfinished."""
        self._data.clear()
        while True:
            try:
                _, message = self.msg_queue.get_nowait()
            except queue.Empty:
                return
            if message is not None:
                self.give_back(message.content)

    def send(self, context_id: int, command: bytes, data_set: Iterable[Buffer] = ()) -> int:
        """Send a message; on return the operating system has it. Returns about how many bytes it had.

        Raises `AssociationLost`, also, after an abort, where a data set that is made meanwhile cannot be made to its end.
        """
        if self.answered is not None:
            self.answered(command)
        peer = self.assoc.requestor if self.assoc.is_acceptor else self.assoc.acceptor
        # Maximum length 0 means no limit (PS3.8 D.1). A fragment's length is even (PS3.8 E.2), its headers take 6 bytes.
        room = max(2, ((peer.maximum_length or 131072) - 6) & ~1)
        pending: list[Buffer] = []
        size = written = 0
        for part in _pdus(context_id, 1, [command], room):
            pending.extend(part)
        try:
            for part in _all_pdus(context_id, data_set, room):
                pending.extend(part)
                size += room
                if size > 1 << 20:
                    self._write(pending)
                    written += size
                    pending, size = [], 0
        except AssociationLost:
            raise
        except Exception as error:
            if not written:
                raise
            # Half a message cannot be taken back, and nothing else may follow it.
            log.exception("sending_failed", error)
            self.assoc.abort()
            raise AssociationLost("a data set could not be made to its end") from error
        self._write(pending)
        return written + size

    def _write(self, buffers: list[Buffer]) -> None:
        if self.dul.state_machine.current_state not in ("Sta6", "Sta8"):
            raise AssociationLost("the association is not open")
        try:
            self.dul.socket.send_all(buffers)
        except OSError as error:
            self.dul.event_queue.put("Evt17")
            self.dul.wake()
            raise AssociationLost("the connection broke while sending") from error

    def receive(self, timeout_s: float | None, meanwhile: Callable[[], None] | None = None) -> Message:
        """Return the next message. Raises `AssociationLost` if the association ends or nothing comes in time.

        `meanwhile` is called about twice a second for as long as nothing comes.
        """
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
            if meanwhile is not None:
                meanwhile()


class LaneAssociation(Association):
    """An association whose requests go to `serve` (as acceptor), or which its owner drives itself (as requestor)."""

    def __init__(self, ae: Any, mode: str, *, object_limit: int, intake: Intake) -> None:
        super().__init__(ae, mode)
        network_timeout = self.network_timeout
        self.dul = LaneDul(self)
        self.dul.artim_timer.timeout = self.acse_timeout
        self.dul._idle_timer.timeout = network_timeout
        self.object_limit = object_limit
        self.intake = intake
        self.dimse = LaneDimse(self)
        self.is_established: bool = False
        self.association_id = ""
        self.reached = False
        self.failure: Exception | None = None
        self.ways: dict[tuple[str, bool], dict[str, int]] = {}
        self.serve: Callable[[LaneAssociation, Message], None] | None = None
        self.ended: Callable[[LaneAssociation], None] | None = None
        self.over: Callable[[], None] | None = None
        self._places: Budget | None = None

    def take_place(self, places: Budget) -> bool:
        """Count this association among those that are served, until it is over; False where there is no place."""
        if not places.take(1):
            return False
        self._places = places
        return True

    def run(self) -> None:
        try:
            super().run()
        finally:
            if self._places is not None:
                self._places.give(1)
            if self.over is not None:
                self.over()

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
            self.dimse.give_back(message.content)
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


def _all_pdus(context_id: int, data_set: Iterable[Buffer], room: int) -> Iterator[list[Buffer]]:
    if isinstance(data_set, Sequence):
        return _pdus(context_id, 0, data_set, room)
    return _stream_pdus(context_id, data_set, room)


def _stream_pdus(context_id: int, buffers: Iterable[Buffer], room: int) -> Iterator[list[Buffer]]:
    """Do the same with buffers that are made while they are sent: which is the last shows at the end."""
    held: list[Buffer] = []
    size = 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        while len(view):
            if size == room:
                yield [_P_DATA_HEADER.pack(4, 0, size + 6, size + 2, context_id, 0), *held]
                held, size = [], 0
            piece = view[: room - size]
            held.append(piece)
            size += len(piece)
            view = view[len(piece) :]
    yield [_P_DATA_HEADER.pack(4, 0, size + 6, size + 2, context_id, 2), *held]
