"""Our own sending and asking."""

from pathlib import Path

import dcmtk
import making
import pytest
from dimse.door import Door, held
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from pacs.dimse import outbound, scu
from pacs.model.errors import NotUnderstood

CT = "1.2.840.10008.5.1.4.1.1.2"


def test_send_reports_every_file(door: Door, tmp_path: Path) -> None:
    """What is no DICOM file is named, and does not stop the rest; progress is told file by file."""
    files = making.write_files(tmp_path, making.ct_series(3))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty.dcm").write_bytes(b"")
    told: list[outbound.FileResult] = []

    report = outbound.send(
        [tmp_path / "notes.txt", *files, tmp_path / "empty.dcm", tmp_path / "gone.dcm"],
        "127.0.0.1",
        door.port,
        "MINIPACS",
        on_progress=told.append,
    )

    assert (report.stored, len(report.failed)) == (3, 3)
    assert {one.reason for one in report.failed} == {"not a DICOM file"}
    assert told == report.results


def test_send_takes_many_classes_over_several_associations(door: Door, tmp_path: Path) -> None:
    """More (class, transfer syntax) pairs than one association holds."""
    from pacs.dimse import contexts

    files = []
    for number, sop_class in enumerate(sorted(contexts.STORAGE_CLASSES)[:60]):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(making.part10(making.dataset(instance=number, SOPClassUID=sop_class)))
        files.append(path)

    report = outbound.send(files, "127.0.0.1", door.port, "MINIPACS")

    assert [one for one in report.failed if one.status is None] == []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_send_falls_back_to_what_the_peer_takes(tmp_path: Path, syntax: str) -> None:
    """A peer that only takes Implicit VR Little Endian gets it, with the same pixels."""
    came = []
    ae = AE(ae_title="OLD")
    ae.add_supported_context(CT, ImplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: came.append(event.dataset) or 0)]
    )
    ds = making.dataset()
    path = tmp_path / "one.dcm"
    path.write_bytes(making.part10(ds))
    try:
        report = outbound.send([path], "127.0.0.1", server.server_address[1], "OLD")
    finally:
        server.shutdown()

    assert report.stored == 1
    assert came[0].PixelData == ds.PixelData and came[0].PatientName == ds.PatientName


def test_a_peer_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """Said with host and port, for every service."""
    files = making.write_files(tmp_path, making.ct_series(1))
    port = dcmtk.free_port()
    with pytest.raises(scu.PeerUnavailable, match=str(port)):
        outbound.send(files, "127.0.0.1", port, "ANY")
    with pytest.raises(scu.PeerUnavailable):
        scu.echo("127.0.0.1", port, "ANY")
    with pytest.raises(scu.PeerUnavailable):
        scu.find("host.invalid", 104, "ANY", {})


def test_a_peer_that_rejects_us_is_unavailable(door: Door) -> None:
    """The title is wrong."""
    with pytest.raises(scu.PeerUnavailable, match="rejected the association: it has another AE title"):
        scu.echo("127.0.0.1", door.port, "WRONG")


def test_find_and_get_bring_back_what_was_sent(door: Door, tmp_path: Path) -> None:
    """The demo's way: send, find, get; files are as stored, one an instance."""
    outbound.send(making.write_files(tmp_path / "in", making.ct_series(3)), "127.0.0.1", door.port, "MINIPACS")
    (study,) = scu.find("127.0.0.1", door.port, "MINIPACS", {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""})
    (tmp_path / "out").mkdir()

    count = scu.get("127.0.0.1", door.port, "MINIPACS", study["StudyInstanceUID"], tmp_path / "out")

    files = sorted((tmp_path / "out").iterdir())
    assert count == len(files) == 3
    assert {str(dcmread(one).StudyInstanceUID) for one in files} == {study["StudyInstanceUID"]}
    assert {str(dcmread(one).file_meta.TransferSyntaxUID) for one in files} == {
        one.transfer_syntax_uid for one in held(door.archive)
    }


def test_a_refused_query_is_told_with_its_status(door: Door) -> None:
    """Not an empty list."""
    with pytest.raises(NotUnderstood, match="A900"):
        scu.find("127.0.0.1", door.port, "MINIPACS", {"QueryRetrieveLevel": "NOWHERE"})


def test_send_goes_on_after_the_association_broke(tmp_path: Path) -> None:
    """The file that was under way is reported, the rest goes over a new association."""
    seen = []

    def once(event: evt.Event) -> int:
        seen.append(event.request.AffectedSOPInstanceUID)
        if len(seen) == 2:
            event.assoc.abort()
        return 0

    ae = AE(ae_title="SHAKY")
    ae.add_supported_context(CT)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, once)])
    try:
        report = outbound.send(
            making.write_files(tmp_path, making.ct_series(4)), "127.0.0.1", server.server_address[1], "SHAKY"
        )
    finally:
        server.shutdown()

    assert [one.stored for one in report.results] == [True, False, True, True]
    assert report.results[1].status is None


def test_send_gives_up_on_a_peer_that_went_away(tmp_path: Path) -> None:
    """A peer that is gone for good is not asked again for each of a thousand files."""
    ae = AE(ae_title="GONE")
    ae.add_supported_context(CT)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0)])
    files = making.write_files(tmp_path, making.ct_series(1)) * 200

    def leave(result: outbound.FileResult) -> None:
        if not told:
            server.shutdown()
            for association in server.active_associations:
                association.abort()
        told.append(result)

    told: list[outbound.FileResult] = []
    report = outbound.send(files, "127.0.0.1", server.server_address[1], "GONE", on_progress=leave)

    assert (report.stored, len(report.failed)) == (1, 199)


def test_the_data_sets_own_uid_counts_not_a_wrong_file_header(door: Door, tmp_path: Path) -> None:
    """A file whose meta information names another object is sent under its real name."""
    ds = making.dataset()
    path = tmp_path / "wrong.dcm"
    path.write_bytes(
        making.part10(ds).replace(str(ds.SOPInstanceUID).encode(), b"1.2.3." + b"9" * (len(ds.SOPInstanceUID) - 6), 1)
    )

    assert outbound.send([path], "127.0.0.1", door.port, "MINIPACS").stored == 1
