"""The jobs table: the truth about processing, of which the broker only carries ids.

A worker claims a job by a lease. Whatever it says afterwards counts only while it still holds that lease (fencing), so that a
worker that was thought dead commits nothing, however often a message is delivered. `due` is the dispatcher's and the reaper's
question in one: what is to be announced, and which leases have run out.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index import feed
from pacs.index import tables as t
from pacs.index.connections import Connections, Row
from pacs.index.succession import CHANGED, entry, finish, held, insert, queued
from pacs.model.errors import NotFound
from pacs.model.job import Claim, Job, JobState, NewJob

OPEN = (JobState.QUEUED.value, JobState.RUNNING.value)
_OURS = ("owner", "lease_until", "dispatched_at", "outdated", "followed")
_COLUMNS = [column for column in t.job.c if column.name not in _OURS]


class Jobs:
    """Claims, leases and ends of jobs."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add(self, new: Sequence[NewJob]) -> list[str]:
        """Insert jobs that a person asked for; returns the ids of those whose job key is new."""

        def work(connection: sa.Connection) -> list[str]:
            job_ids, entries = insert(self._connections, connection, new, self._connections.clock())
            feed.record(self._connections, connection, entries)
            return job_ids

        return self._connections.retrying(work)

    def claim(self, job_id: str, owner: str, lease_s: float) -> Job | None:
        """Take a job that is queued and due, or whose lease has run out; None if there is nothing to take.

        Give each try its own `owner`. `started_at` stays that of the first try, so that a repetition makes the same objects.
        """
        now = self._connections.clock()

        def work(connection: sa.Connection) -> bool:
            free = sa.or_(
                sa.and_(t.job.c.state == JobState.QUEUED.value, t.job.c.due_at <= now),
                sa.and_(t.job.c.state == JobState.RUNNING.value, t.job.c.lease_until < now),
            )
            claimed = connection.execute(
                sa.update(t.job)
                .where(t.job.c.job_id == job_id, free)
                .values(
                    state=JobState.RUNNING.value,
                    attempt=t.job.c.attempt + 1,
                    owner=owner,
                    lease_until=now + lease_s,
                    started_at=sa.func.coalesce(t.job.c.started_at, now),
                    finished_at=None,
                    progress=0.0,
                    reason="",
                    note="",
                )
            ).rowcount
            if claimed:
                self._record(connection, "job_started", job_id)
            return claimed == 1

        return self.get(job_id) if self._connections.retrying(work) else None

    def renew(self, claim: Claim, lease_s: float) -> bool:
        """Hold on for another `lease_s`; false if the job is no longer ours, and its work is in vain."""
        return self._as_owner(claim, {"lease_until": self._connections.clock() + lease_s})

    def progress(self, claim: Claim, fraction: float, note: str = "") -> bool:
        """Say how far the work is; a note tells what it is doing, without a value of a data set."""
        return self._as_owner(claim, {"progress": min(max(fraction, 0.0), 1.0), "note": note})

    def succeed(self, claim: Claim, reason: str = "", output: Sequence[str] = ()) -> bool:
        """End a job well; `output` are the Series Instance UIDs it made. False if the claim was lost: nothing is changed."""
        return self._end(claim, JobState.SUCCEEDED, reason, output)

    def skip(self, claim: Claim, reason: str) -> bool:
        """End a job that does not apply to its input."""
        return self._end(claim, JobState.SKIPPED, reason)

    def fail(self, claim: Claim, reason: str, *, retry_in_s: float | None) -> bool:
        """End a job that went wrong; with `retry_in_s` it is queued again and due after so long."""
        if retry_in_s is None:
            return self._end(claim, JobState.FAILED, reason)
        if self._as_owner(claim, {"state": JobState.SUPERSEDED.value, "reason": CHANGED}, "job_superseded", t.job.c.outdated):
            return True
        values = queued(self._connections.clock() + retry_in_s) | {"reason": reason}
        return self._as_owner(claim, values, "job_retried")

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that has not ended; the claim of whoever runs it is void. False if it has ended. Raises `NotFound`."""
        values = {
            "state": JobState.CANCELLED.value,
            "owner": "",
            "finished_at": self._connections.clock(),
            "reason": "cancelled",
        }
        return self._change(job_id, t.job.c.state.in_(OPEN), values, "job_cancelled")

    def again(self, job_id: str) -> bool:
        """Queue a job that has ended once more, all tries before it. False if it has not ended. Raises `NotFound`."""
        values = queued(self._connections.clock()) | {
            "attempt": 0,
            "reason": "",
            "note": "",
            "progress": 0.0,
            "finished_at": None,
            "outdated": False,
            "followed": False,
        }
        return self._change(job_id, t.job.c.state.not_in(OPEN), values, "job_queued")

    def due(
        self,
        now: float,
        limit: int = 100,
        *,
        attempts: int = 3,
        patience: Mapping[str, int] | None = None,
        redispatch_s: float = 30.0,
    ) -> list[tuple[str, str]]:
        """Return (job id, queue) of what should be announced to workers, by priority, oldest first.

        Jobs whose lease has run out are queued again first, or failed if they were tried `attempts` times: a job that kills its
        worker must not do so for ever. `patience` are other numbers of tries by how a processor's name begins. What was
        announced less than `redispatch_s` ago is left out; mark with `dispatched`.
        """
        self._reap(now, attempts, patience or {})
        statement = (
            sa.select(t.job.c.job_id, t.job.c.queue)
            .where(
                t.job.c.state == JobState.QUEUED.value,
                t.job.c.due_at <= now,
                sa.or_(t.job.c.dispatched_at.is_(None), t.job.c.dispatched_at <= now - redispatch_s),
            )
            .order_by(t.job.c.priority, t.job.c.due_at, t.job.c.created_at, t.job.c.job_id)
            .limit(limit)
        )
        with self._connections.read() as connection:
            return [(row.job_id, row.queue) for row in connection.execute(statement)]

    def first_due(self, job_id: str) -> str | None:
        """Return what a worker should do at the bell of a job: the first, by priority, of what was announced in its queue."""
        queue = sa.select(t.job.c.queue).where(t.job.c.job_id == job_id).scalar_subquery()
        statement = (
            sa.select(t.job.c.job_id)
            .where(
                t.job.c.queue == queue,
                t.job.c.state == JobState.QUEUED.value,
                t.job.c.due_at <= self._connections.clock(),
                t.job.c.dispatched_at.is_not(None),
            )
            .order_by(t.job.c.priority, t.job.c.due_at, t.job.c.created_at, t.job.c.job_id)
            .limit(1)
        )
        with self._connections.read() as connection:
            return connection.execute(statement).scalar()

    def postpone(self, job_ids: Collection[str], due_at: float, reason: str) -> None:
        """Let jobs that wait, wait until `due_at`, and say why."""
        if not job_ids:
            return
        waiting = sa.and_(self._connections.one_of(t.job.c.job_id, job_ids), t.job.c.state == JobState.QUEUED.value)
        with self._connections.write() as connection:
            connection.execute(sa.update(t.job).where(waiting).values(due_at=due_at, dispatched_at=None, reason=reason))

    def announced(self, rule: str) -> list[str]:
        """Return the jobs of a rule that were announced and not begun."""
        announced = sa.and_(t.job.c.state == JobState.QUEUED.value, t.job.c.dispatched_at.is_not(None))
        with self._connections.read() as connection:
            return [*connection.scalars(sa.select(t.job.c.job_id).where(t.job.c.rule == rule, announced))]

    def rules_of(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return the rule of each job, in the order of `job_ids`."""
        statement = sa.select(t.job.c.job_id, t.job.c.rule).where(self._connections.one_of(t.job.c.job_id, job_ids))
        with self._connections.read() as connection:
            found = dict(connection.execute(statement).tuples().all())
        return {job_id: found[job_id] for job_id in job_ids if job_id in found}

    def sends_under_way(self, job_ids: Collection[str], since: float) -> tuple[dict[str, str], dict[str, int]]:
        """Return the processors of these jobs, and how many jobs of each run or were announced after `since`."""
        chosen = sa.select(t.job.c.job_id, t.job.c.processor).where(self._connections.one_of(t.job.c.job_id, job_ids))
        with self._connections.read() as connection:
            processors = dict(connection.execute(chosen).tuples().all())
            announced = sa.and_(t.job.c.state == JobState.QUEUED.value, t.job.c.dispatched_at > since)
            counted = (
                sa.select(t.job.c.processor, sa.func.count())
                .where(
                    self._connections.one_of(t.job.c.processor, set(processors.values())),
                    sa.or_(t.job.c.state == JobState.RUNNING.value, announced),
                )
                .group_by(t.job.c.processor)
            )
            return processors, dict(connection.execute(counted).tuples().all())

    def begun(self, rule: str, since: float) -> tuple[int, list[float]]:
        """Return how many jobs of a rule run now, and when those that were begun after `since` were, oldest first."""
        of_rule = t.job.c.rule == rule
        running = sa.select(sa.func.count()).where(of_rule, t.job.c.state == JobState.RUNNING.value)
        begun = sa.select(t.job.c.started_at).where(of_rule, t.job.c.started_at > since).order_by(t.job.c.started_at)
        with self._connections.read() as connection:
            return connection.execute(running).scalar_one(), [float(one) for one in connection.scalars(begun)]

    def dispatched(self, job_ids: Collection[str]) -> None:
        """Note that these were announced now."""
        if job_ids:
            with self._connections.write() as connection:
                connection.execute(
                    sa.update(t.job)
                    .where(self._connections.one_of(t.job.c.job_id, job_ids))
                    .values(dispatched_at=self._connections.clock())
                )

    def undispatch_all(self) -> None:
        """Forget what was announced: at the start of a server its broker knows nothing."""
        with self._connections.write() as connection:
            connection.execute(sa.update(t.job).where(t.job.c.state == JobState.QUEUED.value).values(dispatched_at=None))

    def list(
        self,
        states: Collection[JobState] | None = None,
        study_instance_uid: str | None = None,
        limit: int | None = 100,
        *,
        series_instance_uid: str | None = None,
        processor: str | None = None,
    ) -> list[Job]:
        """Return jobs, newest first. `series_instance_uid` is one of their inputs."""
        statement = sa.select(*_COLUMNS).order_by(t.job.c.created_at.desc(), t.job.c.job_id)
        if states is not None:
            statement = statement.where(t.job.c.state.in_([JobState(state).value for state in states]))
        if study_instance_uid is not None:
            statement = statement.where(t.job.c.study_instance_uid == study_instance_uid)
        if processor is not None:
            statement = statement.where(t.job.c.processor == processor)
        if series_instance_uid is not None:
            statement = statement.where(("\\" + t.job.c.inputs + "\\").contains(f"\\{series_instance_uid}\\", autoescape=True))
        return [*self._read(statement.limit(limit))]

    def get(self, job_id: str) -> Job:
        """Return a job. Raises `NotFound`."""
        found = self._read(sa.select(*_COLUMNS).where(t.job.c.job_id == job_id))
        if not found:
            raise NotFound("there is no such job")
        return found[0]

    def open_count(self) -> int:
        """Return how many jobs are queued or running."""
        with self._connections.read() as connection:
            return connection.execute(sa.select(sa.func.count()).where(t.job.c.state.in_(OPEN))).scalar_one()

    def lineage(self, series_instance_uids: Iterable[str]) -> dict[str, Job]:
        """Return the job that made each of these series (the newest, if several did); series from outside are left out."""
        wanted = set(series_instance_uids)
        if not wanted:
            return {}
        statement = (
            sa.select(t.job_output.c.series_instance_uid, *_COLUMNS)
            .join(t.job)
            .where(self._connections.one_of(t.job_output.c.series_instance_uid, wanted))
            .order_by(t.job.c.created_at)
        )
        with self._connections.read() as connection:
            rows = connection.execute(statement).all()
            outputs = _outputs(self._connections, connection, {row.job_id for row in rows})
        return {row[0]: _job(row, outputs) for row in rows}

    def _read(self, statement: sa.Select[Any]) -> Sequence[Job]:
        with self._connections.read() as connection:
            rows = connection.execute(statement).all()
            outputs = _outputs(self._connections, connection, {row.job_id for row in rows})
        return [_job(row, outputs) for row in rows]

    def _as_owner(self, claim: Claim, values: dict[str, Any], kind: str = "", *where: sa.ColumnElement[bool]) -> bool:
        def work(connection: sa.Connection) -> bool:
            still = connection.execute(sa.update(t.job).where(*held(claim), *where).values(values)).rowcount == 1
            if still and kind:
                self._record(connection, kind, claim.job_id)
            return still

        return self._connections.retrying(work)

    def _end(self, claim: Claim, state: JobState, reason: str, output: Sequence[str] = ()) -> bool:
        def work(connection: sa.Connection) -> bool:
            try:
                entries = finish(connection, claim, state, reason, output, self._connections.clock())
            except NotFound:
                return False
            feed.record(self._connections, connection, entries)
            return True

        return self._connections.retrying(work)

    def _change(self, job_id: str, condition: sa.ColumnElement[bool], values: dict[str, Any], kind: str) -> bool:
        def work(connection: sa.Connection) -> bool:
            changed = (
                connection.execute(sa.update(t.job).where(t.job.c.job_id == job_id, condition).values(values)).rowcount == 1
            )
            if changed:
                self._record(connection, kind, job_id)
            return changed

        self.get(job_id)
        return self._connections.retrying(work)

    def _reap(self, now: float, attempts: int, patience: Mapping[str, int]) -> None:
        lost = sa.and_(t.job.c.state == JobState.RUNNING.value, t.job.c.lease_until < now)
        with self._connections.read() as connection:
            if connection.execute(sa.select(t.job.c.job_id).where(lost).limit(1)).first() is None:
                return

        def work(connection: sa.Connection) -> None:
            rows = connection.execute(
                self._connections.for_update(
                    sa.select(t.job.c.job_id, t.job.c.processor, t.job.c.attempt, t.job.c.outdated)
                    .where(lost)
                    .order_by(t.job.c.job_id)
                )
            ).all()
            entries = []
            for row in rows:
                tries = next((many for start, many in patience.items() if row.processor.startswith(start)), attempts)
                kind, values = "job_retried", queued(now) | {"reason": "its worker stopped answering"}
                if row.outdated:
                    kind, state, reason = "job_superseded", JobState.SUPERSEDED, CHANGED
                elif row.attempt >= tries:
                    kind, state, reason = "job_failed", JobState.FAILED, f"its worker stopped answering {row.attempt} times"
                if kind != "job_retried":
                    values |= {"state": state.value, "finished_at": now, "reason": reason}
                connection.execute(sa.update(t.job).where(t.job.c.job_id == row.job_id).values(values))
                entries.append(entry(connection, kind, row.job_id, now))
            feed.record(self._connections, connection, entries)

        self._connections.retrying(work)

    def _record(self, connection: sa.Connection, kind: str, job_id: str) -> None:
        feed.record(self._connections, connection, [entry(connection, kind, job_id, self._connections.clock())])


def _outputs(connections: Connections, connection: sa.Connection, job_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    if not job_ids:
        return {}
    statement = (
        sa.select(t.job_output)
        .where(connections.one_of(t.job_output.c.job_id, job_ids))
        .order_by(t.job_output.c.series_instance_uid)
    )
    found: dict[str, tuple[str, ...]] = {}
    for row in connection.execute(statement):
        found[row.job_id] = (*found.get(row.job_id, ()), row.series_instance_uid)
    return found


def _job(row: Row, outputs: dict[str, tuple[str, ...]]) -> Job:
    values = {column.name: row._mapping[column] for column in _COLUMNS}
    inputs = values.pop("inputs")
    return Job(
        **{**values, "state": JobState(row.state)},
        series_instance_uids=tuple(uid for uid in inputs.split("\\") if uid),
        output_series_instance_uids=outputs.get(row.job_id, ()),
    )
