"""Performed procedure steps, sealed before they come here; what they say was acquired is evidence that a series is complete."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.errors import DuplicateInstance, NotFound
from pacs.model.performed import IN_PROGRESS, PerformedRow

AWAITED_S = 86400.0
"""How long listed instances may come after their step has ended; then other evidence decides."""


class PerformedSteps:
    """The tables of performed procedure steps."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add(self, step_uid: str, ae_title: str, study_instance_uid: str, key_id: str, sealed: bytes) -> None:
        """Keep a step that was begun, durable on return. Raises `DuplicateInstance`."""
        row = {
            "step_uid": step_uid,
            "state": IN_PROGRESS,
            "revision": 0,
            "ae_title": ae_title,
            "study_instance_uid": study_instance_uid,
            "key_id": key_id,
            "sealed": sealed,
            "created_at": self._connections.clock(),
        }
        if not self._connections.retrying(lambda connection: self._connections.insert_new(connection, t.performed_step, row)):
            raise DuplicateInstance("there is a performed procedure step of this UID already")

    def get(self, step_uid: str) -> PerformedRow:
        """Return a step. Raises `NotFound`."""
        with self._connections.read() as connection:
            row = connection.execute(sa.select(t.performed_step).where(t.performed_step.c.step_uid == step_uid)).first()
        if row is None:
            raise NotFound("there is no such performed procedure step")
        return PerformedRow(**row._mapping)

    def change(
        self,
        before: PerformedRow,
        state: str,
        key_id: str,
        sealed: bytes,
        acquired: Mapping[str, Sequence[str]],
        evidence: str,
    ) -> bool:
        """Replace a step, and note what it acquired (Series Instance UID -> SOP Instance UIDs) once it has ended.

        False if somebody else has changed it since `before` was read; then nothing happens.
        """
        now = self._connections.clock()
        ended_at = None if state == IN_PROGRESS else now

        def work(connection: sa.Connection) -> bool:
            mine = t.performed_step.c.step_uid == before.step_uid, t.performed_step.c.revision == before.revision
            values = {
                "state": state,
                "revision": before.revision + 1,
                "key_id": key_id,
                "sealed": sealed,
                "ended_at": ended_at,
            }
            if connection.execute(sa.update(t.performed_step).where(*mine).values(**values)).rowcount != 1:
                return False
            rows = [
                {
                    "step_uid": before.step_uid,
                    "series_instance_uid": series,
                    "sop_instance_uids": sorted(uids),
                    "evidence": evidence,
                    "awaited_until": now + AWAITED_S,
                }
                for series, uids in sorted(acquired.items())
                if uids
            ]
            if ended_at is not None and rows:
                connection.execute(sa.insert(t.performed_series), rows)
            return True

        return self._connections.retrying(work)

    def settle(self) -> int:
        """Note as evidence that all listed instances of a series are here; returns for how many series.

        What an association may still bring of such a series does not hold it up; if more comes, the series is due again.
        """
        with self._connections.read() as connection:
            waiting = connection.execute(
                sa.select(t.performed_series).where(t.performed_series.c.awaited_until.is_not(None))
            ).all()
            ready = [row for row in waiting if self._is_here(connection, row.series_instance_uid, row.sop_instance_uids)]
        over = [row for row in waiting if row not in ready and row.awaited_until < self._connections.clock()]
        if not ready and not over:
            return 0

        def work(connection: sa.Connection) -> None:
            for row in ready:
                pks = list(
                    connection.scalars(
                        sa.select(t.series.c.pk).where(t.series.c.series_instance_uid == row.series_instance_uid)
                    )
                )
                connection.execute(sa.delete(t.open_arrival).where(t.open_arrival.c.series_pk.in_(pks)))
                connection.execute(sa.update(t.series).where(t.series.c.pk.in_(pks)).values(evidence=row.evidence))
            for row in (*ready, *over):
                mine = (
                    t.performed_series.c.step_uid == row.step_uid,
                    t.performed_series.c.series_instance_uid == row.series_instance_uid,
                )
                connection.execute(sa.update(t.performed_series).where(*mine).values(awaited_until=None))

        self._connections.retrying(work)
        return len(ready)

    def of_study(self, study_instance_uid: str) -> list[PerformedRow]:
        """Return the steps that were performed for a study, in their order."""
        statement = (
            sa.select(t.performed_step)
            .where(t.performed_step.c.study_instance_uid == study_instance_uid)
            .order_by(t.performed_step.c.created_at, t.performed_step.c.step_uid)
        )
        with self._connections.read() as connection:
            return [PerformedRow(**row._mapping) for row in connection.execute(statement)]

    def list(self, limit: int = 100) -> "list[PerformedRow]":
        """Return the newest steps, newest first."""
        statement = sa.select(t.performed_step).order_by(t.performed_step.c.created_at.desc()).limit(limit)
        with self._connections.read() as connection:
            return [PerformedRow(**row._mapping) for row in connection.execute(statement)]

    def expire(self, before: float) -> int:
        """Forget steps that ended before then, or were begun before and never ended; returns how many."""
        over = sa.select(t.performed_step.c.step_uid).where(
            sa.func.coalesce(t.performed_step.c.ended_at, t.performed_step.c.created_at) < before
        )

        def work(connection: sa.Connection) -> int:
            connection.execute(sa.delete(t.performed_series).where(t.performed_series.c.step_uid.in_(over)))
            return connection.execute(sa.delete(t.performed_step).where(t.performed_step.c.step_uid.in_(over))).rowcount

        return self._connections.retrying(work)

    def _is_here(self, connection: sa.Connection, series_instance_uid: str, sop_instance_uids: Sequence[str]) -> bool:
        here = (
            sa.select(sa.func.count(sa.distinct(t.instance.c.sop_instance_uid)))
            .select_from(t.instance.join(t.series))
            .where(
                t.series.c.series_instance_uid == series_instance_uid,
                self._connections.one_of(t.instance.c.sop_instance_uid, sop_instance_uids),
            )
        )
        return int(connection.execute(here).scalar_one()) == len(set(sop_instance_uids))
