"""What cleaners found of a face's place, sealed for the index and opened for the next cleaner; never in the clear on a disk."""

from collections.abc import Mapping

from pacs.model.instance import SealedRegion
from pacs.model.job import Job
from pacs.model.sealed import Kind
from pacs.store.notes import Notes


def sealed(notes: Notes, job: Job, found: Mapping[str, bytes]) -> list[SealedRegion]:
    """Return what the job of one series found, by frame of reference."""
    study, (series,) = job.study_instance_uid, job.series_instance_uids
    places = {f"{study} {frame} {series}": frame for frame in sorted(found)}
    return [
        SealedRegion(place, study, frame, *notes.seal(Kind.FACE_REGION, place, found[frame])) for place, frame in places.items()
    ]


def opened(notes: Notes, one: SealedRegion) -> bytes:
    """Return what was sealed. Raises `ConfigurationError` where its key is not here, or it belongs elsewhere."""
    return notes.open(Kind.FACE_REGION, one.place, one.key_id, one.sealed)
