"""Jobs listed again from what their results say of them, after the index was lost.

What can be told again: which job made which series of what, with which parameters, under which rule. What left no result
(failed, skipped and cancelled jobs), attempts and moments before the end are gone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.index.succession import CHANGED
from pacs.model.job import JobState, Made, MadeBy


@dataclass
class _Job:
    by: MadeBy
    study_instance_uid: str
    at: float
    outputs: set[str] = field(default_factory=set)
    superseded: bool = False

    def replaces(self, other: "_Job") -> bool:
        """Whether it was asked for in the place of an older one; as `succession` decides it."""
        mine, theirs = self.by, other.by
        same = (self.study_instance_uid, mine.processor, mine.rule, mine.step) == (
            other.study_instance_uid,
            theirs.processor,
            theirs.rule,
            theirs.step,
        )
        if not same or not mine.inputs:
            return False
        by_rule = bool(mine.rule_digest and theirs.rule_digest) and mine.subject == theirs.subject
        return by_rule or (bool(theirs.inputs) and set(theirs.inputs) <= set(mine.inputs))


class Lineage:
    """Which job made what."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def restore(self, made: Iterable[Made]) -> int:
        """Write the jobs of results that were found among the records, ended as they were; returns how many."""
        jobs: dict[str, _Job] = {}
        for one in made:
            job = jobs.setdefault(one.by.job_id, _Job(one.by, one.study_instance_uid, one.at))
            job.outputs.add(one.series_instance_uid)
            job.at = max(job.at, one.at)
        in_order = sorted(jobs.values(), key=lambda job: (job.at, job.by.job_id))
        _supersede(in_order)
        if in_order:
            self._connections.retrying(lambda connection: _write(connection, in_order))
        return len(in_order)


def _supersede(in_order: Sequence[_Job]) -> None:
    for number, job in enumerate(in_order):
        for older in in_order[:number]:
            older.superseded |= job.replaces(older)
    maker = {uid: job for job in in_order for uid in job.outputs}
    changed = True
    while changed:
        changed = False
        for job in in_order:
            if not job.superseded and any(uid in maker and maker[uid].superseded for uid in job.by.inputs):
                job.superseded = changed = True


def _write(connection: sa.Connection, jobs: Sequence[_Job]) -> None:
    maker = {uid: job.by.job_id for job in jobs for uid in job.outputs}
    parents = [
        {"job_id": job.by.job_id, "parent_id": parent}
        for job in jobs
        for parent in sorted({maker[uid] for uid in job.by.inputs if uid in maker} - {job.by.job_id})
    ]
    outputs = [{"job_id": job.by.job_id, "series_instance_uid": uid} for job in jobs for uid in sorted(job.outputs)]
    connection.execute(sa.insert(t.job), [_row(job) for job in jobs])
    connection.execute(sa.insert(t.job_output), outputs)
    if parents:
        connection.execute(sa.insert(t.job_parent), parents)


def _row(job: _Job) -> dict[str, Any]:
    by = job.by
    return {
        "job_id": by.job_id,
        "job_key": by.job_key,
        "processor": by.processor,
        "version": by.version,
        "parameters": dict(by.parameters),
        "rule": by.rule,
        "rule_digest": by.rule_digest,
        "step": by.step,
        "subject": by.subject,
        "queue": "cpu",
        "state": (JobState.SUPERSEDED if job.superseded else JobState.SUCCEEDED).value,
        "reason": CHANGED if job.superseded else "",
        "completion": "listed again from its results",
        "progress": 1.0,
        "followed": True,
        "study_instance_uid": job.study_instance_uid,
        "inputs": "\\".join(sorted(by.inputs)),
        "due_at": job.at,
        "created_at": job.at,
        "finished_at": job.at,
    }
