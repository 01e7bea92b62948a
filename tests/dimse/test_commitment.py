"""Storage Commitment Push Model (PS3.4 Annex J): requests, checks, and reports on associations of their own."""

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dcmtk
import making
import pausing
import pytest
from dimse.door import Door, held, opened, stored, until
from dimse.test_storage import FullDisk
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from pacs.archive import Archive
from pacs.committer import Committer
from pacs.dimse import commitment, server
from pacs.model.lifecycle import COMMITTED
from pacs.model.peer import Peer

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
STUDY = "1.2.840.50.1"


@dataclass
class Asker:
    """A modality that asks for commitment, and listens for reports on a port of its own."""

    port: int
    answer: int = 0
    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    roles: list[tuple[bool, bool]] = field(default_factory=list)


@contextmanager
def asker(title: str = "ASKER") -> Iterator[Asker]:
    """Listen for reports with pynetdicom."""
    made = Asker(0)

    def report(event: evt.Event) -> tuple[int, None]:
        made.reports.append((event.event_type, event.event_information))
        context = event.assoc.accepted_contexts[0]
        made.roles.append((bool(context.as_scu), bool(context.as_scp)))
        return made.answer, None

    ae = AE(ae_title=title)
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    listening = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, report)])
    made.port = listening.server_address[1]
    try:
        yield made
    finally:
        listening.shutdown()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door whose archive holds a series of four."""
    with making.archive(tmp_path_factory.mktemp("home"), dicom__port=0) as archive, opened(archive) as door:
        assert set(stored(door, *series())) == {0}
        yield door


@pytest.fixture
def peer(filled: Door) -> Iterator[Asker]:
    """A configured peer that listens; earlier requests are out of the way."""
    clear(filled.archive)
    with asker() as found:
        filled.archive.index.peers.add(Peer("ASKER", "127.0.0.1", found.port))
        yield found


def clear(archive: Archive) -> None:
    """End whatever waits."""
    for row in archive.index.commitments.due(1e12, 1000):
        archive.index.commitments.end(row.commitment_id, "given up", attempts=0)


def series() -> list[Dataset]:
    """Return the four images."""
    return making.ct_series(4, study_uid=STUDY, series_uid=f"{STUDY}.1", frame=making.pixels(16, 16))


def references() -> list[tuple[str, str]]:
    """Return (class, UID) of the four images, as the modality knows them."""
    return [(CT, str(ds.SOPInstanceUID)) for ds in series()]


def wanted(pairs: Sequence[tuple[str, str]], transaction: str) -> Dataset:
    """Return the Action Information of a request."""
    ds = Dataset()
    ds.TransactionUID = transaction
    ds.ReferencedSOPSequence = Items()
    for sop_class, uid in pairs:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        ds.ReferencedSOPSequence.append(item)
    return ds


def ask(
    door: Door,
    information: Dataset | None,
    *,
    calling: str = "ASKER",
    action: int = 1,
    instance: str = StorageCommitmentPushModelInstance,
) -> int:
    """Send an N-ACTION; returns its status."""
    ae = AE(ae_title=calling)
    ae.add_requested_context(StorageCommitmentPushModel)
    association = pausing.associate(ae, "127.0.0.1", door.port, ae_title="MINIPACS")
    assert association.is_established
    status, _ = association.send_n_action(information, action, StorageCommitmentPushModel, instance)
    association.release()
    return int(status.Status)


def desk(archive: Archive, later_s: float = 0.0) -> commitment.Desk:
    """Return a desk whose clock is ahead."""
    return commitment.Desk(archive, lambda: time.time() + later_s)


def outcome(report: Dataset) -> tuple[list[str], dict[str, int]]:
    """Return the committed UIDs, and the failed with their reasons."""
    committed = [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])]
    failed = {str(one.ReferencedSOPInstanceUID): int(one.FailureReason) for one in report.get("FailedSOPSequence", [])}
    return committed, failed


def nothing_asked() -> Dataset:
    """Return an Action Information without any of its attributes."""
    ds = Dataset()
    ds.RetrieveAETitle = "SOMEWHERE"
    return ds


def test_c1_a_request_is_answered_at_once_and_kept(filled: Door, peer: Asker) -> None:
    """0000 before anything was checked; the row is there."""
    assert ask(filled, wanted(references(), "2.25.100")) == 0

    (row,) = filled.archive.index.commitments.due(time.time())
    assert (row.ae_title, row.state, row.instances) == ("ASKER", "waiting", 4)
    assert peer.reports == []


@pytest.mark.parametrize(
    ("information", "options", "code"),
    [
        (wanted([(CT, "1.2.3")], "2.25.1"), {"action": 2}, 0x0123),
        (wanted([(CT, "1.2.3")], "2.25.1"), {"instance": "1.2.3"}, 0x0112),
        (wanted([(CT, "1.2.3")], ""), {}, 0x0121),
        (wanted([], "2.25.1"), {}, 0x0121),
        (wanted([(CT, "")], "2.25.1"), {}, 0x0121),
        (nothing_asked(), {}, 0x0120),
        (wanted([("not a class", "1.2.3")], "2.25.1"), {}, 0x0115),
        (wanted([(CT, "1.2.3")], "2.25.1"), {"calling": "STRANGER"}, 0x0110),
        (wanted([(CT, "1.2.3")], "2.25.1"), {"calling": "READER"}, 0x0124),
    ],
    ids=["action", "instance", "transaction", "no items", "empty uid", "nothing", "no uid", "stranger", "reader"],
)
@pytest.mark.filterwarnings("ignore")
def test_c1_what_cannot_be_asked_is_refused(
    filled: Door, peer: Asker, information: Dataset, options: dict[str, object], code: int
) -> None:
    """Statuses of PS3.7 10.1.4.1.10; nothing is kept."""
    filled.archive.index.peers.add(Peer("READER", "127.0.0.1", 104, may=frozenset({"echo", "find"})))

    assert ask(filled, information, **options) == code  # type: ignore[arg-type]
    assert filled.archive.index.commitments.due(time.time()) == []


def test_c2_c3_the_report_comes_on_an_association_of_its_own_where_we_are_scp(filled: Door, peer: Asker) -> None:
    """Type 1 with the Transaction UID and every item of the request, under the UIDs that the asker knows."""
    assert ask(filled, wanted(references(), "2.25.200")) == 0

    assert desk(filled.archive).turn() == 1

    ((kind, report),) = peer.reports
    assert kind == 1 and report.TransactionUID == "2.25.200"
    assert outcome(report) == ([uid for _, uid in references()], {})
    assert peer.roles == [(False, True)] or peer.roles == [(True, False)]
    assert filled.archive.index.commitments.list(1)[0].state == "reported"
    (study,) = filled.archive.index.studies()
    assert COMMITTED in filled.archive.index.lifecycle.labels()[study.study_instance_uid], "no rule takes it by itself"
    assert desk(filled.archive).turn() == 0


def test_c3_c4_every_item_of_the_request_is_in_the_report_with_its_reason(filled: Door, peer: Asker) -> None:
    """Type 2: 0112 not here, 0119 of another class, 0122 a class that we do not keep; the others are committed."""
    known = references()
    pairs = [*known[:2], (MR, known[2][1]), (CT, "1.2.840.9.9.9"), ("1.2.826.0.1.999", "1.2.840.9.9.8")]
    assert ask(filled, wanted(pairs, "2.25.300")) == 0

    desk(filled.archive, later_s=61).turn()

    ((kind, report),) = peer.reports
    committed, failed = outcome(report)
    assert kind == 2
    assert committed == [uid for _, uid in known[:2]]
    assert failed == {known[2][1]: 0x0119, "1.2.840.9.9.9": 0x0112, "1.2.840.9.9.8": 0x0122}


def test_c3_a_transaction_uid_that_was_used_before_is_0131(filled: Door, peer: Asker) -> None:
    """Of the same peer; the first request is answered as ever."""
    for _ in range(2):
        assert ask(filled, wanted(references(), "2.25.400")) == 0

    desk(filled.archive).turn()

    kinds = sorted((kind, sorted(set(outcome(report)[1].values()))) for kind, report in peer.reports)
    assert kinds == [(1, []), (2, [0x0131])]


def test_c3_a_record_that_was_damaged_is_not_committed(peer: Asker, filled: Door, tmp_path: Path) -> None:
    """0110: what is read again must authenticate and have the digest it had; a flipped bit on the disk is found."""
    with making.archive(tmp_path / "damaged", dicom__port=0) as archive, opened(archive) as door:
        archive.index.peers.add(Peer("ASKER", "127.0.0.1", peer.port))
        assert set(stored(door, *series())) == {0}
        damaged = held(archive)[1]
        path = archive.settings.home / "store" / damaged.location.container
        path = path if path.exists() else next((archive.settings.home / "store").rglob(f"{damaged.location.container}*"))
        with path.open("r+b") as file:
            file.seek(damaged.location.offset + damaged.location.size_bytes - 40)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))
        assert ask(door, wanted(references(), "2.25.500")) == 0
        desk(archive).turn()

    ((kind, report),) = peer.reports
    committed, failed = outcome(report)
    assert (kind, len(committed), list(failed.values())) == (2, 3, [0x0110])


def test_c5_a_peer_that_is_down_is_told_later_and_after_a_restart(tmp_path: Path) -> None:
    """The report is tried again with growing waits, also by another process; the check is not repeated."""
    port = dcmtk.free_port()
    home = tmp_path / "home"
    with making.archive(home, dicom__port=0) as archive, opened(archive) as door:
        archive.index.peers.add(Peer("ASKER", "127.0.0.1", port))
        assert set(stored(door, *series())) == {0}
        assert ask(door, wanted(references(), "2.25.600")) == 0
        assert desk(archive).turn() == 1
        (row,) = archive.index.commitments.list()
        assert (row.state, row.attempts) == ("checked", 1)
        first_s = row.due_at - time.time()
        assert desk(archive).turn() == 0
        assert desk(archive, later_s=31).turn() == 1
        second_s = archive.index.commitments.list()[0].due_at - time.time() - 31
        assert first_s == pytest.approx(30, abs=5) and second_s == pytest.approx(60, abs=5)

    with asker() as found, making.archive(home, dicom__port=0) as archive:
        archive.index.peers.add(Peer("ASKER", "127.0.0.1", found.port))
        assert desk(archive, later_s=120).turn() == 1
        assert archive.index.commitments.list()[0].state == "reported"
    ((kind, report),) = found.reports
    assert (kind, len(outcome(report)[0])) == (1, 4)


def test_c5_after_enough_tries_it_is_given_up_and_seen(filled: Door, peer: Asker) -> None:
    """A peer that answers with a failure is asked `dicom.commitment_attempts` times; then the row says so."""
    peer.answer = 0x0110
    assert ask(filled, wanted(references(), "2.25.700")) == 0

    for turn in range(40):
        desk(filled.archive, later_s=turn * 3700.0).turn()

    (row,) = filled.archive.index.commitments.list(1)
    assert (row.state, row.attempts, len(peer.reports)) == ("given up", 24, 24)
    assert row.request == b""


def test_c6_a_request_before_the_images_waits_for_them(filled: Door, peer: Asker) -> None:
    """No early 0112: within the grace time the report waits until the images are there."""
    late = making.dataset(instance=9, study_uid=STUDY, series_uid=f"{STUDY}.2")
    assert ask(filled, wanted([*references(), (CT, str(late.SOPInstanceUID))], "2.25.800")) == 0

    desk(filled.archive).turn()
    assert peer.reports == []
    assert stored(filled, late) == [0]
    desk(filled.archive, later_s=6).turn()

    ((kind, report),) = peer.reports
    assert (kind, len(outcome(report)[0])) == (1, 5)


def test_c7_original_uids_are_mapped_and_nowhere_kept_in_the_clear(filled: Door, peer: Asker) -> None:
    """The archive knows the images by other UIDs; the asker may use either, and the index holds none of its own."""
    ours = held(filled.archive)[0].key.sop_instance_uid
    assert ours not in {uid for _, uid in references()}
    assert ask(filled, wanted([*references()[:1], (CT, ours)], "2.25.90071992547")) == 0

    index = filled.archive.settings.home / "index.db"
    kept = b"".join(path.read_bytes() for path in index.parent.glob("index.db*"))
    assert references()[0][1].encode() not in kept and b"2.25.90071992547" not in kept
    desk(filled.archive).turn()
    ((kind, report),) = peer.reports
    assert (kind, outcome(report)[0]) == (1, [references()[0][1], ours])


def test_c8_ten_thousand_references_in_one_request(filled: Door, peer: Asker) -> None:
    """All of them come back, in their place."""
    pairs = [*references(), *((CT, f"1.2.840.60.{number}") for number in range(9_996))]
    assert ask(filled, wanted(pairs, "2.25.10000")) == 0

    desk(filled.archive, later_s=61).turn()

    ((kind, report),) = peer.reports
    committed, failed = outcome(report)
    assert (kind, committed) == (2, [uid for _, uid in references()])
    assert list(failed) == [uid for _, uid in pairs[4:]]


def test_c9_a_full_archive_refuses_what_is_new_and_evicts_nothing(filled: Door, peer: Asker, tmp_path: Path) -> None:
    """What was committed stays; there is no quota that could take it away, only A700 for newcomers."""
    with making.archive(tmp_path / "full", dicom__port=0) as archive, opened(archive) as door:
        archive.index.peers.add(Peer("ASKER", "127.0.0.1", peer.port))
        assert set(stored(door, *series())) == {0}
        assert ask(door, wanted(references(), "2.25.900")) == 0
        desk(archive).turn()
        before = {one.key.sop_instance_uid for one in held(archive)}
    full = FullDisk()
    with making.archive(tmp_path / "full", dicom__port=0) as archive:
        committer = Committer(full, archive.index)  # type: ignore[arg-type]
        with opened(dataclasses.replace(archive, committer=committer)) as door:
            newcomer = making.dataset(study_uid="1.2.840.51", series_uid="1.2.840.51.1")
            codes = stored(door, newcomer)
            assert ask(door, wanted(references(), "2.25.901")) == 0
            desk(archive).turn()
            after = {one.key.sop_instance_uid for one in held(archive)}
        committer.close()

    assert [kind for kind, _ in peer.reports] == [1, 1]
    assert before == after and codes == [0xA700]


def test_the_server_reports_by_itself(filled: Door, peer: Asker) -> None:
    """`serve` runs the thread that works on what is due, soon after the request."""
    port = dcmtk.free_port()
    settings = making.settings(filled.archive.settings.home, dicom__port=port)
    archive = dataclasses.replace(filled.archive, settings=settings)
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(target=server.serve, args=(archive,), kwargs={"ready": ready.set, "stop": stop})
    thread.start()
    try:
        assert ready.wait(10)
        assert ask(Door(archive, filled.server, port), wanted(references(), "2.25.777")) == 0
        assert until(lambda: len(peer.reports) == 1)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
