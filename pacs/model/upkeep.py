"""What looking after the archive works with: rows of records, findings, versions, and what was forgotten."""

from dataclasses import dataclass, field

from pacs.model.instance import Location, Stored

RECORD, GIVEN_UP, DAMAGE = "record", "given up", "damage"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a container that is not zero: a complete record, one that was given up, or bytes that are neither.

    `record` is filled for complete records only.
    """

    kind: str
    location: Location
    record: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """What there is to say of a container without reading it.

    `newest` is the last one of its writer: somebody may be writing it. `changed_at` is when it was last written.
    """

    container: str
    size_bytes: int
    changed_at: float
    newest: bool


@dataclass(frozen=True, slots=True)
class RecordRow:
    """One row of the index about one record, whatever its version and state."""

    pk: int
    stored: Stored
    current: bool
    state: str
    verified_at: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    `kind` is one of: missing, corrupt, unreadable_key, index_mismatch, orphan, damaged, quarantine, copy (the bucket's, of a
    segment that is here as well), unreachable (the bucket is away). `sop_instance_uid` is empty where nobody can say whose
    bytes they are.
    """

    kind: str
    detail: str
    sop_instance_uid: str = ""
    container: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One of several contents that came under one SOP Instance UID."""

    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    version: int
    current: bool
    stored_at: float
    source: str = field(repr=False)
    transfer_syntax_uid: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Belongings:
    """What the archive holds of one study, derived objects and all versions counted."""

    study_instance_uid: str
    patient_id: str = field(repr=False)
    series: int
    instances: int
    derived_instances: int
    versions: int
    size_bytes: int
    jobs: int
