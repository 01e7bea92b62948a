"""The stages of an instance on its way in, one frozen type each: Received ▶ Deidentified ▶ Encoded ▶ Sealed ▶ Stored.

Each stage has one maker (see ARCHITECTURE.md) and the next accepts nothing else, so that a store that takes `Sealed`
cannot hold plaintext. Nothing here does I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from pacs.model.bulk import Buffer as Buffer
from pacs.model.bulk import Bulk, Content
from pacs.model.identity import Taken
from pacs.model.job import MadeBy


class Origin(StrEnum):
    """Through which door an instance came."""

    STORAGE_SCU = "storage-scu"
    STOW = "stow"
    IMPORT = "import"
    PROCESSOR = "processor"


@dataclass(frozen=True, slots=True)
class Received:
    """One composite instance as it came; it may identify a patient.

    `sop_class_uid` and `sop_instance_uid` are what the C-STORE command or the File Meta Information said ("" if nothing did).
    `association` names the association, request, import run or job that brought it; completion is reckoned by it.
    `made_by` is the job, of a result. A large data set is not in memory: it is a `Bulk`, whose owner is the door that made it.
    """

    data_set: Content = field(repr=False)
    transfer_syntax_uid: str
    origin: Origin
    source: str = field(repr=False)
    sop_class_uid: str = ""
    sop_instance_uid: str = field(default="", repr=False)
    association: str = ""
    made_by: MadeBy | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class InstanceKey:
    """The three UIDs that place an instance; always the archive's own (pseudonymous) ones."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a data set, still encoded, Explicit VR Little Endian.

    `value` is the value field: for SQ the encoded items up to but without the sequence delimiter; for encapsulated Pixel Data
    the item stream (offset table and fragments) without its sequence delimiter. `encoded` is header, value and delimiter as
    they go on the wire. Both are slices of a received buffer, or bytes of our own.
    """

    tag: int
    vr: str
    value: Buffer = field(repr=False)
    encoded: Buffer = field(repr=False)
    undefined_length: bool = False


@dataclass(frozen=True, slots=True)
class BulkElement(Element):
    """Pixel Data that is too large for memory: `bulk` is what `value` would be, `value` and `encoded` are empty."""

    bulk: Bulk = field(kw_only=True, repr=False)


@dataclass(frozen=True, slots=True)
class Deidentified:
    """A data set without identity. Made only in `deid`.

    `elements` are top-level elements in tag order, Explicit VR Little Endian, Pixel Data among them.
    `transfer_syntax_uid` says how Pixel Data is encoded: Explicit VR Little Endian, or the compressed syntax it came in.
    `methods` are the codes of (0012,0064), CID 7050, for what was really done. `pending` names what must still be cleaned
    before anybody may see it ("pixels", "faces", "shapes"), in that order: the instance is stored, and held.
    `report` counts what happened to its elements; it holds no value.
    """

    key: InstanceKey
    sop_class_uid: str
    elements: tuple[Element, ...] = field(repr=False)
    transfer_syntax_uid: str
    methods: tuple[str, ...]
    policy: str
    pending: tuple[str, ...] = ()
    report: Mapping[str, int] = field(default_factory=dict)
    taken: Taken | None = field(default=None, repr=False)
    """What was taken away, for the vault alone; the codec never looks at it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A de-identified data set in the archive's transfer syntax. Made only in `codec`.

    `header` is the data set without Pixel Data (7FE0,0010), Explicit VR Little Endian. `frames` are one code stream (or one
    native frame) each, unpadded; where frames do not end on a byte (1-bit pixels) or cannot be told apart, all of Pixel Data
    is the one element of `frames` and `packed` is true. No Pixel Data: no frames. `pixel_vr` is OB or OW for native frames.
    Those of a large object are `LazyFrames`; packed, they are the consecutive pieces of its one item.
    `attributes` are what queries are answered from: keyword -> value, several values joined by a backslash.
    `digest` is SHA-256 over the de-identified content before compression: equal resend or conflict?
    `frame_bits` are the bits of one native frame where `packed` is true and they are known, else 0.
    `repeatable` says that `digest` can be computed again from header and frames (not where fragments were joined).
    `deferred` says that the frames are native for now, and to be compressed later.
    """

    key: InstanceKey
    sop_class_uid: str
    header: Buffer = field(repr=False)
    frames: Sequence[Buffer] = field(repr=False)
    transfer_syntax_uid: str
    attributes: Mapping[str, str] = field(repr=False)
    digest: bytes
    number_of_frames: int = 1
    packed: bool = False
    pixel_vr: str = "OB"
    frame_bits: int = 0
    repeatable: bool = False
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """Pixel Data as the archive keeps it; see `Encoded` for `frames`, `packed` and `pixel_vr`."""

    frames: Sequence[Buffer] = field(repr=False)
    number_of_frames: int = 1
    packed: bool = False
    pixel_vr: str = "OB"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What a record says of itself: enough to write its index rows again; see `Arrival` and `Encoded`.

    `at` is when it was sealed (0 where the record does not say).
    """

    object_id: UUID
    study_key_id: int
    key: InstanceKey
    sop_class_uid: str
    transfer_syntax_uid: str
    digest: bytes
    number_of_frames: int
    origin: Origin
    policy: str
    attributes: Mapping[str, str] = field(repr=False)
    pending: tuple[str, ...] = ()
    received_digest: bytes | None = None
    report: Mapping[str, int] = field(default_factory=dict)
    repeatable: bool = False
    deferred: bool = False
    source: str = field(default="", repr=False)
    at: float = 0.0
    made_by: MadeBy | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted, self-describing record (docs/format.md). Made only in `store`.

    `record` are the buffers to write one after another; those of a large record are sealed while they are asked for.
    """

    object_id: UUID
    study_key_id: int
    key: InstanceKey
    record: Iterable[Buffer] = field(repr=False)
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Location:
    """Where a record lies: a segment (or bucket key), and the bytes within it."""

    container: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """An instance ready to be committed: what the store and the index need, together.

    `pending` as in `Deidentified`. `received_digest` is the digest it had before it was cleaned, None if it was not.
    `location` is where its record lies where it was put already, alone.
    """

    encoded: Encoded
    sealed: Sealed
    origin: Origin
    source: str = field(repr=False)
    association: str
    policy: str
    pending: tuple[str, ...] = ()
    received_digest: bytes | None = None
    report: Mapping[str, int] = field(default_factory=dict)
    taken: Taken | None = field(default=None, repr=False)
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A committed instance. Made only in `index`.

    `fresh` is false where an equal instance had been there already: nothing new was kept, and no job is due.
    `version` is 1, or more after a conflict. `pending` as in `Deidentified`: not empty while it is held.
    """

    key: InstanceKey
    sop_class_uid: str
    transfer_syntax_uid: str
    location: Location
    study_key_id: int
    digest: bytes
    number_of_frames: int = 1
    version: int = 1
    fresh: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict, repr=False)
    pending: tuple[str, ...] = ()
    received_digest: bytes | None = None
    origin: Origin = Origin.STORAGE_SCU
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How a held instance came out of cleaning; what is written in the transaction that ends its job.

    `arrival` is the record that takes the place of the held one, at `location`; its `pending` is what remains to be done.
    Without an arrival it could not be made safe: it lies in quarantine for `reason` and leaves the index.
    """

    held: Stored
    arrival: Arrival | None = None
    location: Location | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SealedRegion:
    """Where the face lies in a frame of reference of a study, as one of its series told; sealed (`pacs.store.notes`).

    `place` names study, frame of reference and series.
    """

    place: str
    study_instance_uid: str
    frame_of_reference_uid: str
    key_id: str
    sealed: bytes = field(repr=False)
