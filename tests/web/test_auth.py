"""Who gets in, and who does not."""

from collections.abc import Iterator
from typing import Any

import httpx
import making
import pytest
from serving import Served
from starlette.testclient import TestClient

from pacs.archive import Archive
from pacs.web.server import create_app

SECRETS = ("/dicom-web/studies", "/dicom-web/studies/1.2.3", "/dicom-web/nothing/here")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive that listens on loopback and trusts its callers."""
    with making.archive(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive that asks everybody for credentials."""
    with making.archive(tmp_path_factory.mktemp("home"), web__open_on_loopback=False) as opened:
        yield opened


def client(archive: Archive, *, peer: str = "127.0.0.1", base: str = "http://127.0.0.1", **options: Any) -> TestClient:
    """Return a client of the archive's application that calls from `peer`."""
    return TestClient(create_app(archive), base_url=base, client=(peer, 50000), follow_redirects=False, **options)


def test_a_link_signs_in_once(archive: Archive) -> None:
    """The link sets an HttpOnly, SameSite cookie and leads to the studies; the second time it does not work."""
    browser, secret = client(archive), archive.index.access.new_link(60)

    first = browser.get(f"/sign-in/{secret}")
    cookie = first.headers["set-cookie"].lower()
    home = browser.get("/")
    again = client(archive).get(f"/sign-in/{secret}")

    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert home.status_code == 200
    assert again.headers["location"] == "/sign-in?used=1"
    assert "set-cookie" not in again.headers


def test_a_link_checker_does_not_use_the_link_up(archive: Archive) -> None:
    """HEAD changes nothing."""
    secret = archive.index.access.new_link(60)

    assert client(archive).head(f"/sign-in/{secret}").status_code == 405
    assert client(archive).get(f"/sign-in/{secret}").headers["location"] == "/"


def test_sign_out_ends_the_session_at_once(archive: Archive) -> None:
    """The cookie is worth nothing afterwards, wherever it was kept."""
    browser = client(archive)
    browser.get(f"/sign-in/{archive.index.access.new_link(60)}")
    kept = dict(browser.cookies)
    assert browser.get("/").status_code == 200

    browser.post("/sign-out")

    assert (
        TestClient(browser.app, base_url="http://127.0.0.1", cookies=kept, follow_redirects=False).get("/").status_code == 303
    )


@pytest.mark.parametrize("path", ["/", "/jobs", "/upload", "/studies/1.2.3", "/jobs/x"])
def test_pages_need_a_session_even_on_this_machine(archive: Archive, path: str) -> None:
    """Without one, every page leads to the sign-in page."""
    answer = client(archive).get(path)

    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


def test_dicomweb_is_open_to_this_machine_on_loopback_only_if_the_setting_says_so(archive: Archive, closed: Archive) -> None:
    """As DICOM itself: open on loopback by default, shut by the setting, shut for other machines."""
    assert client(archive).get("/dicom-web/studies").status_code == 200
    assert client(closed).get("/dicom-web/studies").status_code == 401
    assert client(archive, peer="10.0.0.9").get("/dicom-web/studies").status_code == 401


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_who_comes_through_a_proxy_is_not_local(archive: Archive, header: str) -> None:
    """Behind a proxy everybody seems to call from this machine."""
    assert client(archive).get("/dicom-web/studies", headers={header: "for=10.0.0.9"}).status_code == 401


def test_w20_401_does_not_tell_what_exists(closed: Archive) -> None:
    """What is there, what is not, and what never could be look the same."""
    answers = [client(closed).get(path) for path in SECRETS]

    assert {(one.status_code, one.content, one.headers["www-authenticate"]) for one in answers} == {
        (401, b"", 'Bearer realm="mini-pacs"')
    }


def test_a_token_opens_dicomweb_and_no_page(closed: Archive) -> None:
    """Authorization: Bearer; a wrong one does not, nor does another scheme."""
    token = closed.index.access.new_token("script")
    good = {"Authorization": f"Bearer {token}"}

    assert client(closed).get("/dicom-web/studies", headers=good).status_code == 200
    assert client(closed).get("/dicom-web/studies", headers={"Authorization": "Bearer x"}).status_code == 401
    assert client(closed).get("/dicom-web/studies", headers={"Authorization": f"Basic {token}"}).status_code == 401
    assert client(closed).get("/", headers=good).status_code == 303


def test_a_session_opens_dicomweb(closed: Archive) -> None:
    """The pages' pictures and uploads come from DICOMweb with the same cookie."""
    browser = client(closed)
    browser.get(f"/sign-in/{closed.index.access.new_link(60)}")

    assert browser.get("/dicom-web/studies").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.example"}, {"Origin": "null"}],
)
def test_a_page_of_another_origin_cannot_act(archive: Archive, headers: dict[str, str]) -> None:
    """Unsafe methods from elsewhere are refused, with a session and without; so are anonymous reads."""
    browser = client(archive)
    browser.get(f"/sign-in/{archive.index.access.new_link(60)}")

    assert browser.post("/jobs/x/cancel", headers=headers).status_code == 403
    assert browser.post("/dicom-web/studies", headers=headers).status_code == 403
    assert client(archive).post("/dicom-web/studies", headers=headers).status_code == 401
    assert client(archive).get("/dicom-web/studies", headers=headers).status_code == 401


def test_our_own_pages_can_act(archive: Archive) -> None:
    """Same origin passes: the answer is about the job, not about the caller."""
    browser = client(archive)
    browser.get(f"/sign-in/{archive.index.access.new_link(60)}")

    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://127.0.0.1"}):
        assert browser.post("/jobs/x/cancel", headers=headers).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8080", "localhost.evil.example", ""])
def test_a_strange_host_name_is_refused_on_loopback(archive: Archive, host: str) -> None:
    """DNS rebinding: the browser believes it talks to evil.example, which now points to us."""
    assert client(archive).get("/dicom-web/studies", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_our_own_host_names_pass(archive: Archive, host: str) -> None:
    """Whatever this machine is called by itself."""
    assert client(archive).get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/sign-in", "/dicom-web/studies", "/static/pages.js", "/livez", "/nothing"])
def test_security_headers_are_on_everything(archive: Archive, path: str) -> None:
    """Strict CSP without inline code, no sniffing, no framing."""
    headers = client(archive).get(path).headers

    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_real_connection_from_this_machine_is_known_as_such(served: Served) -> None:
    """The server tells us the peer's address as it is."""
    assert httpx.get(f"{served.dicomweb}/studies").status_code == 200
