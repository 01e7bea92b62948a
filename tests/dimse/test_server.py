"""Who may come in, what is negotiated, and what no peer can break."""

import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dcmtk
import making
import pytest
from dimse.door import Door, associate_bytes, echo, p_data, raw, read_pdu, until
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless
from pynetdicom import AE, build_context, build_role
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from pacs.dimse import contexts, messages, requestor, scu, server
from pacs.dimse.messages import Command
from pacs.model.errors import ConfigurationError
from pacs.model.peer import Peer
from pacs.model.query import Level, Query

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
Open = Callable[..., Door]


def test_a14_echo_is_always_answered(shared_door: Door) -> None:
    """C-ECHO 0000 for DCMTK, for pynetdicom and for ourselves."""
    assert dcmtk.run("echoscu", "-aec", "MINIPACS", "127.0.0.1", shared_door.port).returncode == 0
    assert echo(shared_door.port) == 0
    assert scu.echo("127.0.0.1", shared_door.port, "MINIPACS") == 0


def test_a14_ipv6_works(open_door: Open) -> None:
    """Listening on ::1, a loopback address like 127.0.0.1."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    door = open_door(dicom__host="::1")

    assert scu.echo("::1", door.port, "MINIPACS") == 0


def test_a1_an_unknown_called_ae_title_is_rejected(shared_door: Door) -> None:
    """Result 1, source 1, reason 7 (PS3.8 Table 9-21)."""
    with raw(shared_door.port, associate=False) as connection:
        connection.sendall(associate_bytes("SOMEBODY"))

        assert read_pdu(connection) == (3, b"\0\1\1\7")


def test_a1_any_called_ae_title_is_taken_where_the_setting_says_so(open_door: Open) -> None:
    """`dicom.require_called_ae_title = false`."""
    door = open_door(dicom__require_called_ae_title=False)

    with raw(door.port, associate=False) as connection:
        connection.sendall(associate_bytes("SOMEBODY"))

        assert read_pdu(connection)[0] == 2


def test_a1_a_wrong_application_context_is_rejected(shared_door: Door) -> None:
    """Result 1, source 1, reason 2."""
    with raw(shared_door.port, associate=False) as connection:
        connection.sendall(associate_bytes(context_name="1.2.3.4"))

        assert read_pdu(connection) == (3, b"\0\1\1\2")


def test_a1_beyond_loopback_only_configured_peers_come_in(open_door: Open) -> None:
    """An unknown calling AE title gets reason 3 on a public address; a configured peer is served."""
    door = open_door(dicom__host="0.0.0.0")
    with raw(door.port, associate=False) as connection:
        connection.sendall(associate_bytes())
        assert read_pdu(connection) == (3, b"\0\1\1\3")

    door.archive.index.peers.add(Peer("PROBE", "127.0.0.1", 104))

    assert echo(door.port, calling="PROBE") == 0


def test_s9_a_peer_may_do_only_what_it_is_configured_for(door: Door) -> None:
    """0124 for a service it was not given."""
    door.archive.index.peers.add(Peer("READER", "127.0.0.1", 104, may=frozenset({"echo", "find"})))
    ds = making.dataset()

    with scu._open("127.0.0.1", door.port, "MINIPACS", "READER", [(CT, (ExplicitVRLittleEndian,))], 10) as association:
        code = requestor.store(
            association,
            1,
            sop_class_uid=CT,
            sop_instance_uid=ds.SOPInstanceUID,
            data_set=[making.encode(ds)],
            message_id=1,
        )

    assert code == 0x0124


def test_a2_beyond_the_limit_associations_are_rejected_as_transient(open_door: Open) -> None:
    """Result 2, source 3, reason 2; those that are open go on, and a freed place is given again."""
    door = open_door(dicom__maximum_associations=2)
    first, second = raw(door.port), raw(door.port)
    with raw(door.port, associate=False) as third:
        third.sendall(associate_bytes())

        assert read_pdu(third) == (3, b"\0\2\3\2")

    first.sendall(p_data(1, 3, messages.encode(Command.C_ECHO_RQ, {0x0002: VERIFICATION, 0x0110: 1})))
    assert read_pdu(first)[0] == 4
    second.close()
    assert until(lambda: echo(door.port) == 0)
    first.close()


def test_a3_a5_contexts_are_accepted_one_by_one(shared_door: Door) -> None:
    """128 contexts with odd IDs: unknown abstract syntax 3, no common transfer syntax 4, the others accepted."""
    ae = AE()
    for number in range(125):
        ae.add_requested_context(f"1.2.826.0.1.999.{number}")
    wanted = [
        build_context(CT, ["1.2.840.10008.1.2.4.94"]),
        build_context(CT, ImplicitVRLittleEndian),
        build_context(CT, [ImplicitVRLittleEndian, JPEGLSLossless, ExplicitVRBigEndian]),
    ]

    association = ae.associate("127.0.0.1", shared_door.port, contexts=[*ae.requested_contexts, *wanted], ae_title="MINIPACS")

    assert association.is_established
    assert [one.context_id for one in association.accepted_contexts] == [253, 255]
    assert {one.result for one in association.rejected_contexts if one.context_id < 250} == {3}
    assert next(one.result for one in association.rejected_contexts if one.context_id == 251) == 4
    association.release()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([ImplicitVRLittleEndian, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([ExplicitVRBigEndian, ImplicitVRLittleEndian], ImplicitVRLittleEndian),
        ([ExplicitVRLittleEndian, JPEGLSLossless], JPEGLSLossless),
        ([ExplicitVRBigEndian], ExplicitVRBigEndian),
    ],
)
def test_a4_the_best_of_the_offered_transfer_syntaxes_is_chosen(shared_door: Door, offered: list[str], chosen: str) -> None:
    """Compressed before uncompressed, Explicit VR Little Endian before the rest, whatever the order of the offer."""
    with scu._open("127.0.0.1", shared_door.port, "MINIPACS", "T", [(CT, tuple(offered))], 10) as association:
        assert [str(one.transfer_syntax[0]) for one in association.accepted_contexts] == [chosen]


def test_s14_every_transfer_syntax_of_the_table_is_accepted(shared_door: Door) -> None:
    """Each alone in its context."""
    syntaxes = (*contexts.UNCOMPRESSED, *contexts.COMPRESSED)

    with scu._open("127.0.0.1", shared_door.port, "MINIPACS", "T", [(CT, (one,)) for one in syntaxes], 10) as association:
        assert set(scu.accepted(association, CT)) == set(syntaxes)


def test_every_standard_storage_class_is_accepted(shared_door: Door) -> None:
    """All of them, which takes two associations to propose."""
    every = sorted(contexts.STORAGE_CLASSES)
    assert len(every) > 128
    for some in (every[:128], every[128:]):
        with scu._open(
            "127.0.0.1", shared_door.port, "MINIPACS", "T", [(one, (ImplicitVRLittleEndian,)) for one in some], 10
        ) as found:
            assert [str(one.abstract_syntax) for one in found.accepted_contexts] == some


def test_a8_role_selection_is_answered_only_where_proposed(shared_door: Door) -> None:
    """For a storage class in C-GET the requestor becomes SCP; the other class keeps the default roles without an item."""
    mr = "1.2.840.10008.5.1.4.1.1.4"
    ae = AE()
    ae.add_requested_context(CT)
    ae.add_requested_context(mr)

    association = ae.associate("127.0.0.1", shared_door.port, ae_title="MINIPACS", ext_neg=[build_role(CT, scp_role=True)])

    roles = {str(one.abstract_syntax): (one.as_scu, one.as_scp) for one in association.accepted_contexts}
    assert roles == {CT: (False, True), mr: (True, False)}
    assert [str(uid) for uid in association.acceptor.role_selection] == [CT]
    association.release()


def test_a9_extended_negotiation_is_answered_with_what_is_done(shared_door: Door) -> None:
    """Relational, date-time, fuzzy and timezone for C-FIND; enhanced multi-frame 0."""
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = contexts.STUDY_ROOT_FIND
    item.service_class_application_information = b"\1\1\1\1\1"
    ae = AE()
    ae.add_requested_context(contexts.STUDY_ROOT_FIND)

    association = ae.associate("127.0.0.1", shared_door.port, ae_title="MINIPACS", ext_neg=[item])

    assert association.acceptor.sop_class_extended == {contexts.STUDY_ROOT_FIND: b"\1\1\1\1\0"}
    association.release()


def test_a_request_of_a_service_we_lack_is_told_so(shared_door: Door) -> None:
    """0211, unrecognized operation (PS3.7 C.5.22), and the association goes on."""
    with raw(shared_door.port) as connection:
        connection.sendall(p_data(1, 3, messages.encode(0x0140, {0x0003: VERIFICATION, 0x0110: 5})))
        answer = messages.decode(read_pdu(connection)[1][6:])
        assert struct.unpack("<H", answer[messages.STATUS])[0] == 0x0211

        connection.sendall(p_data(1, 3, messages.encode(Command.C_ECHO_RQ, {0x0002: VERIFICATION, 0x0110: 6})))
        assert read_pdu(connection)[0] == 4


def test_a6_a_command_split_anywhere_is_put_together(shared_door: Door) -> None:
    """One byte a fragment, and several fragments in one PDU."""
    command = messages.encode(Command.C_ECHO_RQ, {0x0002: VERIFICATION, 0x0110: 9})
    pieces = [p_data(1, 3 if at == len(command) - 1 else 1, command[at : at + 1]) for at in range(len(command))]
    together = b"".join(piece[6:] for piece in pieces)

    with raw(shared_door.port) as connection:
        connection.sendall(b"".join(pieces))
        assert read_pdu(connection)[0] == 4
        connection.sendall(struct.pack(">BBI", 4, 0, len(together)) + together)
        assert read_pdu(connection)[0] == 4


HOSTILE = {
    "a PDU type nobody knows": b"\x55\0\0\0\0\4abcd",
    "a 4 GB P-DATA": b"\4\0\xff\xff\xff\xff",
    "a PDV longer than its PDU": struct.pack(">BBIIBB", 4, 0, 10, 4000, 1, 3) + b"abcd",
    "a PDV of length 0": struct.pack(">BBIIBB", 4, 0, 6, 0, 1, 3),
    "a data set without a command": p_data(1, 2, b"abcd"),
    "a command in a context that does not exist": p_data(9, 3, messages.encode(Command.C_ECHO_RQ, {0x0110: 1})),
    "a malformed command": p_data(1, 3, b"\0\0\0\1\xff\xff\xff\xff"),
    "a command without Command Field": p_data(1, 3, b"\0\0\x10\1\2\0\0\0\1\0"),
    "a second association request": associate_bytes(),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("noise", HOSTILE.values(), ids=HOSTILE)
def test_a13_malformed_bytes_end_their_association_only(shared_door: Door, noise: bytes) -> None:
    """A-ABORT or a closed connection for the sender; the next caller is served."""
    with raw(shared_door.port) as connection:
        connection.sendall(noise)

        assert read_pdu(connection)[0] in (0, 7)

    assert echo(shared_door.port) == 0


def test_a13_garbage_before_an_association_is_harmless(shared_door: Door) -> None:
    """Random bytes, cut-off requests and connections that say nothing."""
    chance = random.Random(7)
    good = associate_bytes()
    silent = [socket.create_connection(("127.0.0.1", shared_door.port)) for _ in range(5)]
    for number in range(40):
        noise = (
            chance.randbytes(200)
            if number % 2
            else bytes(
                byte ^ (chance.random() < 0.02) * chance.randrange(256) for byte in good[: chance.randrange(1, len(good))]
            )
        )
        with socket.create_connection(("127.0.0.1", shared_door.port), timeout=10) as connection:
            connection.sendall(noise)

    assert echo(shared_door.port) == 0
    for one in silent:
        one.close()


def test_a12_an_abort_in_the_middle_of_a_data_set_leaves_nothing(door: Door) -> None:
    """No row, no quarantine, and the bytes it held are free again."""
    with raw(door.port, abstract_syntax=CT) as connection:
        command = messages.encode(Command.C_STORE_RQ, {0x0002: CT, 0x0110: 1, 0x0700: 0, 0x1000: "1.2.3"}, data_set=True)
        connection.sendall(p_data(1, 3, command) + p_data(1, 0, b"\x08\0" * 1000))
        assert until(lambda: door.server.archive.intake._used > 0)

    assert until(lambda: door.server.archive.intake._used == 0)
    assert until(lambda: not door.server.active_associations)
    assert door.archive.index.quarantine.list() == []


def test_a12_dcmtk_aborts_in_the_middle(door: Door, tmp_path: Path) -> None:
    """What was answered 0000 before the abort stays."""
    making.write_files(tmp_path / "in", making.ct_series(3))

    done = dcmtk.run("storescu", "--abort", "-aec", "MINIPACS", "+sd", "127.0.0.1", door.port, tmp_path / "in")

    assert done.returncode == 0, done.stdout
    assert len(list(door.archive.index.search(Query(Level.IMAGE)))) == 3
    assert until(lambda: not door.server.active_associations)


def test_a12_a_silent_peer_is_aborted(open_door: Open) -> None:
    """After `dicom.idle_timeout_s`, in the middle of a PDU too."""
    door = open_door(dicom__idle_timeout_s=1.0)
    idle, stuck = raw(door.port), raw(door.port)
    stuck.sendall(b"\4\0\0\0\1\0abc")

    assert read_pdu(idle)[0] == 7
    assert until(lambda: not door.server.active_associations, 10)
    idle.close()
    stuck.close()


def test_a13_an_object_larger_than_the_limit_is_answered_and_not_kept(open_door: Open) -> None:
    """A700 with a comment once it was read to its end; the association goes on (memory bounded)."""
    door = open_door(dicom__maximum_object_mb=1)
    ds = making.dataset()

    with scu._open("127.0.0.1", door.port, "MINIPACS", "T", [(CT, (ExplicitVRLittleEndian,))], 10) as association:
        code = requestor.store(
            association, 1, sop_class_uid=CT, sop_instance_uid="1.2.3", data_set=[bytes(3 << 20)], message_id=1
        )
        again = requestor.store(
            association,
            1,
            sop_class_uid=CT,
            sop_instance_uid=ds.SOPInstanceUID,
            data_set=[making.encode(ds)],
            message_id=2,
        )

    assert (code, again) == (0xA700, 0)
    assert door.server.archive.intake._used == 0


def test_a7_requests_without_waiting_for_answers_are_no_dialogue(shared_door: Door) -> None:
    """A flood of requests on an association without an asynchronous window is aborted, not queued without bounds."""
    echo_rq = p_data(1, 3, messages.encode(Command.C_ECHO_RQ, {0x0002: VERIFICATION, 0x0110: 1}))
    with raw(shared_door.port) as connection:
        try:
            for _ in range(50):
                connection.sendall(echo_rq * 400)
            kinds = set()
            while (kind := read_pdu(connection)[0]) not in (0, 7):
                kinds.add(kind)
        except ConnectionError:
            pass

    assert echo(shared_door.port) == 0


def test_a_port_in_use_is_told_with_what_to_do(door: Door, open_door: Open) -> None:
    """ConfigurationError names the port and the setting."""
    taken = making.settings(door.archive.settings.home, dicom__port=door.port)
    with pytest.raises(ConfigurationError, match=f"DICOM port {door.port} is in use"):
        server.listen(replace(door.archive, settings=taken))


def test_stopping_lets_an_open_association_finish(door: Door) -> None:
    """`stop` ends listening at once; who is inside may finish within `dicom.drain_s`."""
    stop, ready = threading.Event(), threading.Event()
    port = dcmtk.free_port()
    archive = replace(door.archive, settings=making.settings(door.archive.settings.home, dicom__port=port, dicom__drain_s=5.0))
    thread = threading.Thread(target=server.serve, args=(archive,), kwargs={"ready": ready.set, "stop": stop})
    thread.start()
    assert ready.wait(10)
    connection = raw(port)

    stop.set()
    assert until(lambda: not _listens(port))
    connection.sendall(p_data(1, 3, messages.encode(Command.C_ECHO_RQ, {0x0002: VERIFICATION, 0x0110: 1})))

    assert read_pdu(connection)[0] == 4
    connection.close()
    thread.join(10)
    assert not thread.is_alive()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
