"""Writing instances: the rows of a group in one transaction, with few statements.

An equal instance is not written again; other content under a known SOP Instance UID is kept as a further version, while the
first stays current. Patient, study and series rows are made by `placing`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from pacs.index import feed
from pacs.index import tables as t
from pacs.index.attributes import columns_of
from pacs.index.connections import Connections
from pacs.index.incoming import INSTANCES, STORED_COLUMNS, Incoming, SeriesKey, Values, stored_of
from pacs.index.placing import place_series, place_studies
from pacs.model.errors import InstanceConflict
from pacs.model.instance import Stored
from pacs.model.query import Level


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
    studies = place_studies(connections, connection, incoming)
    series = place_series(connections, connection, incoming, studies)
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
    series: Mapping[SeriesKey, int],
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
    series: Mapping[SeriesKey, int],
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
    series: Mapping[SeriesKey, int],
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
