"""A viewer beside the archive: its files at our base, our service in its configuration, for signed-in people only.

With `PACS_TEST_OHIF` naming the folder `dist` of the npm package @ohif/app, the real one is opened in a real browser.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import making
import pytest
from serving import Served, free_port, run

from pacs.model.errors import ConfigurationError
from pacs.web.viewer import check


@pytest.fixture
def viewed(tmp_path: Path) -> Iterator[Served]:
    """A server with a viewer's files: a page, a script and a style sheet built for the root of a host."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "index.html").write_text('<script>window.PUBLIC_URL="/"</script><script src="/app.bundle.1.js"></script>')
    (folder / "app.bundle.1.js").write_text('__webpack_require__.p = "/"; // and more')
    (folder / "app.css").write_text("@font-face { src: url(/font.woff2) }")
    (tmp_path / "secret.txt").write_text("not a viewer's")
    ports = {"web__port": free_port(), "dicom__port": free_port()}
    yield from run(making.settings(tmp_path / "home", web__viewer=str(folder), **ports))


def test_files_come_from_our_base(viewed: Served) -> None:
    """Paths in page, script and style sheet begin at /viewer; a page of the viewer is its first page; nothing else is read."""
    with httpx.Client(base_url=viewed.url, follow_redirects=True) as client:
        assert "sign-in" in str(client.get("/viewer/viewer").url), "strangers are led to the sign-in page"
        client.get(viewed.link())
        page = client.get("/viewer/viewer", params={"StudyInstanceUIDs": making.STUDY_UID})
        assert 'src="/viewer/app.bundle.1.js"' in page.text and 'PUBLIC_URL="/viewer/"' in page.text
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert client.get("/viewer/app.bundle.1.js").text.startswith('__webpack_require__.p = "/viewer/"')
        assert "url(/viewer/font.woff2)" in client.get("/viewer/app.css").text
        assert f'"qidoRoot": "{viewed.url}/dicom-web"' in client.get("/viewer/app-config.js").text
        assert client.get("/viewer/%2e%2e/secret.txt").status_code == 404
        assert client.get("/viewer/missing.js").status_code == 404


def test_a_folder_without_a_viewer_is_refused(tmp_path: Path) -> None:
    """At start, with what to do."""
    with pytest.raises(ConfigurationError, match="@ohif/app"):
        check(str(tmp_path))


@pytest.mark.skipif("PACS_TEST_OHIF" not in os.environ, reason="PACS_TEST_OHIF does not name the folder dist of @ohif/app")
@pytest.mark.timeout(300)
def test_ohif_shows_a_study(tmp_path: Path) -> None:
    """The real viewer lists the series of a study and draws an image of it, without a failed request for data."""
    playwright = pytest.importorskip("playwright.sync_api")
    ports = {"web__port": free_port(), "dicom__port": free_port()}
    serving = contextmanager(run)(making.settings(tmp_path / "home", web__viewer=os.environ["PACS_TEST_OHIF"], **ports))
    with serving as served, playwright.sync_playwright() as running:
        assert served.stow(*making.ct_series(5)).status_code == 200
        (study,) = {one["0020000D"]["Value"][0] for one in served.client.get("/dicom-web/studies").json()}
        flags = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            failed: list[str] = []
            page.on("response", lambda answer: answer.status >= 400 and failed.append(answer.url))
            page.goto(served.link())
            page.goto(f"{served.url}/viewer/viewer?StudyInstanceUIDs={study}")
            page.wait_for_selector("text=AX LUNG", timeout=120_000)
            page.wait_for_function("() => document.querySelector('canvas') !== null", timeout=120_000)
            assert failed == []
        finally:
            browser.close()
