"""Rows of the index that name patients, and so are sealed under the identity key's secret: what they are and are bound to."""

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a sealed row is. The value is part of what is authenticated: it never changes."""

    WORKLIST = "mini-pacs note worklist "
    PERFORMED = "mini-pacs note performed step "
    WORKITEM = "mini-pacs note workitem "
    COMMITMENT = "mini-pacs storage commitment"
    FACE_REGION = "mini-pacs note face region "


@dataclass(frozen=True, slots=True)
class SealedRow:
    """One row: `row_id` finds it, `bound_to` is bound to its content beside its kind (the row itself, or who asked)."""

    kind: Kind
    row_id: str | int
    bound_to: str
    key_id: str
    sealed: bytes = field(repr=False)
