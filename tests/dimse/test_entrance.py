"""Who is let in: addresses of peers, and user identities (PS3.7 D.3.3.7)."""

import logging
from collections.abc import Callable

import pytest
from dimse.door import Door, echo
from pynetdicom import AE
from pynetdicom.association import Association
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
    assert called(door, "PROBE") == (1, 1, 3)

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


def associated(
    door: Door, calling: str, kind: int = 0, name: str = "", passcode: str = "", confirm: bool = False
) -> Association:
    """Ask for an association with a user identity."""
    ae = AE(ae_title=calling)
    ae.add_requested_context("1.2.840.10008.1.1")
    items = []
    if kind:
        item = UserIdentityNegotiation()
        item.user_identity_type = kind
        item.primary_field = name.encode()
        if passcode:
            item.secondary_field = passcode.encode()
        item.positive_response_requested = confirm
        items.append(item)
    association = ae.associate("127.0.0.1", door.port, ae_title="MINIPACS", ext_neg=items)
    if association.is_established:
        association.release()
    return association


def called(door: Door, calling: str, *identity: object) -> tuple[int, int, int] | None:
    """Return result, source and reason of a rejection, None for an association."""
    association = associated(door, calling, *identity)  # type: ignore[arg-type]
    if not association.is_rejected:
        return None
    primitive = association.acceptor.primitive
    return primitive.result, primitive.result_source, primitive.diagnostic


def test_a10_name_and_secret_of_a_token_are_confirmed(door: Door) -> None:
    """Kind 2 with the right secret: an association, and the confirmation that was asked for (empty, PS3.7 D.3.3.7.2)."""
    secret = door.archive.index.access.new_token("modality")

    association = associated(door, "PROBE", 2, "modality", secret, True)
    silent = associated(door, "PROBE", 2, "modality", secret, False)

    assert [item.server_response for item in answered(association)] == [b""]
    assert association.is_released and silent.is_released and answered(silent) == []


def answered(association: Association) -> list[UserIdentityNegotiation]:
    """Return the user identity items of the acceptance."""
    return [item for item in association.acceptor.user_information if isinstance(item, UserIdentityNegotiation)]


@pytest.mark.parametrize(("name", "right"), [("modality", False), ("somebody", True)])
def test_a10_bad_credentials_are_rejected_and_never_logged(
    door: Door, caplog: pytest.LogCaptureFixture, name: str, right: bool
) -> None:
    """A wrong secret, or the secret of another name; neither is in any line of the log."""
    caplog.set_level(logging.DEBUG)
    secret = door.archive.index.access.new_token("modality")
    given = secret if right else "open-sesame-4711"

    assert called(door, "PROBE", 2, name, given) == (1, 2, 1)


def test_a10_a_peer_may_have_to_identify_itself(door: Door) -> None:
    """Then nothing at all, a bare name and a kind that we cannot check are rejected; others may leave them unchecked."""
    secret = door.archive.index.access.new_token("modality")
    door.archive.index.peers.add(Peer("STRICT", "127.0.0.1", 104, options=frozenset({"user"})))

    refused = (1, 2, 1)
    assert [called(door, "STRICT"), called(door, "STRICT", 1, "modality")] == [refused, refused]
    assert called(door, "STRICT", 3, "ticket") == refused
    assert called(door, "STRICT", 2, "modality", secret) is None
    assert [called(door, "LAX"), called(door, "LAX", 1, "anybody"), called(door, "LAX", 3, "ticket")] == [None] * 3
