"""Another application entity that we know by name."""

from dataclasses import dataclass

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
IDENTITIES = ("pseudonym", "original")
"""What a peer or token gets to see: the archive's pseudonyms, or what the sender had sent."""


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
