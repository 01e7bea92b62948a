"""Writing instances: patient, study, series and instance rows of a group in one transaction, with few statements.

The first value of an attribute wins at every level above the instance, and one that was empty is filled later, so that a
derived object with fewer attributes blanks nothing. An equal instance is not written again; other content under a known SOP
Instance UID is kept as a further version, while the first stays current.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import sqlalchemy as sa

from pacs.index import feed
from pacs.index import tables as t
from pacs.index.attributes import columns_of, split, text_key
from pacs.index.connections import Connections
from pacs.model.errors import InstanceConflict
from pacs.model.instance import Arrival, IndexEntry, InstanceKey, Location, Origin, Stored
from pacs.model.query import Level

Values = dict[str, Any]
_SeriesKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Incoming:
    """An instance with its place in the store, whether it comes through a door or from a record found after a crash."""

    key: InstanceKey
    sop_class_uid: str
    transfer_syntax_uid: str
    digest: bytes
    number_of_frames: int
    study_key_id: int
    location: Location
    origin: Origin
    source: str = field(repr=False)
    association: str
    policy: str
    levels: Mapping[Level, Mapping[str, str]] = field(repr=False)
    report: Mapping[str, int] = field(default_factory=dict)
    pending: tuple[str, ...] = ()
    received_digest: bytes | None = None
    deferred: bool = False
    # When it was sealed, where its record says so: 0 for what has just arrived.
    at: float = 0.0

    @classmethod
    def of_arrival(cls, arrival: Arrival, location: Location) -> "Incoming":
        """Take what the index needs of an arrival."""
        encoded = arrival.encoded
        return cls(
            key=encoded.key,
            sop_class_uid=encoded.sop_class_uid,
            transfer_syntax_uid=encoded.transfer_syntax_uid,
            digest=encoded.digest,
            number_of_frames=encoded.number_of_frames,
            study_key_id=arrival.sealed.study_key_id,
            location=location,
            origin=arrival.origin,
            source=arrival.source,
            association=arrival.association,
            policy=arrival.policy,
            levels=split(encoded.attributes),
            report=arrival.report,
            pending=arrival.pending,
            received_digest=arrival.received_digest,
            deferred=encoded.deferred,
        )

    @classmethod
    def of_entry(cls, entry: IndexEntry, location: Location) -> "Incoming":
        """Take what the index needs of a record's own entry."""
        return cls(
            key=entry.key,
            sop_class_uid=entry.sop_class_uid,
            transfer_syntax_uid=entry.transfer_syntax_uid,
            digest=entry.digest,
            number_of_frames=entry.number_of_frames,
            study_key_id=entry.study_key_id,
            location=location,
            origin=entry.origin,
            source=entry.source,
            association="",
            policy=entry.policy,
            levels=split(entry.attributes),
            report=entry.report,
            pending=entry.pending,
            received_digest=entry.received_digest,
            deferred=entry.deferred,
            at=entry.at,
        )

    @property
    def series_key(self) -> _SeriesKey:
        """Study and Series Instance UID."""
        return self.key.study_instance_uid, self.key.series_instance_uid

    @property
    def derived(self) -> bool:
        """Whether it was made here."""
        return self.origin is Origin.PROCESSOR

    def stored(self, version: int) -> Stored:
        """Return it as committed."""
        attributes = {keyword: value for level in self.levels.values() for keyword, value in level.items()}
        return Stored(
            key=self.key,
            sop_class_uid=self.sop_class_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            location=self.location,
            study_key_id=self.study_key_id,
            digest=self.digest,
            number_of_frames=self.number_of_frames,
            version=version,
            attributes=attributes,
            pending=self.pending,
            received_digest=self.received_digest,
            origin=self.origin,
            policy=self.policy,
        )


STORED_COLUMNS = (
    t.study.c.study_instance_uid,
    t.series.c.series_instance_uid,
    t.instance.c.sop_instance_uid,
    t.instance.c.sop_class_uid,
    t.instance.c.transfer_syntax_uid,
    t.instance.c.container,
    t.instance.c.offset,
    t.instance.c.size_bytes,
    t.instance.c.study_key_id,
    t.instance.c.digest,
    t.instance.c.number_of_frames,
    t.instance.c.version,
    t.instance.c.held_for,
    t.instance.c.received_digest,
    t.instance.c.origin,
    t.instance.c.policy,
)
INSTANCES = t.instance.join(t.series).join(t.study)


def stored_of(row: Sequence[Any], *, fresh: bool, attributes: Mapping[str, str] | None = None) -> Stored:
    """Return the `Stored` of a row that begins with `STORED_COLUMNS`."""
    return Stored(
        key=InstanceKey(row[0], row[1], row[2]),
        sop_class_uid=row[3],
        transfer_syntax_uid=row[4],
        location=Location(row[5], row[6], row[7]),
        study_key_id=row[8],
        digest=row[9],
        number_of_frames=row[10],
        version=row[11],
        fresh=fresh,
        attributes=attributes or {},
        pending=tuple(one for one in row[12].split("\\") if one),
        received_digest=row[13],
        origin=Origin(row[14]),
        policy=row[15],
    )


class NotReplayed(Exception):
    """A replay of the records would not write all that this group writes."""


def add(
    connections: Connections,
    connection: sa.Connection,
    group: Sequence[Incoming],
    now: float,
    conflict: str = "version",
    *,
    replayed: bool = False,
) -> list[Stored]:
    """Write a group within the transaction of `connection`; one answer for each, in order. Repeatable after a rollback.

    `conflict` says what other content under a known UID is: "version" keeps it beside the first, "replace" makes it current,
    "reject" raises `InstanceConflict`. What was made here is always kept beside: nobody sends it again. With `replayed`, raises
    `NotReplayed` where there is a further version: its event, and what it replaced, must not be undone by a power cut.
    """
    connections.lock_studies(connection, {one.key.study_instance_uid for one in group})
    known = _known(connections, connection, group)
    answers: list[Stored] = []
    fresh: list[tuple[Incoming, int]] = []
    for one in group:
        versions = known.setdefault(one.key.sop_instance_uid, {})
        equal = versions.get(one.digest)
        if equal is None and one.received_digest is not None:
            # A cleaned record that a crash left without its row: the held one is still there, and is cleaned again.
            equal = versions.get(one.received_digest)
        if equal is None and versions and conflict == "reject" and not one.derived:
            raise InstanceConflict(
                "an instance of this SOP Instance UID is stored with other content (store.conflict = reject)"
            )
        if equal is None and versions and replayed:
            raise NotReplayed
        if equal is None:
            equal = one.stored(version=max((other.version for other in versions.values()), default=0) + 1)
            fresh.append((one, equal.version))
            answers.append(equal)
            versions[one.digest] = replace(equal, fresh=False)
        else:
            answers.append(equal)
    if fresh:
        _write(connections, connection, fresh, now, conflict)
    return answers


def _known_statement(connections: Connections) -> sa.Select[Any]:
    wanted = connections.any_of(t.instance.c.sop_instance_uid, "uids")
    return sa.select(*STORED_COLUMNS).select_from(INSTANCES).where(wanted)


def _known(connections: Connections, connection: sa.Connection, group: Sequence[Incoming]) -> dict[str, dict[bytes, Stored]]:
    uids = {one.key.sop_instance_uid for one in group}
    if not uids:
        return {}
    known: dict[str, dict[bytes, Stored]] = {}
    for row in connections.run(connection, "write.known", _known_statement, {"uids": connections.many(uids)}):
        stored = stored_of(row, fresh=False)
        versions = known.setdefault(row[2], {})
        versions[stored.digest] = stored
        if stored.received_digest is not None:
            versions[stored.received_digest] = stored
    return known


def _write(
    connections: Connections, connection: sa.Connection, fresh: list[tuple[Incoming, int]], now: float, conflict: str
) -> None:
    incoming = [one for one, _ in fresh]
    studies = _place_studies(connections, connection, incoming)
    series = _place_series(connections, connection, incoming, studies)
    rows = [_instance_row(one, version, series[one.series_key], now) for one, version in fresh]
    connections.run(connection, "write.instances", lambda _: sa.insert(t.instance), rows)
    _count(connections, connection, fresh, studies, series, now)
    if conflict == "replace":
        for one, version in fresh:
            if version > 1 and not one.derived:
                _put_in_place(connections, connection, one, version, studies, series, now)
    _open_arrivals(connections, connection, incoming, series, now)
    conflicts = [
        feed.entry(
            now,
            "instance_replaced" if conflict == "replace" and not one.derived else "instance_conflict",
            study_instance_uid=one.key.study_instance_uid,
            series_instance_uid=one.key.series_instance_uid,
            sop_instance_uid=one.key.sop_instance_uid,
            version=version,
        )
        for one, version in fresh
        if version > 1
    ]
    feed.record(connections, connection, conflicts)


def _put_in_place(
    connections: Connections,
    connection: sa.Connection,
    one: Incoming,
    version: int,
    studies: Mapping[str, int],
    series: Mapping[_SeriesKey, int],
    now: float,
) -> None:
    """Make a further version the one that is shown; the older ones stay, for administrators."""
    same = t.instance.c.sop_instance_uid == one.key.sop_instance_uid
    before = connection.execute(
        sa.select(t.instance.c.series_pk, t.instance.c.size_bytes, t.instance.c.state).where(same, t.instance.c.current)
    ).first()
    connection.execute(sa.update(t.instance).where(same).values(current=t.instance.c.version == version))
    if before is not None and before.state == "visible":
        less = {"more_instances": -1, "more_bytes": -before.size_bytes, "more_news": 1}
        connection.execute(count_series, series_counts(before.series_pk, now) | less)
    # Version 1 here means: count it as what it is now, the instance that is there.
    _count(connections, connection, [(one, 1)], studies, series, now)


def _instance_row(one: Incoming, version: int, series_pk: int, now: float) -> Values:
    return {
        "series_pk": series_pk,
        "sop_instance_uid": one.key.sop_instance_uid,
        "version": version,
        "current": version == 1,
        "state": "held" if one.pending else "visible",
        "held_for": "\\".join(one.pending),
        "sop_class_uid": one.sop_class_uid,
        "transfer_syntax_uid": one.transfer_syntax_uid,
        "number_of_frames": one.number_of_frames,
        "container": one.location.container,
        "offset": one.location.offset,
        "size_bytes": one.location.size_bytes,
        "study_key_id": one.study_key_id,
        "digest": one.digest,
        "received_digest": one.received_digest,
        "origin": one.origin.value,
        "source": one.source.replace("\0", ""),
        "policy": one.policy,
        "deid_report": dict(one.report) or None,
        "stored_at": one.at or now,
        "deferred": one.deferred,
        "verified_at": 0.0,
        "attributes": one.levels[Level.IMAGE],
        **columns_of(Level.IMAGE, one.levels[Level.IMAGE]),
    }


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


def _place_studies(connections: Connections, connection: sa.Connection, group: list[Incoming]) -> dict[str, int]:
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


def _place_series(
    connections: Connections, connection: sa.Connection, group: list[Incoming], studies: Mapping[str, int]
) -> dict[_SeriesKey, int]:
    """Make or fill the series rows of a group."""
    by_series: dict[_SeriesKey, list[Incoming]] = {}
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


def _series(connections: Connections, connection: sa.Connection, keys: Iterable[_SeriesKey]) -> dict[_SeriesKey, "_SeriesRow"]:
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


count_series = (
    sa.update(t.series)
    .where(t.series.c.pk == sa.bindparam("of_pk"))
    .values(
        instances=t.series.c.instances + sa.bindparam("more_instances"),
        size_bytes=t.series.c.size_bytes + sa.bindparam("more_bytes"),
        generation=t.series.c.generation + sa.bindparam("more_news"),
        held_generation=t.series.c.held_generation + sa.bindparam("more_held"),
        last_arrival=sa.bindparam("now"),
        evidence=sa.bindparam("why"),
    )
)
count_study = (
    sa.update(t.study)
    .where(t.study.c.pk == sa.bindparam("of_pk"))
    .values(generation=t.study.c.generation + sa.bindparam("more_news"), last_arrival=sa.bindparam("now"))
)


def series_counts(pk: int, now: float, evidence: str = "") -> Values:
    """Return the parameters of `count_series` that change nothing but the time of the last arrival and its evidence."""
    nothing = dict.fromkeys(("more_instances", "more_bytes", "more_news", "more_held"), 0)
    return {"of_pk": pk, "now": now, "why": evidence, **nothing}


def _count(
    connections: Connections,
    connection: sa.Connection,
    fresh: list[tuple[Incoming, int]],
    studies: Mapping[str, int],
    series: Mapping[_SeriesKey, int],
    now: float,
) -> None:
    """Count what became visible, and raise the generations: a further version changes nothing that is shown.

    What is held raises a generation of its own, which wakes its cleaning and nothing else.
    """
    of_series: dict[int, Values] = {}
    of_study: dict[int, Values] = {}
    for one, version in fresh:
        if version > 1:
            continue
        pk = series[one.series_key]
        row = of_series.setdefault(pk, series_counts(pk, now))
        if one.pending:
            row["more_held"] += 1
            continue
        row["more_instances"] += 1
        row["more_news"] += 1
        row["more_bytes"] += one.location.size_bytes
        # What is made here is not news about its study: rules must not fire on their own results.
        if not one.derived:
            pk = studies[one.key.study_instance_uid]
            of_study.setdefault(pk, {"of_pk": pk, "more_news": 0, "now": now})["more_news"] += 1
    if of_study:
        connections.run(connection, "write.count_study", lambda _: count_study, [of_study[pk] for pk in sorted(of_study)])
    if of_series:
        connections.run(connection, "write.count_series", lambda _: count_series, [of_series[pk] for pk in sorted(of_series)])


def _open_arrivals(
    connections: Connections,
    connection: sa.Connection,
    group: Iterable[Incoming],
    series: Mapping[_SeriesKey, int],
    now: float,
) -> None:
    """Note which associations are still bringing which series."""
    arriving = {(one.association, series[one.series_key]) for one in group if one.association and not one.derived}
    if not arriving:
        return
    rows = [{"association": association, "series_pk": pk, "since": now} for association, pk in sorted(arriving)]
    connections.run(connection, "write.arrivals", _arrivals_statement, rows)


def _arrivals_statement(connections: Connections) -> Any:
    insert = connections.insert(t.open_arrival)
    return insert.on_conflict_do_update(index_elements=["association", "series_pk"], set_={"since": insert.excluded.since})


def change_state(
    connections: Connections, connection: sa.Connection, sop_instance_uids: Collection[str], state: str, now: float
) -> int:
    """Make current instances "held" or "visible", and count them out or in; returns how many were not so before."""
    if not sop_instance_uids:
        return 0
    changing = (
        sa.select(t.instance.c.pk, t.instance.c.series_pk, t.instance.c.size_bytes, t.series.c.study_pk, t.series.c.derived)
        .select_from(INSTANCES)
        .where(
            connections.one_of(t.instance.c.sop_instance_uid, sop_instance_uids),
            t.instance.c.current,
            t.instance.c.state != state,
        )
    )
    connections.lock_studies(connection, connection.scalars(changing.with_only_columns(t.study.c.study_instance_uid)).all())
    rows = connection.execute(changing).all()
    for row in rows:
        sign = 1 if state == "visible" else -1
        counts = series_counts(row.series_pk, now)
        counts |= {"more_instances": sign, "more_bytes": sign * row.size_bytes, "more_news": 1}
        values: Values = {"state": state} | ({"held_for": ""} if state == "visible" else {})
        connection.execute(sa.update(t.instance).where(t.instance.c.pk == row.pk).values(values))
        connection.execute(count_series, counts)
        if not row.derived:
            connection.execute(count_study, {"of_pk": row.study_pk, "more_news": 1, "now": now})
    return len(rows)
