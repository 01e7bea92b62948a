"""What was answered is counted and noted: X7."""

from typing import Any

import making
from dimse.door import Door, answers, echo, stored, until
from starlette.testclient import TestClient

from pacs.dimse import contexts, requestor, scu
from pacs.dimse.messages import Command
from pacs.web.metrics import exposition
from pacs.web.server import create_app

FIND = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}


def audited(door: Door, kind: str) -> list[dict[str, Any]]:
    """Return the details of the audit's events of a kind."""
    return [dict(one.detail) for one in door.archive.index.events(limit=1000) if one.kind == kind]


def test_x7_every_status_is_in_the_metrics(door: Door) -> None:
    """A store that is taken and one that is refused, a query with an answer, a refused one, a retrieval, an echo."""
    wrong = making.dataset(instance=2)
    del wrong.SeriesInstanceUID
    assert stored(door, making.dataset(), wrong) == [0, 0xA900]
    answers(door, Command.C_FIND_RQ, contexts.STUDY_ROOT_FIND, FIND)
    answers(door, Command.C_FIND_RQ, contexts.STUDY_ROOT_FIND, {"QueryRetrieveLevel": "PATIENT"})
    answers(door, Command.C_MOVE_RQ, contexts.STUDY_ROOT_MOVE, FIND | {"StudyInstanceUID": "1.2"}, destination="NOBODY")
    assert echo(door.port) == 0
    assert until(lambda: not door.server.active_associations)

    counted = door.archive.index.tallies.list()

    assert counted == {
        ("C-ECHO", "0000"): 1,
        ("C-FIND", "0000"): 1,
        ("C-FIND", "A900"): 1,
        ("C-FIND", "FF00"): 1,
        ("C-MOVE", "A801"): 1,
        ("C-STORE", "0000"): 1,
        ("C-STORE", "A900"): 1,
    }
    text = exposition(door.archive)
    assert all(
        f'pacs_dimse_statuses_total{{service="{service}",status="{code}"}} {count}\n' in text
        for (service, code), count in counted.items()
    )


def test_x7_every_status_is_in_the_audit_with_who_was_answered(door: Door) -> None:
    """One event for each kind of answer of an association; no value of a data set in any."""
    wrong = making.dataset(instance=9)
    del wrong.SeriesInstanceUID
    stored(door, *making.ct_series(3), wrong)
    answers(door, Command.C_MOVE_RQ, contexts.STUDY_ROOT_MOVE, FIND | {"StudyInstanceUID": "1.2"}, destination="NOBODY")
    assert until(lambda: len(audited(door, "dimse_answered")) == 3)

    told = {(one["caller"], one["operation"], one["status"], one["count"]) for one in audited(door, "dimse_answered")}
    (retrieval,) = audited(door, "retrieve_answered")

    assert told == {
        ("MODALITY", "C-STORE", "0000", 3),
        ("MODALITY", "C-STORE", "A900", 1),
        ("ASKER", "C-MOVE", "A801", 1),
    }
    assert (retrieval["caller"], retrieval["receiver"], retrieval["status"]) == ("ASKER", "NOBODY", "A801")
    events = str(door.archive.index.events(limit=1000))
    assert not any(word in events for word in making.PLANTED)


def test_x7_a_long_association_is_counted_while_it_lasts(door: Door, monkeypatch: Any) -> None:
    """A modality that never releases is in the metrics all the same, and nothing is counted twice at its end."""
    monkeypatch.setattr("pacs.dimse.tally.EVERY_S", 0.0)
    one = making.dataset()
    proposals = [(str(one.SOPClassUID), ("1.2.840.10008.1.2.1",))]
    with scu._open("127.0.0.1", door.port, "MINIPACS", "CT1", proposals, 20) as association:
        for number in (1, 2):
            requestor.store(
                association,
                1,
                sop_class_uid=str(one.SOPClassUID),
                sop_instance_uid=str(one.SOPInstanceUID),
                data_set=[making.encode(one)],
                message_id=number,
            )
        assert door.archive.index.tallies.list() == {("C-STORE", "0000"): 2}

    assert until(lambda: len(audited(door, "dimse_answered")) == 1)
    assert door.archive.index.tallies.list() == {("C-STORE", "0000"): 2}


def test_x7_the_metrics_are_served_to_those_we_know(door: Door) -> None:
    """On this machine without credentials while we listen on loopback; a stranger gets 401."""
    app = create_app(door.archive)
    here = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50000))
    elsewhere = TestClient(app, base_url="http://127.0.0.1", client=("192.0.2.7", 50000))

    answer = here.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE pacs_dimse_statuses_total counter\n" in answer.text and "\npacs_instances 0\n" in answer.text
    assert elsewhere.get("/metrics").status_code == 401
