"""A token marked `identity = original` opens what was sent to QIDO-RS and WADO-RS; no other caller gets to see it."""

from collections.abc import Iterator
from io import BytesIO

import making
import pytest
from pydicom import dcmread
from starlette.testclient import TestClient

from pacs.ingest import ingest
from pacs.web.server import create_app

STUDY, SERIES = making.STUDY_UID, making.SERIES_UID


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TestClient]]:
    """An archive with one series, and callers: with a marked token, with a plain one, and local without any."""
    with making.archive(tmp_path_factory.mktemp("home")) as archive:
        for ds in making.ct_series(3):
            ingest(archive, making.received(ds))
        app = create_app(archive)
        secrets = {
            "original": archive.index.access.new_token("ward", "original"),
            "plain": archive.index.access.new_token("lab"),
        }
        made = {
            name: TestClient(
                app,
                base_url="http://localhost",
                client=("127.0.0.1", 1),
                headers={"Authorization": f"Bearer {secrets[name]}"} if name in secrets else {},
            )
            for name in ("original", "plain", "local")
        }
        app.state.archive_of_test = archive
        yield made


def planted(text: bytes) -> list[str]:
    """Return the planted strings in an answer."""
    return [word for word in making.PLANTED if word.encode() in text]


def test_a_marked_token_searches_by_originals(clients: dict[str, TestClient]) -> None:
    """By Patient ID, date and UID; the answer and its Retrieve URL are the hospital's."""
    for query in ("PatientID=MRN-7734921", "StudyDate=20240229", f"StudyInstanceUID={STUDY}", "PatientName=quill*"):
        (study,) = clients["original"].get(f"/dicom-web/studies?{query}").json()
        assert study["00100020"]["Value"] == [making.PATIENT_ID]
        assert study["0020000D"]["Value"] == [STUDY]
        assert study["00081190"]["Value"][0].endswith(f"/studies/{STUDY}")
        for other in ("plain", "local"):
            assert clients[other].get(f"/dicom-web/studies?{query}").json() == []


def test_a_marked_token_retrieves_what_was_sent(clients: dict[str, TestClient]) -> None:
    """The file equals the one that came in; its metadata too."""
    at = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.2"
    answer = clients["original"].get(at, headers={"Accept": "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"})
    (metadata,) = clients["original"].get(f"{at}/metadata").json()

    got, sent = dcmread(BytesIO(answer.content)), making.ct_series(3)[1]
    assert answer.headers["content-disposition"] == f'attachment; filename="{SERIES}.2.dcm"'
    assert making.encode(got) == making.encode(sent)
    assert got.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
    assert metadata["00100010"]["Value"] == [{"Alphabetic": making.PATIENT_NAME}]
    assert f"/studies/{STUDY}/" in metadata["7FE00010"]["BulkDataURI"]
    assert clients["original"].get(metadata["7FE00010"]["BulkDataURI"]).status_code == 200
    for other in ("plain", "local"):
        assert clients[other].get(at).status_code == 404


def test_no_other_caller_gets_a_planted_string(clients: dict[str, TestClient]) -> None:
    """Not in searches, not in metadata, not in files; and a cached answer of the one is none for the other."""
    for name in ("plain", "local"):
        (study,) = clients[name].get("/dicom-web/studies?includefield=all").json()
        uid = study["0020000D"]["Value"][0]
        for path in (f"/studies/{uid}", f"/studies/{uid}/metadata", f"/studies/{uid}/series", f"/studies/{uid}/instances"):
            answer = clients[name].get(f"/dicom-web{path}")
            assert answer.status_code == 200
            assert planted(answer.content) == []
            assert "Authorization" in answer.headers["vary"]


def test_a_session_sees_pseudonyms(clients: dict[str, TestClient]) -> None:
    """Originals need a token that was marked; signing in to the pages is not enough."""
    archive = clients["local"].app.state.archive_of_test  # type: ignore[attr-defined]
    clients["local"].get(f"/sign-in/{archive.index.access.new_link(60)}")

    assert planted(clients["local"].get("/dicom-web/studies").content) == []


def test_what_was_restored_is_audited(clients: dict[str, TestClient]) -> None:
    """Who, how, and how many; never whose."""
    archive = clients["local"].app.state.archive_of_test  # type: ignore[attr-defined]
    clients["original"].get(f"/dicom-web/studies/{STUDY}")

    event = [one for one in archive.index.events(0, 1000) if one.kind == "identity_restored"][-1]

    assert event.detail == {"operation": "WADO", "caller": "token:ward", "count": 3}
