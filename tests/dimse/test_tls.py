"""Associations over TLS (PS3.15 B.9 to B.12)."""

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import dcmtk
import making
import pausing
import pytest
from certificates import Authority, Pair
from dimse.door import Door, ask, associate_bytes, echo, held, opened, raw, read_pdu, until
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt

from pacs.dimse import contexts, outbound, requestor, scu, server, tls
from pacs.dimse.messages import Command
from pacs.model.errors import ConfigurationError
from pacs.model.peer import Peer

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who vouches for everybody here."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    """The archive's certificate."""
    return authority.pair("archive")


@pytest.fixture(scope="module")
def theirs(authority: Authority) -> Pair:
    """A caller's certificate."""
    return authority.pair("caller")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, authority: Authority, ours: Pair) -> Iterator[Door]:
    """A door that speaks TLS only, with callers who must show a certificate."""
    overrides = {
        "dicom__port": 0,
        "dicom__tls": True,
        "dicom__tls_certificate": str(ours.certificate),
        "dicom__tls_key": str(ours.key),
        "dicom__tls_ca": str(authority.certificate),
    }
    with making.archive(tmp_path_factory.mktemp("home"), **overrides) as archive, opened(archive) as door:
        yield door


def context(authority: Authority, pair: Pair | None) -> ssl.SSLContext:
    """Return a caller's side of TLS."""
    made = ssl.create_default_context(cafile=str(authority.certificate))
    if pair is not None:
        made.load_cert_chain(pair.certificate, pair.key)
    return made


def secured(door: Door, made: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a TLS connection to the door."""
    return made.wrap_socket(socket.create_connection(("127.0.0.1", door.port), timeout=10), server_hostname="127.0.0.1")


def dcmtk_options(authority: Authority, pair: Pair) -> list[object]:
    """Return what makes a DCMTK tool speak TLS."""
    return ["+tls", pair.key, pair.certificate, "+cf", authority.certificate]


def test_a11_dcmtk_stores_over_tls(door: Door, authority: Authority, theirs: Pair, tmp_path: Path) -> None:
    """storescu with a client certificate: everything arrives, pixels and all."""
    making.write_files(tmp_path / "in", making.ct_series(4, study_uid="1.2.840.1.1", series_uid="1.2.840.1.1.1"))

    options = dcmtk_options(authority, theirs)
    done = dcmtk.run("storescu", *options, "-aec", "MINIPACS", "+sd", "127.0.0.1", door.port, tmp_path / "in")

    assert done.returncode == 0, done.stdout
    assert len([one for one in held(door.archive) if one.key.series_instance_uid]) >= 4


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a11_pynetdicom_stores_and_echoes_over_tls(
    door: Door, authority: Authority, theirs: Pair, version: ssl.TLSVersion
) -> None:
    """Both versions, with data sets of many TLS records."""
    made = context(authority, theirs)
    made.minimum_version = made.maximum_version = version
    uid = f"1.2.840.2.{int(version)}"
    ae = AE(ae_title="SECURE")
    ae.add_requested_context(CT, ImplicitVRLittleEndian)
    ae.add_requested_context("1.2.840.10008.1.1")

    association = pausing.associate(ae, "127.0.0.1", door.port, ae_title="MINIPACS", tls_args=(made, "127.0.0.1"))

    assert association.is_established
    ds = making.dataset(study_uid=uid, series_uid=f"{uid}.1", frame=making.pixels(512, 512))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert association.send_c_store(ds).Status == 0
    assert association.send_c_echo().Status == 0
    association.release()


def test_a11_older_versions_are_refused(door: Door, authority: Authority, theirs: Pair) -> None:
    """TLS 1.1 and below: no handshake."""
    made = context(authority, theirs)
    made.set_ciphers("ALL:@SECLEVEL=0")
    made.minimum_version, made.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1

    with pytest.raises(ssl.SSLError):
        secured(door, made)


def test_a11_without_a_client_certificate_there_is_no_association(door: Door, authority: Authority, tmp_path: Path) -> None:
    """None, or one of another authority; the handshake fails, which in TLS 1.3 a caller learns with its first read."""
    stranger = Authority(tmp_path, "Somebody else").pair("stranger")
    for pair in (None, stranger):
        with pytest.raises(OSError), secured(door, context(authority, pair)) as connection:
            connection.sendall(associate_bytes())
            if read_pdu(connection)[0] == 0:
                raise ConnectionError

    assert until(lambda: not door.server.active_associations)


def test_a11_plain_words_are_not_understood_and_harm_nobody(door: Door, authority: Authority, theirs: Pair) -> None:
    """The plain port is off; who speaks plainly is cut off, and who says nothing holds up nobody."""
    silent = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(5)]
    with raw(door.port, associate=False) as connection:
        connection.sendall(associate_bytes())
        # OpenSSL answers with an alert, which is no PDU of PS3.8.
        assert connection.recv(100)[:1] in (b"", b"\x15")
    with secured(door, context(authority, theirs)) as connection:
        connection.sendall(associate_bytes())
        assert read_pdu(connection)[0] == 2
    for one in silent:
        one.close()


def test_a11_we_find_and_get_over_tls(door: Door, ours: Pair, tmp_path: Path) -> None:
    """Our own requestor against our own acceptor: reading and writing at once over one TLS connection."""
    made = tls.client_context(door.archive.settings.dicom)
    uid = "1.2.840.3.1"
    files = making.write_files(tmp_path / "in", making.ct_series(6, study_uid=uid, series_uid=f"{uid}.1"))
    assert outbound.send(files, "127.0.0.1", door.port, "MINIPACS", tls=made).stored == 6
    study = door.archive.deidentifier.pseudonymous_uid(uid)

    assert scu.echo("127.0.0.1", door.port, "MINIPACS", tls=made) == 0
    count = scu.get("127.0.0.1", door.port, "MINIPACS", study, tmp_path / "out", tls=made)

    assert count == len(list((tmp_path / "out").iterdir())) == 6


def test_a11_a_peer_of_another_authority_is_not_talked_to(authority: Authority, ours: Pair, tmp_path: Path) -> None:
    """We know our peers by `dicom.tls_ca`; anybody else's certificate ends it."""
    theirs = Authority(tmp_path, "Somebody else").pair("peer")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(theirs.certificate, theirs.key)
    ae = AE(ae_title="OTHER")
    ae.add_supported_context("1.2.840.10008.1.1")
    listening = ae.start_server(("127.0.0.1", 0), block=False, ssl_context=served)
    settings = making.settings(
        tmp_path / "home", dicom__tls_ca=str(authority.certificate), dicom__tls_certificate=str(ours.certificate),
        dicom__tls_key=str(ours.key),
    )  # fmt: skip
    try:
        with pytest.raises(requestor.PeerUnavailable):
            scu.echo("127.0.0.1", listening.server_address[1], "OTHER", tls=tls.client_context(settings.dicom))
    finally:
        listening.shutdown()


def test_a11_we_send_to_pynetdicom_over_tls(door: Door, theirs: Pair, authority: Authority, tmp_path: Path) -> None:
    """A peer that wants our certificate gets it."""
    came = []
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(theirs.certificate, theirs.key)
    served.load_verify_locations(authority.certificate)
    served.verify_mode = ssl.CERT_REQUIRED
    ae = AE(ae_title="SINK")
    ae.add_supported_context(CT)
    listening = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=served,
        evt_handlers=[(evt.EVT_C_STORE, lambda event: came.append(event.dataset.SOPInstanceUID) or 0)],
    )
    files = making.write_files(tmp_path, making.ct_series(2))
    try:
        made = tls.client_context(door.archive.settings.dicom)
        assert outbound.send(files, "127.0.0.1", listening.server_address[1], "SINK", tls=made).stored == 2
    finally:
        listening.shutdown()
    assert len(came) == 2


def test_a11_both_ports_side_by_side(tmp_path: Path, authority: Authority, ours: Pair) -> None:
    """`dicom.tls_port` beside the plain one; without a client certificate where the setting says so; stopping closes both."""
    plain, secure = dcmtk.free_port(), dcmtk.free_port()
    overrides = {
        "dicom__port": plain,
        "dicom__tls_port": secure,
        "dicom__tls_certificate": str(ours.certificate),
        "dicom__tls_key": str(ours.key),
        "dicom__tls_ca": str(authority.certificate),
        "dicom__tls_require_certificate": False,
    }
    with making.archive(tmp_path / "home", **overrides) as archive:
        stop, ready = threading.Event(), threading.Event()
        thread = threading.Thread(target=server.serve, args=(archive,), kwargs={"ready": ready.set, "stop": stop})
        thread.start()
        assert ready.wait(10)
        assert echo(plain) == 0
        done = dcmtk.run("echoscu", "+tla", "+cf", authority.certificate, "-aec", "MINIPACS", "127.0.0.1", secure)
        stop.set()
        thread.join(10)

    assert done.returncode == 0, done.stdout
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "missing", [{"dicom__tls_certificate": ""}, {"dicom__tls_ca": ""}, {"dicom__tls_key": "/nowhere/key.pem"}]
)
def test_a11_what_is_missing_for_tls_is_told(tmp_path: Path, authority: Authority, ours: Pair, missing: dict[str, str]) -> None:
    """ConfigurationError names the setting."""
    given = {
        "dicom__tls_certificate": str(ours.certificate),
        "dicom__tls_key": str(ours.key),
        "dicom__tls_ca": str(authority.certificate),
        **missing,
    }
    with pytest.raises(ConfigurationError, match=r"dicom\.tls_"):
        tls.server_context(making.settings(tmp_path, **given).dicom)


def test_a11_a_move_to_a_tls_peer_goes_over_tls(door: Door, authority: Authority, theirs: Pair, tmp_path: Path) -> None:
    """`pacs peers add … --tls`: asked over TLS, and storescp, which speaks TLS only, gets the study."""
    uid = "1.2.840.4.1"
    files = making.write_files(tmp_path / "in", making.ct_series(3, study_uid=uid, series_uid=f"{uid}.1"))
    assert (
        outbound.send(files, "127.0.0.1", door.port, "MINIPACS", tls=tls.client_context(door.archive.settings.dicom)).stored
        == 3
    )
    port = dcmtk.free_port()
    door.archive.index.peers.add(Peer("SINK", "127.0.0.1", port, options=frozenset({"tls"})))
    (tmp_path / "out").mkdir()
    options = dcmtk_options(authority, theirs)
    sink = subprocess.Popen(
        [dcmtk.tool("storescp"), *map(str, options), "-od", str(tmp_path / "out"), "-aet", "SINK", str(port)]
    )
    try:
        assert until(lambda: _listens(port))
        study = door.archive.deidentifier.pseudonymous_uid(uid)
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study}
        made = tls.client_context(door.archive.settings.dicom)
        proposals = [(contexts.STUDY_ROOT_MOVE, (contexts.EXPLICIT_LITTLE_ENDIAN,))]
        with scu._open("127.0.0.1", door.port, "MINIPACS", "T", proposals, 20, tls=made) as association:
            ask(association, Command.C_MOVE_RQ, contexts.STUDY_ROOT_MOVE, keys, destination="SINK")
            statuses = [association.dimse.receive(20).status for _ in range(4)]
    finally:
        sink.terminate()
        sink.wait()

    assert statuses == [0xFF00, 0xFF00, 0xFF00, 0]
    assert len(list((tmp_path / "out").iterdir())) == 3


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False
