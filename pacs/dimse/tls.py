"""TLS under an association (PS3.15 B.9 to B.12, BCP 195): contexts from the settings, and a connection two threads may use.

An association reads in one thread and writes in another, and an OpenSSL connection stands only one at a time; so the socket
never blocks inside OpenSSL: each call is short and under a lock, and whoever has to wait does so outside. What was decrypted
ahead is kept here, because the descriptor says nothing of it, and a descriptor may be readable without a byte for us (session
tickets of TLS 1.3).
"""

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pacs.model.errors import ConfigurationError
from pacs.model.instance import Buffer
from pacs.model.peer import Peer
from pacs.settings import DicomSettings

T = TypeVar("T")

# RFC 9325 4.2 (BCP 195): forward secrecy and authenticated encryption; TLS 1.3 has nothing else and chooses for itself.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_READ_AHEAD = 1 << 16
_AT_ONCE = 1 << 18


def server_context(settings: DicomSettings) -> ssl.SSLContext:
    """Return what we show to those who call us. Raises `ConfigurationError`."""
    if not settings.tls_certificate or not settings.tls_key:
        raise ConfigurationError("TLS needs dicom.tls_certificate and dicom.tls_key")
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    if settings.tls_require_certificate:
        if not settings.tls_ca:
            raise ConfigurationError(
                "TLS needs dicom.tls_ca to know the certificates of callers by; or set dicom.tls_require_certificate = false"
            )
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: DicomSettings) -> ssl.SSLContext:
    """Return what we call others with; their certificate must be signed by `dicom.tls_ca`. Raises `ConfigurationError`."""
    if not settings.tls_ca:
        raise ConfigurationError("calling a peer over TLS needs dicom.tls_ca, which says whose certificates count")
    return _context(ssl.PROTOCOL_TLS_CLIENT, settings)


def for_peer(settings: DicomSettings, peer: Peer) -> ssl.SSLContext | None:
    """Return what we call a peer with; None where it is called plainly. Raises `ConfigurationError`."""
    return client_context(settings) if "tls" in peer.options else None


def _context(protocol: int, settings: DicomSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        if settings.tls_certificate:
            context.load_cert_chain(Path(settings.tls_certificate), Path(settings.tls_key) if settings.tls_key else None)
        if settings.tls_ca:
            context.load_verify_locations(Path(settings.tls_ca))
    except (OSError, ValueError) as error:
        # An SSLError is an OSError; its text names files and reasons of OpenSSL, nothing of ours that is secret.
        raise ConfigurationError(
            "dicom.tls_certificate, dicom.tls_key or dicom.tls_ca cannot be used "
            f"({getattr(error, 'reason', None) or getattr(error, 'strerror', None) or type(error).__name__})"
        ) from error
    return context


class TlsConnection:
    """A TLS connection with the face of a socket, as far as an association looks at it. Safe for a reader and a writer."""

    def __init__(self, secured: ssl.SSLSocket) -> None:
        secured.setblocking(False)
        self._secured = secured
        self._lock = threading.Lock()
        self._timeout_s: float | None = None
        self._ahead = memoryview(b"")
        self._ended = False

    @classmethod
    def accepted(cls, connection: socket.socket, context: ssl.SSLContext) -> "TlsConnection":
        """Take a TCP connection over; the handshake is still to come (`handshake`), so that it holds nobody up."""
        return cls(context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False))

    def handshake(self, timeout_s: float | None) -> None:
        """Agree on keys. Raises OSError where that fails or takes too long."""
        self._wait_for(self._secured.do_handshake, timeout_s)

    @property
    def ready(self) -> bool:
        """Whether there is something to read, or nothing will come any more. Raises OSError for a broken connection."""
        if self._ahead or self._ended:
            return True
        with self._lock:
            try:
                data = self._secured.recv(_READ_AHEAD)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
        self._ahead, self._ended = memoryview(data), not data
        return True

    @property
    def waits(self) -> bool:
        """Whether decrypted bytes lie here, of which the descriptor knows nothing."""
        with self._lock:
            return bool(self._ahead) or self._secured.pending() > 0

    def recv_into(self, buffer: memoryview) -> int:
        """Read into `buffer`; 0 at the end. Raises TimeoutError."""
        if not self._ahead:
            return 0 if self._ended else self._wait_for(lambda: self._secured.recv_into(buffer), self._timeout_s)
        count = min(len(buffer), len(self._ahead))
        buffer[:count] = self._ahead[:count]
        self._ahead = self._ahead[count:]
        return count

    def recv(self, size: int) -> bytes:
        """Read at most `size` bytes; none at the end. Raises TimeoutError."""
        data = bytearray(size)
        return bytes(data[: self.recv_into(memoryview(data))])

    def sendmsg(self, buffers: Sequence[Buffer]) -> int:
        """Write some of `buffers`; returns how many bytes. Raises TimeoutError."""
        chosen: list[Buffer] = []
        size = 0
        for one in buffers:
            if size and size + len(one) > _AT_ONCE:
                break
            chosen.append(one)
            size += len(one)
        data = b"".join(chosen)
        # OpenSSL wants the same bytes again when it could not write at once; so they stay until it has taken some.
        return self._wait_for(lambda: self._secured.send(data), self._timeout_s)

    def settimeout(self, timeout_s: float | None) -> None:
        """Say how long reading and writing may take."""
        self._timeout_s = timeout_s

    def setsockopt(self, *arguments: Any) -> None:
        self._secured.setsockopt(*arguments)

    def getsockname(self) -> Any:
        return self._secured.getsockname()

    def fileno(self) -> int:
        return self._secured.fileno()

    def shutdown(self, how: int) -> None:
        """End the TCP connection under it; the other side learns that no more comes (PS3.8 has its own goodbye)."""
        self._secured.shutdown(how)

    def close(self) -> None:
        self._secured.close()

    def _wait_for(self, call: Callable[[], T], timeout_s: float | None) -> T:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._lock:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    event = select.POLLIN
                except ssl.SSLWantWriteError:
                    event = select.POLLOUT
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            descriptor = self._secured.fileno()
            if descriptor < 0:
                raise ConnectionError("the connection is closed")
            poller = select.poll()
            poller.register(descriptor, event)
            # A reader and a writer may wait for each other's bytes: look again now and then.
            poller.poll(250.0 if left is None else min(250.0, left * 1000))
