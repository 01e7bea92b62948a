"""Another application entity that we know by name."""

from dataclasses import dataclass

SERVICES = ("echo", "store", "find", "move", "get")
"""What a peer may ask of us."""
IDENTITIES = ("pseudonym", "original")
"""What a peer or token gets to see: the archive's pseudonyms, or what the sender had sent."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A configured peer; a C-MOVE destination must be one."""

    ae_title: str
    host: str
    port: int
    may: frozenset[str] = frozenset(SERVICES)
    identity: str = "pseudonym"
