"""A real browser's journey: sign in by link, studies, study, series, jobs, upload; every picture really loads."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import making
import pytest
from serving import Served, free_port

from pacs.archive import Archive
from pacs.model.job import Claim, NewJob

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PICTURES = "images => images.length > 0 && images.every(image => image.complete && image.naturalWidth > 0)"


@pytest.fixture(scope="module")
def page(filled: Served) -> Iterator[Any]:
    """A page of headless Chromium that collects what goes wrong in `page.wrong`."""
    path = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if path is None:
        reason = "no Chromium on this machine; the pages are tested without a browser only"
        pytest.fail(reason) if os.environ.get("PACS_REQUIRE_SERVICES") == "1" else pytest.skip(reason)
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=FLAGS)
        try:
            opened = browser.new_page(viewport={"width": 1280, "height": 900})
            opened.set_default_timeout(15_000)
            opened.wrong = []
            opened.on("console", lambda message: message.type == "error" and opened.wrong.append(message.text))
            opened.on("pageerror", lambda error: opened.wrong.append(str(error)))
            opened.goto(filled.link())
            yield opened
        finally:
            browser.close()


def pictures(page: Any) -> None:
    """Wait until every picture of the page is there with pixels in it."""
    page.evaluate("() => document.querySelectorAll('img[loading=lazy]').forEach(image => { image.loading = 'eager'; })")
    page.wait_for_function(f"() => ({PICTURES})([...document.querySelectorAll('main img')])")


def test_a_journey_through_the_pages(page: Any, filled: Served, tmp_path: Path) -> None:
    """Sign-in, list, search, study, series, jobs and upload, without one error in the console."""
    assert page.url == f"{filled.url}/"
    assert page.locator("tbody tr").count() == 2
    pictures(page)

    page.fill("input[name=text]", "nobody at all")
    page.wait_for_selector("text=No study matches")
    assert "text=nobody" in page.url
    assert page.evaluate("() => document.activeElement.name") == "text"
    page.fill("input[name=text]", "")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 2")

    page.locator("tbody tr", has_text="OT").locator("a").click()
    page.wait_for_selector("h2 >> text=Series")
    assert page.locator(".card").count() == 3
    pictures(page)

    page.locator(".card", has_text="LUNG").locator("a.picture").click()
    pictures(page)
    inside = "() => { const [a, b] = ['#frame', '.stage'].map(s => document.querySelector(s).getBoundingClientRect());"
    assert page.evaluate(f"{inside} return a.bottom <= b.bottom + 1 && a.right <= b.right + 1 }}"), "the image is cut off"
    first = page.get_attribute("#frame", "src")
    page.focus("#image")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("was => document.querySelector('#frame').getAttribute('src') !== was", arg=first)
    page.select_option("#window", label="Bone")
    page.wait_for_function("() => document.querySelector('#frame').src.includes('window=400')")
    pictures(page)

    page.goto(f"{filled.url}/upload")
    file = tmp_path / "new.dcm"
    file.write_bytes(making.part10(making.dataset(study_uid="1.2.9.1", series_uid="1.2.9.1.1", patient_id="MRN-9")))
    (tmp_path / "no.txt").write_text("no DICOM")
    page.set_input_files("#files", [str(file), str(tmp_path / "no.txt")])
    page.wait_for_selector("text=Done: 1 stored, 1 not stored, of 2")
    page.wait_for_selector("text=1 × not understood as DICOM")

    assert page.wrong == []


def test_jobs_are_live(page: Any, filled: Served) -> None:
    """A job's progress moves on the page without a reload, and the cancel button cancels it."""
    with Archive.opened(filled.settings, writer="jobs") as archive:
        study = archive.index.studies()[0].study_instance_uid
        series = archive.index.series_of(study)[0].series_instance_uid
        new = NewJob(uuid.uuid4().hex, "ct_lungs", "1.0.0", {}, "chest", "default", study, (series,), "association released")
        (job_id,) = archive.index.jobs.add([new])
        archive.index.jobs.claim(job_id, "w", 60)
        page.goto(f"{filled.url}/jobs")
        page.wait_for_selector(".state-running")
        archive.index.jobs.progress(Claim(job_id, "w"), 0.5, "labelling")

        page.wait_for_selector("text=50 %")
        page.click(f"#cancel-{job_id}")
        page.wait_for_selector(f"#job-{job_id} .state-cancelled")

        assert archive.index.jobs.get(job_id).state == "cancelled"
    assert page.wrong == []


def test_a_peer_is_added_with_the_keyboard_and_asked(page: Any, filled: Served) -> None:
    """Title, host and port typed one after another; the button beside it says in words that nobody is there."""
    port = free_port()
    page.goto(f"{filled.url}/peers")
    page.focus("input[name=ae_title]")
    for number, text in enumerate(("AWAY", "127.0.0.1", str(port))):
        if number:
            page.keyboard.press("Tab")
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=status] >> text=The peer is known from now on")
    page.click("button:has-text('Echo AWAY')")
    page.wait_for_selector(f"[role=alert] >> text=AWAY at 127.0.0.1:{port} does not answer: nothing listens there")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, "the page is wider than a telephone"
    page.set_viewport_size({"width": 1280, "height": 900})

    assert page.wrong == []


def test_the_theme_can_be_switched_and_stays(page: Any, filled: Served) -> None:
    """Dark after the click, and after a reload."""
    page.goto(filled.url)
    page.emulate_media(color_scheme="light")
    light = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.reload()
    page.click("#theme")
    page.reload()

    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != light
    page.click("#theme")


def test_signing_out_leads_back_to_the_door(page: Any, filled: Served) -> None:
    """Afterwards every page asks for a link."""
    page.goto(filled.url)
    page.click("text=Sign out")
    page.wait_for_selector("h1 >> text=Sign in")
    page.goto(f"{filled.url}/jobs")

    assert page.url == f"{filled.url}/sign-in"
