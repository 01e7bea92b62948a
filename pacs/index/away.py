"""Peers that are away: one back-off for all that waits to be sent to one, so that it is not asked by each job in turn.

The first send that cannot reach a peer puts off all others to the same moment; then one of them tries. Whatever reaches the
peer ends it, and all go on at once. A try counts for every job that waits for it: none waits longer than its tries last.
"""

from collections.abc import Callable

import sqlalchemy as sa

from pacs.index import feed
from pacs.index import tables as t
from pacs.index.connections import Connections, Row
from pacs.index.succession import entry, queued
from pacs.model.job import JobState, sending_to
from pacs.model.peer import Away


class PeersAway:
    """The table of peers that are away."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def unreachable(self, ae_title: str, reason: str, *, wait_s: Callable[[int], float], attempts: int) -> float:
        """Note that a peer was not reached, and put off what waits for it; returns in how many seconds it is tried next.

        Parameters
        ----------
        wait_s : callable
            Seconds to wait after so many tries in a row.
        attempts : int
            Jobs that have been tried so often fail.
        """

        def work(connection: sa.Connection) -> float:
            now = self._connections.clock()
            row = connection.execute(self._connections.for_update(_of(ae_title))).first()
            if row is not None and row.until > now:
                return float(row.until - now)  # Another send found out at the same time.
            tries = 1 if row is None else row.tries + 1
            until = now + wait_s(tries)
            values = {"tries": tries, "until": until, "reason": reason}
            statement = self._connections.insert(t.peer_away).values(ae_title=ae_title, since=now, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=["ae_title"], set_=values))
            waiting = _waiting(ae_title)
            put_off = queued(until) | {"reason": reason, "attempt": t.job.c.attempt + 1}
            given_up = [*connection.scalars(sa.select(t.job.c.job_id).where(waiting, t.job.c.attempt + 1 >= attempts))]
            connection.execute(sa.update(t.job).where(waiting).values(put_off))
            if given_up:
                ended = {"state": JobState.FAILED.value, "finished_at": now}
                connection.execute(sa.update(t.job).where(self._connections.one_of(t.job.c.job_id, given_up)).values(ended))
            entries = [entry(connection, "job_failed", job_id, now) for job_id in given_up]
            feed.record(self._connections, connection, entries)
            return until - now

        return self._connections.retrying(work)

    def reached(self, ae_title: str) -> None:
        """Note that a peer answers; what waited for it is due now."""
        with self._connections.read() as connection:
            if connection.execute(_of(ae_title)).first() is None:
                return
        with self._connections.write() as connection:
            forget(connection, ae_title, self._connections.clock())

    def list(self) -> dict[str, Away]:
        """Return the peers that are away, by AE title."""
        with self._connections.read() as connection:
            return {row.ae_title: _away(row) for row in connection.execute(sa.select(t.peer_away))}


def forget(connection: sa.Connection, ae_title: str, now: float) -> None:
    """Take a peer for one that may answer, within a transaction: if it was away, what waited for it is due."""
    if connection.execute(sa.delete(t.peer_away).where(t.peer_away.c.ae_title == ae_title)).rowcount:
        waiting = sa.and_(_waiting(ae_title), t.job.c.due_at > now)
        connection.execute(sa.update(t.job).where(waiting).values(queued(now) | {"reason": ""}))


def _of(ae_title: str) -> sa.Select[tuple[str, float, int, float, str]]:
    return sa.select(t.peer_away).where(t.peer_away.c.ae_title == ae_title)


def _waiting(ae_title: str) -> sa.ColumnElement[bool]:
    return sa.and_(t.job.c.processor == sending_to(ae_title), t.job.c.state == JobState.QUEUED.value)


def _away(row: Row) -> Away:
    return Away(row.since, row.tries, row.until, row.reason)
