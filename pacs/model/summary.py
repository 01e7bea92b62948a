"""What people see of a study or a series in a list."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study in a list. All values are the de-identified ones; `instances` counts what is visible."""

    study_instance_uid: str
    patient_id: str = field(repr=False)
    patient_name: str = field(repr=False)
    study_date: str
    study_time: str
    study_description: str = field(repr=False)
    accession_number: str = field(repr=False)
    modalities: tuple[str, ...]
    series: int
    instances: int
    derived_series: int
    last_arrival: float


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """A series in a list.

    `derived` series were made here: `processor`, `version` and `job_id` say by what, `source_series_instance_uids` from what.
    `completion` says how we know that the series is complete ("" while it is not). `thumbnail_sop_instance_uid` is the
    instance in the middle.
    """

    series_instance_uid: str
    modality: str
    number: int | None
    description: str = field(repr=False)
    body_part: str
    instances: int
    size_bytes: int
    derived: bool
    processor: str
    version: str
    job_id: str
    source_series_instance_uids: tuple[str, ...]
    sop_class_uids: tuple[str, ...]
    thumbnail_sop_instance_uid: str
    completion: str
    last_arrival: float


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """An object in quarantine: why it is there, and nothing of what is in it."""

    quarantine_id: str
    kind: str
    reason: str
    origin: str
    size_bytes: int
    at: float


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An API token: its name and when it was last used; the secret itself is not kept."""

    name: str
    created_at: float
    last_used_at: float | None
    identity: str = "pseudonym"
