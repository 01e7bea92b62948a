"""A `Query` as SQL: PS3.4 C.4.1, hierarchical and relational, for C-FIND and QIDO-RS alike.

Keys of the level asked and of those above restrict joined rows; keys of levels below restrict by EXISTS, all keys of one level
on the same entity. Answers are streamed, newest study first. What is held, or has no instances, is not there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import sqlalchemy as sa

from pacs.index import compare, matching
from pacs.index import tables as t
from pacs.index.attributes import COMPUTED, LEVELS, SEVERAL, VR, level_of
from pacs.index.connections import Connections
from pacs.model.errors import InvalidQuery
from pacs.model.query import AnyOf, Empty, Level, Match, Query, Single, Valued, Within

Condition = sa.ColumnElement[bool]
_BATCH = 200
_FEW_ROWS = 5000
_DEPTH = {level: depth for depth, level in enumerate(LEVELS)}
_COLUMN: dict[str, sa.Column[str]] = {
    "PatientID": t.patient.c.patient_id,
    "IssuerOfPatientID": t.patient.c.issuer,
    "PatientBirthDate": t.patient.c.birth_date,
    "PatientSex": t.patient.c.sex,
    "StudyInstanceUID": t.study.c.study_instance_uid,
    "StudyDate": t.study.c.study_date,
    "StudyTime": t.study.c.study_time,
    "AccessionNumber": t.study.c.accession_number,
    "StudyID": t.study.c.study_id,
    "StudyDescription": t.study.c.description,
    "SeriesInstanceUID": t.series.c.series_instance_uid,
    "Modality": t.series.c.modality,
    "SeriesDate": t.series.c.series_date,
    "SeriesTime": t.series.c.series_time,
    "SeriesDescription": t.series.c.description,
    "BodyPartExamined": t.series.c.body_part,
    "SOPInstanceUID": t.instance.c.sop_instance_uid,
    "SOPClassUID": t.instance.c.sop_class_uid,
}
_NUMBER = {"SeriesNumber": t.series.c.series_number, "InstanceNumber": t.instance.c.instance_number}
_NAME = {
    "PatientName": ((t.patient.c.name_key, t.patient.c.name_key2, t.patient.c.name_key3), t.patient.c.name_words),
    "ReferringPhysicianName": (
        (t.study.c.referring_key, t.study.c.referring_key2, t.study.c.referring_key3),
        t.study.c.referring_words,
    ),
}
_TABLE = {Level.PATIENT: t.patient, Level.STUDY: t.study, Level.SERIES: t.series, Level.IMAGE: t.instance}
_PARENT = {
    Level.STUDY: t.study.c.patient_pk == t.patient.c.pk,
    Level.SERIES: t.series.c.study_pk == t.study.c.pk,
    Level.IMAGE: t.instance.c.series_pk == t.series.c.pk,
}
_UNIQUE = {
    Level.PATIENT: ("PatientID",),
    Level.STUDY: ("StudyInstanceUID",),
    Level.SERIES: ("SeriesInstanceUID",),
    Level.IMAGE: ("SOPInstanceUID", "SOPClassUID"),
}
_ORDER: dict[Level, tuple[sa.ColumnElement[Any], ...]] = {
    Level.PATIENT: (t.patient.c.patient_id, t.patient.c.pk),
    Level.STUDY: (t.study.c.study_date.desc(), t.study.c.study_time.desc(), t.study.c.study_instance_uid),
    Level.SERIES: (t.series.c.series_number.nulls_last(), t.series.c.series_instance_uid, t.series.c.pk),
    Level.IMAGE: (t.instance.c.instance_number.nulls_last(), t.instance.c.sop_instance_uid),
}
# Keys with an index of their own: found from below, as a list, instead of by looking into every study.
_FEW = frozenset({"SOPInstanceUID", "SeriesInstanceUID", "Modality"})
ORDER = (*_ORDER[Level.STUDY], *_ORDER[Level.SERIES], *_ORDER[Level.IMAGE])
"""Newest study first, then series and instances by number; the order of everything that is listed."""


def search(connections: Connections, query: Query, *, include_held: bool = False) -> Iterator[dict[str, str]]:
    """Stream the answers; see `Index.search`. The statement is built, and refused, before the first answer is asked for."""
    within = {keyword: match for keyword, match in query.matches.items() if isinstance(match, Within)}
    paged = replace(query, limit=None, offset=0) if within else query
    statement, keys = _statement(connections, paged, include_held)
    rows = _answers(connections, statement, keys, query.level)
    return _matching(rows, within, query) if within else rows


def _matching(rows: Iterator[dict[str, str]], within: Mapping[str, Within], query: Query) -> Iterator[dict[str, str]]:
    """Return the answers whose sequences match: items are compared here, not in SQL, which both databases spell otherwise."""
    found = (row for row in rows if all(compare.matches(keyword, row.get(keyword, ""), one) for keyword, one in within.items()))
    yield from islice(found, query.offset, None if query.limit is None else query.offset + query.limit)


def count(connections: Connections, query: Query, *, include_held: bool = False) -> int:
    """Return how many answers there are without limit and offset."""
    if any(isinstance(match, Within) for match in query.matches.values()):
        return sum(1 for _ in search(connections, replace(query, limit=None, offset=0), include_held=include_held))
    inner = _restricted(connections, sa.select(_TABLE[query.level].c.pk), query, include_held)
    with connections.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(inner.subquery())).scalar_one()


def _answers(connections: Connections, statement: sa.Select[Any], keys: list[str], level: Level) -> Iterator[dict[str, str]]:
    depth = _DEPTH[level] + 1
    names = [name for one in LEVELS[:depth] for name in _UNIQUE[one]]
    with connections.read() as connection:
        for row in connection.execution_options(yield_per=_BATCH).execute(statement):
            answer: dict[str, str] = {}
            for attributes in row[:depth]:
                answer.update(attributes)
            answer.update(zip(names, row[depth:], strict=False))
            for key, value in zip(keys, row[depth + len(names) :], strict=True):
                answer[key] = _gathered(value) if isinstance(value, str) or value is None else str(value)
            yield answer


def _gathered(value: str | None) -> str:
    """Return the distinct values of a list joined by backslashes, in order."""
    return "\\".join(sorted({one for one in (value or "").split("\\") if one}))


def _statement(connections: Connections, query: Query, include_held: bool) -> tuple[sa.Select[Any], list[str]]:
    levels = LEVELS[: _DEPTH[query.level] + 1]
    if query.return_keys:
        keys = [key for key in COMPUTED if key in query.return_keys and COMPUTED[key] in levels]
    else:
        keys = [key for key in COMPUTED if COMPUTED[key] is query.level]
    columns = [
        *(_TABLE[level].c.attributes.label(f"{level}_attributes") for level in levels),
        *(_COLUMN[name].label(name) for level in levels for name in _UNIQUE[level]),
        *(computed(key).label(key) for key in keys),
    ]
    statement = _restricted(connections, sa.select(*columns), query, include_held)
    for level in (query.level,) if query.level is Level.PATIENT else levels[1:]:
        statement = statement.order_by(*_ORDER[level])
    if query.limit is not None:
        statement = statement.limit(query.limit)
    elif query.offset:
        # SQLite knows OFFSET only after LIMIT.
        statement = statement.limit(2**62)
    return statement.offset(query.offset or None), keys


def _restricted(connections: Connections, statement: sa.Select[Any], query: Query, include_held: bool) -> sa.Select[Any]:
    depth = _DEPTH[query.level]
    joined: sa.FromClause = _TABLE[query.level]
    for level in reversed(LEVELS[: depth + 1]):
        if level is not Level.PATIENT:
            joined = joined.join(_TABLE[LEVELS[_DEPTH[level] - 1]], _PARENT[level])
    conditions: dict[Level, list[Condition]] = {level: [] for level in LEVELS}
    for keyword, match in query.matches.items():
        if not matching.is_universal(match):
            level, condition = _condition(connections, keyword, match, fuzzy=query.fuzzy)
            if isinstance(match, Within) and _DEPTH[level] > depth:
                raise InvalidQuery(f"{keyword} can only be matched at level {level} and below")
            conditions[level].append(condition)
    if query.level is Level.IMAGE:
        conditions[Level.IMAGE] += visible(include_held)
    elif not include_held:
        conditions[Level.SERIES].append(t.series.c.instances > 0)
    elif _DEPTH[query.level] < _DEPTH[Level.SERIES]:
        conditions[Level.SERIES].append(sa.true())
    if conditions[Level.IMAGE] and query.level is not Level.IMAGE:
        conditions[Level.IMAGE] += visible(include_held)
    few = {level for keyword in query.matches if keyword in _FEW for level in (level_of(keyword),)}
    below: Condition | None = None
    for level in reversed(LEVELS[depth + 1 :]):
        own = [*conditions[level], *([below] if below is not None else [])]
        if own:
            below = _below(level, own, few=bool(few & set(LEVELS[_DEPTH[level] :])))
    if query.level is not Level.PATIENT and conditions[Level.PATIENT]:
        # As a list of patients, so that the search begins with them and not with all studies.
        patients = sa.select(t.patient.c.pk).where(*conditions[Level.PATIENT]).correlate(None)
        conditions[Level.PATIENT] = [t.study.c.patient_pk.in_(patients)]
    above = [condition for level in LEVELS[: depth + 1] for condition in conditions[level]]
    return statement.select_from(joined).where(*above, *([below] if below is not None else []))


def _below(level: Level, conditions: Sequence[Condition], *, few: bool) -> Condition:
    """Return whether something of a level belongs to the row above it and meets all conditions."""
    table, parent = _TABLE[level], _TABLE[LEVELS[_DEPTH[level] - 1]]
    if few:
        link = table.c[f"{parent.name}_pk"]
        return parent.c.pk.in_(sa.select(link).where(*conditions).correlate(None))
    inner = sa.select(1).select_from(table).where(_PARENT[level], *conditions)
    return sa.exists(inner.correlate_except(table))


def visible(include_held: bool = False) -> list[Condition]:
    """Return what makes an instance one that is shown: the current version, and clean."""
    return [t.instance.c.current, *([] if include_held else [t.instance.c.state == "visible"])]


def _condition(connections: Connections, keyword: str, match: Match, *, fuzzy: bool) -> tuple[Level, Condition]:
    level = level_of(keyword)
    if level is None:
        raise InvalidQuery(f"{keyword} cannot be matched")
    if isinstance(match, Empty):
        return level, _empty(level, keyword)
    if isinstance(match, Within):
        return level, sa.func.coalesce(_TABLE[level].c.attributes[keyword].as_string(), "") != ""
    if keyword in COMPUTED:
        return level, _computed_condition(connections, keyword, match)
    vr = VR[keyword]
    if vr == "SQ":
        raise InvalidQuery(f"{keyword} is a sequence: match an attribute of its items")
    if keyword in _NAME:
        columns, words = _NAME[keyword]
        return level, matching.name_condition(connections, keyword, columns, words, match, fuzzy=fuzzy)
    if keyword in _NUMBER:
        return level, matching.number_condition(keyword, _NUMBER[keyword], match)
    if keyword in _COLUMN:
        return level, matching.value_condition(connections, keyword, vr, _COLUMN[keyword], match)
    stored = _TABLE[level].c.attributes[keyword].as_string()
    if keyword in SEVERAL:
        return level, matching.several_condition(keyword, vr, stored, match)
    return level, matching.stored_condition(connections, keyword, vr, stored, match)


def _empty(level: Level, keyword: str) -> Condition:
    """Return whether an attribute is missing or has no value."""
    if keyword in COMPUTED:
        raise InvalidQuery(f"{keyword} always has a value")
    if keyword in _NAME:
        return sa.and_(*(column == "" for column in _NAME[keyword][0]))
    if keyword in _NUMBER:
        return _NUMBER[keyword].is_(None)
    column = _COLUMN[keyword] if keyword in _COLUMN else _TABLE[level].c.attributes[keyword].as_string()
    return sa.func.coalesce(column, "") == ""


def _computed_condition(connections: Connections, keyword: str, match: Valued) -> Condition:
    # PS3.4 C.6.2.1.2 note: a study matches if any of its series has the modality; the answer names them all.
    if keyword in ("ModalitiesInStudy", "SOPClassesInStudy"):
        any_series = t.series.alias()
        if keyword == "ModalitiesInStudy":
            own = matching.value_condition(connections, keyword, "CS", any_series.c.modality, match)
            having = sa.select(any_series.c.study_pk).where(any_series.c.instances > 0, own)
            if _are_few(connections, having):
                return t.study.c.pk.in_(having.correlate(None))
            return sa.exists(having.where(any_series.c.study_pk == t.study.c.pk).correlate(t.study))
        own = matching.several_condition(keyword, "UI", any_series.c.sop_classes, match)
        of_study = [any_series.c.study_pk == t.study.c.pk, any_series.c.instances > 0]
        return sa.exists(sa.select(1).select_from(any_series).where(*of_study, own).correlate(t.study))
    if not isinstance(match, Single | AnyOf):
        raise InvalidQuery(f"{keyword} can only be matched with a number")
    return matching.number_condition(keyword, computed(keyword), match)


def _are_few(connections: Connections, rows: sa.Select[Any]) -> bool:
    """Tell whether a list of rows is short: then a search begins with it, else with the newest study.

    SQLite takes what we say: at 100,000 studies a list of the half of them cost 150 ms before the first answer, and looking for
    one in a thousand study by study 290 ms; each is below 10 ms the other way round. PostgreSQL decides for itself.
    """
    if not connections.is_sqlite:
        return True
    some = sa.select(sa.func.count()).select_from(rows.limit(_FEW_ROWS + 1).subquery())
    with connections.read() as connection:
        return connection.execute(some).scalar_one() <= _FEW_ROWS


def computed(keyword: str) -> sa.ColumnElement[Any]:
    """Return what counts or gathers a computed key for the joined row of its level."""
    if keyword == "NumberOfSeriesRelatedInstances":
        return t.series.c.instances
    series, study = t.series.alias(), t.study.alias()
    has = series.c.instances > 0
    of_study = sa.and_(series.c.study_pk == t.study.c.pk, has)
    of_patient = sa.and_(study.c.patient_pk == t.patient.c.pk, has)
    in_patient = series.join(study, series.c.study_pk == study.c.pk)
    total = sa.func.coalesce(sa.cast(sa.func.sum(series.c.instances), sa.BigInteger), 0)
    selected: Mapping[str, sa.Select[Any]] = {
        "NumberOfPatientRelatedStudies": sa.select(sa.func.count(sa.distinct(study.c.pk)))
        .select_from(in_patient)
        .where(of_patient),
        "NumberOfPatientRelatedSeries": sa.select(sa.func.count()).select_from(in_patient).where(of_patient),
        "NumberOfPatientRelatedInstances": sa.select(total).select_from(in_patient).where(of_patient),
        "ModalitiesInStudy": sa.select(sa.func.aggregate_strings(series.c.modality, "\\")).where(of_study),
        "SOPClassesInStudy": sa.select(sa.func.aggregate_strings(series.c.sop_classes, "\\")).where(of_study),
        "NumberOfStudyRelatedSeries": sa.select(sa.func.count()).select_from(series).where(of_study),
        "NumberOfStudyRelatedInstances": sa.select(total).where(of_study),
    }
    outer = t.patient if COMPUTED[keyword] is Level.PATIENT else t.study
    return selected[keyword].correlate(outer).scalar_subquery()
