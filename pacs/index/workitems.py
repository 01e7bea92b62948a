"""What jobs lack as workitems, and who follows them. The job row is the truth; nothing of it is repeated here."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.errors import DuplicateInstance
from pacs.model.job import JobState
from pacs.model.workitem import Subscription, WorkitemRow


class Workitems:
    """The tables of workitems and of subscriptions."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def add(self, job_id: str, digest: str, key_id: str, sealed: bytes) -> None:
        """Keep what a job lacks; `digest` finds it by the UID that its creator chose. Raises `DuplicateInstance`."""
        row = {"job_id": job_id, "digest": digest, "key_id": key_id, "sealed": sealed}
        if not self._connections.retrying(lambda connection: self._connections.insert_new(connection, t.workitem, row)):
            raise DuplicateInstance("there is a workitem of this UID already")

    def change(self, job_id: str, digest: str, key_id: str, sealed: bytes) -> None:
        """Replace what a job lacks, or keep it for the first time."""
        row = {"digest": digest, "key_id": key_id, "sealed": sealed}
        statement = self._connections.insert(t.workitem).values(job_id=job_id, **row)
        with self._connections.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_=row))

    def named(self, digest: str) -> str | None:
        """Return the job that was given a UID of this digest; None if there is none."""
        with self._connections.read() as connection:
            return connection.execute(sa.select(t.workitem.c.job_id).where(t.workitem.c.digest == digest)).scalar()

    def of(self, job_ids: Collection[str]) -> dict[str, WorkitemRow]:
        """Return what these jobs lack, where there is anything."""
        if not job_ids:
            return {}
        columns = t.workitem.c.job_id, t.workitem.c.key_id, t.workitem.c.sealed
        statement = sa.select(*columns).where(self._connections.one_of(t.workitem.c.job_id, list(job_ids)))
        with self._connections.read() as connection:
            return {row.job_id: WorkitemRow(**row._mapping) for row in connection.execute(statement)}

    def owner(self, job_id: str) -> str:
        """Return who holds the lease of a job, "" for nobody."""
        with self._connections.read() as connection:
            return connection.execute(sa.select(t.job.c.owner).where(t.job.c.job_id == job_id)).scalar() or ""

    def subscribe(self, ae_title: str, job_id: str, *, also_open: bool = False) -> None:
        """Let a peer follow a job, or with `job_id` empty every job from now on.

        With `also_open` those that have not ended, too.
        """
        now = self._connections.clock()

        def work(connection: sa.Connection) -> None:
            rows = [job_id]
            if also_open:
                waiting = t.job.c.state.in_([JobState.QUEUED.value, JobState.RUNNING.value])
                rows += connection.scalars(sa.select(t.job.c.job_id).where(waiting)).all()
            for one in rows:
                # Who subscribes again gets the state once more (PS3.4 CC.2.3.3).
                connection.execute(sa.delete(t.subscription).where(*_mine(ae_title, one)))
                connection.execute(sa.insert(t.subscription), _row(ae_title, one, now))

        self._connections.retrying(work)

    def unsubscribe(self, ae_title: str, job_id: str | None) -> int:
        """End a subscription; with None all of a peer's. Returns how many there were."""
        where = _mine(ae_title, job_id) if job_id is not None else (t.subscription.c.ae_title == ae_title,)
        with self._connections.write() as connection:
            return connection.execute(sa.delete(t.subscription).where(*where)).rowcount

    def suspend(self, ae_title: str) -> int:
        """End a subscription to every job from now on, and keep those to single jobs."""
        return self.unsubscribe(ae_title, "")

    def follow(self) -> None:
        """Let those who follow every job follow the jobs that are new since the last time."""
        with self._connections.read() as connection:
            every = connection.execute(sa.select(t.subscription).where(t.subscription.c.job_id == "")).all()
            newest = connection.execute(sa.select(sa.func.max(t.job.c.created_at))).scalar() if every else None
            late = [row for row in every if newest is not None and row.since < newest]
        if not late:
            return

        def work(connection: sa.Connection) -> None:
            for row in late:
                new = sa.select(t.job.c.job_id, t.job.c.created_at).where(t.job.c.created_at > row.since)
                found = connection.execute(new.order_by(t.job.c.created_at)).all()
                for job in found:
                    self._connections.insert_new(connection, t.subscription, _row(row.ae_title, job.job_id, job.created_at))
                if found:
                    mine = _mine(row.ae_title, "")
                    connection.execute(sa.update(t.subscription).where(*mine).values(since=found[-1].created_at))

        self._connections.retrying(work)

    def subscriptions(self) -> Sequence[Subscription]:
        """Return whom something is to be reported to: subscriptions to single jobs, by peer."""
        statement = (
            sa.select(t.subscription)
            .where(t.subscription.c.job_id != "")
            .order_by(t.subscription.c.ae_title, t.subscription.c.since, t.subscription.c.job_id)
        )
        with self._connections.read() as connection:
            return [Subscription(**row._mapping) for row in connection.execute(statement)]

    def reported(self, one: Subscription, state: str, progress: float) -> None:
        """Note what a peer knows now; a request for cancellation was told, too."""
        values = {"reported": state, "progress": progress, "cancel_by": ""}
        with self._connections.write() as connection:
            connection.execute(sa.update(t.subscription).where(*_mine(one.ae_title, one.job_id)).values(**values))

    def ask_cancel(self, job_id: str, ae_title: str) -> int:
        """Note for those who follow a job that somebody wants it cancelled; how many they are."""
        statement = sa.update(t.subscription).where(t.subscription.c.job_id == job_id).values(cancel_by=ae_title or "?")
        with self._connections.write() as connection:
            return connection.execute(statement).rowcount


def _mine(ae_title: str, job_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return t.subscription.c.ae_title == ae_title, t.subscription.c.job_id == job_id


def _row(ae_title: str, job_id: str, since: float) -> dict[str, object]:
    return {"ae_title": ae_title, "job_id": job_id, "since": since, "reported": "", "progress": 0.0, "cancel_by": ""}
