"""Another application entity that we know by name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pacs.model.errors import ConfigurationError

SERVICES = ("echo", "store", "find", "move", "get", "commit", "worklist", "workitems")
"""What a peer may ask of us. "worklist" shows original identities."""
USUAL = tuple(one for one in SERVICES if one != "worklist")
"""What a peer may where nothing else was said, and a stranger on loopback."""
OPTIONS = ("tls", "any-address", "user", "warn", "availability", "as-stored")
"""How we deal with a peer: "tls", we call it over TLS; "any-address", it may call from elsewhere than its host; "user", it must
bring the name and secret of an API token; "warn", it is told by B000 that what it stored was changed; "availability", it is
told when a study is complete; "as-stored", over the web it gets the archive's compression (DIMSE negotiates that)."""
PRIVATE = "private:"
"""Begins a further option: the UID of a private SOP Class or transfer syntax that the peer may bring."""
PREFERS = "prefer:"
"""Begins a further option: the UIDs of transfer syntaxes that the peer prefers, by commas, the best first."""
MOST_PREFERRED = 16
"""More would leave no room in an association, where each is proposed for each SOP Class."""
IDENTITIES = ("pseudonym", "original")
"""What a peer or token gets to see: the archive's pseudonyms, or what the sender had sent."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_STANDARD = "1.2.840.10008.1.2"
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")


@dataclass(frozen=True, slots=True)
class Peer:
    """A configured peer; a C-MOVE destination must be one.

    `url` is the DICOMweb service (PS3.18) of a peer that we send to over the web; then host and port are those of the URL.
    """

    ae_title: str
    host: str
    port: int
    may: frozenset[str] = frozenset(USUAL)
    identity: str = "pseudonym"
    options: frozenset[str] = frozenset()
    url: str = ""

    @property
    def private(self) -> frozenset[str]:
        """The private SOP Classes and transfer syntaxes that it may bring; they end in quarantine."""
        return frozenset(one.removeprefix(PRIVATE) for one in self.options if one.startswith(PRIVATE))

    @property
    def prefers(self) -> tuple[str, ...]:
        """The transfer syntaxes that it wants before others, the best first."""
        given = next((one.removeprefix(PREFERS) for one in self.options if one.startswith(PREFERS)), "")
        return tuple(uid for uid in given.split(",") if uid)


@dataclass(frozen=True, slots=True)
class Away:
    """A peer that did not answer, `tries` times in a row; the next is at `until`. Times are seconds since the epoch, UTC."""

    since: float
    tries: int
    until: float
    reason: str


@dataclass(frozen=True, slots=True)
class Echoed:
    """What came of asking a peer for a C-ECHO: whether it answers, what happened in words, and how long that took."""

    answers: bool
    said: str
    took_ms: int


def described(
    ae_title: str,
    place: str,
    port: int = 0,
    *,
    may: Iterable[str] = USUAL,
    identity: str = IDENTITIES[0],
    options: Iterable[str] = (),
    private: Iterable[str] = (),
    prefers: Iterable[str] = (),
) -> Peer:
    """Return the peer that a person describes, on the command line or in a form. Raises `ConfigurationError`.

    Parameters
    ----------
    place : str
        A host, or the URL of a DICOMweb service, which brings its own port.
    private : iterable of str
        UIDs of private SOP Classes and transfer syntaxes that it may bring.
    prefers : iterable of str
        UIDs of transfer syntaxes that it wants before others, the best first.
    """
    url = place.strip().rstrip("/") if "://" in place else ""
    host = place.strip()
    if url:
        parts = urlsplit(url)
        try:
            host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
        except (ValueError, KeyError):
            raise ConfigurationError("the URL of a DICOMweb service begins with http:// or https://") from None
    further = frozenset(f"{PRIVATE}{uid.strip()}" for uid in private if uid.strip())
    if first := ",".join(uid.strip() for uid in prefers if uid.strip()):
        further |= {f"{PREFERS}{first}"}
    wanted = frozenset(one.strip() for one in may if one.strip())
    return checked(Peer(ae_title.strip(" "), host, port, wanted, identity, frozenset(options) | further, url))


def checked(peer: Peer) -> Peer:
    """Return `peer` if it can be used. Raises `ConfigurationError`, which says what a usable one is like."""
    title = peer.ae_title
    # PS3.5 6.2: at most 16 characters of the default repertoire, no backslash, no control characters, not only spaces.
    if not title.strip(" ") or len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ConfigurationError("an AE title has 1 to 16 ASCII characters and no backslash (PS3.5 6.2)")
    if not _HOST.fullmatch(peer.host):
        raise ConfigurationError("a host is a name, like ct1.example, or an IP address")
    if not 0 < peer.port <= 65535:
        raise ConfigurationError("a port lies between 1 and 65535")
    if unknown := peer.may - set(SERVICES):
        raise ConfigurationError(f"a peer may {', '.join(SERVICES)}; not {', '.join(sorted(unknown))}")
    if peer.identity not in IDENTITIES:
        raise ConfigurationError(f"a peer's identity is one of {', '.join(IDENTITIES)}")
    if unknown := frozenset(one for one in peer.options - set(OPTIONS) if not one.startswith((PRIVATE, PREFERS))):
        raise ConfigurationError(f"options of a peer are {', '.join(OPTIONS)}; not {', '.join(sorted(unknown))}")
    if any(len(uid) > 64 or not _UID.fullmatch(uid) or uid.startswith("1.2.840.10008.") for uid in peer.private):
        raise ConfigurationError("a private SOP Class or transfer syntax is a UID outside 1.2.840.10008 (PS3.5 9)")
    prefers = peer.prefers
    if len(prefers) > MOST_PREFERRED or any(not _UID.fullmatch(uid) or not uid.startswith(_STANDARD) for uid in prefers):
        raise ConfigurationError(
            f"what a peer prefers are at most {MOST_PREFERRED} UIDs of transfer syntaxes, like 1.2.840.10008.1.2.1 (PS3.6 A)"
        )
    if peer.url and not peer.url.startswith(("http://", "https://")):
        raise ConfigurationError("the URL of a DICOMweb service begins with http:// or https://")
    return peer
