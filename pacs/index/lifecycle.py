"""The life of studies: their labels, what is stored by whom, and what retention rules are asked about."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index import feed, incoming
from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.errors import NotFound
from pacs.model.lifecycle import LivingStudy

_BATCH = 500
Usage = dict[tuple[str, str], int]
"""(source, policy) -> bytes of records, all versions and states counted."""


class Lifecycle:
    """Labels, sizes and ages."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def label(self, study_instance_uid: str, name: str, reason: str = "") -> None:
        """Give a study a label, and write an event about it. Raises `NotFound` if there is no such study."""
        known = sa.select(t.study.c.pk).where(t.study.c.study_instance_uid == study_instance_uid)

        def work(connection: sa.Connection) -> None:
            if connection.execute(known).first() is None:
                raise NotFound("there is no such study; give the archive's own, pseudonymous UID")
            label(self._connections, connection, [study_instance_uid], name, reason)

        self._connections.retrying(work)

    def unlabel(self, study_instance_uid: str, name: str) -> bool:
        """Take a label away, with an event; false if the study does not bear it."""
        bearing = (t.study_label.c.study_instance_uid == study_instance_uid, t.study_label.c.label == name)

        def work(connection: sa.Connection) -> bool:
            if not connection.execute(sa.delete(t.study_label).where(*bearing)).rowcount:
                return False
            told = feed.entry(self._connections.clock(), "study_unlabelled", study_instance_uid=study_instance_uid, label=name)
            feed.record(self._connections, connection, [told])
            return True

        return self._connections.retrying(work)

    def labels(self, study_instance_uids: Collection[str] | None = None) -> dict[str, dict[str, str]]:
        """Return label -> reason by study, of these studies or of all that bear any."""
        statement = sa.select(t.study_label.c.study_instance_uid, t.study_label.c.label, t.study_label.c.reason)
        if study_instance_uids is not None:
            statement = statement.where(self._connections.one_of(t.study_label.c.study_instance_uid, study_instance_uids))
        found: dict[str, dict[str, str]] = {}
        with self._connections.read() as connection:
            for uid, name, reason in connection.execute(statement.order_by(t.study_label.c.label)):
                found.setdefault(uid, {})[name] = reason
        return found

    def usage(self, after: int = 0) -> tuple[int, Usage]:
        """Return the number of the newest record, and what those with a number above `after` take."""
        size = sa.cast(sa.func.sum(t.instance.c.size_bytes), sa.BigInteger)
        columns = (t.instance.c.source, t.instance.c.policy, size, sa.func.max(t.instance.c.pk))
        statement = sa.select(*columns).where(t.instance.c.pk > after).group_by(t.instance.c.source, t.instance.c.policy)
        with self._connections.read() as connection:
            rows = connection.execute(statement).all()
        return max((row[3] for row in rows), default=after), {(row[0], row[1]): int(row[2]) for row in rows}

    def count(self) -> int:
        """Return how many studies there are."""
        with self._connections.read() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(t.study)).scalar_one())

    def studies(self, arrived_before: float, only: str = "") -> Iterator[LivingStudy]:
        """Yield the studies of which nothing was sent at or after a time, or `only` that one of them."""
        after = 0
        while rows := self._old(arrived_before, only, after):
            yield from self._filled(rows)
            after = rows[-1].pk

    def _old(self, arrived_before: float, only: str, after: int) -> Sequence[sa.Row[Any]]:
        sent = sa.case((t.instance.c.origin != "processor", t.instance.c.stored_at))
        # Where all was made here, the newest of it stands for what was sent.
        arrived = sa.func.coalesce(sa.func.max(sent), sa.func.max(t.instance.c.stored_at))
        columns = (t.study.c.pk, t.study.c.study_instance_uid, t.study.c.study_date)
        size = sa.cast(sa.func.sum(t.instance.c.size_bytes), sa.BigInteger)
        statement = (
            sa.select(*columns, arrived.label("arrived_at"), size.label("size_bytes"))
            .select_from(incoming.INSTANCES)
            .where(t.study.c.pk > after, *([t.study.c.study_instance_uid == only] if only else []))
            .group_by(*columns)
            .having(arrived < arrived_before)
            .order_by(t.study.c.pk)
            .limit(_BATCH)
        )
        with self._connections.read() as connection:
            return connection.execute(statement).all()

    def _filled(self, rows: Sequence[sa.Row[Any]]) -> Iterator[LivingStudy]:
        pks = [row.pk for row in rows]
        statement = (
            sa.select(
                t.series.c.study_pk,
                t.series.c.derived,
                t.series.c.attributes,
                t.study.c.attributes.label("of_study"),
                t.patient.c.attributes.label("of_patient"),
            )
            .select_from(t.series.join(t.study).join(t.patient))
            .where(t.series.c.study_pk.in_(pks))
        )
        series: dict[int, list[tuple[bool, Mapping[str, str]]]] = {}
        with self._connections.read() as connection:
            for one in connection.execute(statement):
                whole = {**one.of_patient, **one.of_study, **one.attributes}
                series.setdefault(one.study_pk, []).append((one.derived, whole))
        labels = self.labels([row.study_instance_uid for row in rows])
        for row in rows:
            all_series = series.get(row.pk, [])
            sent = [attributes for derived, attributes in all_series if not derived]
            yield LivingStudy(
                study_instance_uid=row.study_instance_uid,
                study_date=row.study_date,
                arrived_at=row.arrived_at,
                size_bytes=row.size_bytes,
                series=tuple(sent or (attributes for _, attributes in all_series)),
                labels=labels.get(row.study_instance_uid, {}),
            )


def label(
    connections: Connections, connection: sa.Connection, study_instance_uids: Collection[str], name: str, reason: str
) -> None:
    """Give studies a label in a transaction that is under way, with an event for each that did not bear it."""
    now = connections.clock()
    told = []
    for uid in sorted(study_instance_uids):
        row = {"study_instance_uid": uid, "label": name, "reason": reason, "at": now}
        if connections.insert_new(connection, t.study_label, row):
            told.append(feed.entry(now, "study_labelled", study_instance_uid=uid, label=name, reason=reason))
    feed.record(connections, connection, told)
