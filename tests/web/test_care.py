"""The pages of the quarantine and of the policy tester: reasons and rows of tables, never a value, and nothing kept."""

from collections.abc import Iterator
from dataclasses import replace

import making
import pytest
from pydicom.dataset import Dataset
from starlette.testclient import TestClient
from web.test_pages import Checker

from pacs.archive import Archive
from pacs.dicom.elements import join
from pacs.ingest import ingest
from pacs.model.errors import Quarantined
from pacs.model.instance import Origin
from pacs.web.door import Echo
from pacs.web.server import create_app

DOUBTFUL = {"ImageType": ["ORIGINAL", "PRIMARY"], "PatientComments": "Call Mrs Quillfeather"}


class Site:
    """An archive with basic policy, which refuses what may show text, and a browser that is signed in."""

    def __init__(self, archive: Archive, echo: Echo | None = None) -> None:
        self.archive = archive
        app = create_app(archive, echo)
        self.browser = TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1))
        self.browser.get(f"/sign-in/{archive.index.access.new_link(60)}")
        self.stranger = TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1), follow_redirects=False)

    def quarantined(self, **overrides: object) -> str:
        """Put an object into quarantine and return its id."""
        with pytest.raises(Quarantined):
            ingest(self.archive, making.received(making.dataset(BurnedInAnnotation="YES", **overrides), origin=Origin.STOW))
        return self.archive.index.quarantine.list()[0].quarantine_id


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An empty one."""
    with making.archive(tmp_path_factory.mktemp("home"), deid__policy="basic") as archive:
        yield Site(archive)


def sound(text: str) -> None:
    """Check what every page owes, and that it names nobody."""
    checker = Checker()
    checker.feed(text)
    assert (checker.problems, checker.language, checker.title, checker.headings) == ([], 1, 1, 1)
    assert not any(word in text for word in making.PLANTED)


def test_the_quarantine_is_listed_by_reason(site: Site) -> None:
    """Empty at first; then reason, kind and door of each, and no value of it."""
    assert "Nothing is in quarantine" in site.browser.get("/quarantine").text
    quarantine_id = site.quarantined()

    for path in ("/quarantine", f"/quarantine/{quarantine_id}"):
        answer = site.browser.get(path)
        assert answer.status_code == 200
        assert "Burned In Annotation is YES" in answer.text
        sound(answer.text)
    assert site.browser.get("/quarantine/00000000-0000-0000-0000-000000000000").status_code == 404


def test_what_would_come_back_stays(site: Site) -> None:
    """The page says why, the object and its row are untouched."""
    quarantine_id = site.quarantined()

    answer = site.browser.post(f"/quarantine/{quarantine_id}/release", data={"policy": ""})

    assert answer.status_code == 409
    assert "It stays in quarantine" in answer.text
    assert [row.quarantine_id for row in site.archive.index.quarantine.list()] == [quarantine_id]
    assert site.archive.index.summary()["instances"] == 0


def test_under_another_policy_it_is_let_in(site: Site) -> None:
    """Through de-identification like everything else; the row is gone, and the audit says by whom and how."""
    quarantine_id = site.quarantined()

    answer = site.browser.post(f"/quarantine/{quarantine_id}/release", data={"policy": "research"}, follow_redirects=False)

    assert answer.status_code == 303
    assert site.archive.index.quarantine.list() == []
    event = next(one for one in site.archive.index.events(0, 100) if one.kind == "quarantine_released")
    assert (event.detail["policy"], event.detail["user"]) == ("research", "session")
    assert list((site.archive.settings.home / "quarantine").glob("*.sealed")) == []


def test_discarding_needs_a_tick(site: Site) -> None:
    """Without it nothing happens; with it the object is gone for good, and the audit says so."""
    quarantine_id = site.quarantined()

    assert site.browser.post(f"/quarantine/{quarantine_id}/discard", data={}).status_code == 400
    assert len(site.archive.index.quarantine.list()) == 1
    assert "Discarded for good" in site.browser.post(f"/quarantine/{quarantine_id}/discard", data={"sure": "yes"}).text
    assert site.archive.index.quarantine.list() == []
    assert "quarantine_discarded" in {one.kind for one in site.archive.index.events(0, 100)}


def test_a_policy_is_tried_on_a_file(site: Site) -> None:
    """The table names elements and rows; the file is not stored, not quarantined, and not shown."""
    file = making.part10(making.dataset(**DOUBTFUL))

    answer = site.browser.post("/policy", files={"file": ("x.dcm", file)}, data={"policy": "research"})

    assert answer.status_code == 200
    sound(answer.text)
    assert "PatientBirthDate" in answer.text and "Table E.1-1: Z" in answer.text
    assert "would be stored" in answer.text
    assert site.archive.index.summary()["instances"] == 0
    assert site.archive.index.quarantine.list() == []


def test_a_policy_is_tried_on_what_is_here(site: Site) -> None:
    """On a stored instance as it was sent, and on a quarantined object: still no value."""
    stored = ingest(site.archive, making.received(making.dataset(**DOUBTFUL)))
    quarantine_id = site.quarantined(instance=2)

    first = site.browser.get(f"/policy?instance={stored.key.sop_instance_uid}&policy=research")
    second = site.browser.get(f"/policy?quarantine={quarantine_id}&policy=basic")

    for answer in (first, second):
        assert answer.status_code == 200
        sound(answer.text)
        assert "InstitutionName" in answer.text
    assert "quarantined" in second.text


@pytest.mark.parametrize("body", [b"", b"not DICOM at all", b"\0" * 128 + b"DICM" + b"\xff" * 64])
def test_what_is_no_file_is_said(site: Site, body: bytes) -> None:
    """An empty field, text, and broken DICOM are answered by the page, not by a failure."""
    answer = site.browser.post("/policy", files={"file": ("x", body)}, data={"policy": "research"})

    assert answer.status_code == 400
    sound(answer.text)


def test_an_unknown_policy_or_instance_is_said(site: Site) -> None:
    """Asked for by hand, both are answered by the page."""
    assert site.browser.get("/policy?instance=2.25.1").status_code == 404
    file = making.part10(making.dataset())
    assert site.browser.post("/policy", files={"file": ("x", file)}, data={"policy": "nonsense"}).status_code == 400
    assert site.browser.post("/policy", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 400


def test_strangers_see_none_of_it(site: Site) -> None:
    """Without a session every one of these pages leads to the sign-in page."""
    quarantine_id = site.quarantined()
    for path in ("/quarantine", f"/quarantine/{quarantine_id}", "/policy"):
        assert site.stranger.get(path).headers["location"] == "/sign-in"
    for path in (f"/quarantine/{quarantine_id}/release", f"/quarantine/{quarantine_id}/discard", "/policy"):
        assert site.stranger.post(path).headers["location"] == "/sign-in"
    assert len(site.archive.index.quarantine.list()) == 1


def test_a_jobs_doubt_is_let_in_with_a_reason_only(site: Site) -> None:
    """The form asks for it; name and reason are in the record."""
    engine = site.archive.deidentifier.under("research")
    made = engine.deidentify(making.received(making.dataset()))
    received = making.received(Dataset(), origin=Origin.PROCESSOR, source="clean-pixels")
    received = replace(received, data_set=b"".join(join(made.elements)))
    quarantine_id = site.archive.quarantine.keep(received, "Quarantined", "burned-in text: there is little else")
    page = site.browser.get(f"/quarantine/{quarantine_id}").text

    assert 'name="reason" required' in page and '<select name="policy">' not in page
    assert site.browser.post(f"/quarantine/{quarantine_id}/release", data={"reason": " "}).status_code == 409
    answer = site.browser.post(
        f"/quarantine/{quarantine_id}/release", data={"reason": "a ruler, no text"}, follow_redirects=False
    )
    assert answer.status_code == 303 and site.archive.index.quarantine.list() == []
    event = next(one for one in site.archive.index.events(0, 100) if one.kind == "quarantine_released")
    assert event.detail["reason"] == "a ruler, no text"
