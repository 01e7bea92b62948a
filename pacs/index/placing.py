"""Rows above the instance: patient, study and series of a group, made where there are none, filled where they lack something.

The first value of an attribute wins, and one that was empty is filled later, so that a derived object with fewer attributes
blanks nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.attributes import columns_of, text_key
from pacs.index.connections import Connections
from pacs.index.incoming import Incoming, SeriesKey, Values
from pacs.model.query import Level


def _filled(already: Mapping[str, str], later: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return `already` with what it lacks taken from `later`: the first value wins."""
    merged = dict(already)
    for attributes in later:
        for keyword, value in attributes.items():
            merged.setdefault(keyword, value)
    return merged


def _patient_key(one: Incoming) -> tuple[str, str, str]:
    patient = one.levels[Level.PATIENT]
    patient_id = text_key(patient.get("PatientID", ""))
    issuer = text_key(patient.get("IssuerOfPatientID", ""))
    return patient_id, issuer, "" if patient_id else one.key.study_instance_uid


def place_studies(connections: Connections, connection: sa.Connection, group: list[Incoming]) -> dict[str, int]:
    """Make or fill the study and patient rows of a group; returns study rows by UID."""
    by_study: dict[str, list[Incoming]] = {}
    for one in sorted(group, key=lambda one: one.key.study_instance_uid):
        by_study.setdefault(one.key.study_instance_uid, []).append(one)
    found = _studies(connections, connection, by_study)
    # Patients first, and in order, so that two groups cannot wait for each other.
    wanted: dict[tuple[str, str, str], list[Incoming]] = {}
    moving: dict[str, tuple[str, str, str]] = {}
    for uid, members in by_study.items():
        named = next((one for one in members if _patient_key(one)[0]), members[0])
        row = found.get(uid)
        if row is None or (row.orphan and _patient_key(named)[0]):
            moving[uid] = _patient_key(named)
            wanted.setdefault(moving[uid], []).extend(members)
    patients = _place_patients(connections, connection, wanted)
    new: list[Values] = []
    for uid, members in by_study.items():
        if uid not in found:
            attributes = _filled({}, (one.levels[Level.STUDY] for one in members))
            new.append(
                {
                    "study_instance_uid": uid,
                    "patient_pk": patients[moving[uid]],
                    "attributes": attributes,
                    **columns_of(Level.STUDY, attributes),
                }
            )
    if new:
        connection.execute(sa.insert(t.study), new)
        found |= _studies(connections, connection, [row["study_instance_uid"] for row in new])
    for uid, members in by_study.items():
        row = found[uid]
        attributes = _filled(row.attributes, (one.levels[Level.STUDY] for one in members))
        changes: Values = {}
        if attributes != row.attributes:
            changes = {"attributes": attributes, **columns_of(Level.STUDY, attributes)}
        if uid in moving and patients[moving[uid]] != row.patient_pk:
            changes["patient_pk"] = patients[moving[uid]]
        if changes:
            connection.execute(sa.update(t.study).where(t.study.c.pk == row.pk).values(changes))
        if "patient_pk" in changes:
            connection.execute(sa.delete(t.patient).where(t.patient.c.pk == row.patient_pk))
        elif uid not in moving:
            _fill_patient(connections, connection, row.patient_pk, row.patient_attributes, members)
    return {uid: row.pk for uid, row in found.items()}


def _studies_statement(connections: Connections) -> sa.Select[Any]:
    return (
        sa.select(
            t.study.c.study_instance_uid,
            t.study.c.pk,
            t.study.c.attributes,
            t.study.c.patient_pk,
            t.patient.c.orphan,
            t.patient.c.attributes.label("patient_attributes"),
        )
        .join(t.patient)
        .where(connections.any_of(t.study.c.study_instance_uid, "uids"))
    )


def _studies(connections: Connections, connection: sa.Connection, uids: Iterable[str]) -> dict[str, "_StudyRow"]:
    rows = connections.run(connection, "write.studies", _studies_statement, {"uids": connections.many(list(uids))})
    return {row[0]: _StudyRow(*row) for row in rows}


class _StudyRow(NamedTuple):
    """A row of `_studies_statement`."""

    study_instance_uid: str
    pk: int
    attributes: dict[str, str]
    patient_pk: int
    orphan: str
    patient_attributes: dict[str, str]


def _place_patients(
    connections: Connections, connection: sa.Connection, wanted: Mapping[tuple[str, str, str], list[Incoming]]
) -> dict[tuple[str, str, str], int]:
    """Make or fill patient rows; returns them by (Patient ID, issuer, study where there is no Patient ID)."""
    if not wanted:
        return {}
    rows = []
    for key in sorted(wanted):
        attributes = _filled({}, (one.levels[Level.PATIENT] for one in wanted[key]))
        rows.append(
            {
                **dict(zip(("patient_id", "issuer", "orphan"), key, strict=True)),
                "attributes": attributes,
                **columns_of(Level.PATIENT, attributes),
            }
        )
    connection.execute(connections.insert(t.patient).on_conflict_do_nothing(), rows)
    columns = (t.patient.c.patient_id, t.patient.c.issuer, t.patient.c.orphan, t.patient.c.pk, t.patient.c.attributes)
    by_id = sa.select(*columns).where(connections.one_of(t.patient.c.patient_id, {key[0] for key in wanted}))
    found = {(row[0], row[1], row[2]): row for row in connection.execute(by_id)}
    for key in sorted(wanted):
        _fill_patient(connections, connection, found[key].pk, found[key].attributes, wanted[key])
    return {key: found[key].pk for key in wanted}


def _fill_patient(
    connections: Connections,
    connection: sa.Connection,
    pk: int,
    attributes: Mapping[str, str],
    members: Sequence[Incoming],
) -> None:
    """Fill a patient's empty attributes from objects of the same Patient ID."""
    same = [
        one.levels[Level.PATIENT]
        for one in members
        if one.levels[Level.PATIENT].get("PatientID", "") == attributes.get("PatientID", "")
    ]
    if _filled(attributes, same) == attributes:
        return
    # Patients are shared by studies, which are locked one by one: read again under the row's own lock.
    row = connection.execute(connections.for_update(sa.select(t.patient.c.attributes).where(t.patient.c.pk == pk))).scalar_one()
    merged = _filled(row, same)
    connection.execute(
        sa.update(t.patient).where(t.patient.c.pk == pk).values(attributes=merged, **columns_of(Level.PATIENT, merged))
    )


def place_series(
    connections: Connections, connection: sa.Connection, group: list[Incoming], studies: Mapping[str, int]
) -> dict[SeriesKey, int]:
    """Make or fill the series rows of a group."""
    by_series: dict[SeriesKey, list[Incoming]] = {}
    for one in sorted(group, key=lambda one: one.series_key):
        by_series.setdefault(one.series_key, []).append(one)
    found = _series(connections, connection, by_series)
    new: list[Values] = []
    for key, members in by_series.items():
        classes = _classes("", members)
        row = found.get(key)
        if row is None:
            attributes = _filled({}, (one.levels[Level.SERIES] for one in members))
            new.append(
                {
                    "study_pk": studies[key[0]],
                    "series_instance_uid": key[1],
                    "sop_classes": classes,
                    "derived": all(one.derived for one in members),
                    "attributes": attributes,
                    **columns_of(Level.SERIES, attributes),
                }
            )
            continue
        attributes = _filled(row.attributes, (one.levels[Level.SERIES] for one in members))
        changes: Values = {}
        if attributes != row.attributes:
            changes = {"attributes": attributes, **columns_of(Level.SERIES, attributes)}
        classes = _classes(row.sop_classes, members)
        if classes != row.sop_classes:
            changes["sop_classes"] = classes
        if changes:
            connection.execute(sa.update(t.series).where(t.series.c.pk == row.pk).values(changes))
    if new:
        connection.execute(sa.insert(t.series), new)
        found |= _series(connections, connection, by_series)
    return {key: found[key].pk for key in by_series}


def _series_statement(connections: Connections) -> sa.Select[Any]:
    return (
        sa.select(
            t.study.c.study_instance_uid,
            t.series.c.series_instance_uid,
            t.series.c.pk,
            t.series.c.attributes,
            t.series.c.sop_classes,
        )
        .join(t.study)
        .where(connections.any_of(t.series.c.series_instance_uid, "uids"))
    )


def _series(connections: Connections, connection: sa.Connection, keys: Iterable[SeriesKey]) -> dict[SeriesKey, "_SeriesRow"]:
    uids = connections.many({key[1] for key in keys})
    rows = connections.run(connection, "write.series", _series_statement, {"uids": uids})
    return {(row[0], row[1]): _SeriesRow(*row) for row in rows}


class _SeriesRow(NamedTuple):
    """A row of `_series_statement`."""

    study_instance_uid: str
    series_instance_uid: str
    pk: int
    attributes: dict[str, str]
    sop_classes: str


def _classes(already: str, members: Iterable[Incoming]) -> str:
    uids = {uid for uid in already.split("\\") if uid} | {one.sop_class_uid for one in members if one.sop_class_uid}
    return "".join(f"\\{uid}" for uid in sorted(uids)) + "\\" if uids else ""
