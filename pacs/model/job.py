"""A piece of processing work, and the states it passes through."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SEND = "send"
"""The queue of sends to peers: they wait for others, so they have a lane of their own."""


def sending_to(ae_title: str) -> str:
    """Return the processor of the jobs that send to a peer: jobs to two peers do not supersede each other."""
    return f"{SEND}:{ae_title}"


class JobState(StrEnum):
    """queued ▶ running ▶ one of the ends.

    `superseded` is a finished job for which there is a newer one; the results of one that is `recalled` are hidden.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    RECALLED = "recalled"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be made; `job_key` makes it unique: the digest of processor, version, parameters and input digests.

    `subject` is the series a rule looked at, "" where it was a study; `step` tells several uses of a processor in one rule
    apart; `parents` are the jobs whose results it follows; of `priority` 1 is first and 9 last.
    """

    job_key: str
    processor: str
    version: str
    parameters: Mapping[str, Any]
    rule: str
    queue: str
    study_instance_uid: str
    series_instance_uids: tuple[str, ...]
    completion: str
    rule_digest: str = ""
    step: str = ""
    subject: str = ""
    priority: int = 5
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the table has it. `progress` is 0.0 to 1.0, `note` what it is doing; times are seconds since the epoch, UTC.

    `due_at` is when it may begin, or be tried again, where it is queued.
    """

    job_id: str
    job_key: str
    processor: str
    version: str
    parameters: Mapping[str, Any]
    rule: str
    queue: str
    state: JobState
    reason: str
    completion: str
    attempt: int
    progress: float
    study_instance_uid: str
    series_instance_uids: tuple[str, ...]
    output_series_instance_uids: tuple[str, ...] = ()
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    note: str = ""
    rule_digest: str = ""
    step: str = ""
    subject: str = ""
    priority: int = 5
    due_at: float = 0.0


@dataclass(frozen=True, slots=True)
class MadeBy:
    """Which job made a result, of what and how: what is sealed with the result, so that the job can be listed again."""

    job_id: str
    job_key: str
    processor: str
    version: str
    rule: str
    rule_digest: str
    step: str
    subject: str
    parameters: Mapping[str, Any]
    inputs: tuple[str, ...]

    @classmethod
    def of(cls, job: Job) -> "MadeBy":
        """Take it from a job."""
        return cls(
            job_id=job.job_id,
            job_key=job.job_key,
            processor=job.processor,
            version=job.version,
            rule=job.rule,
            rule_digest=job.rule_digest,
            step=job.step,
            subject=job.subject,
            parameters=dict(job.parameters),
            inputs=job.series_instance_uids,
        )


@dataclass(frozen=True, slots=True)
class Made:
    """A result that was found among the records: its series, the job, and when it was sealed."""

    study_instance_uid: str
    series_instance_uid: str
    by: MadeBy
    at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to finish a job: valid while `owner` still holds the lease, so that a zombie commits nothing."""

    job_id: str
    owner: str


@dataclass(frozen=True, slots=True)
class RuleVersion:
    """A rule as it was in force from `since` until `until` (None: it still is)."""

    digest: str
    name: str
    definition: Mapping[str, Any]
    since: float
    until: float | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class Recall:
    """A version of a processor whose results are hidden, until `ended_at`."""

    recall_id: int
    processor: str
    version: str
    reason: str
    at: float
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class SettledSeries:
    """A series (or, with `series_instance_uid` empty, a study) that has come to rest, and how we know."""

    study_instance_uid: str
    series_instance_uid: str
    generation: int
    completion: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeldSeries:
    """A series at rest that holds instances to be cleaned: of what, and of which held generation."""

    study_instance_uid: str
    series_instance_uid: str
    generation: int
    pending: tuple[str, ...]
    completion: str
