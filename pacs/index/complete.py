"""When a series or study has come to rest, and what was made of it.

Evidence comes first: the association that brought a series was released, and nothing followed for a while. The clock is the
last resort, for senders that never release or that died. Every fresh instance raises the generation, so that a late image makes
a complete series due again. Series that were made here are never due for rules, which must not fire on their own results; for
routes they are.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index import feed, notifications, succession
from pacs.index import tables as t
from pacs.index.connections import Connections, Row
from pacs.index.search import visible
from pacs.model.job import NewJob, SettledSeries

_AT_ONCE = 200


def end_association(connections: Connections, association: str, evidence: str) -> None:
    """Note that an association will bring no more, and that this is our evidence."""

    def work(connection: sa.Connection) -> None:
        pks = sorted(
            connection.scalars(sa.select(t.open_arrival.c.series_pk).where(t.open_arrival.c.association == association))
        )
        if pks:
            connection.execute(sa.delete(t.open_arrival).where(t.open_arrival.c.association == association))
            connection.execute(
                sa.update(t.series).where(t.series.c.pk == sa.bindparam("of_pk")).values(evidence=evidence),
                [{"of_pk": pk} for pk in pks],
            )

    if association:
        connections.retrying(work)


def is_open() -> sa.ColumnElement[bool]:
    """Whether an association that brings this series has not ended."""
    return sa.exists(
        sa.select(1).select_from(t.open_arrival).where(t.open_arrival.c.series_pk == t.series.c.pk).correlate(t.series)
    )


def holds() -> sa.ColumnElement[bool]:
    """Whether instances of this series wait to be cleaned: until then no rule sees it."""
    held = sa.and_(t.instance.c.series_pk == t.series.c.pk, t.instance.c.state == "held", t.instance.c.held_for != "")
    return sa.exists(sa.select(1).select_from(t.instance).where(held, t.instance.c.current).correlate(t.series))


def settled(
    connections: Connections, now: float, *, settle_s: float, quiet_s: float, study_settle_s: float
) -> list[SettledSeries]:
    """Return what is at rest and was not scheduled yet in its present generation, oldest first; series before studies."""
    with connections.read() as connection:
        due = _settled_series(connection, now, settle_s, quiet_s)
        return [*due, *_settled_studies(connection, now, study_settle_s)]


def subjects(
    connections: Connections, *, since: float = 0.0, study_instance_uid: str = "", series_instance_uid: str = ""
) -> Iterator[SettledSeries]:
    """Yield what rules look at, as they see it when it has come to rest: series, and each study after its series.

    Those with an arrival at or after `since`, of one study, or of one series (and then its study is left out).
    """
    newer = [t.series.c.last_arrival >= since] if since else []
    if study_instance_uid:
        newer.append(t.study.c.study_instance_uid == study_instance_uid)
    if series_instance_uid:
        newer.append(t.series.c.series_instance_uid == series_instance_uid)
    own = sa.and_(~t.series.c.derived, t.series.c.instances > 0)
    studies = (
        sa.select(t.study.c.pk)
        .where(sa.exists(sa.select(1).select_from(t.series).where(t.series.c.study_pk == t.study.c.pk, own, *newer)))
        .order_by(t.study.c.last_arrival, t.study.c.pk)
    )
    with connections.read() as connection:
        pks = connection.scalars(studies).all()
    for pk in pks:
        with connections.read() as connection:
            of_study = _series_at_rest(sa.literal(True)).where(own, t.study.c.pk == pk, *newer)
            found = [_series_subject(connection, row, row.completion) for row in connection.execute(of_study).all()]
            if not series_instance_uid:
                found += _study_subjects(connection, _studies_at_rest().where(t.study.c.pk == pk))
        yield from found


def _settled_series(connection: sa.Connection, now: float, settle_s: float, quiet_s: float) -> list[SettledSeries]:
    evident = sa.and_(t.series.c.evidence != "", t.series.c.last_arrival <= now - settle_s, ~is_open())
    statement = (
        _series_at_rest(evident)
        .where(
            ~t.series.c.derived,
            t.series.c.instances > 0,
            t.series.c.scheduled_generation < t.series.c.generation,
            sa.or_(evident, t.series.c.last_arrival <= now - quiet_s),
            ~holds(),
        )
        .limit(_AT_ONCE)
    )
    return [
        _series_subject(connection, row, row.evidence if row.evident else f"quiet for {quiet_s:g} s")
        for row in connection.execute(statement).all()
    ]


def _series_at_rest(evident: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return (
        sa.select(
            t.series.c.pk,
            t.series.c.series_instance_uid,
            t.series.c.generation,
            t.series.c.instances,
            t.series.c.evidence,
            t.series.c.completion,
            t.series.c.attributes,
            t.study.c.study_instance_uid,
            t.study.c.attributes.label("study_attributes"),
            t.patient.c.attributes.label("patient_attributes"),
            evident.label("evident"),
        )
        .select_from(t.series.join(t.study).join(t.patient))
        .order_by(t.series.c.last_arrival, t.series.c.pk)
    )


def _series_subject(connection: sa.Connection, row: Row, completion: str) -> SettledSeries:
    return SettledSeries(
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        generation=row.generation,
        completion=completion,
        attributes={
            **middle_attributes(connection, row.pk, row.instances),
            **row.patient_attributes,
            **row.study_attributes,
            **row.attributes,
            "NumberOfSeriesRelatedInstances": str(row.instances),
        },
    )


def middle_attributes(connection: sa.Connection, series_pk: int, instances: int) -> dict[str, str]:
    """Return the instance attributes of the image in the middle of a series, which stands for the others in rules."""
    statement = (
        sa.select(t.instance.c.attributes)
        .where(t.instance.c.series_pk == series_pk, *visible())
        .order_by(t.instance.c.instance_number.nulls_last(), t.instance.c.sop_instance_uid)
        .limit(1)
        .offset(instances // 2)
    )
    return dict(connection.execute(statement).scalar() or {})


def settled_derived(connections: Connections) -> list[SettledSeries]:
    """Return series made here that were not routed yet as they are now; they are complete as soon as they are visible."""
    statement = (
        _series_at_rest(sa.literal(True))
        .where(
            t.series.c.derived,
            t.series.c.instances > 0,
            t.series.c.scheduled_generation < t.series.c.generation,
            ~holds(),
        )
        .limit(_AT_ONCE)
    )
    with connections.read() as connection:
        return [_series_subject(connection, row, "made here") for row in connection.execute(statement).all()]


def _settled_studies(connection: sa.Connection, now: float, study_settle_s: float) -> list[SettledSeries]:
    unfinished = sa.exists(
        sa.select(1)
        .select_from(t.series)
        .where(
            t.series.c.study_pk == t.study.c.pk,
            ~t.series.c.derived,
            sa.or_(t.series.c.scheduled_generation < t.series.c.generation, is_open(), holds()),
        )
        .correlate(t.study)
    )
    statement = _studies_at_rest().where(
        t.study.c.scheduled_generation < t.study.c.generation,
        t.study.c.last_arrival <= now - study_settle_s,
        ~unfinished,
    )
    return _study_subjects(connection, statement.limit(_AT_ONCE))


def _studies_at_rest() -> sa.Select[Any]:
    return (
        sa.select(
            t.study.c.pk,
            t.study.c.study_instance_uid,
            t.study.c.generation,
            t.study.c.attributes,
            t.patient.c.attributes.label("patient_attributes"),
        )
        .join(t.patient)
        .order_by(t.study.c.last_arrival, t.study.c.pk)
    )


def _study_subjects(connection: sa.Connection, statement: sa.Select[Any]) -> list[SettledSeries]:
    settled = []
    for row in connection.execute(statement).all():
        own = sa.select(t.series.c.modality, t.series.c.instances).where(
            t.series.c.study_pk == row.pk, ~t.series.c.derived, t.series.c.instances > 0
        )
        members = connection.execute(own).all()
        if not members:
            continue
        settled.append(
            SettledSeries(
                study_instance_uid=row.study_instance_uid,
                series_instance_uid="",
                generation=row.generation,
                completion=f"all {len(members)} series complete" if len(members) > 1 else "its series complete",
                attributes={
                    **row.patient_attributes,
                    **row.attributes,
                    "ModalitiesInStudy": "\\".join(sorted({one.modality for one in members if one.modality})),
                    "NumberOfStudyRelatedSeries": str(len(members)),
                    "NumberOfStudyRelatedInstances": str(sum(one.instances for one in members)),
                },
            )
        )
    return settled


def study_at_rest(connections: Connections, study_instance_uid: str) -> bool:
    """Whether a study has been scheduled in its present generation: nothing of it is still to come, as far as we know."""
    statement = sa.select(t.study.c.pk).where(
        t.study.c.study_instance_uid == study_instance_uid, t.study.c.scheduled_generation >= t.study.c.generation
    )
    with connections.read() as connection:
        return connection.execute(statement).first() is not None


def scheduled(connections: Connections, settled: SettledSeries, new: Sequence[NewJob], now: float) -> list[str]:
    """Mark this generation as scheduled and insert its jobs, in one transaction; returns the ids of jobs that are new.

    Nothing happens where another scheduler was first.
    """

    def work(connection: sa.Connection) -> list[str]:
        if not _mark(connection, settled):
            return []
        kind = "series_complete" if settled.series_instance_uid else "study_complete"
        complete = feed.entry(
            now,
            kind,
            study_instance_uid=settled.study_instance_uid,
            series_instance_uid=settled.series_instance_uid,
            completion=settled.completion,
            generation=settled.generation,
        )
        job_ids, entries = succession.insert(connections, connection, new, now)
        if not settled.series_instance_uid:
            notifications.announce(connection, settled.study_instance_uid, (), now)
        feed.record(connections, connection, [complete, *entries])
        return job_ids

    return connections.retrying(work)


def _mark(connection: sa.Connection, settled: SettledSeries) -> bool:
    values: dict[str, Any] = {"scheduled_generation": settled.generation, "completion": settled.completion}
    if not settled.series_instance_uid:
        study = sa.update(t.study).where(
            t.study.c.study_instance_uid == settled.study_instance_uid, t.study.c.scheduled_generation < settled.generation
        )
        return connection.execute(study.values(values)).rowcount == 1
    of_study = sa.select(t.study.c.pk).where(t.study.c.study_instance_uid == settled.study_instance_uid)
    this = sa.and_(
        t.series.c.series_instance_uid == settled.series_instance_uid, t.series.c.study_pk.in_(of_study.scalar_subquery())
    )
    series = sa.update(t.series).where(this, t.series.c.scheduled_generation < settled.generation)
    if connection.execute(series.values(values)).rowcount != 1:
        return False
    # Settled by the clock although an association never ended: what it may still bring opens it again. Where evidence
    # settled it and more has come since, the association is at work and its row stays.
    connection.execute(
        sa.delete(t.open_arrival).where(
            t.open_arrival.c.series_pk.in_(sa.select(t.series.c.pk).where(this, t.series.c.generation == settled.generation))
        )
    )
    return True


def pending(connections: Connections) -> int:
    """Return how many series and studies have not come to rest, or have and were not scheduled yet."""
    due = sa.and_(t.series.c.instances > 0, t.series.c.scheduled_generation < t.series.c.generation)
    to_clean = t.series.c.cleaning_generation < t.series.c.held_generation
    series = sa.select(sa.func.count()).where(sa.or_(due, sa.and_(~t.series.c.derived, to_clean)))
    study = sa.select(sa.func.count()).where(t.study.c.scheduled_generation < t.study.c.generation)
    with connections.read() as connection:
        return int(connection.execute(series).scalar_one() + connection.execute(study).scalar_one())


def inputs_digest(connections: Connections, series_instance_uids: Iterable[str]) -> str:
    """Return a digest of what these series hold now: equal contents, equal digest."""
    statement = (
        sa.select(t.instance.c.digest)
        .join(t.series)
        .where(connections.one_of(t.series.c.series_instance_uid, list(series_instance_uids)), *visible())
    )
    with connections.read() as connection:
        digests = sorted(connection.scalars(statement))
    return hashlib.sha256(b"".join(digests)).hexdigest()
