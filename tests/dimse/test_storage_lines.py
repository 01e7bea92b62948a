"""C-STORE lines about whole objects: what is kept, what is not transcoded, UIDs, preambles, many frames, slow neighbours."""

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import making
import numpy as np
import pytest
from dimse.door import Door, held, raw, read_pdu, stored
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pynetdicom import AE

from pacs import retrieve
from pacs.dicom import part10
from pacs.dimse import outbound, requestor, scu
from pacs.model.peer import Peer
from pacs.standard import tables

SR = "1.2.840.10008.5.1.4.1.1.88.11"
EXPLICIT = "1.2.840.10008.1.2.1"
SECONDARY_WORD_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.7.3"


def sent_and_got(door: Door, ds: Dataset) -> Dataset:
    """Store a data set and return what the archive gives for it, uncompressed."""
    assert stored(door, ds) == [0]
    uid = door.archive.deidentifier.pseudonymous_uid(str(ds.SOPInstanceUID))
    # Multi-frame secondary captures wait for somebody to look for burned-in text; they are kept as they are meanwhile.
    (found,) = door.archive.index.locate(sop_instance_uids=[uid], include_held=True)
    parts = retrieve.data_set(door.archive, found, (EXPLICIT,))
    file = BytesIO(b"".join(bytes(one) for one in parts.buffers))
    return read_dataset(file, is_implicit_VR=False, is_little_endian=True)


def test_s2_what_the_profile_does_not_name_is_kept_value_by_value(shared_door: Door) -> None:
    """Level 2 (PS3.4 B.4.1): an attribute that differs from what was sent is one of PS3.15 Table E.1-1."""
    ds = making.dataset(study_uid="1.2.840.80.2", series_uid="1.2.840.80.2.1")
    back = sent_and_got(shared_door, ds)

    named = {row.tag for row in tables.profile_rows()}
    changed = [str(one.tag) for one in ds if one.tag not in back or back[one.tag].value != one.value]
    assert len(changed) < len(ds) / 2 and set(changed) <= named
    assert back.PixelData == ds.PixelData and back.PixelSpacing == ds.PixelSpacing


def test_s16_an_object_without_pixels_is_never_called_compressed(shared_door: Door) -> None:
    """A structured report is stored, and sent, in an uncompressed transfer syntax."""
    report = making.dataset(study_uid="1.2.840.80.16", series_uid="1.2.840.80.16.1", Modality="SR")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(report, keyword)
    for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(report, keyword)
    report.SOPClassUID = SR
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "126000", "DCM", "Imaging Measurement Report"
    report.ConceptNameCodeSequence = Sequence([code])
    report.CompletionFlag, report.VerificationFlag = "PARTIAL", "UNVERIFIED"

    assert stored(shared_door, report) == [0]
    uid = shared_door.archive.deidentifier.pseudonymous_uid(str(report.SOPInstanceUID))
    (found,) = shared_door.archive.index.locate(sop_instance_uids=[uid])
    assert found.transfer_syntax_uid == EXPLICIT


def test_s17_many_frames_come_back_in_order(shared_door: Door, long_run: bool) -> None:
    """A multi-frame object of hundreds of frames (ten thousand with --long), every pixel equal."""
    count = 10_000 if long_run else 400
    frames = np.arange(count, dtype="<u2")[:, None, None] + np.zeros((count, 16, 16), "<u2")
    ds = making.dataset(study_uid="1.2.840.80.17", series_uid="1.2.840.80.17.1", Modality="OT", BurnedInAnnotation="NO")
    ds.SOPClassUID, ds.NumberOfFrames, ds.PixelRepresentation = SECONDARY_WORD_MULTIFRAME, count, 0
    ds.Rows = ds.Columns = 16
    ds.add_new(0x7FE00010, "OW", frames.tobytes())

    back = sent_and_got(shared_door, ds)

    assert int(back.NumberOfFrames) == count and back.PixelData == ds.PixelData


def test_s18_preamble_and_file_meta_are_ours(shared_door: Door, tmp_path: Path) -> None:
    """What comes as a file with a polyglot preamble and a talkative header goes out with zeros and our implementation only."""
    ds = making.dataset(study_uid="1.2.840.80.18", series_uid="1.2.840.80.18.1")
    path = tmp_path / "polyglot.dcm"
    path.write_bytes(b"MZ-not-a-picture".ljust(128, b"!") + making.part10(ds)[128:])
    assert outbound.send([path], "127.0.0.1", shared_door.port, "MINIPACS", calling="QUILLFEATHER").stored == 1

    study = shared_door.archive.deidentifier.pseudonymous_uid("1.2.840.80.18")
    assert scu.get("127.0.0.1", shared_door.port, "MINIPACS", study, tmp_path / "out") == 1
    (found,) = shared_door.archive.index.locate(study_instance_uids=[study])
    file = b"".join(bytes(one) for one in retrieve.part10_file(shared_door.archive, found))

    assert file[:128] == bytes(128)
    assert b"QUILLFEATHER" not in file and b"MZ-not" not in file
    meta = dcmread(next((tmp_path / "out").iterdir())).file_meta
    assert meta.ImplementationClassUID == part10.IMPLEMENTATION_CLASS_UID
    assert "SourceApplicationEntityTitle" not in meta


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "uid",
    ["1.2.840.80.19.1", "1.2.840.80.19." + "1" * 50, "1.2.840.80.19.007", "1.2.840.80.19." + "1" * 60, "1.2.840/../../19"],
    ids=["plain", "64 characters", "leading zeros", "too long", "no UID"],
)
def test_s19_whatever_a_uid_looks_like_ours_is_a_uid(shared_door: Door, uid: str) -> None:
    """A UID of whatever form is taken, because it is replaced: by a legal one, always the same, and never part of a path."""
    ds = making.dataset(study_uid="1.2.840.80.19", series_uid="1.2.840.80.19.1")
    ds.SOPInstanceUID = uid

    assert stored(shared_door, ds) == [0]

    ours = shared_door.archive.deidentifier.pseudonymous_uid(uid)
    (found,) = shared_door.archive.index.locate(sop_instance_uids=[ours])
    assert UID(ours).is_valid and found.key.sop_instance_uid == ours
    assert [path for path in shared_door.archive.settings.home.rglob("*") if "80.19" in path.name or path.name == "19"] == []


def test_s21_a_slow_neighbour_does_not_slow_a_sender(shared_door: Door) -> None:
    """Three associations that stop in the middle of a data set cost another sender next to nothing."""
    series = making.ct_series(20, study_uid="1.2.840.80.21", series_uid="1.2.840.80.21.1", frame=making.pixels(16, 16))
    other = making.ct_series(20, study_uid="1.2.840.80.22", series_uid="1.2.840.80.22.1", frame=making.pixels(16, 16))
    before = time.monotonic()
    assert set(stored(shared_door, *series)) == {0}
    alone_s = time.monotonic() - before
    slow = [raw(shared_door.port, abstract_syntax="1.2.840.10008.5.1.4.1.1.2") for _ in range(3)]
    for one in slow:
        one.sendall(b"\4\0\0\0\x40\0\0\0\0\x10\1\0abc")

    before = time.monotonic()
    assert set(stored(shared_door, *other)) == {0}
    beside_s = time.monotonic() - before

    for one in slow:
        one.close()
    assert beside_s < 3 * alone_s + 0.5


def test_s20_priority_and_who_moved_are_not_mixed_up(shared_door: Door) -> None:
    """A C-STORE with a Move Originator and every priority is stored like any other."""
    proposals = [("1.2.840.10008.5.1.4.1.1.2", (EXPLICIT,))]
    with scu._open("127.0.0.1", shared_door.port, "MINIPACS", "T", proposals, 10) as association:
        for priority in (0, 1, 2):
            ds = making.dataset(instance=priority, study_uid="1.2.840.80.20", series_uid="1.2.840.80.20.1")
            code = requestor.store(
                association,
                1,
                sop_class_uid=str(ds.SOPClassUID),
                sop_instance_uid=str(ds.SOPInstanceUID),
                data_set=[making.encode(ds)],
                message_id=priority + 1,
                priority=priority,
                originator=("ASKER", 77),
            )
            assert code == 0
    study = shared_door.archive.deidentifier.pseudonymous_uid("1.2.840.80.20")
    assert len([one for one in held(shared_door.archive) if one.key.study_instance_uid == study]) == 3


def test_a_closed_connection_is_noticed(shared_door: Door) -> None:
    """A release is answered, and nothing is said after it."""
    with raw(shared_door.port) as connection:
        connection.sendall(b"\5\0\0\0\0\4\0\0\0\0")
        assert read_pdu(connection)[0] == 6


@pytest.mark.parametrize("answer", ["C002", "0000"])
def test_s13_what_is_private_is_kept_in_quarantine_and_answered_so(open_door: Callable[..., Door], answer: str) -> None:
    """From the peer that may bring it, by class or by transfer syntax; the bytes are kept, and a setting decides the status."""
    door = open_door(deid__quarantine_status=answer)
    private_class, private_syntax = "1.2.826.0.1.999.1", "1.2.826.0.1.999.3"
    options = frozenset({f"private:{private_class}", f"private:{private_syntax}"})
    door.archive.index.peers.add(Peer("MODALITY", "127.0.0.1", 104, options=options))
    ds = making.dataset(study_uid="1.2.840.80.13", series_uid="1.2.840.80.13.1")
    standard = str(ds.SOPClassUID)
    proposals = [(private_class, (EXPLICIT,)), (standard, (private_syntax,))]
    sent = []
    with scu._open("127.0.0.1", door.port, "MINIPACS", "MODALITY", proposals, 20) as association:
        for number, (uid, _) in enumerate(proposals):
            ds.SOPClassUID = uid
            sent.append(making.encode(ds) if uid == private_class else bytes(range(256)))
            uids = {"sop_class_uid": uid, "sop_instance_uid": str(ds.SOPInstanceUID)}
            code = requestor.store(association, 1 + 2 * number, data_set=[sent[-1]], message_id=number + 1, **uids)
            assert f"{code:04X}" == answer

    assert held(door.archive, include_held=True) == []
    rows = door.archive.index.quarantine.list()
    assert all(row.reason for row in rows)
    kept = [bytes(door.archive.quarantine.open(row.quarantine_id).data_set) for row in rows]
    assert sorted(kept) == sorted(sent)


def test_s13_nobody_else_brings_private_classes(shared_door: Door) -> None:
    """Context result 3 (PS3.8 Table 9-18) for a caller whose policy does not name the class, while others are accepted."""
    ae = AE(ae_title="STRANGER")
    ae.add_requested_context("1.2.826.0.1.999.1")
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", shared_door.port, ae_title="MINIPACS")
    association.release()

    assert [one.result for one in association.rejected_contexts] == [3]
    assert len(association.accepted_contexts) == 1
