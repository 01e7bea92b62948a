"""Why an association does not come about, in words that say where to look (PS3.8 Table 9-21)."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import making
import pytest
from certificates import Authority
from pynetdicom import AE, evt
from serving import free_port

from pacs.dimse import requestor, scu, tls

VERIFICATION = "1.2.840.10008.1.1"


@contextmanager
def listening(
    change: Callable[[AE], Any] = lambda ae: None, classes: tuple[str, ...] = (VERIFICATION,), **how: Any
) -> Iterator[int]:
    """A pynetdicom server; yields its port."""
    ae = AE(ae_title="OTHER")
    for uid in classes:
        ae.add_supported_context(uid)
    change(ae)
    server = ae.start_server(("127.0.0.1", 0), block=False, **how)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def said(port: int, made: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> str:
    """Return what a refused C-ECHO says."""
    with pytest.raises(requestor.PeerUnavailable) as refused:
        scu.echo(host, port, "OTHER", tls=made, timeout_s=3.0)
    assert f"OTHER at {host}:{port}" in str(refused.value) or host in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("require_called_aet", True, "it has another AE title"),
        ("require_calling_aet", ["SOMEBODY"], "it does not know our AE title"),
        ("maximum_associations", 0, "for now: it serves as many associations as it may"),
    ],
)
def test_a_rejection_is_told_with_its_reason(attribute: str, value: Any, words: str) -> None:
    """Result, source and reason of the A-ASSOCIATE-RJ in words."""

    def change(ae: AE) -> None:
        ae.ae_title = "ANOTHER"
        setattr(ae, attribute, value)
        if attribute == "maximum_associations":
            ae._maximum_associations = 0  # its setter knows no 0

    with listening(change) as port:
        answer = said(port)

    assert "rejected the association" in answer and words in answer


def test_what_is_not_reached_is_told() -> None:
    """A port where nobody listens, a name that is none, and a server that says nothing are three different things."""
    assert "nothing listens there" in said(free_port())
    assert "cannot reach nowhere.invalid" in said(104, host="nowhere.invalid")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "does not answer in time" in said(silent.getsockname()[1])


def test_an_association_without_our_service_is_told() -> None:
    """The peer takes the association and none of its contexts."""
    with listening(classes=("1.2.840.10008.5.1.4.1.1.2",)) as port:
        assert "takes the association, but none of the services" in said(port)


def test_a_peer_that_breaks_off_is_told() -> None:
    """It aborts, or closes, where it should answer."""
    with listening(evt_handlers=[(evt.EVT_REQUESTED, lambda event: event.assoc.abort())]) as port:
        assert "breaks off before it answers" in said(port)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closing = threading.Thread(target=lambda: server.accept()[0].close())
        closing.start()
        assert "breaks off before it answers; it may want TLS" in said(server.getsockname()[1])
        closing.join()


def test_a11_what_tls_refuses_is_told(tmp_path: Path) -> None:
    """A server without TLS, one whose certificate does not count, and one that wants another of ours."""
    authority = Authority(tmp_path / "ours")
    ours, stranger = authority.pair("archive"), Authority(tmp_path / "theirs", "Somebody else").pair("peer")
    settings = making.settings(
        tmp_path / "home", dicom__tls_ca=str(authority.certificate), dicom__tls_certificate=str(ours.certificate),
        dicom__tls_key=str(ours.key),
    )  # fmt: skip
    made = tls.client_context(settings.dicom)

    def served(certificate: Any, ca: Path | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        if ca is not None:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=lambda: server.accept()[0].sendall(b"no TLS here at all"))
        answering.start()
        assert "refuses TLS" in said(server.getsockname()[1], made)
        answering.join()
    with listening(ssl_context=served(stranger)) as port:
        assert "certificate that does not count here" in said(port, made)
    with listening(ssl_context=served(authority.pair("peer"), tmp_path / "theirs" / "ca.pem")) as port:
        answer = said(port, made)
        assert "refuses TLS" in answer or "may want another certificate" in answer
