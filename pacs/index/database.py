"""The index: what the archive holds and where, in SQLite or PostgreSQL, and the jobs and peers that go with it.

One object for all of it, made by `archive.py`; its parts are modules of this room. Everything that must be true together is
written in one transaction: the instances of a group, their counters, and the end of the job that made them.
"""

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index import complete, feed, held, overview, regions, schema, search, succession, write
from pacs.index import tables as t
from pacs.index.access import Access
from pacs.index.away import PeersAway
from pacs.index.chains import Chains
from pacs.index.commitments import Commitments
from pacs.index.connections import Connections
from pacs.index.incoming import INSTANCES, STORED_COLUMNS, Incoming, stored_of
from pacs.index.jobs import Jobs
from pacs.index.lifecycle import Lifecycle
from pacs.index.lineage import Lineage
from pacs.index.notifications import Notifications
from pacs.index.peers import Peers
from pacs.index.performed import PerformedSteps
from pacs.index.quarantine import QuarantineRows
from pacs.index.recalls import Recalls
from pacs.index.sealed import SealedRows
from pacs.index.tallies import Tallies
from pacs.index.upkeep import Upkeep
from pacs.index.workitems import Workitems
from pacs.index.worklist import WorklistItems
from pacs.model.event import Event
from pacs.model.instance import Arrival, Cleaned, IndexEntry, Location, SealedRegion, Stored
from pacs.model.job import Claim, HeldSeries, JobState, NewJob, SettledSeries
from pacs.model.query import Query
from pacs.model.summary import SeriesSummary, StudySummary
from pacs.ports import Clock


def _equal_statement(_: Connections) -> sa.Select[Any]:
    content = sa.bindparam("content", type_=sa.LargeBinary)
    return (
        sa.select(*STORED_COLUMNS)
        .select_from(INSTANCES)
        .where(
            t.instance.c.sop_instance_uid == sa.bindparam("uid"),
            sa.or_(t.instance.c.digest == content, t.instance.c.received_digest == content),
        )
        .limit(1)
    )


class Index:
    """The index of one archive. Safe to use from several threads; several processes may open the same database."""

    def __init__(self, connections: Connections, conflict: str = "version") -> None:
        self._connections = connections
        self._conflict = conflict
        self.jobs = Jobs(connections)
        self.away = PeersAway(connections)
        self.chains = Chains(connections, self.jobs)
        self.recalls = Recalls(connections)
        self.lineage = Lineage(connections)
        self.peers = Peers(connections)
        self.commitments = Commitments(connections)
        self.worklist = WorklistItems(connections)
        self.workitems = Workitems(connections)
        self.performed = PerformedSteps(connections)
        self.notifications = Notifications(connections)
        self.quarantine = QuarantineRows(connections)
        self.sealed = SealedRows(connections)
        self.tallies = Tallies(connections)
        self.access = Access(connections)
        self.upkeep = Upkeep(connections)
        self.lifecycle = Lifecycle(connections)
        self.face_regions = regions.FaceRegions(connections)

    @classmethod
    def open(cls, url: str, *, clock: Clock = time.time, conflict: str = "version") -> "Index":
        """Open the database at a SQLAlchemy URL.

        Parameters
        ----------
        conflict : {"version", "reject", "replace"}
            What other content under a known SOP Instance UID is: kept beside it, refused, or shown in its place.

        Raises
        ------
        ConfigurationError
            The URL is not usable, or the database is not at this version's revision (`pacs.index.schema.upgrade`).
        Unavailable
            The database cannot be reached.
        """
        connections = Connections(url, clock)
        try:
            schema.revision_check_engine(connections.engine)
        except BaseException:
            connections.close()
            raise
        return cls(connections, conflict)

    def close(self) -> None:
        """Give all connections back."""
        self._connections.close()

    # --- writing -------------------------------------------------------------------------------------------------------

    def add(self, placed: Sequence[tuple[Arrival, Location]], *, finishing: Claim | None = None) -> list[Stored]:
        """Write a group in one transaction, all or none; one answer for each, in order.

        An equal instance is answered with the one that is there (`fresh` false). Other content under a known SOP Instance UID
        is kept as a further version with an event, and the first stays current, unless `conflict` says otherwise
        (`InstanceConflict` for the whole group where it is refused). What has `pending` is held: no door shows it.
        With `finishing`, that job has succeeded in the same transaction and these series are its output; `NotFound` if its
        lease was lost, and then nothing is written.
        """
        group = [Incoming.of_arrival(arrival, location) for arrival, location in placed]
        now = self._connections.clock()

        def work(connection: sa.Connection) -> list[Stored]:
            stored = write.add(self._connections, connection, group, now, self._conflict)
            if finishing is not None:
                output = {one.key.series_instance_uid for one in group}
                ended = succession.finish(connection, finishing, JobState.SUCCEEDED, "", output, now)
                feed.record(self._connections, connection, ended)
            return stored

        if finishing is None and not any(one.derived for one in group):
            # The records are durable, and the next start writes the rows of those that have none (docs/adr/0019).
            with contextlib.suppress(write.NotReplayed):
                return self._connections.retrying(
                    lambda c: write.add(self._connections, c, group, now, self._conflict, replayed=True), replayed=True
                )
        return self._connections.retrying(work)

    def restore(self, entry: IndexEntry, location: Location) -> bool:
        """Write the rows of a record that was found without them; false if an equal instance is there already."""
        incoming = Incoming.of_entry(entry, location)
        # What was durable is not refused afterwards: its sender may have been told so.
        policy = "version" if self._conflict == "reject" else self._conflict
        now = self._connections.clock()
        (stored,) = self._connections.retrying(lambda c: write.add(self._connections, c, [incoming], now, policy))
        return stored.fresh

    def high_water(self, container: str) -> int:
        """Return the end of the last indexed record in a container; 0 if there is none."""
        statement = (
            sa.select(t.instance.c.offset + t.instance.c.size_bytes)
            .where(t.instance.c.container == container)
            .order_by(t.instance.c.offset.desc())
            .limit(1)
        )
        with self._connections.read() as connection:
            return connection.execute(statement).scalar() or 0

    def end_association(self, association: str, evidence: str = "association released") -> None:
        """Note that an association, request or import will bring no more; `evidence` is shown with what completes by it."""
        complete.end_association(self._connections, association, evidence)

    def hold(self, sop_instance_uids: Collection[str]) -> int:
        """Hide instances that must be cleaned first; they stay durable. Returns how many became hidden."""
        return self._connections.retrying(
            lambda c: write.change_state(self._connections, c, sop_instance_uids, "held", self._connections.clock())
        )

    def release(self, sop_instance_uids: Collection[str]) -> int:
        """Show instances that were held, as if they had just arrived. Returns how many became visible."""
        return self._connections.retrying(
            lambda c: write.change_state(self._connections, c, sop_instance_uids, "visible", self._connections.clock())
        )

    def cleaned(
        self, results: Sequence[Cleaned], *, finishing: Claim, reason: str = "", located: Sequence[SealedRegion] = ()
    ) -> list[bool]:
        """Show what was cleaned, take out what could not be, keep what was `located`, and end the job, in one transaction.

        Returns for each result whether it was taken; where it was not (the instance is no longer held), give its new record up.
        Raises `NotFound` if the job's lease was lost; then nothing is changed.
        """
        now = self._connections.clock()

        def work(connection: sa.Connection) -> list[bool]:
            taken, entries = held.cleaned(self._connections, connection, results, now)
            regions.put(self._connections, connection, located)
            ended = succession.finish(connection, finishing, JobState.SUCCEEDED, reason, (), now)
            feed.record(self._connections, connection, [*entries, *ended])
            return taken

        return self._connections.retrying(work)

    # --- reading -------------------------------------------------------------------------------------------------------

    def equal(self, sop_instance_uid: str, digest: bytes) -> Stored | None:
        """Return the stored instance with this UID and content, `fresh` false, without attributes; None if there is none.

        The content is what it was when it came: an instance that was cleaned since is found by its digest before that.
        """
        row = self._connections.look_up("equal", _equal_statement, {"uid": sop_instance_uid, "content": digest})
        return None if row is None else stored_of(row, fresh=False)

    def search(self, query: Query, *, include_held: bool = False) -> Iterator[dict[str, str]]:
        """Answer a query, streamed: keyword -> value, several values joined by a backslash.

        An answer holds all attributes of its level and those above that are not empty, always their unique keys, and those
        computed keys that `return_keys` names (all of its own level if `return_keys` is empty). Close the iterator early by
        its `close()`. Raises `InvalidQuery`, naming the keyword, for a key that cannot be matched.
        """
        return search.search(self._connections, query, include_held=include_held)

    def count(self, query: Query, *, include_held: bool = False) -> int:
        """Return how many answers a query has without its limit and offset."""
        return search.count(self._connections, query, include_held=include_held)

    def locate(
        self,
        *,
        patient_ids: Collection[str] = (),
        study_instance_uids: Collection[str] = (),
        series_instance_uids: Collection[str] = (),
        sop_instance_uids: Collection[str] = (),
        include_held: bool = False,
    ) -> list[Stored]:
        """Return the current versions of all instances that are in every given list, attributes filled.

        In the order of studies, then series number, then instance number. No list at all: nothing.
        """
        wanted = [
            self._connections.one_of(column, values)
            for column, values in (
                (t.patient.c.patient_id, patient_ids),
                (t.study.c.study_instance_uid, study_instance_uids),
                (t.series.c.series_instance_uid, series_instance_uids),
                (t.instance.c.sop_instance_uid, sop_instance_uids),
            )
            if values
        ]
        if not wanted:
            return []
        tables = (t.patient, t.study, t.series, t.instance)
        statement = (
            sa.select(*STORED_COLUMNS, *(table.c.attributes.label(f"{table.name}_attributes") for table in tables))
            .select_from(INSTANCES.join(t.patient))
            .where(*wanted, *search.visible(include_held))
            .order_by(*search.ORDER)
        )
        width = len(STORED_COLUMNS)
        located = []
        with self._connections.read() as connection:
            for row in connection.execute(statement):
                patient, study, series, instance = row[width:]
                located.append(stored_of(row, fresh=False, attributes={**patient, **study, **series, **instance}))
        return located

    # --- completion ----------------------------------------------------------------------------------------------------

    def settled(self, now: float, *, settle_s: float, quiet_s: float, study_settle_s: float) -> list[SettledSeries]:
        """Return series and studies at rest whose present generation was not scheduled yet, oldest first.

        A series is at rest `settle_s` after its last instance if every association that brought it has ended, and in any case
        after `quiet_s`. A study is at rest when all its series are, were scheduled, and `study_settle_s` have passed. Series
        made here are never among them. The attributes of a series are the study's and its own, those of its middle image, and
        NumberOfSeriesRelatedInstances; of a study its own, ModalitiesInStudy and both counts.
        """
        return complete.settled(self._connections, now, settle_s=settle_s, quiet_s=quiet_s, study_settle_s=study_settle_s)

    def settled_derived(self) -> list[SettledSeries]:
        """Return series made here whose present generation was not routed yet, oldest first; `scheduled` marks them."""
        return complete.settled_derived(self._connections)

    def scheduled(self, settled: SettledSeries, jobs: Sequence[NewJob]) -> list[str]:
        """Mark this generation as scheduled and insert its jobs, in one transaction; the ids of those whose key is new.

        Older ended or queued jobs of the same rule and processor over the same series become superseded. Nothing happens, and
        the list is empty, where another process scheduled it first.
        """
        return complete.scheduled(self._connections, settled, jobs, self._connections.clock())

    def subjects(
        self, *, since: float = 0.0, study_instance_uid: str = "", series_instance_uid: str = ""
    ) -> Iterator[SettledSeries]:
        """Yield what rules look at as if it had just come to rest: series that arrived since then, each study after its series.

        Of one study or of one series alone where they are named.
        """
        return complete.subjects(
            self._connections,
            since=since,
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
        )

    def study_at_rest(self, study_instance_uid: str) -> bool:
        """Whether a study was scheduled in its present generation."""
        return complete.study_at_rest(self._connections, study_instance_uid)

    def settled_held(
        self, now: float, *, settle_s: float, quiet_s: float, study_settle_s: float, with_study: Collection[str] = ()
    ) -> list[HeldSeries]:
        """Return series at rest that hold instances to be cleaned, for which no job was made yet, oldest first.

        One that holds only what is cleaned `with_study` is due when all that came of the study has been at rest for
        `study_settle_s` and nothing of it is held for anything else.
        """
        return held.settled(
            self._connections, now, settle_s=settle_s, quiet_s=quiet_s, study_settle_s=study_settle_s, with_study=with_study
        )

    def scheduled_held(self, series: HeldSeries, jobs: Sequence[NewJob]) -> list[str]:
        """Mark what a series holds as scheduled and insert the jobs that clean it, as `scheduled` does."""
        return held.scheduled(self._connections, series, jobs, self._connections.clock())

    def stranded(self) -> tuple[int, int]:
        """Return how many instances of how many series are held though no job is there to clean them."""
        return held.stranded(self._connections)

    def pending(self) -> int:
        """Return how many series and studies have yet to come to rest and be scheduled."""
        return complete.pending(self._connections)

    def inputs_digest(self, series_instance_uids: Collection[str]) -> str:
        """Return a digest, in hexadecimal, of what these series hold now: equal contents, equal digest."""
        return complete.inputs_digest(self._connections, series_instance_uids)

    # --- for people ----------------------------------------------------------------------------------------------------

    def studies(self, limit: int | None = None, text: str = "", *, offset: int = 0) -> list[StudySummary]:
        """Return studies, newest first; every word of `text` is in patient name or ID, description, or is a number or UID."""
        return overview.studies(self._connections, limit, text, offset)

    def series_of(self, study_instance_uid: str) -> list[SeriesSummary]:
        """Return the series of a study: those that came, then those made here, by number. Raises `NotFound`."""
        return overview.series_of(self._connections, study_instance_uid)

    def note(self, kind: str, **detail: Any) -> None:
        """Write an event of an audit; `detail` never holds a value of a data set."""
        event = feed.entry(self._connections.clock(), kind, **detail)
        with self._connections.write() as connection:
            feed.record(self._connections, connection, [event])

    def events(self, after: int = 0, limit: int = 100) -> list[Event]:
        """Return events with an id above `after`, oldest first: what a page or a script follows."""
        return feed.after(self._connections, after, limit)

    def summary(self) -> dict[str, Any]:
        """Return counts: patients, studies, series, instances, derived_series, size_bytes, quarantine, and jobs by state."""
        return overview.summary(self._connections)

    def ping(self) -> None:
        """Raise `Unavailable` unless the database answers."""
        with self._connections.read() as connection:
            connection.execute(sa.select(1))
