"""C-STORE as a sender sees it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import dcmtk
import making
import pytest
from dimse.door import Door, held, opened, stored, until
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs import retrieve
from pacs.committer import Committer
from pacs.dicom import elements, values
from pacs.dimse import messages, outbound, requestor, scu
from pacs.dimse.messages import Command
from pacs.model.errors import OutOfResources
from pacs.model.instance import Location, Sealed
from pacs.model.peer import Peer
from pacs.model.query import Level, Query

CT = "1.2.840.10008.5.1.4.1.1.2"
Open = Callable[..., Door]


def rows(door: Door, level: Level = Level.IMAGE) -> list[dict[str, str]]:
    """Return what the index holds at a level."""
    return list(door.archive.index.search(Query(level)))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_s1_s14_success_means_indexed_and_retrievable(door: Door, syntax: str) -> None:
    """0000, and the pixels are the same at once, in every uncompressed transfer syntax."""
    ds = making.dataset()

    assert stored(door, ds, transfer_syntax_uid=syntax) == [0]

    (instance,) = held(door.archive)
    parts = retrieve.data_set(door.archive, instance, [ExplicitVRLittleEndian])
    pixels = elements.find(elements.walk(b"".join(parts.buffers)), elements.PIXEL_DATA)
    assert pixels is not None and bytes(pixels.value) == ds.PixelData


def test_s1_dcmtk_stores_a_series(door: Door, tmp_path: Path) -> None:
    """storescu as a modality would, and every instance is there."""
    making.write_files(tmp_path / "in", making.ct_series(5))

    done = dcmtk.run("storescu", "-aec", "MINIPACS", "+sd", "127.0.0.1", door.port, tmp_path / "in")

    assert done.returncode == 0, done.stdout
    assert len(rows(door)) == 5


def test_s3_associations_have_no_meaning(door: Door) -> None:
    """A study over five associations at once, interleaved and backwards: one study, one series, every instance once."""
    series = making.ct_series(20)
    shares = [series[number::5][::-1] for number in range(5)]
    threads = [threading.Thread(target=stored, args=(door, *share)) for share in shares]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert [len(rows(door, level)) for level in (Level.STUDY, Level.SERIES, Level.IMAGE)] == [1, 1, 20]


class FullDisk:
    """An object store without room, until somebody makes some."""

    def __init__(self) -> None:
        self.full = True
        self.behind: object = None

    def put(self, group: Sequence[Sealed]) -> list[Location]:
        if self.full:
            raise OutOfResources("no room in /var/lib/somewhere")
        return self.behind.put(group)  # type: ignore[attr-defined,no-any-return]


def test_s4_a_full_disk_is_a700_with_a_comment_and_passes(tmp_path: Path) -> None:
    """A700 without a path in the comment; when there is room again the same association stores."""
    full = FullDisk()
    with making.archive(tmp_path, dicom__port=0) as archive:
        full.behind = archive.objects
        committer = Committer(full, archive.index)  # type: ignore[arg-type]
        with opened(replace(archive, committer=committer)) as door:
            ds = making.dataset()
            proposals = [(CT, (ExplicitVRLittleEndian,))]
            with scu._open("127.0.0.1", door.port, "MINIPACS", "T", proposals, 10) as association:
                asked = {0x0002: CT, 0x0110: 1, 0x0700: 0, 0x1000: str(ds.SOPInstanceUID)}
                request = messages.encode(Command.C_STORE_RQ, asked, data_set=True)
                association.dimse.send(1, request, [making.encode(ds)])
                refused = association.dimse.receive(10)
                full.full = False
                association.dimse.send(1, request, [making.encode(ds)])
                taken = association.dimse.receive(10)
        committer.close()

    assert refused.status == 0xA700
    assert 0 < len(refused.text(messages.ERROR_COMMENT)) <= 64
    assert "/var" not in refused.text(messages.ERROR_COMMENT)
    assert taken.status == 0


def test_s5_a_command_that_contradicts_its_data_set_is_a900(door: Door) -> None:
    """The SOP Instance UID of the command is not the data set's: nothing is stored."""
    ds = making.dataset()
    with scu._open("127.0.0.1", door.port, "MINIPACS", "T", [(CT, (ExplicitVRLittleEndian,))], 10) as association:
        code = requestor.store(
            association, 1, sop_class_uid=CT, sop_instance_uid="1.2.3", data_set=[making.encode(ds)], message_id=1
        )

    assert code == 0xA900
    assert rows(door) == []


def test_s6_what_cannot_be_parsed_is_c000_and_lies_in_quarantine(door: Door) -> None:
    """A data set cut off within an element is refused; its bytes are kept encrypted, outside the archive."""
    ds = making.dataset()
    with scu._open("127.0.0.1", door.port, "MINIPACS", "T", [(CT, (ExplicitVRLittleEndian,))], 10) as association:
        code = requestor.store(
            association,
            1,
            sop_class_uid=CT,
            sop_instance_uid=ds.SOPInstanceUID,
            data_set=[making.encode(ds)[:-1001]],
            message_id=1,
        )

    assert code == 0xC000
    assert rows(door) == []
    assert len(door.archive.index.quarantine.list()) == 1


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_s7_a_missing_uid_is_a900(door: Door, keyword: str) -> None:
    """What places an instance cannot be made up."""
    assert stored(door, making.dataset(**{keyword: None})) == [0xA900]
    assert rows(door) == []


def test_s7_a_missing_patient_id_is_taken(door: Door) -> None:
    """PatientID is Type 2: it may be empty."""
    assert stored(door, making.dataset(patient_id="")) == [0]


def test_s8_a_peer_that_wants_it_is_warned_of_coercion(door: Door) -> None:
    """0000 for everybody, B000 for a peer with the option "warn"; the instance is stored all the same."""
    assert stored(door, making.dataset(instance=1)) == [0]
    door.archive.index.peers.add(Peer("MODALITY", "127.0.0.1", 104, options=frozenset({"warn"})))

    assert stored(door, making.dataset(instance=2)) == [0xB000]
    assert len(held(door.archive)) == 2


def test_s9_a_class_that_is_not_the_contexts_is_0122(door: Door) -> None:
    """The command names MR in a context negotiated for CT."""
    with scu._open("127.0.0.1", door.port, "MINIPACS", "T", [(CT, (ExplicitVRLittleEndian,))], 10) as association:
        code = requestor.store(
            association,
            1,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
            sop_instance_uid="1.2.3",
            data_set=[making.encode(making.dataset())],
            message_id=1,
        )

    assert code == 0x0122


def test_s10_identical_resend_is_0000_and_kept_once(door: Door) -> None:
    """The same content again changes nothing."""
    ds = making.dataset()

    assert stored(door, ds, ds) == [0, 0]
    assert stored(door, ds) == [0]

    assert len(rows(door)) == 1
    assert [one.version for one in held(door.archive)] == [1]


def test_s11_other_content_under_the_same_uid_is_0000_and_the_first_stays_current(door: Door) -> None:
    """The newcomer is kept as a further version; what is retrieved is the first, whole."""
    first, other = making.dataset(), making.dataset(frame=making.pixels(seed=99))

    assert stored(door, first, other) == [0, 0]

    (current,) = held(door.archive)
    parts = retrieve.data_set(door.archive, current, [ExplicitVRLittleEndian])
    pixels = elements.find(elements.walk(b"".join(parts.buffers)), elements.PIXEL_DATA)
    assert pixels is not None and bytes(pixels.value) == first.PixelData


def test_s12_the_same_instance_over_two_associations_at_once_is_kept_once(door: Door) -> None:
    """Both senders hear 0000."""
    ds = making.dataset()
    heard: list[int] = []
    threads = [threading.Thread(target=lambda: heard.extend(stored(door, ds))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert heard == [0, 0, 0, 0]
    assert [one.version for one in held(door.archive)] == [1]


def test_s20_every_priority_is_taken(door: Door) -> None:
    """0 MEDIUM, 1 HIGH, 2 LOW."""
    with scu._open("127.0.0.1", door.port, "MINIPACS", "T", [(CT, (ExplicitVRLittleEndian,))], 10) as association:
        for priority, ds in enumerate(making.ct_series(3)):
            code = requestor.store(
                association,
                1,
                sop_class_uid=CT,
                sop_instance_uid=ds.SOPInstanceUID,
                data_set=[making.encode(ds)],
                message_id=priority + 1,
                priority=priority,
            )
            assert code == 0


def test_the_sender_may_be_told_0000_for_what_went_to_quarantine(open_door: Open) -> None:
    """`deid.quarantine_status = "0000"` spares a modality that treats failures as fatal; unparsable bytes stay an error."""
    from pacs.model.errors import Quarantined
    from pacs.model.instance import Deidentified, Received

    class Doubtful:
        def deidentify(self, received: Received) -> Deidentified:
            raise Quarantined("burned-in annotation cannot be removed")

    told = {}
    for policy in ("C002", "0000"):
        door = open_door(deid__quarantine_status=policy)
        door.server.archive = replace(door.archive, deidentifier=Doubtful())  # type: ignore[arg-type]
        told[policy] = stored(door, making.dataset())
        assert rows(door) == []

    assert told == {"C002": [0xC002], "0000": [0]}


def test_releasing_the_association_is_evidence_that_a_series_is_complete(door: Door) -> None:
    """The series is settled as soon as its association was released, not after a long silence."""
    stored(door, *making.ct_series(3))

    def settled() -> bool:
        now = door.archive.index._connections.clock() + 1
        return bool(list(door.archive.index.settled(now, settle_s=0.1, quiet_s=1e6, study_settle_s=0.1)))

    assert until(settled)


def test_s15_a_data_set_keeps_its_elements(door: Door) -> None:
    """Type 1 geometry arrives unchanged."""
    ds: Dataset = making.dataset()
    stored(door, ds)

    (instance,) = held(door.archive)
    header = values.attributes(elements.walk(retrieve.header(door.archive, instance)))

    assert [float(one) for one in header["ImagePositionPatient"].split("\\")] == [-100, -100, 5]
    assert header["Rows"] == "64"


def test_s14_real_files_in_every_transfer_syntax(door: Door, shared_data: Path) -> None:
    """One CT image, encoded by DCMTK in 14 transfer syntaxes: each is taken as it comes.

    The lossless ones are one and the same instance to the archive; each lossy one is a version of its own.
    """
    files = sorted((shared_data / "transfer_syntaxes" / "ctimage_all").glob("*.dcm"))
    wanted = [one for one in files if not one.name.endswith(("4.53.dcm", "4.55.dcm"))]

    report = outbound.send(wanted, "127.0.0.1", door.port, "MINIPACS")

    assert [(one.path.name, one.reason) for one in report.failed] == []
    compression = sorted(one.transfer_syntax_uid.rpartition(".")[2] for one in held(door.archive))
    assert len(wanted) == 14
    assert [one for one in compression if one in ("50", "51", "81", "91")] == ["50", "51", "81", "91"]
    assert len(compression) == 5
