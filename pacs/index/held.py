"""Held instances: durable, acknowledged, and invisible until they are clean (PS3.15 E.3.1, E.3.2).

A series that holds some becomes due for cleaning when it has come to rest, or all of its study where others must tell it
how; its job ends in one transaction that shows what is clean and takes out what is not. Rules, queries and retrievals see none
of it before.
"""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index import feed, succession
from pacs.index import tables as t
from pacs.index.attributes import columns_of, split
from pacs.index.complete import is_open
from pacs.index.connections import Connections, Row
from pacs.index.incoming import INSTANCES
from pacs.index.write import count_series, count_study, series_counts
from pacs.model.instance import Cleaned
from pacs.model.job import HeldSeries, NewJob
from pacs.model.query import Level

EVIDENCE = "its held images were cleaned"
_AT_ONCE = 200


def settled(
    connections: Connections,
    now: float,
    *,
    settle_s: float,
    quiet_s: float,
    study_settle_s: float,
    with_study: Collection[str],
) -> list[HeldSeries]:
    """Return series at rest that hold instances for which no cleaning was scheduled yet, oldest first."""
    evident = sa.and_(t.series.c.evidence != "", t.series.c.last_arrival <= now - settle_s, ~is_open())
    due = (
        sa.select(
            t.series.c.pk,
            t.series.c.series_instance_uid,
            t.series.c.held_generation,
            t.series.c.evidence,
            t.study.c.study_instance_uid,
            evident.label("evident"),
        )
        .select_from(t.series.join(t.study))
        .where(
            t.series.c.cleaning_generation < t.series.c.held_generation,
            sa.or_(evident, t.series.c.last_arrival <= now - quiet_s),
            sa.or_(_holds(t.series, with_study), ~_unfinished(now, settle_s, quiet_s, study_settle_s, with_study)),
        )
        .order_by(t.series.c.last_arrival, t.series.c.pk)
        .limit(_AT_ONCE)
    )
    with connections.read() as connection:
        return [
            HeldSeries(
                study_instance_uid=row.study_instance_uid,
                series_instance_uid=row.series_instance_uid,
                generation=row.held_generation,
                pending=_pending(connection, row.pk),
                completion=row.evidence if row.evident else f"quiet for {quiet_s:g} s",
            )
            for row in connection.execute(due).all()
        ]


def _holds(series: sa.FromClause, with_study: Collection[str]) -> sa.ColumnElement[bool]:
    """Whether a series holds something else than what waits for its study."""
    own = t.instance.c.series_pk == series.c.pk, t.instance.c.state == "held", t.instance.c.current
    else_than = t.instance.c.held_for.not_in(["", *with_study])
    return sa.exists(sa.select(1).select_from(t.instance).where(*own, else_than).correlate(series))


def _unfinished(
    now: float, settle_s: float, quiet_s: float, study_settle_s: float, with_study: Collection[str]
) -> sa.ColumnElement[bool]:
    """Whether more may come of the study of a series, or something of it must be cleaned before."""
    other = t.series.alias("other")
    arriving = sa.exists(
        sa.select(1).select_from(t.open_arrival).where(t.open_arrival.c.series_pk == other.c.pk).correlate(other)
    )
    evident = sa.and_(other.c.evidence != "", other.c.last_arrival <= now - settle_s, ~arriving)
    at_rest = sa.and_(other.c.last_arrival <= now - study_settle_s, sa.or_(evident, other.c.last_arrival <= now - quiet_s))
    return sa.exists(
        sa.select(1)
        .select_from(other)
        .where(other.c.study_pk == t.series.c.study_pk, ~other.c.derived, sa.or_(~at_rest, _holds(other, with_study)))
        .correlate(t.series)
    )


def _pending(connection: sa.Connection, series_pk: int) -> tuple[str, ...]:
    held = sa.and_(t.instance.c.series_pk == series_pk, t.instance.c.state == "held", t.instance.c.current)
    found = connection.scalars(sa.select(t.instance.c.held_for).where(held).distinct()).all()
    return tuple(sorted({one for several in found for one in several.split("\\") if one}))


def scheduled(connections: Connections, series: HeldSeries, new: Sequence[NewJob], now: float) -> list[str]:
    """Mark this held generation as scheduled and insert its jobs, in one transaction; nothing where another was first."""

    def work(connection: sa.Connection) -> list[str]:
        of_study = sa.select(t.study.c.pk).where(t.study.c.study_instance_uid == series.study_instance_uid)
        marked = connection.execute(
            sa.update(t.series)
            .where(
                t.series.c.series_instance_uid == series.series_instance_uid,
                t.series.c.study_pk.in_(of_study.scalar_subquery()),
                t.series.c.cleaning_generation < series.generation,
            )
            .values(cleaning_generation=series.generation)
        )
        if marked.rowcount != 1:
            return []
        job_ids, entries = succession.insert(connections, connection, new, now)
        feed.record(connections, connection, entries)
        return job_ids

    return connections.retrying(work)


def stranded(connections: Connections) -> tuple[int, int]:
    """Return how many instances of how many series are held though no job will clean them (it failed)."""
    working = sa.exists().where(
        t.job.c.processor.startswith("clean-"),
        t.job.c.inputs == t.series.c.series_instance_uid,
        t.job.c.state.in_(("queued", "running")),
    )
    held = (
        sa.select(sa.func.count(), sa.func.count(t.series.c.pk.distinct()))
        .select_from(INSTANCES)
        .where(
            t.instance.c.state == "held",
            t.instance.c.current,
            t.instance.c.held_for != "",
            t.series.c.cleaning_generation >= t.series.c.held_generation,
            ~working,
        )
    )
    with connections.read() as connection:
        instances, series = connection.execute(held).one()
        return int(instances), int(series)


def cleaned(
    connections: Connections, connection: sa.Connection, results: Sequence[Cleaned], now: float
) -> tuple[list[bool], list[dict[str, Any]]]:
    """Put cleaned records in the place of the held ones, and take out what could not be cleaned.

    Returns for each result whether it was taken (not where the instance is no longer held in that record), and the events.
    """
    connections.lock_studies(connection, {one.held.key.study_instance_uid for one in results})
    taken: list[bool] = []
    entries: list[dict[str, Any]] = []
    shown: dict[str, list[str]] = {}
    for one in results:
        row = _held_row(connection, one)
        taken.append(row is not None)
        if row is None:
            continue
        key = one.held.key
        if one.arrival is None:
            _withdraw(connection, row, now)
            entries.append(
                feed.entry(
                    now,
                    "instance_withdrawn",
                    study_instance_uid=key.study_instance_uid,
                    series_instance_uid=key.series_instance_uid,
                    sop_instance_uid=key.sop_instance_uid,
                    reason=one.reason,
                )
            )
        else:
            _replace(connection, row, one, now)
            if not one.arrival.pending:
                shown.setdefault(key.series_instance_uid, []).append(key.study_instance_uid)
    for series_instance_uid, studies in shown.items():
        entries.append(
            feed.entry(
                now,
                "series_cleaned",
                study_instance_uid=studies[0],
                series_instance_uid=series_instance_uid,
                instances=len(studies),
            )
        )
    return taken, entries


def _held_row(connection: sa.Connection, one: Cleaned) -> Row | None:
    columns = (t.instance.c.pk, t.instance.c.series_pk, t.instance.c.sop_instance_uid, t.instance.c.digest)
    place = one.held.location
    statement = (
        sa.select(*columns, t.instance.c.received_digest, t.instance.c.current, t.series.c.study_pk, t.series.c.derived)
        .select_from(INSTANCES)
        .where(
            t.instance.c.sop_instance_uid == one.held.key.sop_instance_uid,
            t.instance.c.state == "held",
            t.instance.c.container == place.container,
            t.instance.c.offset == place.offset,
        )
    )
    return connection.execute(statement).first()


def _replace(connection: sa.Connection, row: Row, one: Cleaned, now: float) -> None:
    arrival, location = one.arrival, one.location
    assert arrival is not None and location is not None
    encoded = arrival.encoded
    attributes = split(encoded.attributes)[Level.IMAGE]
    connection.execute(
        sa.update(t.instance)
        .where(t.instance.c.pk == row.pk)
        .values(
            state="held" if arrival.pending else "visible",
            held_for="\\".join(arrival.pending),
            transfer_syntax_uid=encoded.transfer_syntax_uid,
            number_of_frames=encoded.number_of_frames,
            container=location.container,
            offset=location.offset,
            size_bytes=location.size_bytes,
            study_key_id=arrival.sealed.study_key_id,
            digest=encoded.digest,
            received_digest=row.received_digest or row.digest,
            policy=arrival.policy,
            deid_report=dict(arrival.report) or None,
            deferred=encoded.deferred,
            attributes=attributes,
            **columns_of(Level.IMAGE, attributes),
        )
    )
    counts = series_counts(row.series_pk, now, EVIDENCE)
    if arrival.pending:
        counts["more_held"] = 1
        connection.execute(count_series, counts)
    elif row.current:
        _show(connection, row, location.size_bytes, now)


def _show(connection: sa.Connection, row: Row, size_bytes: int, now: float) -> None:
    counts = series_counts(row.series_pk, now, EVIDENCE)
    connection.execute(count_series, counts | {"more_instances": 1, "more_bytes": size_bytes, "more_news": 1})
    if not row.derived:
        connection.execute(count_study, {"of_pk": row.study_pk, "more_news": 1, "now": now})


def _withdraw(connection: sa.Connection, row: Row, now: float) -> None:
    connection.execute(sa.delete(t.instance).where(t.instance.c.pk == row.pk))
    connection.execute(count_series, series_counts(row.series_pk, now, EVIDENCE))
    if not row.current:
        return
    columns = (t.instance.c.pk, t.instance.c.state, t.instance.c.size_bytes)
    of_same = sa.select(*columns).where(t.instance.c.sop_instance_uid == row.sop_instance_uid)
    following = connection.execute(of_same.order_by(t.instance.c.version).limit(1)).first()
    if following is None:
        return
    # Another content came under the same UID: now it is the one that counts.
    connection.execute(sa.update(t.instance).where(t.instance.c.pk == following.pk).values(current=True))
    if following.state == "visible":
        _show(connection, row, following.size_bytes, now)
    else:
        connection.execute(count_series, series_counts(row.series_pk, now, EVIDENCE) | {"more_held": 1})
