"""Configured peers: who may call us, and where C-MOVE may send to."""

import re

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections, Row
from pacs.model.errors import ConfigurationError, NotFound
from pacs.model.peer import IDENTITIES, OPTIONS, PRIVATE, SERVICES, Peer

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


class Peers:
    """The peer table."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add(self, peer: Peer) -> None:
        """Add a peer, or replace the one of its AE title. Raises `ConfigurationError` for an unusable one."""
        # PS3.5 6.2: at most 16 characters of the default repertoire, no backslash, no control characters, not only spaces.
        title = peer.ae_title.strip(" ")
        if not title or len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:
            raise ConfigurationError("an AE title has 1 to 16 ASCII characters and no backslash (PS3.5 6.2)")
        if not 0 < peer.port <= 65535:
            raise ConfigurationError("a peer's port is between 1 and 65535")
        if unknown := peer.may - set(SERVICES):
            raise ConfigurationError(f"a peer may {', '.join(SERVICES)}; not {', '.join(sorted(unknown))}")
        if peer.identity not in IDENTITIES:
            raise ConfigurationError(f"a peer's identity is one of {', '.join(IDENTITIES)}")
        if unknown := frozenset(one for one in peer.options - set(OPTIONS) if not one.startswith(PRIVATE)):
            raise ConfigurationError(f"options of a peer are {', '.join(OPTIONS)}; not {', '.join(sorted(unknown))}")
        if any(len(uid) > 64 or not _UID.fullmatch(uid) or uid.startswith("1.2.840.10008.") for uid in peer.private):
            raise ConfigurationError("a private SOP Class or transfer syntax is a UID outside 1.2.840.10008 (PS3.5 9)")
        if peer.url and not peer.url.startswith(("http://", "https://")):
            raise ConfigurationError("the URL of a peer begins with http:// or https://")
        row = {
            "host": peer.host,
            "port": peer.port,
            "may": " ".join(sorted(peer.may)),
            "identity": peer.identity,
            "options": " ".join(sorted(peer.options)),
            "url": peer.url,
        }
        statement = self._connections.insert(t.peer).values(ae_title=title, **row)
        with self._connections.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["ae_title"], set_=row))

    def remove(self, ae_title: str) -> None:
        """Remove a peer. Raises `NotFound`."""
        with self._connections.write() as connection:
            if connection.execute(sa.delete(t.peer).where(t.peer.c.ae_title == ae_title.strip(" "))).rowcount != 1:
                raise NotFound("there is no peer of this AE title")

    def get(self, ae_title: str) -> Peer | None:
        """Return the peer of an AE title; spaces around it are not significant (PS3.5 6.2)."""
        with self._connections.read() as connection:
            row = connection.execute(sa.select(t.peer).where(t.peer.c.ae_title == ae_title.strip(" "))).first()
        return None if row is None else _peer(row)

    def list(self) -> list[Peer]:
        """Return all peers by AE title."""
        with self._connections.read() as connection:
            return [_peer(row) for row in connection.execute(sa.select(t.peer).order_by(t.peer.c.ae_title))]


def _peer(row: Row) -> Peer:
    return Peer(
        row.ae_title,
        row.host,
        row.port,
        frozenset(row.may.split()),
        row.identity or IDENTITIES[0],
        frozenset(row.options.split()),
        row.url,
    )
