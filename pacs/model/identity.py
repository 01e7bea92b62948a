"""What de-identification took from an instance, on its way to the identity vault; and what the vault finds again."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pacs.model.query import Level


@dataclass(frozen=True, slots=True)
class Taken:
    """The identity of one instance: it lives in memory and, sealed, in the vault; nowhere else.

    `levels` holds for each level tag -> the original element, encoded (Explicit VR Little Endian), of what was removed or
    changed, and b"" where de-identification added an element. `names` are what somebody may look for: (level, kind, value),
    kind one of "patient" (ID and issuer), "id", "name", "accession", "uid". `patient_id` is the pseudonym.
    """

    patient_id: str
    levels: Mapping[Level, Mapping[int, bytes]] = field(repr=False)
    names: tuple[tuple[Level, str, str], ...] = field(repr=False)
    left_out: int = 0
    """Elements that are too large to be kept, and private ones: they cannot be restored."""


@dataclass(frozen=True, slots=True)
class Found:
    """A patient, study, series or instance of the archive that the vault knows, under its pseudonyms."""

    level: Level
    patient_id: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
