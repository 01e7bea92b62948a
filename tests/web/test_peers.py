"""The page of peers: what `pacs peers` does, in the same words, guarded and audited; and whether a peer answers."""

from collections.abc import Iterator

import making
import pytest
from pynetdicom import AE
from serving import free_port
from web.test_care import Site, sound

from pacs.dimse import scu
from pacs.model.peer import Peer

FORM = {
    "ae_title": "CT1",
    "place": "ct1.example",
    "port": "104",
    "identity": "pseudonym",
    "may-echo": "yes",
    "may-store": "yes",
    "option-tls": "yes",
    "prefers": "1.2.840.10008.1.2.4.80, 1.2.840.10008.1.2.1",
    "private": "1.2.826.0.1.3680043.9.1",
}


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An archive that knows nobody, with a policy of its own for one sender."""
    with making.archive(tmp_path_factory.mktemp("home"), deid__by_source=(("CT1", "basic"),)) as archive:
        yield Site(archive, scu.verify)


def kinds(site: Site) -> list[tuple[str, object]]:
    """Return what the audit says of peers, and by whom it was."""
    return [(one.kind, one.detail["by"]) for one in site.archive.index.events(limit=100) if one.kind.startswith("peer_")]


def test_a_peer_is_added_changed_and_forgotten(site: Site) -> None:
    """What was filled in is what is kept and shown, the policy of what it sends beside it; each change is in the audit."""
    empty = site.browser.get("/peers").text
    sound(empty)
    assert "Nobody is known" in empty

    shown = site.browser.post("/peers", data=FORM).text
    sound(shown)
    peer = site.archive.index.peers.get("CT1")
    assert peer is not None
    assert (peer.host, peer.port, peer.may, peer.identity) == ("ct1.example", 104, {"echo", "store"}, "pseudonym")
    assert (peer.prefers, peer.private) == (("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.1"), {"1.2.826.0.1.3680043.9.1"})
    for words in (
        "ct1.example:104",
        "DICOM over TLS",
        "echo, store",
        "pseudonyms",
        "JPEG-LS Lossless",
        "1 private UID",
        "basic",
    ):
        assert words in shown, words

    form = site.browser.get("/peers?edit=CT1").text
    sound(form)
    assert 'value="ct1.example"' in form and 'name="may-echo" value="yes" checked' in form
    assert 'name="may-find" value="yes">' in form
    site.browser.post("/peers", data={**FORM, "editing": "CT1", "identity": "original"})
    changed = site.archive.index.peers.get("CT1")
    assert changed is not None and changed.identity == "original"

    assert site.browser.post("/peers/remove", data={"ae_title": "CT1"}).status_code == 400
    assert site.archive.index.peers.get("CT1") is not None
    site.browser.post("/peers/remove", data={"ae_title": "CT1", "sure": "yes"})
    assert site.archive.index.peers.list() == []
    assert kinds(site) == [("peer_added", "session"), ("peer_changed", "session"), ("peer_removed", "session")]


def test_a_form_that_cannot_be_used_comes_back_as_it_was(site: Site) -> None:
    """400, in the words of the command line, everything else still filled in, and nothing kept."""
    for wrong, says in (
        ({"ae_title": "MUCH TOO LONG A TITLE"}, "an AE title has 1 to 16 ASCII characters"),
        ({"place": "two words"}, "a host is a name"),
        ({"place": "ftp://ct1.example"}, "begins with http:// or https://"),
        ({"port": "0"}, "a port lies between 1 and 65535"),
        ({"port": "a"}, "a port lies between 1 and 65535"),
        ({"identity": "both"}, "identity is one of"),
        ({"prefers": "JPEG-LS"}, "UIDs of transfer syntaxes"),
        ({"private": "1.2.840.10008.1.2"}, "a UID outside 1.2.840.10008"),
    ):
        answer = site.browser.post("/peers", data={**FORM, **wrong})

        assert answer.status_code == 400
        sound(answer.text)
        assert says in answer.text and 'name="option-tls" value="yes" checked' in answer.text
    assert site.archive.index.peers.list() == []


def test_adding_does_not_overwrite(site: Site) -> None:
    """Whoever adds a peer by a title that is taken did not mean to change it."""
    site.archive.index.peers.add(Peer("CT1", "127.0.0.1", 104))

    assert "there is a peer CT1 already" in site.browser.post("/peers", data=FORM).text
    assert site.archive.index.peers.list()[0].host == "127.0.0.1"


def test_strangers_and_other_origins_are_refused(site: Site) -> None:
    """Without a session every way leads to the sign-in page; a page of another origin cannot use the session either."""
    assert site.stranger.get("/peers").headers["location"] == "/sign-in"
    foreign = {"Sec-Fetch-Site": "cross-site"}
    for path in ("/peers", "/peers/remove", "/peers/echo"):
        assert site.stranger.post(path, data=FORM).headers["location"] == "/sign-in"
        assert site.browser.post(path, data={**FORM, "sure": "yes"}, headers=foreign).status_code == 403
    assert site.browser.get("/peers?edit=NOBODY").status_code == 404
    assert site.archive.index.peers.list() == [] and kinds(site) == []


def test_echo_says_what_came_of_it(site: Site) -> None:
    """It answers, and how long that took; it knows another title; nobody is there. Each in words, and in the audit."""
    ae = AE(ae_title="-O'B <&>/?")
    ae.require_called_aet = True
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        for title, port in (
            (ae.ae_title, server.server_address[1]),
            ("WRONG", server.server_address[1]),
            ("AWAY", free_port()),
        ):
            site.archive.index.peers.add(Peer(title, "127.0.0.1", port))
        answers = {one: site.browser.post("/peers/echo", data={"ae_title": one}).text for one in (ae.ae_title, "WRONG", "AWAY")}
    finally:
        server.shutdown()

    for text in answers.values():
        sound(text)
        assert " ms." in text
    assert 'role="status">-O&#39;B &lt;&amp;&gt;/? answers. It took' in answers[ae.ae_title]
    assert (
        'role="alert">WRONG at' in answers["WRONG"] and "rejected the association: it has another AE title" in answers["WRONG"]
    )
    assert "nothing listens there" in answers["AWAY"]
    assert [one for one in kinds(site) if one[0] == "peer_asked"] == [("peer_asked", "session")] * 3
