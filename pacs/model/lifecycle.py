"""What the life of a study is judged by: when it came, what it says of itself, and what is said of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

PROTECTED, COMMITTED = "protected", "committed"
"""Labels with a meaning of their own: kept by somebody's word, and by storage commitment (PS3.4 Annex J)."""


@dataclass(frozen=True, slots=True)
class LivingStudy:
    """One study as retention rules see it; UIDs and attributes are the archive's own (de-identified).

    `arrived_at` is when the last instance that was sent came. `series` holds for each series that was sent (for every series
    where all were made here) the attributes of patient, study and series.
    """

    study_instance_uid: str
    study_date: str
    arrived_at: float
    size_bytes: int
    series: tuple[Mapping[str, str], ...] = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    """Label -> why."""
