"""Looking after the rows: which record was checked when, where records move, what is forgotten, and what a rebuild needs.

Every statement here concerns all versions and states of an instance, unlike what doors see. A record's row is moved only where
it still points to where the caller saw the record: whoever compacts races with those who clean and forget.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index import feed, incoming, write
from pacs.index import tables as t
from pacs.index.attributes import split
from pacs.index.connections import Connections
from pacs.model.instance import Encoded, IndexEntry, InstanceKey, Location, Stored
from pacs.model.query import Level
from pacs.model.upkeep import Belongings, Finding, RecordRow, VersionRow

_BATCH = 500


class Upkeep:
    """The rows of records, for those who verify, compact, forget and rebuild."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    # --- reading -------------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[RecordRow]:
        """Yield every row, in batches, in the order in which they were written."""
        after = 0
        while found := self._some(t.instance.c.pk > after, order=(t.instance.c.pk,), limit=_BATCH):
            yield from found
            after = found[-1].pk

    def rows_in(self, container: str) -> list[RecordRow]:
        """Return the rows of the records in a container, by their place."""
        return self._some(t.instance.c.container == container, order=(t.instance.c.offset,))

    def row_at(self, location: Location) -> RecordRow | None:
        """Return the row of the record at a place, if there is one."""
        here = (t.instance.c.container == location.container, t.instance.c.offset == location.offset)
        return next(iter(self._some(*here)), None)

    def rows_of(self, sop_instance_uid: str) -> list[RecordRow]:
        """Return the rows of all versions of an instance."""
        return self._some(t.instance.c.sop_instance_uid == sop_instance_uid, order=(t.instance.c.version,))

    def due(self, checked_before: float, stored_before: float, limit: int) -> list[RecordRow]:
        """Return records that were stored and last checked before these times, the longest unchecked first."""
        old = (t.instance.c.verified_at < checked_before, t.instance.c.stored_at < stored_before)
        return self._some(*old, order=(t.instance.c.verified_at, t.instance.c.pk), limit=limit)

    def deferred(self, stored_before: float, limit: int) -> list[RecordRow]:
        """Return records that wait to be compressed and were stored before that time, the oldest first."""
        waiting = (t.instance.c.deferred, t.instance.c.stored_at < stored_before)
        return self._some(*waiting, order=(t.instance.c.stored_at,), limit=limit)

    def count_deferred(self) -> int:
        """Return how many records wait to be compressed."""
        statement = sa.select(sa.func.count()).select_from(t.instance).where(t.instance.c.deferred)
        with self._connections.read() as connection:
            return int(connection.execute(statement).scalar_one())

    def containers(self) -> dict[str, int]:
        """Return how many bytes of records rows point to, by container."""
        statement = sa.select(t.instance.c.container, sa.cast(sa.func.sum(t.instance.c.size_bytes), sa.BigInteger))
        with self._connections.read() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(statement.group_by(t.instance.c.container))}

    def study_key_ids(self, study_instance_uids: Collection[str]) -> set[int]:
        """Return the study keys that the records of these studies are sealed with."""
        statement = sa.select(sa.distinct(t.instance.c.study_key_id)).select_from(incoming.INSTANCES)
        with self._connections.read() as connection:
            return set(
                connection.scalars(statement.where(self._connections.one_of(t.study.c.study_instance_uid, study_instance_uids)))
            )

    def records_of(self, study_instance_uid: str) -> list[RecordRow]:
        """Return every record of a study."""
        return self._some(t.study.c.study_instance_uid == study_instance_uid, order=(t.instance.c.pk,))

    def studies_of_patient(self, patient_id: str) -> list[str]:
        """Return the studies of a patient, by the archive's own (pseudonymous) Patient ID."""
        statement = sa.select(t.study.c.study_instance_uid).join(t.patient).where(t.patient.c.patient_id == patient_id)
        with self._connections.read() as connection:
            return sorted(connection.scalars(statement))

    def belongings(self, study_instance_uid: str) -> Belongings | None:
        """Return what there is of a study; None if there is nothing."""
        of_study = t.study.c.study_instance_uid == study_instance_uid
        derived = sa.func.coalesce(sa.func.sum(sa.case((t.instance.c.origin == "processor", 1), else_=0)), 0)
        counts = sa.select(
            sa.func.count(),
            sa.func.count(sa.distinct(t.instance.c.sop_instance_uid)),
            sa.func.count(sa.distinct(t.series.c.pk)),
            derived,
            sa.func.coalesce(sa.cast(sa.func.sum(t.instance.c.size_bytes), sa.BigInteger), 0),
        ).select_from(incoming.INSTANCES)
        with self._connections.read() as connection:
            patient = connection.execute(sa.select(t.patient.c.patient_id).select_from(t.study.join(t.patient)).where(of_study))
            patient_id = patient.scalar()
            if patient_id is None:
                return None
            records, instances, series, made_here, size = connection.execute(counts.where(of_study)).one()
            jobs = sa.select(sa.func.count()).where(t.job.c.study_instance_uid == study_instance_uid)
            return Belongings(
                study_instance_uid=study_instance_uid,
                patient_id=patient_id,
                series=series,
                instances=instances,
                derived_instances=int(made_here),
                versions=records - instances,
                size_bytes=int(size),
                jobs=connection.execute(jobs).scalar_one(),
            )

    def versions(self, sop_instance_uid: str = "") -> list[VersionRow]:
        """Return all contents of an instance, or those of every instance that has several."""
        several = sa.select(t.instance.c.sop_instance_uid).group_by(t.instance.c.sop_instance_uid).having(sa.func.count() > 1)
        wanted = t.instance.c.sop_instance_uid == sop_instance_uid if sop_instance_uid else t.instance.c.version > 1
        if not sop_instance_uid:
            # By the versions above the first: there are few, and the unique index finds their siblings.
            later = sa.select(t.instance.c.sop_instance_uid).where(t.instance.c.version > 1)
            wanted = sa.and_(t.instance.c.sop_instance_uid.in_(later), t.instance.c.sop_instance_uid.in_(several))
        statement = (
            sa.select(
                t.instance.c.sop_instance_uid,
                t.study.c.study_instance_uid,
                t.series.c.series_instance_uid,
                t.instance.c.version,
                t.instance.c.current,
                t.instance.c.stored_at,
                t.instance.c.source,
                t.instance.c.transfer_syntax_uid,
                t.instance.c.size_bytes,
                t.instance.c.digest,
            )
            .select_from(incoming.INSTANCES)
            .where(wanted)
            .order_by(t.instance.c.sop_instance_uid, t.instance.c.version)
        )
        with self._connections.read() as connection:
            return [VersionRow(**{**row._mapping, "digest": row.digest.hex()}) for row in connection.execute(statement)]

    def is_empty(self) -> bool:
        """Tell whether the index holds no instance at all."""
        with self._connections.read() as connection:
            return connection.execute(sa.select(t.instance.c.pk).limit(1)).first() is None

    # --- writing -------------------------------------------------------------------------------------------------------

    def checked(self, pks: Sequence[int]) -> None:
        """Note that these records were read, opened and found right now."""
        now = self._connections.clock()

        def work(connection: sa.Connection) -> None:
            connection.execute(
                sa.update(t.instance).where(t.instance.c.pk == sa.bindparam("of_pk")).values(verified_at=now),
                [{"of_pk": pk} for pk in sorted(pks)],
            )

        if pks:
            self._connections.retrying(work)

    def make_durable(self) -> None:
        """Wait until every row that was written before is on the disk, those of arrivals as well (docs/adr/0019)."""
        last = sa.select(sa.func.max(t.instance.c.pk)).scalar_subquery()
        same = sa.update(t.instance).where(t.instance.c.pk == last).values(verified_at=t.instance.c.verified_at)
        self._connections.retrying(lambda connection: connection.execute(same))

    def alarm(self, finding: Finding, key: InstanceKey, event: str = "record_damaged") -> None:
        """Write an event about a record that is not as it should be, or was not."""
        entry = feed.entry(
            self._connections.clock(),
            event,
            study_instance_uid=key.study_instance_uid,
            series_instance_uid=key.series_instance_uid,
            sop_instance_uid=key.sop_instance_uid,
            finding=finding.kind,
        )
        with self._connections.write() as connection:
            feed.record(self._connections, connection, [entry])

    def move(self, moves: Sequence[tuple[RecordRow, Location]]) -> list[bool]:
        """Point rows to where their records were copied, all in one transaction.

        Returns for each whether its row still pointed to where it was seen; where not, nobody needs the copy.
        """

        def work(connection: sa.Connection) -> list[bool]:
            moved = []
            for row, location in moves:
                statement = (
                    sa.update(t.instance)
                    .where(*_seen(row))
                    .values(container=location.container, offset=location.offset, size_bytes=location.size_bytes)
                )
                moved.append(connection.execute(statement).rowcount == 1)
            return moved

        return self._connections.retrying(work)

    def compressed(self, moves: Sequence[tuple[RecordRow, Encoded, Location]]) -> list[bool]:
        """Point rows of deferred records to their compressed form, all in one transaction; returns as `move` does."""

        def work(connection: sa.Connection) -> list[bool]:
            return [self._compressed(connection, *one) for one in moves]

        return self._connections.retrying(work)

    def _compressed(self, connection: sa.Connection, row: RecordRow, encoded: Encoded, location: Location) -> bool:
        attributes = split(encoded.attributes)[Level.IMAGE]
        statement = (
            sa.update(t.instance)
            .where(*_seen(row), t.instance.c.deferred)
            .values(
                container=location.container,
                offset=location.offset,
                size_bytes=location.size_bytes,
                transfer_syntax_uid=encoded.transfer_syntax_uid,
                attributes=attributes,
                deferred=False,
            )
        )
        if connection.execute(statement).rowcount != 1:
            return False
        if row.current and row.state == "visible":
            more = location.size_bytes - row.stored.location.size_bytes
            of_row = sa.select(t.instance.c.series_pk).where(t.instance.c.pk == row.pk).scalar_subquery()
            size = sa.update(t.series).where(t.series.c.pk == of_row).values(size_bytes=t.series.c.size_bytes + more)
            connection.execute(size)
        return True

    def keep_native(self, row: RecordRow) -> None:
        """Note that a deferred record cannot be compressed, and stays as it is."""

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.update(t.instance).where(*_seen(row)).values(deferred=False))

        self._connections.retrying(work)

    def forget(self, study_instance_uid: str, reason: str = "") -> list[Location]:
        """Remove every row that tells of a study, and write one event that it was forgotten; returns where its records lay.

        Instances of all versions, series, the study, its patient if nothing else is theirs, its jobs and earlier events.
        """
        now = self._connections.clock()
        uid = study_instance_uid

        def work(connection: sa.Connection) -> list[Location]:
            self._connections.lock_studies(connection, [uid])
            study = connection.execute(
                sa.select(t.study.c.pk, t.study.c.patient_pk).where(t.study.c.study_instance_uid == uid)
            ).first()
            places: list[Location] = []
            if study is not None:
                of_study = sa.select(t.series.c.pk).where(t.series.c.study_pk == study.pk).scalar_subquery()
                rows = connection.execute(
                    sa.select(t.instance.c.container, t.instance.c.offset, t.instance.c.size_bytes).where(
                        t.instance.c.series_pk.in_(of_study)
                    )
                )
                places = [Location(*row) for row in rows]
                connection.execute(sa.delete(t.open_arrival).where(t.open_arrival.c.series_pk.in_(of_study)))
                connection.execute(sa.delete(t.instance).where(t.instance.c.series_pk.in_(of_study)))
                connection.execute(sa.delete(t.series).where(t.series.c.study_pk == study.pk))
                connection.execute(sa.delete(t.study).where(t.study.c.pk == study.pk))
                others = sa.exists(sa.select(1).where(t.study.c.patient_pk == study.patient_pk))
                connection.execute(sa.delete(t.patient).where(t.patient.c.pk == study.patient_pk, ~others))
            jobs = sa.select(t.job.c.job_id).where(t.job.c.study_instance_uid == uid).scalar_subquery()
            for table in (t.job_output, t.job_parent, t.job_finding, t.workitem, t.subscription):
                connection.execute(sa.delete(table).where(table.c.job_id.in_(jobs)))
            connection.execute(sa.delete(t.job).where(t.job.c.study_instance_uid == uid))
            steps = sa.select(t.performed_step.c.step_uid).where(t.performed_step.c.study_instance_uid == uid)
            connection.execute(sa.delete(t.performed_series).where(t.performed_series.c.step_uid.in_(steps)))
            connection.execute(sa.delete(t.performed_step).where(t.performed_step.c.study_instance_uid == uid))
            for table in (t.notification, t.study_label, t.face_region):
                connection.execute(sa.delete(table).where(table.c.study_instance_uid == uid))
            known = connection.execute(sa.delete(t.event).where(t.event.c.study_instance_uid == uid)).rowcount
            if study is not None or known:
                told = feed.entry(now, "study_forgotten", study_instance_uid=uid, **({"reason": reason} if reason else {}))
                feed.record(self._connections, connection, [told])
            return places

        return self._connections.retrying(work)

    def restore(self, entries: Sequence[tuple[IndexEntry, Location]]) -> list[Stored]:
        """Write the rows of records, in one transaction, from what the records say of themselves."""
        group = [incoming.Incoming.of_entry(entry, location) for entry, location in entries]
        now = self._connections.clock()
        return self._connections.retrying(lambda c: write.add(self._connections, c, group, now))

    def renumber(self, sop_instance_uid: str, in_order: Sequence[Location], *, newest: bool) -> None:
        """Number the versions of an instance anew, in this order; the first is current, or the last with `newest`."""
        rows = {row.stored.location: row for row in self._some(t.instance.c.sop_instance_uid == sop_instance_uid)}
        chosen = in_order[-1 if newest else 0]

        def work(connection: sa.Connection) -> None:
            # Out of the way first: (UID, version) is unique at every moment.
            for shift in (len(in_order), 0):
                for number, location in enumerate(in_order, 1):
                    connection.execute(
                        sa.update(t.instance)
                        .where(t.instance.c.pk == rows[location].pk)
                        .values(version=number + shift, current=location == chosen)
                    )
            before = next(row for row in rows.values() if row.current)
            if before.state == rows[chosen].state == "visible":
                series = sa.select(t.instance.c.series_pk).where(t.instance.c.pk == before.pk).scalar_subquery()
                more = chosen.size_bytes - before.stored.location.size_bytes
                connection.execute(
                    sa.update(t.series).where(t.series.c.pk == series).values(size_bytes=t.series.c.size_bytes + more)
                )

        self._connections.retrying(work)

    def settle_all(self, completion: str) -> None:
        """Mark everything as scheduled, so that a rebuilt index does not set every processor to work again."""

        def work(connection: sa.Connection) -> None:
            for table in (t.study, t.series):
                connection.execute(sa.update(table).values(scheduled_generation=table.c.generation, completion=completion))

        self._connections.retrying(work)

    def _some(
        self, *where: sa.ColumnElement[bool], order: Sequence[sa.ColumnElement[Any]] = (), limit: int | None = None
    ) -> list[RecordRow]:
        own = (t.instance.c.pk, t.instance.c.current, t.instance.c.state, t.instance.c.verified_at, t.instance.c.attributes)
        statement = sa.select(*incoming.STORED_COLUMNS, *own).select_from(incoming.INSTANCES).where(*where).order_by(*order)
        if limit is not None:
            statement = statement.limit(limit)
        with self._connections.read() as connection:
            return [
                RecordRow(
                    pk=row.pk,
                    stored=incoming.stored_of(row, fresh=False, attributes=row.attributes),
                    current=row.current,
                    state=row.state,
                    verified_at=row.verified_at,
                )
                for row in connection.execute(statement)
            ]


def _seen(row: RecordRow) -> tuple[sa.ColumnElement[bool], ...]:
    """Return that a row still points to where it was seen."""
    seen = row.stored.location
    return t.instance.c.pk == row.pk, t.instance.c.container == seen.container, t.instance.c.offset == seen.offset


def image_attributes(entry: IndexEntry) -> dict[str, str]:
    """Return those attributes of a record's entry that its row holds."""
    return dict(incoming.Incoming.of_entry(entry, Location("", 0, 0)).levels[Level.IMAGE])
