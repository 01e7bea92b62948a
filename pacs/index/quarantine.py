"""Rows of the quarantine: why an object is there. The object itself is the store's, sealed."""

import sqlalchemy as sa

from pacs.index import feed
from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.errors import NotFound
from pacs.model.summary import QuarantineRow


class QuarantineRows:
    """The quarantine table."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add(self, quarantine_id: str, kind: str, reason: str, origin: str, size_bytes: int) -> None:
        """Note an object that was put into quarantine; noting it twice is harmless."""
        now = self._connections.clock()
        row = {
            "quarantine_id": quarantine_id,
            "kind": kind,
            "reason": reason,
            "origin": str(origin),
            "size_bytes": size_bytes,
            "at": now,
        }
        with self._connections.write() as connection:
            if self._connections.insert_new(connection, t.quarantine, row):
                event = feed.entry(now, "instance_quarantined", quarantine_id=quarantine_id, reason_class=kind)
                feed.record(self._connections, connection, [event])

    def list(self) -> list[QuarantineRow]:
        """Return all rows, newest first."""
        statement = sa.select(t.quarantine).order_by(t.quarantine.c.at.desc(), t.quarantine.c.quarantine_id)
        with self._connections.read() as connection:
            return [QuarantineRow(**row._mapping) for row in connection.execute(statement)]

    def get(self, quarantine_id: str) -> QuarantineRow:
        """Return one row. Raises `NotFound`."""
        statement = sa.select(t.quarantine).where(t.quarantine.c.quarantine_id == quarantine_id)
        with self._connections.read() as connection:
            row = connection.execute(statement).first()
        if row is None:
            raise NotFound("nothing in quarantine has this id")
        return QuarantineRow(**row._mapping)

    def remove(self, quarantine_id: str) -> None:
        """Remove a row; removing it twice is harmless."""
        with self._connections.write() as connection:
            connection.execute(sa.delete(t.quarantine).where(t.quarantine.c.quarantine_id == quarantine_id))
