"""A request to take responsibility for instances (Storage Commitment Push Model, PS3.4 Annex J)."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Commitment:
    """One request, from its N-ACTION until its N-EVENT-REPORT was taken; `request` is sealed, it names original UIDs.

    `state` is "waiting" (to be checked), "checked" (to be reported), "reported" or "given up". `failures` are Failure Reasons
    (0008,1197) by the position of the instance in the request.
    """

    commitment_id: int
    ae_title: str
    transaction_uid: str
    state: str
    request: bytes = field(repr=False)
    key_id: str
    instances: int
    failures: Mapping[int, int]
    received_at: float
    due_at: float
    attempts: int
    ended_at: float | None
