"""Sign-in links, sessions and API tokens."""

from pathlib import Path

import arrivals
import pytest
from arrivals import Clock

from pacs.index.database import Index
from pacs.model.errors import ConfigurationError, NotFound


def test_a_link_works_once(index: Index) -> None:
    """It trades for a session; a second try, or another link, gets nothing."""
    link = index.access.new_link(600)

    session = index.access.redeem(link)

    assert session is not None and index.access.session(session)
    assert index.access.redeem(link) is None
    assert index.access.redeem("made up") is None
    assert not index.access.session("made up")


def test_links_and_sessions_end_with_their_time(index: Index, clock: Clock) -> None:
    """A link after its lifetime, a session after its own."""
    old, good = index.access.new_link(10), index.access.new_link(1000)
    clock.now += 11
    assert index.access.redeem(old) is None
    session = index.access.redeem(good, session_ttl_s=100)
    assert session is not None

    clock.now += 101

    assert not index.access.session(session)


def test_a_session_can_be_ended(index: Index) -> None:
    """And is no good from then on."""
    session = index.access.redeem(index.access.new_link(600))
    assert session is not None

    index.access.end(session)
    index.access.end(session)

    assert not index.access.session(session)


def test_a_token_names_its_bearer_until_it_is_revoked(index: Index, clock: Clock) -> None:
    """Its last use is noted; a name is given once."""
    secret = index.access.new_token("ci")

    assert index.access.token(secret) == "ci"
    assert index.access.token("made up") is None
    assert [(row.name, row.last_used_at) for row in index.access.tokens()] == [("ci", clock.now)]
    with pytest.raises(ConfigurationError):
        index.access.new_token("ci")
    index.access.revoke("ci")
    assert index.access.token(secret) is None
    with pytest.raises(NotFound):
        index.access.revoke("ci")


def test_no_secret_is_in_the_database(tmp_path: Path) -> None:
    """Who reads the file finds digests only."""
    with arrivals.opened("sqlite", tmp_path) as (index, _):
        link = index.access.new_link(600)
        secrets = [link, index.access.redeem(link), index.access.new_link(600), index.access.new_token("ci")]

        written = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert not [secret for secret in secrets if secret and secret.encode() in written]
