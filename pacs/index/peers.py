"""Configured peers: who may call us, and where C-MOVE may send to. Changes are in the feed, by whom."""

from typing import Any

import sqlalchemy as sa

from pacs.index import feed
from pacs.index import tables as t
from pacs.index.away import forget
from pacs.index.connections import Connections, Row
from pacs.model.errors import NotFound
from pacs.model.peer import IDENTITIES, Peer, checked


class Peers:
    """The peer table."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add(self, peer: Peer, *, by: str = "cli") -> None:
        """Add a peer, or replace the one of its AE title. Raises `ConfigurationError` for an unusable one.

        `by` is who wants it, for the audit.
        """
        title = checked(peer).ae_title.strip(" ")
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
            known = connection.execute(sa.select(t.peer.c.ae_title).where(t.peer.c.ae_title == title)).first() is not None
            connection.execute(statement.on_conflict_do_update(index_elements=["ae_title"], set_=row))
            # What was wrong with it may have been mended by this.
            forget(connection, title, self._connections.clock())
            self._note(connection, "peer_changed" if known else "peer_added", title, by, **row)

    def remove(self, ae_title: str, *, by: str = "cli") -> None:
        """Remove a peer; `by` is who wants that, for the audit. Raises `NotFound`."""
        title = ae_title.strip(" ")
        with self._connections.write() as connection:
            if connection.execute(sa.delete(t.peer).where(t.peer.c.ae_title == title)).rowcount != 1:
                raise NotFound(f"there is no peer {title}; `pacs peers list` shows those there are")
            forget(connection, title, self._connections.clock())
            self._note(connection, "peer_removed", title, by)

    def get(self, ae_title: str) -> Peer | None:
        """Return the peer of an AE title; spaces around it are not significant (PS3.5 6.2)."""
        with self._connections.read() as connection:
            row = connection.execute(sa.select(t.peer).where(t.peer.c.ae_title == ae_title.strip(" "))).first()
        return None if row is None else _peer(row)

    def list(self) -> list[Peer]:
        """Return all peers by AE title."""
        with self._connections.read() as connection:
            return [_peer(row) for row in connection.execute(sa.select(t.peer).order_by(t.peer.c.ae_title))]

    def _note(self, connection: sa.Connection, kind: str, ae_title: str, by: str, **detail: Any) -> None:
        event = feed.entry(self._connections.clock(), kind, ae_title=ae_title, by=by, **detail)
        feed.record(self._connections, connection, [event])


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
