"""How often each service answered with which status: kept in the database, because several processes answer and restart."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pacs.index import feed
from pacs.index import tables as t
from pacs.index.connections import Connections

Counts = Mapping[tuple[str, str], int]
"""(service, status) -> how many answers: ("C-STORE", "0000") -> 12."""


class Tallies:
    """Counters that only grow, and the audit of who was answered what."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add(self, counts: Counts) -> None:
        """Add to the counters."""
        if counts:
            self._connections.retrying(lambda connection: self._add(connection, counts))

    def closed(self, counts: Counts, answered: Counts, **who: Any) -> None:
        """Add to the counters, and write one audit event for each kind of answer of an association that has ended.

        Parameters
        ----------
        counts : mapping
            What was not added yet.
        answered : mapping
            All answers of the association.
        who : str
            Who was answered, for the events; never a value of a data set.
        """
        now = self._connections.clock()
        events = [
            feed.entry(now, "dimse_answered", operation=service, status=status, count=count, **who)
            for (service, status), count in sorted(answered.items())
        ]

        def work(connection: sa.Connection) -> None:
            self._add(connection, counts)
            feed.record(self._connections, connection, events)

        if counts or events:
            self._connections.retrying(work)

    def list(self) -> dict[tuple[str, str], int]:
        """Return all counters, in order."""
        statement = sa.select(t.tally).order_by(t.tally.c.service, t.tally.c.status)
        with self._connections.read() as connection:
            return {(service, status): int(count) for service, status, count in connection.execute(statement)}

    def _add(self, connection: sa.Connection, counts: Counts) -> None:
        # In order, so that two processes cannot wait for each other.
        for (service, status), count in sorted(counts.items()):
            insert = self._connections.insert(t.tally).values(service=service, status=status, count=count)
            more = {"count": t.tally.c["count"] + insert.excluded["count"]}
            connection.execute(insert.on_conflict_do_update(index_elements=["service", "status"], set_=more))
