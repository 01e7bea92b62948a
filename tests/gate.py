"""A gate before a server: what connects to its port reaches the server while it is open, and nobody while it is shut."""

import contextlib
import socket
import threading


class Gate:
    """Forwards loopback connections to a port; `shut` ends all of them and listens no more, `open` listens again."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._listener = _listen(0)
        self.port = int(self._listener.getsockname()[1])
        self._begin()

    def open(self) -> None:
        """Listen again, on the same port."""
        self._listener = _listen(self.port)
        self._begin()

    def shut(self) -> None:
        """End every connection, and refuse new ones."""
        _end(self._listener)
        with self._lock:
            ended, self._connections = self._connections, set()
        for one in ended:
            _end(one)

    def _begin(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to_port), 5)
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._connections |= {near, far}
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for one in (source, target):
            _end(one)
        with self._lock:
            self._connections -= {source, target}


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
