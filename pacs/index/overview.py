"""What people see: studies and series in lists, and counts for the panel and `pacs health`."""

from typing import Any

import sqlalchemy as sa

from pacs.index import jobs, matching
from pacs.index import tables as t
from pacs.index.connections import Connections, Row
from pacs.index.search import computed, visible
from pacs.model.errors import NotFound
from pacs.model.job import JobState
from pacs.model.summary import SeriesSummary, StudySummary


def studies(connections: Connections, limit: int | None, text: str, offset: int) -> list[StudySummary]:
    """Return studies, newest first, whose patient, description, accession number or UID contains `text`."""
    own = sa.and_(t.series.c.study_pk == t.study.c.pk, t.series.c.instances > 0)
    derived = sa.select(sa.func.count()).select_from(t.series).where(own, t.series.c.derived).correlate(t.study)
    statement = (
        sa.select(
            t.study.c.study_instance_uid,
            t.study.c.attributes,
            t.patient.c.attributes.label("patient_attributes"),
            t.study.c.last_arrival,
            computed("ModalitiesInStudy").label("modalities"),
            computed("NumberOfStudyRelatedSeries").label("series"),
            computed("NumberOfStudyRelatedInstances").label("instances"),
            derived.scalar_subquery().label("derived_series"),
        )
        .join(t.patient)
        .where(sa.exists(sa.select(1).select_from(t.series).where(own).correlate(t.study)))
        .order_by(t.study.c.study_date.desc(), t.study.c.study_time.desc(), t.study.c.study_instance_uid)
        .limit(limit if limit is not None else 2**62)
        .offset(offset)
    )
    for word in text.split():
        columns = (t.patient.c.name_words, t.patient.c.name_key, t.patient.c.patient_id_folded, t.study.c.description_folded)
        found = [matching.contains(connections, column, word) for column in columns]
        found += [t.study.c.accession_number == word, t.study.c.study_instance_uid == word]
        statement = statement.where(sa.or_(*found))
    with connections.read() as connection:
        return [_study(row) for row in connection.execute(statement)]


def _study(row: Row) -> StudySummary:
    return StudySummary(
        study_instance_uid=row.study_instance_uid,
        patient_id=row.patient_attributes.get("PatientID", ""),
        patient_name=row.patient_attributes.get("PatientName", ""),
        study_date=row.attributes.get("StudyDate", ""),
        study_time=row.attributes.get("StudyTime", ""),
        study_description=row.attributes.get("StudyDescription", ""),
        accession_number=row.attributes.get("AccessionNumber", ""),
        modalities=tuple(sorted({one for one in (row.modalities or "").split("\\") if one})),
        series=row.series,
        instances=int(row.instances),
        derived_series=row.derived_series,
        last_arrival=row.last_arrival,
    )


def series_of(connections: Connections, study_instance_uid: str) -> list[SeriesSummary]:
    """Return the series of a study: those that came, then those made here, by number. Raises `NotFound`."""
    statement = (
        sa.select(t.series)
        .join(t.study)
        .where(t.study.c.study_instance_uid == study_instance_uid, t.series.c.instances > 0)
        .order_by(t.series.c.derived, t.series.c.series_number.nulls_last(), t.series.c.series_instance_uid)
    )
    with connections.read() as connection:
        rows = connection.execute(statement).all()
        middles = {row.pk: _middle(connection, row.pk, row.instances) for row in rows}
    if not rows:
        raise NotFound("there is no study of this UID")
    made_by = jobs.Jobs(connections).lineage(row.series_instance_uid for row in rows if row.derived)
    summaries = []
    for row in rows:
        job = made_by.get(row.series_instance_uid)
        complete = row.scheduled_generation == row.generation
        summaries.append(
            SeriesSummary(
                series_instance_uid=row.series_instance_uid,
                modality=row.modality,
                number=row.series_number,
                description=row.attributes.get("SeriesDescription", ""),
                body_part=row.attributes.get("BodyPartExamined", ""),
                instances=row.instances,
                size_bytes=row.size_bytes,
                derived=row.derived,
                processor=job.processor if job else "",
                version=job.version if job else "",
                job_id=job.job_id if job else "",
                source_series_instance_uids=job.series_instance_uids if job else (),
                sop_class_uids=tuple(uid for uid in row.sop_classes.split("\\") if uid),
                thumbnail_sop_instance_uid=middles[row.pk],
                completion="made here" if row.derived else row.completion if complete else "",
                last_arrival=row.last_arrival,
            )
        )
    return summaries


def _middle(connection: sa.Connection, series_pk: int, instances: int) -> str:
    statement = (
        sa.select(t.instance.c.sop_instance_uid)
        .where(t.instance.c.series_pk == series_pk, *visible())
        .order_by(t.instance.c.instance_number.nulls_last(), t.instance.c.sop_instance_uid)
        .limit(1)
        .offset(instances // 2)
    )
    return connection.execute(statement).scalar() or ""


def summary(connections: Connections) -> dict[str, Any]:
    """Return counts: patients, studies, series, instances, derived_series, size_bytes, quarantine, and jobs by state."""
    shown = t.series.c.instances > 0
    totals = sa.select(
        sa.func.count(),
        sa.func.coalesce(sa.cast(sa.func.sum(t.series.c.instances), sa.BigInteger), 0),
        sa.func.coalesce(sa.cast(sa.func.sum(t.series.c.size_bytes), sa.BigInteger), 0),
        sa.func.coalesce(sa.func.sum(sa.case((t.series.c.derived, 1), else_=0)), 0),
        sa.func.count(sa.distinct(t.series.c.study_pk)),
    ).where(shown)
    patients = sa.select(sa.func.count(sa.distinct(t.study.c.patient_pk))).select_from(t.series.join(t.study)).where(shown)
    by_state = sa.select(t.job.c.state, sa.func.count()).group_by(t.job.c.state)
    with connections.read() as connection:
        series, instances, size_bytes, derived_series, studies = connection.execute(totals).one()
        jobs_by_state = {state.value: 0 for state in JobState}
        jobs_by_state |= dict(connection.execute(by_state).tuples().all())
        return {
            "patients": connection.execute(patients).scalar_one(),
            "studies": studies,
            "series": series,
            "instances": int(instances),
            "derived_series": int(derived_series),
            "size_bytes": int(size_bytes),
            "quarantine": connection.execute(sa.select(sa.func.count()).select_from(t.quarantine)).scalar_one(),
            "jobs": jobs_by_state,
        }
