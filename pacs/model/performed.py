"""A performed procedure step and a notification of availability, as the index keeps them."""

from dataclasses import dataclass, field

IN_PROGRESS, COMPLETED, DISCONTINUED = "in progress", "completed", "discontinued"


@dataclass(frozen=True, slots=True)
class PerformedRow:
    """One step under its pseudonymous UID; what it says is sealed. `revision` grows with every change."""

    step_uid: str
    state: str
    revision: int
    ae_title: str
    study_instance_uid: str
    key_id: str
    sealed: bytes = field(repr=False)
    created_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Notification:
    """That instances of a study are available, to be told to a peer. `state` is "waiting", "sent" or "given up".

    `series` are Series Instance UIDs joined by a backslash; "" for the whole study.
    """

    notification_id: int
    ae_title: str
    sop_instance_uid: str
    study_instance_uid: str
    series: str
    state: str
    made_at: float
    due_at: float
    attempts: int
