"""Requests for storage commitment, kept until they are answered; what a request names is sealed before it comes here."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from pacs.index import lifecycle
from pacs.index import tables as t
from pacs.index.connections import Connections, Row
from pacs.model.commitment import Commitment
from pacs.model.lifecycle import COMMITTED

OPEN = ("waiting", "checked")
_KEPT_S = 30 * 86400.0


class Commitments:
    """The commitment table."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add(self, ae_title: str, transaction_uid: str, request: bytes, key_id: str, instances: int) -> int:
        """Keep a request, durable on return; returns its number. Those that ended a month ago are forgotten."""
        now = self._connections.clock()
        row = {
            "ae_title": ae_title,
            "transaction_uid": transaction_uid,
            "state": "waiting",
            "request": request,
            "key_id": key_id,
            "instances": instances,
            "failures": [],
            "received_at": now,
            "due_at": now,
            "attempts": 0,
        }
        with self._connections.write() as connection:
            connection.execute(sa.delete(t.commitment).where(t.commitment.c.ended_at < now - _KEPT_S))
            inserted = connection.execute(sa.insert(t.commitment).returning(t.commitment.c.commitment_id), row)
            return int(inserted.scalar_one())

    def due(self, now: float, limit: int = 10) -> list[Commitment]:
        """Return requests that are to be worked on now, the longest due first."""
        statement = (
            sa.select(t.commitment)
            .where(t.commitment.c.state.in_(OPEN), t.commitment.c.due_at <= now)
            .order_by(t.commitment.c.due_at, t.commitment.c.commitment_id)
            .limit(limit)
        )
        with self._connections.read() as connection:
            return [_commitment(row) for row in connection.execute(statement)]

    def claim(self, commitment: Commitment, until: float) -> bool:
        """Keep a due request from others until then; false if somebody else was first."""
        mine = t.commitment.c.commitment_id == commitment.commitment_id, t.commitment.c.due_at == commitment.due_at
        statement = sa.update(t.commitment).where(*mine, t.commitment.c.state.in_(OPEN)).values(due_at=until)
        with self._connections.write() as connection:
            return connection.execute(statement).rowcount == 1

    def known(self, ae_title: str, transaction_uid: str, before: int) -> bool:
        """Tell whether an earlier request of this peer had the same Transaction UID."""
        statement = sa.select(sa.literal(1)).where(
            t.commitment.c.ae_title == ae_title,
            t.commitment.c.transaction_uid == transaction_uid,
            t.commitment.c.commitment_id < before,
        )
        with self._connections.read() as connection:
            return connection.execute(statement.limit(1)).first() is not None

    def later(self, commitment_id: int, due_at: float, *, attempts: int) -> None:
        """Put a request off."""
        self._set(commitment_id, due_at=due_at, attempts=attempts)

    def checked(self, commitment_id: int, failures: Mapping[int, int], studies: Collection[str] = ()) -> None:
        """Keep the outcome of the check: what failed, by position; nothing has to be checked again for another report.

        In the same transaction `studies`, those of what is committed, are labelled so: no rule takes them away by itself.
        """
        outcome = [[place, reason] for place, reason in sorted(failures.items())]
        mine = sa.update(t.commitment).where(t.commitment.c.commitment_id == commitment_id)

        def work(connection: sa.Connection) -> None:
            connection.execute(mine.values(state="checked", failures=outcome))
            lifecycle.label(self._connections, connection, studies, COMMITTED, "storage commitment")

        self._connections.retrying(work)

    def end(self, commitment_id: int, state: str, *, attempts: int) -> None:
        """Say how a request ended, "reported" or "given up"; what it named is forgotten."""
        self._set(commitment_id, state=state, attempts=attempts, request=b"", ended_at=self._connections.clock())

    def list(self, limit: int = 100) -> list[Commitment]:
        """Return the newest requests, newest first."""
        statement = sa.select(t.commitment).order_by(t.commitment.c.commitment_id.desc()).limit(limit)
        with self._connections.read() as connection:
            return [_commitment(row) for row in connection.execute(statement)]

    def _set(self, commitment_id: int, **values: object) -> None:
        with self._connections.write() as connection:
            connection.execute(sa.update(t.commitment).where(t.commitment.c.commitment_id == commitment_id).values(**values))


def _commitment(row: Row) -> Commitment:
    values = dict(row._mapping)
    values["failures"] = {int(place): int(reason) for place, reason in values["failures"]}
    return Commitment(**values)
