"""Which jobs come into being, how they end, and which of them the newer ones supersede.

Within the transaction of whoever calls. A job supersedes what was made before by the same use of the same rule for the same
subject (or, by hand, over the same series or some of them), and with it what followed from that. Nothing is deleted.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index import feed, notifications
from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.errors import NotFound
from pacs.model.job import Claim, JobState, NewJob

CHANGED = "its input has changed since"
_REPLACEABLE = tuple(
    state.value
    for state in (
        JobState.QUEUED,
        JobState.RUNNING,
        JobState.SUCCEEDED,
        JobState.SKIPPED,
        JobState.FAILED,
        JobState.RECALLED,
    )
)


def insert(
    connections: Connections, connection: sa.Connection, new: Sequence[NewJob], now: float
) -> tuple[list[str], list[dict[str, Any]]]:
    """Insert jobs whose key is new; returns their ids and the events to record.

    A job that was superseded and is asked for again (its inputs are what they were, or an older version was put back) is queued
    again under its own id: it makes the same objects. A job of a version that was recalled is not made.
    """
    job_ids: list[str] = []
    entries: list[dict[str, Any]] = []
    keys = {one.job_key for one in new}
    for one in new:
        if _recalled(connection, one):
            continue
        job_id = str(uuid.uuid4())
        row = {
            "job_id": job_id,
            "job_key": one.job_key,
            "processor": one.processor,
            "version": one.version,
            "parameters": dict(one.parameters),
            "rule": one.rule,
            "rule_digest": one.rule_digest,
            "step": one.step,
            "subject": one.subject,
            "priority": one.priority,
            "queue": one.queue,
            "state": JobState.QUEUED.value,
            "completion": one.completion,
            "study_instance_uid": one.study_instance_uid,
            "inputs": "\\".join(sorted(one.series_instance_uids)),
            "due_at": now,
            "created_at": now,
        }
        if not connections.insert_new(connection, t.job, row):
            revived = _revive(connection, one, now)
            if revived is None:
                continue
            job_id = revived
        _put_parents(connection, job_id, one.parents)
        job_ids.append(job_id)
        entries.append(entry(connection, "job_queued", job_id, now))
        entries += _supersede(connection, one, keys, now)
    return job_ids, entries


def _recalled(connection: sa.Connection, one: NewJob) -> bool:
    recalled = sa.select(t.recall.c.recall_id).where(
        t.recall.c.processor == one.processor, t.recall.c.version == one.version, t.recall.c.ended_at.is_(None)
    )
    return connection.execute(recalled).first() is not None


def _revive(connection: sa.Connection, one: NewJob, now: float) -> str | None:
    """Queue the superseded job of this key again; its id, None where it is not superseded."""
    superseded = sa.and_(t.job.c.job_key == one.job_key, t.job.c.state == JobState.SUPERSEDED.value)
    job_id = connection.execute(sa.select(t.job.c.job_id).where(superseded)).scalar()
    if job_id is None:
        return None
    values = queued(now) | {
        "attempt": 0,
        "reason": "",
        "note": "",
        "progress": 0.0,
        "finished_at": None,
        "created_at": now,
        "outdated": False,
        "followed": False,
        "rule": one.rule,
        "rule_digest": one.rule_digest,
        "step": one.step,
        "subject": one.subject,
        "priority": one.priority,
        "completion": one.completion,
    }
    connection.execute(sa.update(t.job).where(t.job.c.job_id == job_id).values(values))
    return str(job_id)


def _put_parents(connection: sa.Connection, job_id: str, parents: Collection[str]) -> None:
    connection.execute(sa.delete(t.job_parent).where(t.job_parent.c.job_id == job_id))
    if parents:
        rows = [{"job_id": job_id, "parent_id": parent} for parent in sorted(set(parents))]
        connection.execute(sa.insert(t.job_parent), rows)


def _supersede(connection: sa.Connection, one: NewJob, keys: Collection[str], now: float) -> list[dict[str, Any]]:
    """Mark older jobs that this one replaces, and what followed from them. One that runs goes on, and ends superseded.

    Some of the same series are enough where a person asked: a study's jobs get a further series when one comes late.
    """
    of_same = sa.select(t.job.c.job_id, t.job.c.job_key, t.job.c.inputs, t.job.c.subject, t.job.c.rule_digest).where(
        t.job.c.study_instance_uid == one.study_instance_uid,
        t.job.c.processor == one.processor,
        t.job.c.rule == one.rule,
        t.job.c.step == one.step,
        t.job.c.state.in_(_REPLACEABLE),
    )
    inputs = set(one.series_instance_uids)
    older = {
        row.job_id
        for row in connection.execute(of_same)
        if row.job_key not in keys
        and ((one.rule_digest and row.rule_digest and row.subject == one.subject) or set(row.inputs.split("\\")) <= inputs)
    }
    older |= _descendants(connection, older, keys)
    return [event for older_id in sorted(older) for event in _replace(connection, older_id, now)]


def _descendants(connection: sa.Connection, job_ids: Collection[str], keys: Collection[str]) -> set[str]:
    """The jobs that followed from these, and from those in turn, but for the ones of `keys`."""
    found: set[str] = set()
    next_ones = set(job_ids)
    while next_ones:
        children = (
            sa.select(t.job.c.job_id, t.job.c.job_key)
            .join(t.job_parent, t.job_parent.c.job_id == t.job.c.job_id)
            .where(t.job_parent.c.parent_id.in_(sorted(next_ones)), t.job.c.state.in_(_REPLACEABLE))
        )
        next_ones = {row.job_id for row in connection.execute(children) if row.job_key not in keys} - found
        found |= next_ones
    return found


def _replace(connection: sa.Connection, job_id: str, now: float) -> list[dict[str, Any]]:
    this = t.job.c.job_id == job_id
    running = sa.update(t.job).where(this, t.job.c.state == JobState.RUNNING.value).values(outdated=True)
    if connection.execute(running).rowcount:
        return []
    connection.execute(
        sa.update(t.job)
        .where(this)
        .values(
            state=JobState.SUPERSEDED.value,
            finished_at=sa.func.coalesce(t.job.c.finished_at, now),
            reason=sa.case((t.job.c.reason == "", CHANGED), else_=t.job.c.reason),
        )
    )
    return [entry(connection, "job_superseded", job_id, now)]


def finish(
    connection: sa.Connection, claim: Claim, state: JobState, reason: str, output: Iterable[str], now: float
) -> list[dict[str, Any]]:
    """End a job within a transaction; returns the events to record. Raises `NotFound` if the claim was lost."""
    values: dict[str, Any] = {"state": state.value, "reason": reason, "finished_at": now, "owner": "", "note": ""}
    if state is JobState.SUCCEEDED:
        values["progress"] = 1.0
    if connection.execute(sa.select(t.job.c.outdated).where(*held(claim))).scalar():
        values |= {"state": JobState.SUPERSEDED.value, "reason": reason or CHANGED}
    if connection.execute(sa.update(t.job).where(*held(claim)).values(values)).rowcount != 1:
        raise NotFound("the job is no longer held under this claim; its result is not wanted")
    made = sorted(set(output))
    if made:
        connection.execute(sa.delete(t.job_output).where(t.job_output.c.job_id == claim.job_id))
        connection.execute(sa.insert(t.job_output), [{"job_id": claim.job_id, "series_instance_uid": uid} for uid in made])
        of_job = sa.select(t.job.c.study_instance_uid).where(t.job.c.job_id == claim.job_id)
        notifications.announce(connection, connection.execute(of_job).scalar_one(), made, now)
    return [entry(connection, f"job_{values['state']}", claim.job_id, now)]


def held(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    """Whether a claim still holds."""
    return t.job.c.job_id == claim.job_id, t.job.c.owner == claim.owner, t.job.c.state == JobState.RUNNING.value


def queued(due_at: float) -> dict[str, Any]:
    """Return the values of a job that waits to be announced."""
    return {"state": JobState.QUEUED.value, "due_at": due_at, "dispatched_at": None, "owner": "", "lease_until": None}


def entry(connection: sa.Connection, kind: str, job_id: str, now: float) -> dict[str, Any]:
    """Return the event of a job."""
    columns = (t.job.c.processor, t.job.c.version, t.job.c.study_instance_uid, t.job.c.attempt)
    row = connection.execute(sa.select(*columns).where(t.job.c.job_id == job_id)).one()
    return feed.entry(
        now,
        kind,
        study_instance_uid=row.study_instance_uid,
        job_id=job_id,
        processor=row.processor,
        version=row.version,
        attempt=row.attempt,
    )
