"""What rules need to know of earlier results: which jobs have ended, what they found, and which rules there were when."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index import feed, succession
from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.index.jobs import Jobs
from pacs.model.job import Claim, Job, JobState, NewJob, RuleVersion

_ENDED = tuple(state.value for state in (JobState.SUCCEEDED, JobState.SKIPPED, JobState.FAILED))
_MOST = 500
"""Findings kept of one job: what rules branch on, not the report itself."""


class Chains:
    """Results that rules come after, and the versions of rules."""

    def __init__(self, connections: Connections, jobs: Jobs) -> None:
        self._connections = connections
        self._jobs = jobs

    def to_follow(self, limit: int = 200) -> list[Job]:
        """Return jobs that have ended and whose following rules were not asked yet, oldest first."""
        statement = (
            sa.select(t.job.c.job_id)
            .where(~t.job.c.followed, t.job.c.state.in_(_ENDED))
            .order_by(t.job.c.finished_at, t.job.c.job_id)
            .limit(limit)
        )
        with self._connections.read() as connection:
            job_ids = connection.scalars(statement).all()
        return [self._jobs.get(job_id) for job_id in job_ids]

    def followed(self, job_id: str, new: Sequence[NewJob]) -> list[str]:
        """Note that the rules after a job were asked, and insert what they want; the ids of those whose key is new."""
        now = self._connections.clock()

        def work(connection: sa.Connection) -> list[str]:
            mark = sa.update(t.job).where(t.job.c.job_id == job_id, ~t.job.c.followed).values(followed=True)
            if connection.execute(mark).rowcount != 1:
                return []
            job_ids, entries = succession.insert(self._connections, connection, new, now)
            feed.record(self._connections, connection, entries)
            return job_ids

        return self._connections.retrying(work)

    def of_rule(self, rule: str, study_instance_uid: str) -> list[Job]:
        """Return the jobs that a rule made in a study, newest first, but for the superseded and recalled."""
        gone = (JobState.SUPERSEDED, JobState.RECALLED, JobState.CANCELLED)
        found = self._jobs.list(
            states=[state for state in JobState if state not in gone], study_instance_uid=study_instance_uid, limit=None
        )
        return [job for job in found if job.rule == rule]

    def found(self, claim: Claim, findings: Sequence[Mapping[str, Any]]) -> None:
        """Keep what the reports of a job say, while it is still ours; they count once it has succeeded."""
        row = {"job_id": claim.job_id, "findings": [dict(one) for one in findings[:_MOST]]}

        def work(connection: sa.Connection) -> None:
            if connection.execute(sa.select(t.job.c.job_id).where(*succession.held(claim))).first() is None:
                return
            connection.execute(sa.delete(t.job_finding).where(t.job_finding.c.job_id == claim.job_id))
            connection.execute(sa.insert(t.job_finding), row)

        self._connections.retrying(work)

    def findings(self, job_ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
        """Return what jobs found, by job."""
        if not job_ids:
            return {}
        statement = sa.select(t.job_finding).where(self._connections.one_of(t.job_finding.c.job_id, job_ids))
        with self._connections.read() as connection:
            return {row.job_id: list(row.findings) for row in connection.execute(statement)}

    def parents(self, job_id: str) -> list[str]:
        """Return the jobs whose results a job followed."""
        statement = sa.select(t.job_parent.c.parent_id).where(t.job_parent.c.job_id == job_id)
        with self._connections.read() as connection:
            return sorted(connection.scalars(statement))

    def put_rules(self, rules: Sequence[RuleVersion]) -> None:
        """Note the rules that are in force from now on; those that are not among them were until now."""
        now = self._connections.clock()
        digests = [one.digest for one in rules]

        def work(connection: sa.Connection) -> None:
            gone = sa.update(t.rule).where(t.rule.c.until.is_(None), t.rule.c.digest.not_in(digests))
            connection.execute(gone.values(until=now))
            for position, one in enumerate(rules):
                row = {
                    "digest": one.digest,
                    "name": one.name,
                    "definition": dict(one.definition),
                    "position": position,
                    "since": now,
                    "until": None,
                }
                if not self._connections.insert_new(connection, t.rule, row):
                    back = sa.update(t.rule).where(t.rule.c.digest == one.digest)
                    connection.execute(back.values(position=position, until=None))

        self._connections.retrying(work)

    def rules(self, *, ever: bool = False) -> list[RuleVersion]:
        """Return the rules in force in their order, or with `ever` all there were, the newest first."""
        statement = sa.select(t.rule)
        if ever:
            statement = statement.order_by(t.rule.c.since.desc(), t.rule.c.position)
        else:
            statement = statement.where(t.rule.c.until.is_(None)).order_by(t.rule.c.position)
        with self._connections.read() as connection:
            return [RuleVersion(**row._mapping) for row in connection.execute(statement)]

    def counts(self, since: float = 0.0) -> dict[str, dict[str, int]]:
        """Return how many jobs each rule made since then, by state."""
        statement = (
            sa.select(t.job.c.rule, t.job.c.state, sa.func.count())
            .where(t.job.c.created_at >= since)
            .group_by(t.job.c.rule, t.job.c.state)
        )
        found: dict[str, dict[str, int]] = {}
        with self._connections.read() as connection:
            for rule, state, count in connection.execute(statement):
                found.setdefault(rule, {})[state] = count
        return found

    def last(self) -> dict[str, Job]:
        """Return the newest job of each rule."""
        newest = sa.select(t.job.c.rule, sa.func.max(t.job.c.created_at).label("at")).group_by(t.job.c.rule).subquery()
        statement = sa.select(t.job.c.rule, sa.func.max(t.job.c.job_id)).join(
            newest, sa.and_(t.job.c.rule == newest.c.rule, t.job.c.created_at == newest.c.at)
        )
        with self._connections.read() as connection:
            ids = dict(connection.execute(statement.group_by(t.job.c.rule)).tuples().all())
        return {rule: self._jobs.get(job_id) for rule, job_id in ids.items()}
