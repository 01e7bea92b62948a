"""Instances on their way into the index, and how a row becomes a `Stored` again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pacs.index import tables as t
from pacs.index.attributes import split
from pacs.model.instance import Arrival, IndexEntry, InstanceKey, Location, Origin, Stored
from pacs.model.query import Level

Values = dict[str, Any]
SeriesKey = tuple[str, str]


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
    def series_key(self) -> SeriesKey:
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
