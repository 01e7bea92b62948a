"""The pages say what the archive holds, as plain HTML that needs no script."""

import uuid
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO

import making
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from serving import OTHER_STUDY, cine
from starlette.testclient import TestClient

from pacs import retrieve
from pacs.archive import Archive
from pacs.ingest import ingest, ingest_derived
from pacs.model.instance import Origin
from pacs.model.job import Claim, JobState, NewJob, RuleVersion
from pacs.web.server import create_app


class Site:
    """An archive with two studies and a browser that is signed in."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.browser = TestClient(create_app(archive), base_url="http://localhost", client=("127.0.0.1", 1))
        self.browser.get(f"/sign-in/{archive.index.access.new_link(60)}")
        self.big = max(archive.index.studies(), key=lambda row: row.series).study_instance_uid
        self.series = archive.index.series_of(self.big)

    def page(self, path: str) -> str:
        """Return a page as text."""
        answer = self.browser.get(path)
        assert answer.status_code == 200, path
        return answer.text

    def job(self, processor: str = "ct_lungs", **values: object) -> str:
        """Add a job and return its id."""
        new = NewJob(
            uuid.uuid4().hex,
            processor,
            "1.2.0",
            {},
            "chest",
            "default",
            self.big,
            (self.series[0].series_instance_uid,),
            "quiet",
        )
        (job_id,) = self.archive.index.jobs.add([new])
        return job_id


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two studies: CT and cine in one, CT in the other."""
    with making.archive(tmp_path_factory.mktemp("home")) as archive:
        for ds in (
            *making.ct_series(4),
            cine(),
            making.dataset(study_uid=OTHER_STUDY, series_uid=f"{OTHER_STUDY}.1", patient_id="MRN-2"),
        ):
            stored = ingest(archive, making.received(ds, origin=Origin.STOW))
            archive.index.release([stored.key.sop_instance_uid])
        yield Site(archive)


class Checker(HTMLParser):
    """Collects what every page owes: labels, alternatives, no inline code."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.language = self.title = self.headings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one start tag."""
        given = dict(attrs)
        self.language += tag == "html" and bool(given.get("lang"))
        self.headings += tag == "h1"
        self.title += tag == "title"
        if tag == "img" and "alt" not in given:
            self.problems.append("an image without alternative")
        if tag == "script" and "src" not in given and given.get("type") != "application/json":
            self.problems.append("inline script")
        if "style" in given or any(name.startswith("on") for name in given):
            self.problems.append(f"inline code on {tag}")
        if tag == "th" and "scope" not in given:
            self.problems.append("a table head without scope")


def test_every_page_is_sound(site: Site) -> None:
    """One h1, a language, a title, alternatives for images, and nothing that the strict CSP would stop."""
    job = site.job()
    series = site.series[0].series_instance_uid
    for path in (
        "/",
        "/jobs",
        f"/jobs/{job}",
        "/upload",
        "/rules",
        f"/studies/{site.big}",
        f"/studies/{site.big}/series/{series}",
        "/sign-in",
    ):
        checker = Checker()
        checker.feed(site.page(path))
        assert (checker.problems, checker.language, checker.title, checker.headings) == ([], 1, 1, 1), path
        assert "Research use, not for diagnosis" in site.page(path)


def test_studies_are_listed_searched_and_filtered(site: Site) -> None:
    """All studies; by patient ID; by modality; by date; none."""
    patients = [row.patient_id for row in site.archive.index.studies()]

    assert all(patient in site.page("/") for patient in patients)
    found = site.page(f"/?text={patients[0].lower()}")
    assert patients[0] in found
    assert patients[1] not in found
    assert "1 study" in site.page("/?modality=OT")
    assert "No study matches" in site.page("/?modality=MG")
    assert "No study matches" in site.page("/?text=%25")
    assert "2 studies" in site.page("/?from=1900-01-01&to=2099-12-31")
    assert "No study matches" in site.page("/?to=1900-01-01")
    assert "No study matches" in site.page("/?from=2020-01-01&to=2010-01-01")


@pytest.mark.parametrize(
    "query", ["page=0", "page=²", "page=x", "page=999999", "from=x&to=y", "text=%00%ff", "modality=%22%3E%3Cscript%3E"]
)
def test_odd_queries_are_harmless(site: Site, query: str) -> None:
    """Whatever is typed into the address is a page, and nothing of it becomes markup."""
    assert "<script>" not in site.page(f"/?{query}")


def test_a_study_shows_its_series_and_thumbnails_that_load(site: Site) -> None:
    """Every picture that the page names can be fetched."""
    page = site.page(f"/studies/{site.big}")

    for series in site.series:
        place = f"/dicom-web/studies/{site.big}/series/{series.series_instance_uid}/thumbnail"
        assert place in page
        assert site.browser.get(place).headers["content-type"] == "image/jpeg"
    assert "4 objects" in page


def test_a_series_can_be_scrolled_without_a_script(site: Site) -> None:
    """`?image=n` shows the n-th image; frames of a multi-frame image count one by one."""
    ct, movie = site.series

    assert "1 / 4" in site.page(f"/studies/{site.big}/series/{ct.series_instance_uid}?image=1")
    assert "4 / 4" in site.page(f"/studies/{site.big}/series/{ct.series_instance_uid}?image=999")
    assert "/frames/3/rendered" in site.page(f"/studies/{site.big}/series/{movie.series_instance_uid}?image=3")


def test_a_derived_series_names_its_processor_and_sources(site: Site) -> None:
    """Badge, processor with version, link to the job, link to the source; the job names what it read and made."""
    job_id = site.job("petct_fusion")
    site.archive.index.jobs.claim(job_id, "w", 60)
    source = site.series[0]
    (stored,) = site.archive.index.locate(sop_instance_uids=[source.thumbnail_sop_instance_uid])
    ds = pydicom.dcmread(BytesIO(b"".join(retrieve.part10_file(site.archive, stored, [ExplicitVRLittleEndian]))))
    ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SeriesDescription = "2.25.77", "2.25.78", "Fused"
    ds.SeriesNumber = 9001

    ingest_derived(site.archive, [making.received(ds, origin=Origin.PROCESSOR)], finishing=Claim(job_id, "w"))
    study, job = site.page(f"/studies/{site.big}"), site.page(f"/jobs/{job_id}")

    card = study.partition('<li class="card derived">')[2].partition("</li>")[0]
    assert "derived" in card
    assert "petct_fusion 1.2.0" in card
    assert f'href="/jobs/{job_id}"' in card
    assert f"series/{source.series_instance_uid}" in card
    assert "succeeded" in job
    assert "/series/2.25.77" in job
    assert f"/series/{source.series_instance_uid}" in job


def test_jobs_show_state_progress_and_reason_and_can_be_cancelled_and_repeated(site: Site) -> None:
    """What the table says is on the page; the buttons do what they say."""
    job_id = site.job("enhance")
    site.archive.index.jobs.claim(job_id, "w", 60)
    site.archive.index.jobs.progress(Claim(job_id, "w"), 0.42, "halfway")
    assert "42 %" in site.page("/jobs")
    assert "halfway" in site.page("/jobs")

    site.browser.post(f"/jobs/{job_id}/cancel", headers={"Sec-Fetch-Site": "same-origin"})
    assert site.archive.index.jobs.get(job_id).state is JobState.CANCELLED
    site.browser.post(f"/jobs/{job_id}/again", headers={"Sec-Fetch-Site": "same-origin"})
    assert site.archive.index.jobs.get(job_id).state is JobState.QUEUED

    site.archive.index.jobs.claim(job_id, "w2", 60)
    site.archive.index.jobs.fail(Claim(job_id, "w2"), "a gap between slices", retry_in_s=None)
    assert "a gap between slices" in site.page("/jobs?state=failed")
    assert job_id not in site.page("/jobs?state=succeeded")


def test_rules_show_what_they_made_and_why_others_did_not_fire(site: Site) -> None:
    """The list has counts and the last job; a study's page has each rule's answer, with the condition and its line."""
    use = '[[rule.run]]\nuse = "classify-series"\n'
    text = f'[[rule]]\nname = "chest"\n{use}[[rule]]\nname = "heads"\n[rule.where]\nModality = "MR"\n{use}'
    site.archive.settings.rules_path.write_text(text)
    definition = {"rule": {"name": "chest", "where": {"Modality": "<CT>"}, "run": [{"use": "classify-series"}]}}
    site.archive.index.chains.put_rules([RuleVersion("ab" * 32, "chest", definition, 0.0)])
    job_id = site.job("classify-series")

    listed = site.page("/rules")
    assert (
        f"/jobs/{job_id}" in listed
        and "queued" in listed
        and "abababababab" in listed
        and "Modality = &#34;&lt;CT&gt;&#34;" in listed
    )

    checker, said = Checker(), site.page(f"/studies/{site.big}/rules")
    checker.feed(said)
    assert checker.problems == []
    assert "Modality: MR <small>line 8</small>" in said
    assert said.count(">fires<") == 1, "the cine has no pixels for a classifier, the CT has"


def test_two_jobs_can_be_compared(site: Site) -> None:
    """A job links to others of its processor; the comparison shows parameters and differences."""
    ids = [site.job("compared") for _ in range(2)]
    for job_id, series in zip(ids, site.series, strict=False):
        site.archive.index.jobs.again(job_id)
        site.archive.index.jobs.claim(job_id, "w", 60)
        site.archive.index.jobs.succeed(Claim(job_id, "w"), output=[series.series_instance_uid])

    assert f"/jobs/{ids[0]}/compare/{ids[1]}" in site.page(f"/jobs/{ids[0]}")
    checker, said = Checker(), site.page(f"/jobs/{ids[0]}/compare/{ids[1]}")
    checker.feed(said)
    assert checker.problems == []
    assert "only one of the two made it" in said


def test_values_are_escaped(site: Site) -> None:
    """Text from outside is text, never markup."""
    site.job("<img src=x onerror=alert(1)>")

    assert "<img src=x" not in site.page("/jobs")
    assert "&lt;img src=x" in site.page("/jobs")


def test_errors_are_pages_for_people(site: Site) -> None:
    """404 with a page for a browser, JSON for a script."""
    for path in ("/nothing", "/jobs/none", "/studies/1.2.3"):
        answer = site.browser.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 404
        assert "<h1>Not found</h1>" in answer.text
    assert site.browser.get("/nothing").json()["error"]
