"""Instance Availability Notification as SCU (PS3.4 Annex R), taken by pynetdicom."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dcmtk
import making
import pytest
from dimse.door import Door, held, opened, stored
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import InstanceAvailabilityNotification

from pacs.dimse.availability import Herald
from pacs.model.job import Claim, NewJob
from pacs.model.peer import Peer

STUDY = "1.2.840.80.1"


@dataclass
class Listener:
    """A peer that takes notifications; `answers` are its statuses in turn, then 0000."""

    port: int
    told: list[tuple[str, Dataset]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


@contextmanager
def listener(port: int = 0) -> Iterator[Listener]:
    """Listen with pynetdicom."""
    made = Listener(port)

    def take(event: evt.Event) -> tuple[int, None]:
        made.told.append((str(event.request.AffectedSOPInstanceUID), event.attribute_list))
        return (made.answers.pop(0) if made.answers else 0), None

    ae = AE(ae_title="LISTENER")
    ae.add_supported_context(InstanceAvailabilityNotification)
    listening = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_CREATE, take)])
    made.port = listening.server_address[1]
    try:
        yield made
    finally:
        listening.shutdown()


@pytest.fixture
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door with a study of two series that has come to rest."""
    with making.archive(tmp_path_factory.mktemp("home"), dicom__port=0) as archive, opened(archive) as found:
        yield found


def complete(door: Door, *, peer: Peer) -> None:
    """Configure a peer, send a study and let it come to rest."""
    index = door.archive.index
    index.peers.add(peer)
    frame = making.pixels(16, 16)
    images = making.ct_series(2, study_uid=STUDY, series_uid=f"{STUDY}.1", frame=frame)
    images.append(making.dataset(study_uid=STUDY, series_uid=f"{STUDY}.2", frame=frame))
    assert set(stored(door, *images)) == {0}
    for _ in range(2):
        for one in index.settled(time.time() + 60, settle_s=2, quiet_s=20, study_settle_s=4):
            index.scheduled(one, [])


def told_uids(ds: Dataset) -> dict[str, list[str]]:
    """Return Series Instance UID -> SOP Instance UIDs of a notification."""
    return {
        str(series.SeriesInstanceUID): sorted(str(one.ReferencedSOPInstanceUID) for one in series.ReferencedSOPSequence)
        for series in ds.ReferencedSeriesSequence
    }


@pytest.mark.parametrize("identity", ["pseudonym", "original"])
def test_a_complete_study_is_told_with_all_its_instances(door: Door, identity: str) -> None:
    """Online, from our AE title, under the UIDs that the peer gets to see; once."""
    with listener() as found:
        options = frozenset({"availability"})
        complete(door, peer=Peer("LISTENER", "127.0.0.1", found.port, identity=identity, options=options))

        assert Herald(door.archive).turn() == 1
        assert Herald(door.archive).turn() == 0

    ((_, ds),) = found.told
    first = ds.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert (first.InstanceAvailability, first.RetrieveAETitle) == ("ONLINE", "MINIPACS")
    if identity == "original":
        assert told_uids(ds) == {f"{STUDY}.1": [f"{STUDY}.1.1", f"{STUDY}.1.2"], f"{STUDY}.2": [f"{STUDY}.2.1"]}
        assert ds.StudyInstanceUID == STUDY
    else:
        ours = {one.key.sop_instance_uid for one in held(door.archive)}
        assert {uid for uids in told_uids(ds).values() for uid in uids} == ours
    assert door.archive.index.notifications.list()[0].state == "sent"


def test_results_of_a_job_are_told_too(door: Door) -> None:
    """Only the series that it made; a peer without the option hears nothing."""
    with listener() as found:
        complete(door, peer=Peer("LISTENER", "127.0.0.1", found.port, options=frozenset({"availability"})))
        door.archive.index.peers.add(Peer("DEAF", "127.0.0.1", found.port))
        made = held(door.archive)[2].key
        job = NewJob("k", "mip", "1", {}, "r", "cpu", made.study_instance_uid, (made.series_instance_uid,), "asked for")
        (job_id,) = door.archive.index.jobs.add([job])
        claimed = door.archive.index.jobs.claim(job_id, "w", 60)
        assert claimed and door.archive.index.jobs.succeed(Claim(job_id, "w"), output=[made.series_instance_uid])

        assert Herald(door.archive).turn() == 2

    assert sorted(len(told_uids(ds)) for _, ds in found.told) == [1, 2]
    assert {one.ae_title for one in door.archive.index.notifications.list()} == {"LISTENER"}


def test_a_peer_that_is_away_is_told_later_under_the_same_uid(door: Door) -> None:
    """Growing waits; a peer that says 0111 has it from the try before."""
    port = dcmtk.free_port()
    complete(door, peer=Peer("LISTENER", "127.0.0.1", port, options=frozenset({"availability"})))
    assert Herald(door.archive).turn() == 1
    (row,) = door.archive.index.notifications.list()
    assert (row.state, row.attempts) == ("waiting", 1)
    assert row.due_at - time.time() == pytest.approx(30, abs=5)

    with listener(port) as found:
        found.answers = [0x0110, 0x0111]
        for later in (31, 100, 300):
            Herald(door.archive, lambda later=later: time.time() + later).turn()  # type: ignore[misc]

    assert len(found.told) == 2 and len({uid for uid, _ in found.told}) == 1
    assert door.archive.index.notifications.list()[0].state == "sent"


def test_after_enough_tries_it_is_given_up_and_seen(door: Door) -> None:
    """`dicom.commitment_attempts` times; then the row says so."""
    complete(door, peer=Peer("LISTENER", "127.0.0.1", dcmtk.free_port(), options=frozenset({"availability"})))

    for turn in range(30):
        Herald(door.archive, lambda turn=turn: time.time() + turn * 3700).turn()  # type: ignore[misc]

    (row,) = door.archive.index.notifications.list()
    assert (row.state, row.attempts) == ("given up", 24)
