"""A job as a Unified Procedure Step: its states, what can go wrong when somebody steers it, and who follows it."""

from dataclasses import dataclass, field
from enum import StrEnum

from pacs.model.errors import Refused

SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"
"""Procedure Step State (0074,1000), PS3.4 CC.1.1."""


class Problem(StrEnum):
    """Why a workitem does not do what it is told; each has a status of its own (PS3.4 CC.2.1 to CC.2.6)."""

    NO_LONGER_UPDATABLE = "the workitem has ended and may no longer be updated"
    WRONG_TRANSACTION = "the correct Transaction UID was not provided"
    ALREADY_IN_PROGRESS = "the workitem is already in progress"
    ONLY_SCHEDULED_BY_CREATE = "a workitem becomes SCHEDULED by its creation only"
    NOT_FINAL = "the workitem has not yet met the requirements of its final state"
    UNKNOWN = "there is no such workitem here"
    UNKNOWN_RECEIVER = "the receiving AE title is no configured peer"
    NOT_SCHEDULED = "a workitem is created in the state SCHEDULED"
    NOT_IN_PROGRESS = "the workitem is not yet in progress"
    ALREADY_COMPLETED = "the workitem is already completed"
    NOT_APPROPRIATE = "this cannot be asked of this instance"


class Notice(StrEnum):
    """What was done, with a remark."""

    MODIFIED = "the workitem was created with modifications"
    WAS_CANCELED = "the workitem is already in the requested state of CANCELED"
    WAS_COMPLETED = "the workitem is already in the requested state of COMPLETED"


class WorkitemRefused(Refused):
    """A workitem that does not do what it is told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.value)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class WorkitemRow:
    """What a job lacks of a workitem, sealed: the UID its creator chose, and its labels."""

    job_id: str
    key_id: str
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subscription:
    """That a peer follows a workitem, or with `job_id` empty all of them; `reported` is the state that it knows.

    `cancel_by` is the AE title that asked for its cancellation since the last report.
    """

    ae_title: str
    job_id: str
    since: float
    reported: str = ""
    progress: float = 0.0
    cancel_by: str = ""
