"""Who is let in: addresses of peers, and user identities (PS3.7 D.3.3.7)."""

import logging
from collections.abc import Callable

import pytest
from dimse.door import Door, associate_bytes, echo, raw, read_pdu
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from pacs.dimse import entrance
from pacs.model.peer import Peer

Open = Callable[..., Door]
ELSEWHERE = "192.0.2.7"


def test_a1_off_loopback_a_peer_is_served_from_its_own_host_only(open_door: Open) -> None:
    """The right AE title from another address is a stranger: reason 3; a peer or the archive may be told otherwise."""
    door = open_door(dicom__host="0.0.0.0")
    peers = door.archive.index.peers
    peers.add(Peer("PROBE", ELSEWHERE, 104))
    assert asked(door, "PROBE") == b"\3\0\1\1\3"

    peers.add(Peer("PROBE", ELSEWHERE, 104, options=frozenset({"any-address"})))
    assert echo(door.port, calling="PROBE") == 0
    peers.add(Peer("PROBE", "localhost", 104))
    assert echo(door.port, calling="PROBE") == 0


def test_a1_addresses_are_compared_by_what_they_mean() -> None:
    """IPv4 over IPv6 is IPv4, a zone does not count, and a host that nobody knows is nobody's address."""
    assert entrance.calls_from(Peer("A", "127.0.0.1", 104), "::ffff:127.0.0.1")
    assert entrance.calls_from(Peer("A", "fe80::1", 104), "fe80::1%eth0")
    assert not entrance.calls_from(Peer("A", "127.0.0.2", 104), "127.0.0.1")
    assert not entrance.calls_from(Peer("A", "host.invalid", 104), "127.0.0.1")


def asked(door: Door, calling: str, kind: int = 0, name: str = "", passcode: str = "", confirm: bool = False) -> bytes:
    """Ask for an association with a user identity; returns the PDU that answers, its type first."""
    items = []
    if kind:
        item = UserIdentityNegotiation()
        item.user_identity_type = kind
        item.primary_field = name.encode()
        if passcode:
            item.secondary_field = passcode.encode()
        item.positive_response_requested = confirm
        items.append(item)
    with raw(door.port, associate=False) as connection:
        connection.sendall(associate_bytes(calling=calling, items=items))
        kind, body = read_pdu(connection)
    return bytes([kind]) + body


REFUSED = b"\3\0\1\2\1"
CONFIRMED = b"\x59\0\0\2\0\0"
"""A User Identity sub-item of an acceptance, with an empty response (PS3.7 Table D.3-15)."""


def test_a10_name_and_secret_of_a_token_are_confirmed(door: Door) -> None:
    """Kind 2 with the right secret: an association, and the confirmation that was asked for (empty, PS3.7 D.3.3.7.2)."""
    secret = door.archive.index.access.new_token("modality")

    confirmed = asked(door, "PROBE", 2, "modality", secret, True)
    silent = asked(door, "PROBE", 2, "modality", secret, False)

    assert (confirmed[0], silent[0]) == (2, 2)
    assert CONFIRMED in confirmed and b"\x59\0" not in silent


@pytest.mark.parametrize(("name", "right"), [("modality", False), ("somebody", True)])
def test_a10_bad_credentials_are_rejected_and_never_logged(
    door: Door, caplog: pytest.LogCaptureFixture, name: str, right: bool
) -> None:
    """A wrong secret, or the secret of another name; neither is in any line of the log."""
    caplog.set_level(logging.DEBUG)
    secret = door.archive.index.access.new_token("modality")
    given = secret if right else "open-sesame-4711"

    assert asked(door, "PROBE", 2, name, given) == REFUSED
    assert given not in caplog.text


def test_a10_a_peer_may_have_to_identify_itself(door: Door) -> None:
    """Then nothing at all, a bare name and a kind that we cannot check are rejected; others may leave them unchecked."""
    secret = door.archive.index.access.new_token("modality")
    door.archive.index.peers.add(Peer("STRICT", "127.0.0.1", 104, options=frozenset({"user"})))

    assert [asked(door, "STRICT"), asked(door, "STRICT", 1, "modality")] == [REFUSED, REFUSED]
    assert asked(door, "STRICT", 3, "ticket") == REFUSED
    assert asked(door, "STRICT", 2, "modality", secret)[0] == 2
    assert [asked(door, "LAX")[0], asked(door, "LAX", 1, "anybody")[0], asked(door, "LAX", 3, "ticket")[0]] == [2, 2, 2]
