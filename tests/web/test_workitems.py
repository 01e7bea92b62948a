"""UPS-RS (PS3.18 11): a job as a workitem over HTTP."""

from collections.abc import Iterator
from typing import Any

import making
import pytest
from starlette.testclient import TestClient

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.instance import Origin
from pacs.model.job import Claim
from pacs.model.peer import Peer
from pacs.web.server import create_app
from pacs.workflow.attributes import make

BASE = "/dicom-web/workitems"
JSON = {"content-type": "application/dicom+json"}
TRANSACTION = "2.25.99"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive with one CT image."""
    with making.archive(tmp_path_factory.mktemp("home")) as found:
        ingest(found, making.received(making.dataset(frame=making.pixels(16, 16)), origin=Origin.STOW))
        yield found


@pytest.fixture
def client(archive: Archive) -> TestClient:
    """A caller on this machine."""
    return TestClient(create_app(archive), base_url="http://localhost", client=("127.0.0.1", 1))


def step(**changed: Any) -> list[dict[str, Any]]:
    """Return a body that asks for a processor on the image's series."""
    given: dict[str, Any] = {
        "ProcedureStepState": "SCHEDULED",
        "ProcedureStepLabel": "Check it",
        "ScheduledProcedureStepPriority": "LOW",
        "InputReadinessState": "READY",
        "ScheduledWorkitemCodeSequence": [{"CodeValue": "quality-control", "CodingSchemeDesignator": "99MINIPACS"}],
        "InputInformationSequence": [{"StudyInstanceUID": making.STUDY_UID, "SeriesInstanceUID": making.SERIES_UID}],
        **changed,
    }
    return [make(given)]


def state(client: TestClient, uid: str, wanted: str, transaction: str = TRANSACTION) -> int:
    """Change the state; returns the HTTP status."""
    body = make({"ProcedureStepState": wanted, "TransactionUID": transaction})
    return int(client.put(f"{BASE}/{uid}/state", json=body, headers=JSON).status_code)


def test_w18_created_found_and_read(client: TestClient, archive: Archive) -> None:
    """201 with its place; the search finds it by attribute, nested ones too, and reads what it was made of."""
    answer = client.post(f"{BASE}?workitem=1.2.840.91.1", json=step(), headers=JSON)

    assert (answer.status_code, answer.headers["location"][-len("/workitems/1.2.840.91.1") :]) == (
        201,
        "/workitems/1.2.840.91.1",
    )
    (job,) = archive.index.jobs.list()
    assert (job.processor, job.priority) == ("quality-control", 8)
    (whole,) = client.get(f"{BASE}/1.2.840.91.1").json()
    assert whole["00741000"]["Value"] == ["SCHEDULED"] and whole["00741204"]["Value"] == ["Check it"]
    assert making.PATIENT_ID not in str(whole)
    for query in (
        {"ProcedureStepState": "SCHEDULED", "ProcedureStepLabel": "check*"},
        {"ScheduledWorkitemCodeSequence.CodeValue": "quality-control"},
        {"00404018.00080100": "quality-control", "ScheduledProcedureStepStartDateTime": "20200101-"},
    ):
        expected = 0 if query.get("ProcedureStepLabel") else 1
        found = client.get(BASE, params=query).json()
        assert len(found) == expected
    (full,) = client.get(BASE, params={"includefield": "all", "SOPInstanceUID": "1.2.840.91.1"}).json()
    assert full["00404021"]["Value"][0]["0020000E"]["Value"] == list(job.series_instance_uids)


def test_w18_claimed_updated_and_completed(client: TestClient) -> None:
    """Wrong state 409, wrong or no Transaction UID 400, the rest 200; the end has a warning the second time."""
    uid = "1.2.840.91.2"
    assert client.post(f"{BASE}?{uid}", json=step(), headers=JSON).status_code == 201
    assert state(client, uid, "COMPLETED") == 409
    assert state(client, uid, "IN PROGRESS", "") == 400
    assert state(client, uid, "IN PROGRESS") == 200
    assert state(client, uid, "IN PROGRESS") == 409
    assert state(client, uid, "COMPLETED") == 409

    performed = make(
        {
            "UnifiedProcedureStepPerformedProcedureSequence": [
                {"PerformedProcedureStepStartDateTime": "20261122101500", "PerformedProcedureStepEndDateTime": "20261122101600"}
            ]
        }
    )
    assert client.post(f"{BASE}/{uid}", json=[performed], headers=JSON).status_code == 400
    assert client.post(f"{BASE}/{uid}?transaction-uid={TRANSACTION}", json=[performed], headers=JSON).status_code == 200
    assert state(client, uid, "COMPLETED") == 200
    again = client.put(
        f"{BASE}/{uid}/state", json=make({"ProcedureStepState": "COMPLETED", "TransactionUID": TRANSACTION}), headers=JSON
    )
    assert again.status_code == 200 and "already" in again.headers["warning"]


def test_w18_cancelled(client: TestClient, archive: Archive) -> None:
    """202, and once more with a warning; a completed one 409, an unknown one 404."""
    for uid in ("1.2.840.91.3", "1.2.840.91.4"):
        assert client.post(f"{BASE}?workitem={uid}", json=step(), headers=JSON).status_code == 201
    job = archive.index.jobs.list()[0]
    assert archive.index.jobs.claim(job.job_id, "worker", 60) and archive.index.jobs.succeed(Claim(job.job_id, "worker"))

    codes = [client.post(f"{BASE}/1.2.840.91.{number}/cancelrequest").status_code for number in (3, 3, 4, 404)]

    assert sorted(codes) == [202, 202, 404, 409]


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (step(ProcedureStepState="COMPLETED"), "application/dicom+json", 400),
        (step(ScheduledWorkitemCodeSequence=None), "application/dicom+json", 400),
        (step(), "application/dicom+xml", 415),
        ([], "application/dicom+json", 400),
        ([{"nonsense": 1}], "application/dicom+json", 400),
    ],
)
def test_w18_what_cannot_be_created_is_refused(client: TestClient, body: Any, kind: str, code: int) -> None:
    """And leaves no job; the same UID twice is 409."""
    before = client.get(BASE).headers["x-total-count"]

    assert client.post(f"{BASE}?workitem=1.2.840.91.5", json=body, headers={"content-type": kind}).status_code == code
    assert client.get(BASE).headers["x-total-count"] == before
    assert client.get(BASE, params={"NoSuchThing": "1"}).status_code == 400


def test_w18_subscriptions_are_for_configured_peers(client: TestClient, archive: Archive) -> None:
    """403 for another; 201 with a warning that events go by DIMSE; gone after it was ended."""
    archive.index.peers.add(Peer("FOLLOWER", "127.0.0.1", 104))
    assert client.post(f"{BASE}?workitem=1.2.840.91.6", json=step(), headers=JSON).status_code == 201
    assert client.post(f"{BASE}?workitem=1.2.840.91.6", json=step(), headers=JSON).status_code == 409

    codes = [client.post(f"{BASE}/1.2.840.91.6/subscribers/{who}").status_code for who in ("NOBODY", "FOLLOWER")]
    followed = [one.ae_title for one in archive.index.workitems.subscriptions()]
    ended = client.delete(f"{BASE}/1.2.840.91.6/subscribers/FOLLOWER").status_code

    assert (codes, followed, ended) == ([403, 201], ["FOLLOWER"], 200)
    assert list(archive.index.workitems.subscriptions()) == []


def test_w18_strangers_get_nothing(archive: Archive) -> None:
    """401 from elsewhere without a token."""
    stranger = TestClient(create_app(archive), base_url="http://localhost", client=("192.0.2.9", 1))

    assert stranger.get(BASE).status_code == 401
    assert stranger.post(BASE, json=step(), headers=JSON).status_code == 401
