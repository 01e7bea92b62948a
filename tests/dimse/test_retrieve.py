"""C-MOVE and C-GET as an asker and a destination see them."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dcmtk
import making
import pytest
from dimse.door import Door, answers, ask, held, opened, read, stored, until
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from pacs.dicom import elements, values
from pacs.dimse import contexts, messages, onward, retrieve, scu
from pacs.dimse.messages import Command, Message
from pacs.model.errors import IntegrityError
from pacs.model.instance import InstanceKey, Location, Stored
from pacs.model.peer import Peer
from pacs.model.query import Level, Query

MOVE, GET = contexts.STUDY_ROOT_MOVE, contexts.STUDY_ROOT_GET
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202")


@dataclass
class Destination:
    """What a C-MOVE destination received."""

    port: int
    server: Any = None
    requests: list[Any] = field(default_factory=list)
    syntaxes: list[str] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    associations: int = 0


@contextmanager
def destination(
    *syntaxes: str,
    answer: Any = lambda destination, event: 0,
    classes: tuple[str, ...] = (CT,),
    maximum_pdu_size: int = 16384,
) -> Iterator[Destination]:
    """A storage SCP (pynetdicom) that takes these transfer syntaxes and answers what `answer` says."""
    ae = AE(ae_title="SINK")
    ae.maximum_pdu_size = maximum_pdu_size
    for one in classes:
        ae.add_supported_context(one, list(syntaxes))
    sink = Destination(0)

    def store(event: Any) -> int:
        sink.requests.append(event.request)
        sink.syntaxes.append(str(event.context.transfer_syntax))
        sink.data.append(event.request.DataSet.getvalue())
        return int(answer(sink, event))

    def accepted(event: Any) -> None:
        sink.associations += 1

    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_ACCEPTED, accepted)]
    )
    sink.port, sink.server = server.server_address[1], server
    try:
        yield sink
    finally:
        server.shutdown()


@pytest.fixture
def filled(shared_door: Door) -> Iterator[Door]:
    """A door whose archive holds a series of four; peers are forgotten after each test."""
    if not held(shared_door.archive):
        assert stored(shared_door, *making.ct_series(4)) == [0, 0, 0, 0]
    yield shared_door
    for peer in shared_door.archive.index.peers.list():
        shared_door.archive.index.peers.remove(peer.ae_title)


def study_of(door: Door) -> str:
    """Return the (pseudonymous) Study Instance UID of the only study."""
    return held(door.archive)[0].key.study_instance_uid


def move(door: Door, to: str = "SINK", priority: int = 0, **keys: str) -> list[Message]:
    """Ask for a move of the only study, or of what `keys` say."""
    asked = keys or {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_of(door)}
    return answers(door, Command.C_MOVE_RQ, MOVE, asked, destination=to, priority=priority)


def counters(message: Message) -> tuple[int, int, int, int]:
    """Return Remaining, Completed, Failed and Warning; -1 for one that is absent."""
    remaining, completed, failed, warning = (
        message.number(one, -1) for one in (messages.REMAINING, messages.COMPLETED, messages.FAILED, messages.WARNING)
    )
    return remaining, completed, failed, warning


def test_m1_an_unknown_destination_is_a801(filled: Door) -> None:
    """And no association is opened."""
    (refused,) = move(filled, to="NOBODY")

    assert refused.status == 0xA801


def test_m2_m9_an_unreachable_destination_is_a702_with_the_failed_list(filled: Door) -> None:
    """Known but not there: every sub-operation failed, and the list names them."""
    filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", dcmtk.free_port()))

    (refused,) = move(filled)

    assert (refused.status, counters(refused)) == (0xA702, (-1, 0, 4, 0))
    failed = set(read(refused)["FailedSOPInstanceUIDList"].split("\\"))
    assert failed == {one.key.sop_instance_uid for one in held(filled.archive)}
    assert "SpecificCharacterSet" not in read(refused)


@pytest.mark.parametrize(
    "keys",
    [
        {"QueryRetrieveLevel": "STUDY"},
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "*"},
        {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2"},
        {"StudyInstanceUID": "1.2"},
    ],
)
def test_m3_missing_unique_keys_are_a900(filled: Door, keys: dict[str, str]) -> None:
    """Of C-MOVE and C-GET alike."""
    with destination(ExplicitVRLittleEndian) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        (moved,) = move(filled, **keys)
    (got,) = answers(filled, Command.C_GET_RQ, GET, keys)

    assert (moved.status, got.status) == (0xA900, 0xA900)


def test_m3_nothing_to_move_is_success_with_zeros(filled: Door) -> None:
    """0000 and 0/0/0; the destination hears nothing."""
    with destination(ExplicitVRLittleEndian) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        (done,) = move(filled, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3")

    assert (done.status, counters(done), sink.associations) == (0, (-1, 0, 0, 0), 0)


def test_m4_m5_m6_pending_counts_and_final_success(filled: Door) -> None:
    """One Pending a sub-operation, their sum constant; the final one has no Remaining."""
    with destination(ExplicitVRLittleEndian) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *pending, final = move(filled)

    assert [one.status for one in pending] == [0xFF00] * 4
    assert [counters(one) for one in pending] == [(3, 1, 0, 0), (2, 2, 0, 0), (1, 3, 0, 0), (0, 4, 0, 0)]
    assert (final.status, counters(final), final.data_set) == (0, (-1, 4, 0, 0), None)
    assert len(sink.requests) == 4


def test_m6_m7_one_failure_does_not_stop_the_rest(filled: Door) -> None:
    """B000 with the counters and the one UID that failed."""

    def second_fails(sink: Destination, event: Any) -> int:
        return 0xA700 if len(sink.requests) == 2 else 0

    with destination(ExplicitVRLittleEndian, answer=second_fails) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *_, final = move(filled)

    assert (final.status, counters(final)) == (0xB000, (-1, 3, 1, 0))
    assert read(final)["FailedSOPInstanceUIDList"] == str(sink.requests[1].AffectedSOPInstanceUID)


def test_m6_warnings_are_counted_as_warnings(filled: Door) -> None:
    """B007 from the destination: B000 in the end, nothing failed."""
    with destination(ExplicitVRLittleEndian, answer=lambda *_: 0xB007) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *_, final = move(filled)

    assert (final.status, counters(final)) == (0xB000, (-1, 0, 0, 4))


def test_m7_m15_x5_a_record_that_does_not_authenticate_fails_alone(door: Door) -> None:
    """What the store cannot vouch for is not sent, and is a failed sub-operation."""
    assert stored(door, *making.ct_series(4)) == [0, 0, 0, 0]
    bad = held(door.archive)[1]
    sealer = door.archive.sealer

    class OneBroken:
        def open(self, stored: Any, objects: Any) -> Any:
            if stored.key == bad.key:
                raise IntegrityError("record does not authenticate")
            return sealer.open(stored, objects)

    door.server.archive = replace(door.archive, sealer=OneBroken())  # type: ignore[arg-type]
    with destination(ExplicitVRLittleEndian) as sink:
        door.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *_, final = move(door)

    assert (final.status, counters(final)) == (0xB000, (-1, 3, 1, 0))
    assert read(final)["FailedSOPInstanceUIDList"] == bad.key.sop_instance_uid


@pytest.mark.parametrize(
    "taken", [(ImplicitVRLittleEndian,), (ExplicitVRLittleEndian,), (*HTJ2K, ExplicitVRLittleEndian, ImplicitVRLittleEndian)]
)
def test_m8_each_destination_gets_what_it_takes(filled: Door, taken: tuple[str, ...]) -> None:
    """As stored where accepted, decompressed where not; the pixels are always the same."""
    as_stored = held(filled.archive)[0].transfer_syntax_uid
    with destination(*taken) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *_, final = move(filled)

    assert final.status == 0
    assert set(sink.syntaxes) == {as_stored if as_stored in taken else taken[0]}
    if taken[0] not in HTJ2K:
        from io import BytesIO

        from pacs.dicom import part10

        ds = dcmread(BytesIO(part10.file_meta(CT, "1.2", taken[0]) + sink.data[0]))
        expected = {making.dataset(instance=one + 1).PixelData for one in range(4)}
        assert ds.PixelData in expected


@pytest.mark.parametrize("maximum_pdu_size", [0, 64, 4097, 131072])
def test_a6_the_destinations_maximum_pdu_is_kept_to(filled: Door, maximum_pdu_size: int) -> None:
    """From no limit to a few bytes a fragment; fragments are even."""
    fragments: set[int] = set()

    def sizes(event: Any) -> None:
        if event.pdu.pdu_type == 4:
            fragments.update(len(one.presentation_data_value) - 1 for one in event.pdu.presentation_data_value_items)

    with destination(ExplicitVRLittleEndian, maximum_pdu_size=maximum_pdu_size) as sink:
        sink.server.bind(evt.EVT_PDU_RECV, sizes)
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *_, final = move(filled)

    assert (final.status, len(sink.data)) == (0, 4)
    assert all(size % 2 == 0 for size in fragments)
    assert maximum_pdu_size == 0 or max(fragments) <= maximum_pdu_size - 6


def test_m8_a_class_the_destination_does_not_take_fails_alone(door: Door) -> None:
    """An MR among CTs, for a destination that only takes CT."""
    stored(door, *making.ct_series(2), making.dataset(instance=9, SOPClassUID=MR, Modality="MR", series_uid="1.2.3.4.9"))
    with destination(ExplicitVRLittleEndian) as sink:
        door.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *_, final = move(door)

    assert (final.status, counters(final)) == (0xB000, (-1, 2, 1, 0))


def test_m10_cancel_stops_with_fe00_and_four_counters(filled: Door) -> None:
    """No new sub-operation after the C-CANCEL; Remaining says what was left."""
    reached, go_on = threading.Event(), threading.Event()

    def slowly(sink: Destination, event: Any) -> int:
        reached.set()
        go_on.wait(10)
        return 0

    with destination(ExplicitVRLittleEndian, answer=slowly) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        with scu._open("127.0.0.1", filled.port, "MINIPACS", "T", [(MOVE, (ExplicitVRLittleEndian,))], 20) as association:
            keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_of(filled)}
            ask(association, Command.C_MOVE_RQ, MOVE, keys, destination="SINK")
            assert reached.wait(10)
            association.dimse.send(1, messages.encode(Command.C_CANCEL_RQ, {messages.MESSAGE_ID_RESPONDED_TO: 1}))
            serving = next(one for one in filled.server.active_associations if one.requestor.ae_title.strip() == "T")
            assert until(lambda: 1 in serving.dimse.cancelled)
            go_on.set()
            assert association.dimse.receive(10).status == 0xFF00
            final = association.dimse.receive(10)

    assert (final.status, counters(final)) == (0xFE00, (3, 1, 0, 0))
    assert len(sink.requests) == 1


def test_m10_cancel_is_heard_while_a_destination_keeps_us_waiting(filled: Door) -> None:
    """Within two seconds, although the sub-operation under way would take ten; that one counts as not done."""
    reached, go_on = threading.Event(), threading.Event()

    def hang(sink: Destination, event: Any) -> int:
        reached.set()
        go_on.wait(10)
        return 0

    with destination(ExplicitVRLittleEndian, answer=hang) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        with scu._open("127.0.0.1", filled.port, "MINIPACS", "T", [(MOVE, (ExplicitVRLittleEndian,))], 20) as association:
            keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_of(filled)}
            ask(association, Command.C_MOVE_RQ, MOVE, keys, destination="SINK")
            assert reached.wait(10)
            cancelled = time.monotonic()
            association.dimse.send(1, messages.encode(Command.C_CANCEL_RQ, {messages.MESSAGE_ID_RESPONDED_TO: 1}))
            final = association.dimse.receive(10)
            took_s = time.monotonic() - cancelled
            go_on.set()

    assert (final.status, counters(final)) == (0xFE00, (4, 0, 0, 0))
    assert took_s < 2


def test_m4_pending_goes_on_while_a_sub_operation_takes_long(filled: Door) -> None:
    """A destination that thinks for two seconds: Pending with the counters every `dicom.pending_s`, their sum constant."""
    dicom = replace(filled.archive.settings.dicom, pending_s=0.4)
    slow = replace(filled.archive, settings=replace(filled.archive.settings, dicom=dicom))
    with (
        destination(ExplicitVRLittleEndian, answer=lambda sink, event: time.sleep(2) or 0) as sink,
        opened(slow) as door,
    ):
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        uid = held(door.archive)[0].key.sop_instance_uid
        key = held(door.archive)[0].key
        keys = {"StudyInstanceUID": key.study_instance_uid, "SeriesInstanceUID": key.series_instance_uid}
        found = move(door, QueryRetrieveLevel="IMAGE", SOPInstanceUID=uid, **keys)

    assert [one.status for one in found[:-1]] == [0xFF00] * (len(found) - 1)
    assert len(found) >= 4
    assert {sum(counters(one)) for one in found[:-1]} == {1}
    assert found[-1].status == 0


def test_m8_what_is_prepared_ahead_is_what_is_sent(filled: Door) -> None:
    """Decoded on other cores in any order, sent in the right one: each UID with its own pixels."""
    with destination(ImplicitVRLittleEndian) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        move(filled)

    expected = {str(one.InstanceNumber): one.PixelData for one in making.ct_series(4)}
    sent = [elements.read(data, ImplicitVRLittleEndian) for data in sink.data]
    pixels = {values.attributes(one)["InstanceNumber"]: bytes(one[-1].value) for one in sent}
    assert pixels == expected
    assert [values.attributes(one)["InstanceNumber"] for one in sent] == ["1", "2", "3", "4"]


def test_m16_the_same_retrieval_twice_at_once_is_served_twice(filled: Door) -> None:
    """Neither is mixed up with the other, and both say what they transferred."""
    with destination(ExplicitVRLittleEndian) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        finals: list[Message] = []
        threads = [threading.Thread(target=lambda: finals.append(move(filled)[-1])) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    assert [(one.status, counters(one)) for one in finals] == [(0, (-1, 4, 0, 0))] * 2
    assert len(sink.requests) == 8


def test_m11_m12_priority_and_move_originator_are_the_requestors(filled: Door) -> None:
    """The sub-operations carry the asker's AE title, its Message ID and its priority (PS3.7 9.1.1, PS3.4 C.4.2.1.2)."""
    with destination(ExplicitVRLittleEndian) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        move(filled, priority=2)

    assert {one.MoveOriginatorApplicationEntityTitle for one in sink.requests} == {"ASKER"}
    assert {one.MoveOriginatorMessageID for one in sink.requests} == {1}
    assert {one.Priority for one in sink.requests} == {2}
    assert len({one.MessageID for one in sink.requests}) == 4


def test_m13_a_destination_that_breaks_off_is_asked_once_more(filled: Door) -> None:
    """The first time may be an accident: everything arrives over a second association."""

    def once(sink: Destination, event: Any) -> int:
        if len(sink.requests) == 2:
            event.assoc.abort()
        return 0

    with destination(ExplicitVRLittleEndian, answer=once) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *_, final = move(filled)

    assert (final.status, counters(final), sink.associations) == (0, (-1, 4, 0, 0), 2)


def test_m13_a_destination_that_breaks_off_again_and_again_fails_the_rest(filled: Door) -> None:
    """Twice is enough; A702 with all UIDs."""

    def always(sink: Destination, event: Any) -> int:
        event.assoc.abort()
        return 0

    with destination(ExplicitVRLittleEndian, answer=always) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *_, final = move(filled)

    assert (final.status, counters(final), sink.associations) == (0xA702, (-1, 0, 4, 0), 2)


def test_m13_two_moves_to_one_destination_run_side_by_side(filled: Door) -> None:
    """Neither waits for the other's end."""
    both = threading.Barrier(2, timeout=10)

    def together(sink: Destination, event: Any) -> int:
        if len(sink.requests) <= 2:
            both.wait()
        return 0

    heard: list[int] = []
    with destination(ExplicitVRLittleEndian, answer=together) as sink:
        filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        threads = [threading.Thread(target=lambda: heard.append(move(filled)[-1].status)) for _ in range(2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    assert heard == [0, 0]


def get(door: Door, *proposals: scu.Proposal, as_scp: tuple[str, ...] = (CT,), answer: int = 0) -> tuple[list[Message], int]:
    """Get the only study; returns the responses and how many instances came."""
    with scu._open(
        "127.0.0.1", door.port, "MINIPACS", "T", [(GET, (ExplicitVRLittleEndian,)), *proposals], 20, as_scp=as_scp
    ) as association:
        ask(association, Command.C_GET_RQ, GET, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_of(door)})
        found: list[Message] = []
        came = 0
        while not found or found[-1].status == 0xFF00:
            message = association.dimse.receive(20)
            if message.command_field == Command.C_GET_RSP:
                found.append(message)
                continue
            came += 1
            said = {0x0120: message.message_id, 0x0900: answer, 0x1000: message.sop_instance_uid}
            association.dimse.send(message.context_id, messages.encode(Command.C_STORE_RSP, said))
        return found, came


def test_m15_get_sends_on_the_same_association(filled: Door) -> None:
    """Pending after each, success in the end."""
    found, came = get(filled, (CT, (ExplicitVRLittleEndian,)))

    assert came == 4
    assert [one.status for one in found] == [0xFF00] * 4 + [0]
    assert counters(found[-1]) == (-1, 4, 0, 0)


@pytest.mark.parametrize("level", ["PATIENT", "STUDY", "SERIES", "IMAGE"])
def test_m3_every_level_of_the_patient_root_can_be_got(door: Door, level: str) -> None:
    """Two series of three: a patient and a study are six instances, a series three, a list of images two."""
    stored(door, *making.ct_series(3), *making.ct_series(3, series_uid=making.SERIES_UID + "7", SeriesNumber=7))
    first, second = held(door.archive)[:2]
    (patient,) = door.archive.index.search(Query(Level.PATIENT))
    keys = {
        "PatientID": patient["PatientID"],
        "StudyInstanceUID": first.key.study_instance_uid,
        "SeriesInstanceUID": first.key.series_instance_uid,
        "SOPInstanceUID": f"{first.key.sop_instance_uid}\\{second.key.sop_instance_uid}",
    }
    used = dict(list(keys.items())[: ["PATIENT", "STUDY", "SERIES", "IMAGE"].index(level) + 1])
    root = contexts.PATIENT_ROOT_MOVE

    with destination(ExplicitVRLittleEndian) as sink:
        door.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        *_, final = answers(door, Command.C_MOVE_RQ, root, {"QueryRetrieveLevel": level, **used}, destination="SINK")

    assert (final.status, len(sink.requests)) == (0, {"PATIENT": 6, "STUDY": 6, "SERIES": 3, "IMAGE": 2}[level])


def test_m15_without_role_selection_sub_operations_fail(filled: Door) -> None:
    """The asker is not SCP of the class, so nothing can be sent: A702."""
    found, came = get(filled, (CT, (ExplicitVRLittleEndian,)), as_scp=())

    assert came == 0
    assert (found[-1].status, counters(found[-1])) == (0xA702, (-1, 0, 4, 0))


@pytest.mark.parametrize(("answer", "code", "counts"), [(0xA700, 0xA702, (-1, 0, 4, 0)), (0xB000, 0xB000, (-1, 0, 0, 4))])
def test_m15_what_the_asker_answers_is_counted(filled: Door, answer: int, code: int, counts: tuple[int, ...]) -> None:
    """A7xx is a failure, Bxxx a warning."""
    found, _ = get(filled, (CT, (ExplicitVRLittleEndian,)), answer=answer)

    assert (found[-1].status, counters(found[-1])) == (code, counts)


def test_m15_an_asker_that_leaves_in_the_middle_harms_nobody(filled: Door) -> None:
    """The association ends; the next one gets everything."""
    with socket.create_connection(("127.0.0.1", filled.port)):
        pass
    association = scu.associate(
        "127.0.0.1",
        filled.port,
        called="MINIPACS",
        calling="T",
        proposals=[(GET, (ExplicitVRLittleEndian,)), (CT, (ExplicitVRLittleEndian,))],
        as_scp=(CT,),
    )
    ask(association, Command.C_GET_RQ, GET, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_of(filled)})
    association.dimse.receive(10)
    association.terminate()

    assert get(filled, (CT, (ExplicitVRLittleEndian,)))[1] == 4
    assert until(lambda: not filled.server.active_associations)


@pytest.mark.parametrize("wish", ["+x=", "+xi"])
def test_dcmtk_gets_a_study(filled: Door, tmp_path: Path, wish: str) -> None:
    """getscu, explicit and implicit: the files hold the pixels that were sent."""
    out = tmp_path / "out"
    out.mkdir()

    done = dcmtk.run(
        "getscu", "-S", wish, "-aec", "MINIPACS", "-od", out, "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={study_of(filled)}", "127.0.0.1", filled.port,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    expected = {making.dataset(instance=one + 1).PixelData for one in range(4)}
    assert {dcmread(one).PixelData for one in out.iterdir()} == expected


def test_dcmtk_moves_a_study(filled: Door, tmp_path: Path) -> None:
    """movescu asks, storescp receives."""
    out = tmp_path / "out"
    out.mkdir()
    port = dcmtk.free_port()
    filled.archive.index.peers.add(Peer("SINK", "127.0.0.1", port))
    receiver = subprocess.Popen(
        [dcmtk.tool("storescp"), "-aet", "SINK", "-od", str(out), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 10)
        done = dcmtk.run(
            "movescu", "-S", "-aec", "MINIPACS", "-aem", "SINK", "-k", "QueryRetrieveLevel=STUDY",
            "-k", f"StudyInstanceUID={study_of(filled)}", "127.0.0.1", filled.port,
        )  # fmt: skip
    finally:
        receiver.terminate()
        receiver.wait(10)

    assert done.returncode == 0, done.stdout
    assert len([one for one in out.iterdir() if dcmread(one).SOPClassUID == CT]) == 4


def instance(sop_class_uid: str, number: int, transfer_syntax_uid: str = HTJ2K[0]) -> Stored:
    """Return a row of the index without anything behind it."""
    key = InstanceKey("1", "1.1", f"1.1.{number}")
    return Stored(key, sop_class_uid, transfer_syntax_uid, Location("s", 0, 0), 1, b"")


def test_m14_more_than_128_contexts_take_several_associations() -> None:
    """Every instance finds all of its contexts in one association, and none has more than it can."""
    instances = [instance(sop_class, number) for number, sop_class in enumerate(sorted(contexts.STORAGE_CLASSES) * 2)]

    batches = onward._batches(instances)

    assert len(batches) > 4
    assert all(len(batch) <= 128 for batch in batches)
    assert all(any(set(onward._needs(one)) <= batch for batch in batches) for one in instances)


def test_m12_message_ids_wrap_at_65535() -> None:
    """After 65535 comes 1; 0 is none."""
    ids = onward.message_ids()

    last = [next(ids) for _ in range(65537)]

    assert (last[0], last[65534], last[65535]) == (1, 65535, 1)


@pytest.mark.parametrize(
    ("codes", "final"),
    [
        ([0, 0], 0x0000),
        ([], 0x0000),
        ([0, 0xA700], 0xB000),
        ([0, 0xB000], 0xB000),
        ([0xB000, None], 0xB000),
        ([None, 0xC000], 0xA702),
    ],
)
def test_m6_the_final_status_follows_from_the_counters(codes: list[int | None], final: int) -> None:
    """Never 0000 with a failure; A702 only if nothing got through (PS3.4 C.4.2.1.5)."""
    tally = retrieve._Tally(len(codes))

    for code in codes:
        tally.count(code, "1.2")

    assert tally.final() == final
    assert tally.remaining == 0
    assert tally.completed + tally.failed + tally.warning == len(codes)


def test_m14_more_than_65535_instances_are_refused_not_wrapped(filled: Door) -> None:
    """A701 with a comment; the counters are 16 bits wide."""
    many = [instance(CT, number) for number in range(65536)]
    index = filled.archive.index

    class Full:
        peers, tallies, note = index.peers, index.tallies, index.note

        def locate(self, **_: Any) -> list[Stored]:
            return many

    filled.server.archive = replace(filled.archive, index=Full())  # type: ignore[arg-type]
    (refused,) = answers(filled, Command.C_GET_RQ, GET, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"})

    assert refused.status == 0xA701
    assert "65535" in refused.text(messages.ERROR_COMMENT)
