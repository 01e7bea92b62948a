"""Several processes that receive, behind one that accepts: `pacs scp` as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import making
import psutil
import pytest
from dimse.door import associate_bytes, echo, p_data, raw, read_pdu, until
from whole import free_port, gone_by

from pacs.archive import Archive
from pacs.dimse import messages, requestor, scu
from pacs.dimse.lane import LaneAssociation
from pacs.dimse.messages import Command
from pacs.dimse.receivers import Board
from pacs.sweep import prepare, recover

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several receivers are for Linux only")
CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"


@dataclass
class Listening:
    """A running `pacs scp`."""

    home: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def started(self, count: int) -> bool:
        """Wait until so many receivers have said that they serve, since the beginning; one that was killed counts."""
        return until(lambda: self.log.read_bytes().count(b"receiver_started") >= count, 60)

    def receivers(self) -> list[psutil.Process]:
        """Return its receivers."""
        return psutil.Process(self.process.pid).children()

    def send(self, association: LaneAssociation, instance: int) -> int:
        """Store an instance; returns the status."""
        ds = making.dataset(instance=instance)
        return requestor.store(
            association,
            1,
            sop_class_uid=CT,
            sop_instance_uid=ds.SOPInstanceUID,
            data_set=[making.encode(ds)],
            message_id=1,
        )

    @contextmanager
    def association(self) -> Iterator[LaneAssociation]:
        """Open an association that can store."""
        with scu._open("127.0.0.1", self.port, "MINIPACS", "MODALITY", [(CT, ("1.2.840.10008.1.2.1",))], 20) as opened:
            yield opened


Listen = Callable[..., Listening]


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Listen]:
    """A function that starts `pacs scp` with two receivers and settings of its own."""
    with ExitStack() as stack:

        def start(**environment: str) -> Listening:
            home, port = tmp_path / "home", free_port()
            prepare(making.settings(home))
            inherited = {key: value for key, value in os.environ.items() if not key.startswith("PACS_")}
            variables = {"PACS_HOME": str(home), "PACS_DICOM_PORT": str(port), "PACS_DICOM_RECEIVERS": "2"}
            command = [sys.executable, "-m", "pacs", "scp"]
            log = tmp_path / "scp.log"
            with log.open("wb") as sink:
                process = subprocess.Popen(command, env=inherited | variables | environment, stdout=sink, stderr=sink)
            stack.callback(process.wait)
            stack.callback(process.kill)
            found = Listening(home, port, process, log)
            assert found.started(2)
            return found

        yield start


def _answers(port: int) -> bool:
    try:
        return echo(port) == 0
    except OSError:
        return False


def instances(home: Path) -> set[int]:
    """Return the instance numbers that a home holds after a start."""
    with making.archive(home) as archive:
        recover(archive)
        return numbers(archive)


def numbers(archive: Archive) -> set[int]:
    """Return the instance numbers that an archive holds."""
    studies = [study.study_instance_uid for study in archive.index.studies()]
    return {int(one.attributes["InstanceNumber"]) for one in archive.index.locate(study_instance_uids=studies)}


def test_a_killed_receiver_loses_nothing_acknowledged_and_is_replaced(listen: Listen) -> None:
    """kill -9 of both receivers, one after the other: what was answered 0000 is there, and new associations are served."""
    server = listen()
    acknowledged = set()
    for number in (1, 2, 3):
        with server.association() as association:
            assert server.send(association, number) == 0
            acknowledged.add(number)
            server.receivers()[number % 2].kill()
            assert server.started(2 + number)
        assert len(server.receivers()) == 2 and _answers(server.port)

    with server.association() as association:
        assert server.send(association, 4) == 0

    server.process.terminate()
    assert server.process.wait(20) == 0
    assert instances(server.home) == acknowledged | {4}


def test_associations_go_to_the_receiver_with_the_fewest(listen: Listen) -> None:
    """Associations at once are served by two processes, each with a segment of its own."""
    server = listen()
    with server.association() as first, server.association() as second:
        assert [server.send(first, 1), server.send(second, 2)] == [0, 0]

    writers = {path.name.rsplit("-", 1)[0] for path in (server.home / "store").glob("*.seg")}
    assert {"scp", "scp-2"} <= writers


def test_a2_the_limit_of_associations_holds_for_all_receivers_together(listen: Listen) -> None:
    """The third of two is rejected as transient, whichever process it comes to; a freed or lost place is given again."""
    server = listen(PACS_DICOM_MAXIMUM_ASSOCIATIONS="2")
    first, second = raw(server.port), raw(server.port)
    for _ in range(2):
        with raw(server.port, associate=False) as third:
            third.sendall(associate_bytes())
            assert read_pdu(third) == (3, b"\0\2\3\2")

    first.sendall(p_data(1, 3, messages.encode(Command.C_ECHO_RQ, {0x0002: VERIFICATION, 0x0110: 1})))
    assert read_pdu(first)[0] == 4
    second.close()
    assert until(lambda: _answers(server.port))
    for one in server.receivers():
        one.kill()
    assert server.started(4) and _answers(server.port), "the place of an association that died with its receiver is free"
    first.close()


def test_open_associations_finish_when_the_server_stops(listen: Listen) -> None:
    """After SIGTERM nobody new comes in, and who is in goes on to its release; then the server ends with 0."""
    server = listen()
    with server.association() as association:
        assert server.send(association, 1) == 0
        server.process.terminate()
        assert until(lambda: not _connects(server.port))

        assert server.send(association, 2) == 0

    assert server.process.wait(20) == 0
    assert instances(server.home) == {1, 2}


def test_an_association_that_does_not_end_is_aborted_after_a_while(listen: Listen) -> None:
    """`dicom.drain_s` bounds how long the server waits for open associations."""
    server = listen(PACS_DICOM_DRAIN_S="0.5")
    with raw(server.port) as connection:
        began = time.monotonic()
        server.process.terminate()

        assert read_pdu(connection)[0] == 7
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 10


def test_receivers_end_with_the_acceptor(listen: Listen) -> None:
    """kill -9 of the acceptor takes its receivers along."""
    server = listen()
    receivers = server.receivers()

    server.process.send_signal(signal.SIGKILL)

    assert gone_by(receivers, 10) == []


def test_what_receivers_share_is_bounded_together() -> None:
    """A budget over two processes' rows is one budget; the row of one that died is given back."""
    board = Board(columns=2, rows=2)
    mine, others = board.budget(0, 0, 100), board.budget(0, 1, 100)

    assert mine.take(60) and others.take(30)
    assert not mine.take(11) and not others.take(11)
    assert mine.take(10)
    board.clear(1)
    assert others.take(30)
    mine.give(70)
    assert others.take(70)
    assert board.budget(1, 0, 1).take(1), "columns are apart"


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
