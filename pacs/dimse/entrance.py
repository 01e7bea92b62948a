"""Who may come in: AE titles, addresses and user identities, before anything is negotiated.

PS3.8 9.3.4 (rejections and their reasons), PS3.7 D.3.3.7 (user identity). On loopback callers need no introduction; on any
other address they must be configured peers, and call from their peer's host. A user identity is the name and the secret of an
API token: checked whenever it is given, demanded of peers that are configured so. Secrets are neither kept nor logged.
"""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from pacs.archive import Archive
from pacs.logs import get_logger
from pacs.model.peer import Peer
from pacs.settings import Settings

log = get_logger(__name__)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
WRONG_APPLICATION_CONTEXT, UNKNOWN_CALLING_TITLE, UNKNOWN_CALLED_TITLE = 2, 3, 7
USERNAME, USERNAME_AND_PASSCODE = 1, 2


@dataclass(frozen=True, slots=True)
class Identity:
    """A User Identity Negotiation sub-item (PS3.7 Table D.3-14)."""

    kind: int
    primary: bytes
    secondary: bytes


def is_loopback(settings: Settings) -> bool:
    """Say whether we listen on this machine only."""
    try:
        return ipaddress.ip_address(settings.dicom.host).is_loopback
    except ValueError:
        return settings.dicom.host == "localhost"


def refusal(archive: Archive, primitive: Any, address: str) -> int:
    """Return the reason to reject an A-ASSOCIATE for (PS3.8 Table 9-21, source 1), 0 for none."""
    settings = archive.settings.dicom
    calling, called = primitive.calling_ae_title.strip(), primitive.called_ae_title.strip()
    if primitive.application_context_name != APPLICATION_CONTEXT:
        return WRONG_APPLICATION_CONTEXT
    if settings.require_called_ae_title and called != settings.ae_title.strip():
        return UNKNOWN_CALLED_TITLE
    if is_loopback(archive.settings):
        return 0
    peer = archive.index.peers.get(calling)
    if peer is None:
        return UNKNOWN_CALLING_TITLE
    if settings.check_peer_address and "any-address" not in peer.options and not calls_from(peer, address):
        # An AE title is no secret: another machine that uses it is a stranger.
        log.warning("peer_address_unknown", ae_title=calling, address=address)
        return UNKNOWN_CALLING_TITLE
    return 0


def calls_from(peer: Peer, address: str) -> bool:
    """Say whether `address` is one of the peer's host."""
    try:
        known = {_plain(str(entry[4][0])) for entry in socket.getaddrinfo(peer.host, None)}
    except OSError:
        return False
    return _plain(address) in known


def believed(archive: Archive, calling: str, identity: Identity | None) -> bool:
    """Say whether a caller is let in with the user identity that it gave, or with none.

    Kind 2, name and passcode, is the name and secret of an API token and must be right. A name alone (kind 1) proves nothing
    and a kind that we do not know (Kerberos, SAML, JWT) neither: both are passed over, unless the peer must identify itself.
    """
    if identity is not None and identity.kind == USERNAME_AND_PASSCODE:
        secret = identity.secondary.decode("utf-8", "surrogateescape")
        return archive.index.access.token(secret) == identity.primary.decode("utf-8", "surrogateescape")
    peer = archive.index.peers.get(calling)
    return peer is None or "user" not in peer.options


def _plain(address: str) -> str:
    """Return an address without its zone, and an IPv4 one that came over IPv6 as IPv4."""
    bare = address.split("%")[0]
    try:
        parsed = ipaddress.ip_address(bare)
    except ValueError:
        return bare
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
