"""Recall: everything that a version of a processor made is hidden from queries and retrievals, and so is what was made of it.

What is hidden follows from the recalls in force and is computed anew each time one begins or ends, so that two recalls that
overlap can end in any order. Hidden instances stay stored; nothing is deleted.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from pacs.index import feed, succession, write
from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.index.incoming import INSTANCES
from pacs.model.errors import NotFound
from pacs.model.job import JobState, Recall

HIDDEN = "recalled"
_OPEN = (JobState.QUEUED.value, JobState.RUNNING.value)


class Recalls:
    """Versions of processors that were recalled."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def begin(self, processor: str, version: str, reason: str = "") -> tuple[int, int]:
        """Recall a version; returns how many series and instances became hidden. Raises `NotFound` if it never made a job."""

        def work(connection: sa.Connection) -> tuple[int, int]:
            known = sa.select(t.job.c.job_id).where(t.job.c.processor == processor, t.job.c.version == version)
            if connection.execute(known.limit(1)).first() is None:
                raise NotFound(f"no job of {processor} {version} was ever made; `pacs jobs` shows what there is")
            if self._in_force(connection, processor, version) is None:
                row = {"processor": processor, "version": version, "reason": reason, "at": self._connections.clock()}
                connection.execute(sa.insert(t.recall), row)
            return self._apply(connection, "processor_recalled", processor, version, reason)

        return self._connections.retrying(work)

    def end(self, processor: str, version: str) -> tuple[int, int]:
        """Take a recall back; returns how many series and instances are shown again. Raises `NotFound` if there is none."""

        def work(connection: sa.Connection) -> tuple[int, int]:
            recall_id = self._in_force(connection, processor, version)
            if recall_id is None:
                raise NotFound(f"{processor} {version} is not recalled")
            ended = sa.update(t.recall).where(t.recall.c.recall_id == recall_id)
            connection.execute(ended.values(ended_at=self._connections.clock()))
            return self._apply(connection, "processor_restored", processor, version, "")

        return self._connections.retrying(work)

    def all(self) -> list[Recall]:
        """Return all recalls, newest first; those with `ended_at` were taken back."""
        with self._connections.read() as connection:
            rows = connection.execute(sa.select(t.recall).order_by(t.recall.c.at.desc(), t.recall.c.recall_id.desc()))
            return [Recall(**row._mapping) for row in rows]

    def restore(self, recalls: Iterable[Recall]) -> tuple[int, int]:
        """Write recalls again into an index that has lost them, and hide what follows; returns series and instances."""

        def work(connection: sa.Connection) -> tuple[int, int]:
            rows = [
                {
                    "processor": one.processor,
                    "version": one.version,
                    "reason": one.reason,
                    "at": one.at,
                    "ended_at": one.ended_at,
                }
                for one in sorted(recalls, key=lambda one: one.recall_id)
            ]
            if not rows:
                return 0, 0
            connection.execute(sa.insert(t.recall), rows)
            return self._apply(connection, "recalls_restored", "", "", "")

        return self._connections.retrying(work)

    def _in_force(self, connection: sa.Connection, processor: str, version: str) -> int | None:
        this = sa.and_(t.recall.c.processor == processor, t.recall.c.version == version, t.recall.c.ended_at.is_(None))
        return connection.execute(sa.select(t.recall.c.recall_id).where(this)).scalar()

    def _apply(self, connection: sa.Connection, kind: str, processor: str, version: str, reason: str) -> tuple[int, int]:
        """Hide and show what follows from the recalls in force, and write what happened into the feed."""
        now = self._connections.clock()
        hidden = _hidden_jobs(connection)
        entries = self._states(connection, hidden, now)
        to_hide, to_show = _changing(connection, hidden)
        changed = 0
        for instances, state in ((to_hide, HIDDEN), (to_show, "visible")):
            uids = [uid for several in instances.values() for uid in several]
            changed += write.change_state(self._connections, connection, uids, state, now)
        series = len(to_hide) + len(to_show)
        event = feed.entry(now, kind, processor=processor, version=version, reason=reason, series=series, instances=changed)
        feed.record(self._connections, connection, [*entries, event])
        return series, changed

    def _states(self, connection: sa.Connection, hidden: set[str], now: float) -> list[dict[str, Any]]:
        """Give jobs the state that goes with it; work that is under way on hidden ground is cancelled."""
        entries = []
        rows = connection.execute(
            sa.select(t.job.c.job_id, t.job.c.state).where(
                sa.or_(t.job.c.state == JobState.RECALLED.value, t.job.c.job_id.in_(sorted(hidden)))
            )
        ).all()
        for row in rows:
            values: dict[str, Any] = {}
            if row.job_id not in hidden:
                values = {"state": JobState.SUCCEEDED.value, "reason": ""}
            elif row.state == JobState.SUCCEEDED.value:
                values = {"state": JobState.RECALLED.value, "reason": "its version, or that of its input, was recalled"}
            elif row.state in _OPEN:
                values = {
                    "state": JobState.CANCELLED.value,
                    "reason": "its version was recalled",
                    "owner": "",
                    "finished_at": now,
                }
            if values:
                connection.execute(sa.update(t.job).where(t.job.c.job_id == row.job_id).values(values))
                entries.append(succession.entry(connection, f"job_{values['state']}", row.job_id, now))
        return entries


def _hidden_jobs(connection: sa.Connection) -> set[str]:
    """The jobs of recalled versions, and all that worked on their results or waited for them, in turn."""
    recalled = sa.and_(
        t.recall.c.processor == t.job.c.processor, t.recall.c.version == t.job.c.version, t.recall.c.ended_at.is_(None)
    )
    hidden = set(connection.scalars(sa.select(t.job.c.job_id).join(t.recall, recalled)))
    next_ones = set(hidden)
    while next_ones:
        of_them = sa.select(t.job_output.c.series_instance_uid).where(t.job_output.c.job_id.in_(sorted(next_ones)))
        children = sa.select(t.job_parent.c.job_id).where(t.job_parent.c.parent_id.in_(sorted(next_ones)))
        found = set(connection.scalars(children)) | _working_on(connection, connection.scalars(of_them).all())
        next_ones = found - hidden
        hidden |= next_ones
    return hidden


def _working_on(connection: sa.Connection, series_instance_uids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for uid in series_instance_uids:
        among = ("\\" + t.job.c.inputs + "\\").contains(f"\\{uid}\\", autoescape=True)
        found |= set(connection.scalars(sa.select(t.job.c.job_id).where(among)))
    return found


def _changing(connection: sa.Connection, hidden: set[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Instances by series that must be hidden, and those that may be shown again."""
    statement = (
        sa.select(t.instance.c.sop_instance_uid, t.instance.c.state, t.series.c.series_instance_uid, t.job_output.c.job_id)
        .select_from(INSTANCES.join(t.job_output, t.job_output.c.series_instance_uid == t.series.c.series_instance_uid))
        .where(t.instance.c.current, t.series.c.derived)
        .where(sa.or_(t.instance.c.state == HIDDEN, t.job_output.c.job_id.in_(sorted(hidden))))
    )
    to_hide: dict[str, list[str]] = {}
    to_show: dict[str, list[str]] = {}
    for uid, state, series_uid, job_id in connection.execute(statement):
        if job_id in hidden and state == "visible":
            to_hide.setdefault(series_uid, []).append(uid)
        elif job_id not in hidden and state == HIDDEN:
            to_show.setdefault(series_uid, []).append(uid)
    return to_hide, to_show
