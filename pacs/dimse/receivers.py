"""One process accepts connections, as many as there are cores receive: Python decodes on one core a process only.

The acceptor holds the ports and opens nothing of the archive; it hands each connection to the receiver that has the fewest
(`socket.send_fds`). Receivers are forked from it, each with a segment of its own, and end with it. One that dies is replaced;
what it had acknowledged is durable, and its senders see their associations break. Limits hold for all receivers together.
Linux only (`docs/adr/0018-one-receiver-a-core.md`); elsewhere one process does both, as `pacs.dimse.server.serve`.
"""

import contextlib
import ctypes
import fcntl
import gc
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from pacs import logs
from pacs.archive import Archive
from pacs.dimse import server
from pacs.dimse.lane import Budget
from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError
from pacs.settings import Settings

log = get_logger(__name__)

PLAIN, SECURED, ENDED, READY, REFUSED = b"p", b"t", b".", b"r", b"!"
_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 0.25
_LONGEST_REST_S = 30.0
_TEXT_BYTES = 2000


def wanted(settings: Settings) -> int:
    """Return how many receivers there should be: one a core unless settings say otherwise, one where forking is not safe."""
    if sys.platform != "linux":
        return 1
    return settings.dicom.receivers or len(os.sched_getaffinity(0))


class Board:
    """A few numbers that receivers share: one row a receiver, changed by it alone, added up under a lock of the file."""

    def __init__(self, columns: int, rows: int) -> None:
        self._columns, self._rows = columns, rows
        self._file = os.memfd_create("receivers")
        os.ftruncate(self._file, 8 * columns * rows)
        self._shared = mmap.mmap(self._file, 8 * columns * rows)
        self._numbers = memoryview(self._shared).cast("q")

    def budget(self, column: int, row: int, limit: int) -> "SharedBudget":
        """Return the budget of a column as receiver `row` uses it."""
        return SharedBudget(self, column, row, limit)

    def clear(self, row: int) -> None:
        """Give back what a receiver held that has died."""
        with self.locked():
            for column in range(self._columns):
                self._numbers[column * self._rows + row] = 0

    def total(self, column: int) -> int:
        """Return what all receivers hold of a column."""
        return sum(self._numbers[column * self._rows : (column + 1) * self._rows])

    def add(self, column: int, row: int, amount: int) -> None:
        """Change a number of one's own."""
        self._numbers[column * self._rows + row] += amount

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock that keeps other processes out; the kernel gives it back if we die."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


class SharedBudget(Budget):
    """A budget that several processes share."""

    def __init__(self, board: Board, column: int, row: int, limit: int) -> None:
        super().__init__(limit)
        self._board, self._column, self._row = board, column, row

    def take(self, amount: int) -> bool:
        """Reserve; False if that is more than all processes leave."""
        with self._lock, self._board.locked():
            if self._board.total(self._column) + amount > self._limit:
                return False
            self._board.add(self._column, self._row, amount)
            return True

    def give(self, amount: int) -> None:
        """Give a reservation back."""
        with self._lock:
            self._board.add(self._column, self._row, -amount)


@dataclass
class _Receiver:
    """A receiver as the acceptor sees it."""

    row: int
    channel: socket.socket | None = None
    pid: int = 0
    ready: bool = False
    connections: int = 0
    started: float = 0.0
    failures: int = 0
    due: float = 0.0
    refused: str = field(default="", repr=False)


def serve(settings: Settings, *, stop: threading.Event) -> None:
    """Accept connections and hand them to receivers until `stop` is set; then receivers drain, and end.

    Raises `ConfigurationError` where a port cannot be had, or the archive cannot be opened. The caller has no other thread.
    """
    _Acceptor(settings).run(stop)


class _Acceptor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        dicom = settings.dicom
        self._receivers = [_Receiver(row) for row in range(wanted(settings))]
        self._board = Board(1, len(self._receivers))
        self._listeners: dict[int, tuple[socket.socket, bytes]] = {}
        self._listen(dicom.port, dicom.tls, beside=False)
        if dicom.tls_port:
            self._listen(dicom.tls_port, True, beside=True)

    def run(self, stop: threading.Event) -> None:
        # What was imported so far is shared by all receivers; a collection in one of them should not copy it.
        gc.collect()
        gc.freeze()
        try:
            while not stop.is_set():
                for one in self._receivers:
                    if one.channel is None and time.monotonic() >= one.due:
                        self._start(one)
                self._turn()
        finally:
            self._end()

    def _listen(self, port: int, secured: bool, *, beside: bool) -> None:
        host = self._settings.dicom.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise server.port_refused(host, port, error, secured=beside) from error
        listener.setblocking(False)
        self._listeners[listener.fileno()] = (listener, SECURED if beside else PLAIN)
        kind = "tls" if secured else "plain"
        ae_title, port = self._settings.dicom.ae_title, listener.getsockname()[1]
        log.info("dicom_listening", host=host, port=port, ae_title=ae_title, kind=kind, count=len(self._receivers))

    def _turn(self) -> None:
        """Wait for a connection or for word of a receiver, and deal with it."""
        channels = {one.channel.fileno(): one for one in self._receivers if one.channel is not None}
        poller = select.poll()
        for number in channels:
            poller.register(number, select.POLLIN)
        if any(one.ready for one in self._receivers):
            for number in self._listeners:
                poller.register(number, select.POLLIN)
        for number, _ in poller.poll(_LOOK_EVERY_S * 1000):
            if number in channels:
                self._hear(channels[number])
            else:
                self._accept(*self._listeners[number])

    def _accept(self, listener: socket.socket, kind: bytes) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # gone again
        with connection:
            ready = [one for one in self._receivers if one.ready]
            if sum(one.connections for one in ready) >= server.connection_limit(self._settings):
                return
            for one in sorted(ready, key=lambda one: one.connections):
                assert one.channel is not None
                with contextlib.suppress(OSError):
                    socket.send_fds(one.channel, [kind], [connection.fileno()])
                    one.connections += 1
                    return

    def _hear(self, one: _Receiver) -> None:
        assert one.channel is not None
        try:
            said = one.channel.recv(4096)
        except OSError:
            said = b""
        if not said:
            self._ended(one)
        elif said[:1] == REFUSED:
            one.refused = said[1:].decode()
        elif said == READY:
            one.ready = True
            log.info("receiver_started", process=_name(one.row), pid=one.pid)
        else:
            one.connections -= 1

    def _start(self, one: _Receiver) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        one.started, one.connections, one.ready = time.monotonic(), 0, False
        one.pid = os.fork()
        if one.pid == 0:
            ours.close()
            self._become(one, theirs, parent)
        theirs.close()
        one.channel = ours

    def _ended(self, one: _Receiver) -> None:
        """A receiver has gone: give back what it held, and plan the next."""
        assert one.channel is not None
        one.channel.close()
        one.channel, one.ready = None, False
        _, status = os.waitpid(one.pid, 0)
        self._board.clear(one.row)
        if one.refused:
            raise ConfigurationError(one.refused)
        rest_s = 0.0 if time.monotonic() - one.started > 60 else min(_LONGEST_REST_S, 2.0**one.failures / 4)
        one.failures = one.failures + 1 if rest_s else 1
        one.due = time.monotonic() + rest_s
        code = os.waitstatus_to_exitcode(status)
        log.warning("receiver_ended", process=_name(one.row), exit_code=code, retry_in_s=rest_s)

    def _end(self) -> None:
        for listener, _ in self._listeners.values():
            listener.close()
        alive = [one for one in self._receivers if one.channel is not None]
        for one in alive:
            os.kill(one.pid, signal.SIGTERM)
        deadline = time.monotonic() + self._settings.dicom.drain_s + 4.0
        while alive and time.monotonic() < deadline:
            alive = [one for one in alive if os.waitpid(one.pid, os.WNOHANG)[0] == 0]
            time.sleep(0.05)
        for one in alive:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        log.info("dicom_stopped")

    def _become(self, one: _Receiver, channel: socket.socket, parent: int) -> NoReturn:
        """Be the receiver, in the forked process, to its end."""
        code = 1
        try:
            stop = threading.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            for listener, _ in self._listeners.values():
                listener.close()
            for other in self._receivers:
                if other.channel is not None:
                    other.channel.close()
            logs.configure(self._settings.logs.level, _name(one.row))
            _receive(self._settings, self._board, one.row, channel, stop)
            code = 0
        except ConfigurationError as error:
            channel.send(REFUSED + str(error).encode()[:_TEXT_BYTES])
        except BaseException as error:
            log.exception("receiver_failed", error)
        finally:
            sys.stderr.flush()
            os._exit(code)


def _name(row: int) -> str:
    """Return a receiver's name, which is that of its segments too."""
    return f"scp-{row + 1}" if row else "scp"


def _receive(settings: Settings, board: Board, row: int, channel: socket.socket, stop: threading.Event) -> None:
    """Serve the connections that come through `channel`, until `stop` is set or the acceptor has gone."""
    dicom = settings.dicom
    with Archive.opened(settings, writer=_name(row), share=wanted(settings)) as archive, contextlib.ExitStack() as stack:
        places = board.budget(0, row, dicom.maximum_associations)
        plain = server.fed(archive, places, secured=dicom.tls, beside=None)
        servers = {PLAIN: plain}
        if dicom.tls_port:
            servers[SECURED] = server.fed(archive, places, secured=True, beside=plain)
        stack.callback(server.drain, list(servers.values()), dicom.drain_s)
        if row == 0:
            server.report(archive, plain.desk, stop, stack)

        def ended() -> None:
            # The acceptor may have gone already; then nobody counts.
            with contextlib.suppress(OSError):
                channel.send(ENDED)

        channel.settimeout(_LOOK_EVERY_S)
        channel.send(READY)
        while not stop.is_set():
            try:
                said, descriptors, _, _ = socket.recv_fds(channel, 16, 4)
            except TimeoutError:
                continue
            if not said:
                return
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(True)
                servers[said].receive(connection, ended)
