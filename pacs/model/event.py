"""One line of the change feed: what happened, to which study, series or instance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the archive. `event_id` only grows; `detail` never holds a value of a data set.

    Kinds: instance_conflict, instance_quarantined, series_complete, study_complete, job_queued, job_started, job_succeeded,
    job_skipped, job_failed, job_retried, job_cancelled, job_superseded. Audited: identity_found, identity_revealed,
    identity_restored, quarantine_released, quarantine_discarded, dimse_answered (who was answered what, and how often),
    retrieve_answered (who retrieved how much, to where), worklist_shown,
    worklist_changed, peer_added, peer_changed, peer_removed, peer_asked.
    """

    event_id: int
    at: float
    kind: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
