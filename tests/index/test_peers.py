"""Peers and the rows of the quarantine."""

import pytest

from pacs.index.database import Index
from pacs.model.errors import ConfigurationError, NotFound
from pacs.model.peer import Peer


def test_a_peer_is_found_by_its_title(index: Index) -> None:
    """Spaces around the title are not significant (PS3.5 6.2); adding it again replaces it."""
    index.peers.add(Peer("OTHER ", "host-1", 104))
    index.peers.add(Peer("OTHER", "host-2", 11112, frozenset({"echo", "move"})))

    assert index.peers.get(" OTHER") == Peer("OTHER", "host-2", 11112, frozenset({"echo", "move"}))
    assert index.peers.get("other") is None
    assert len(index.peers.list()) == 1
    index.peers.remove("OTHER")
    assert index.peers.list() == []
    with pytest.raises(NotFound):
        index.peers.remove("OTHER")


@pytest.mark.parametrize(
    "peer",
    [
        Peer("", "h", 104),
        Peer("SEVENTEEN_LETTERS", "h", 104),
        Peer("A\\B", "h", 104),
        Peer("TÜR", "h", 104),
        Peer("A", "h", 0),
        Peer("A", "h", 70000),
        Peer("A", "h", 104, frozenset({"fly"})),
        Peer("A", "h", 104, options=frozenset({"private:1.2.840.10008.5.1.4.1.1.2"})),
        Peer("A", "h", 104, options=frozenset({"private:all"})),
    ],
)
def test_a_peer_that_cannot_be_is_refused(index: Index, peer: Peer) -> None:
    """A title, port or service that the standard does not allow, or something private that is standard or no UID."""
    with pytest.raises(ConfigurationError):
        index.peers.add(peer)


def test_quarantine_rows_say_why_and_not_what(index: Index) -> None:
    """Noted once, with an event that holds no value of a data set; removed for good."""
    for _ in range(2):
        index.quarantine.add("q1", "NotUnderstood", "ends early", "stow", 99)

    (row,) = index.quarantine.list()
    assert (row.quarantine_id, row.kind, row.reason, row.origin, row.size_bytes) == (
        "q1",
        "NotUnderstood",
        "ends early",
        "stow",
        99,
    )
    assert index.quarantine.get("q1") == row
    assert index.summary()["quarantine"] == 1
    (event,) = index.events()
    assert event.kind == "instance_quarantined"
    assert "ends early" not in str(event.detail)
    index.quarantine.remove("q1")
    with pytest.raises(NotFound):
        index.quarantine.get("q1")


def test_what_a_peer_is_dealt_with_is_kept(index: Index) -> None:
    """Options come back as they were given; an unknown one is refused."""
    index.peers.add(Peer("SECURE", "host", 2762, options=frozenset({"tls", "user"})))

    found = index.peers.get("SECURE")
    assert found is not None and found.options == {"tls", "user"}
    with pytest.raises(ConfigurationError, match="telepathy"):
        index.peers.add(Peer("SECURE", "host", 2762, options=frozenset({"telepathy"})))
