"""One C-MOVE on several associations: counted as on one, cancelled as one, and nothing fails where a peer takes fewer."""

import threading
import time
from collections.abc import Callable
from typing import Any

import making
import pytest
from dimse.door import Door, ask, held, stored, until
from dimse.test_retrieve import MOVE, Destination, counters, destination, move, study_of
from pydicom.uid import ExplicitVRLittleEndian

from pacs.dimse import messages, scu
from pacs.dimse.abreast import how_many
from pacs.dimse.messages import Command
from pacs.model.peer import Peer

IMAGES = 24


@pytest.fixture
def abreast(open_door: Callable[..., Door]) -> Door:
    """A door that sends on three associations at once, and holds a series of 24."""
    found = open_door(dicom__move_associations=3)
    assert set(stored(found, *making.ct_series(IMAGES))) == {0}
    return found


def test_m14_each_instance_goes_once_by_one_of_several(abreast: Door) -> None:
    """Three associations, every instance once, counters and final status as on one."""
    with destination(ExplicitVRLittleEndian) as sink:
        abreast.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        said = move(abreast)

    assert sink.associations == 3
    sent = [str(one.AffectedSOPInstanceUID) for one in sink.requests]
    assert sorted(sent) == sorted(one.key.sop_instance_uid for one in held(abreast.archive))
    assert said[-1].status == 0 and counters(said[-1]) == (-1, IMAGES, 0, 0)
    remaining = [counters(one)[0] for one in said[:-1]]
    assert remaining == sorted(remaining, reverse=True) and all(sum(counters(one)) == IMAGES for one in said[:-1])


def test_m13_a_peer_that_takes_one_association_gets_all_by_that(abreast: Door) -> None:
    """The refused ones fail nothing: their share goes by the first."""
    with destination(ExplicitVRLittleEndian) as sink:
        sink.server.ae.maximum_associations = 1
        abreast.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        said = move(abreast)

    assert said[-1].status == 0 and counters(said[-1]) == (-1, IMAGES, 0, 0)
    assert len(sink.requests) == IMAGES


def test_m7_what_fails_is_named_whichever_way_it_went(abreast: Door) -> None:
    """Failures of different associations are in one list."""
    wrong = {held(abreast.archive)[index].key.sop_instance_uid for index in (0, 1, 23)}

    def answer(sink: Destination, event: Any) -> int:
        return 0xA700 if str(event.request.AffectedSOPInstanceUID) in wrong else 0

    with destination(ExplicitVRLittleEndian, answer=answer) as sink:
        abreast.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        final = move(abreast)[-1]

    assert final.status == 0xB000 and counters(final) == (-1, IMAGES - 3, 3, 0)
    assert all(uid.encode() in bytes(final.data_set) for uid in wrong)


@pytest.mark.parametrize("slow_s", [0.05, 30.0])
def test_m10_cancel_stops_all_of_them(abreast: Door, slow_s: float) -> None:
    """What is under way is finished if that is quick, and broken off if not; the counters add up."""
    reached, ended = threading.Event(), threading.Event()

    def slowly(sink: Destination, event: Any) -> int:
        reached.set()
        ended.wait(slow_s)
        return 0

    with destination(ExplicitVRLittleEndian, answer=slowly) as sink:
        abreast.archive.index.peers.add(Peer("SINK", "127.0.0.1", sink.port))
        with scu._open("127.0.0.1", abreast.port, "MINIPACS", "T", [(MOVE, (ExplicitVRLittleEndian,))], 20) as association:
            keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study_of(abreast)}
            ask(association, Command.C_MOVE_RQ, MOVE, keys, destination="SINK")
            assert reached.wait(10)
            began = time.monotonic()
            association.dimse.send(1, messages.encode(Command.C_CANCEL_RQ, {messages.MESSAGE_ID_RESPONDED_TO: 1}))
            answered = association.dimse.receive(10)
            while answered.status == 0xFF00:
                answered = association.dimse.receive(10)
            assert time.monotonic() - began < 5
        ended.set()
        assert until(lambda: not sink.server.ae.active_associations)

    assert answered.status == 0xFE00
    assert counters(answered)[0] > 0 and sum(counters(answered)) == IMAGES


def test_an_association_needs_enough_to_do() -> None:
    """Opening one costs more than a few instances."""
    assert [how_many(4, instances) for instances in (0, 1, 15, 16, 31, 500)] == [1, 1, 1, 2, 3, 4]
    assert how_many(1, 500) == 1
