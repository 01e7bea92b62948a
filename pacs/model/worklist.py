"""A worklist item as the index keeps it: sealed, because it names a patient."""

from dataclasses import dataclass, field

STATES = ("scheduled", "started", "completed", "discontinued")
"""What has become of a Scheduled Procedure Step; the last two are no longer offered."""


@dataclass(frozen=True, slots=True)
class WorklistRow:
    """One item; `added_at` is in seconds since the epoch, UTC."""

    item_id: str
    state: str
    key_id: str
    sealed: bytes = field(repr=False)
    added_at: float
