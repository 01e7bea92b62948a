"""What tests of held images share: an archive's scheduler and worker, called by hand."""

import making
import numpy as np
from pydicom.dataset import Dataset

from pacs.archive import Archive
from pacs.model.job import Job
from pacs.processing.runner import run_job
from pacs.processing.schedule import Scheduler
from pacs.settings import ProcessingSettings

ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"


class Bell:
    """A queue that remembers whom it rang for."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, job_id: str, queue: str) -> None:
        self.rung.append(job_id)


def scheduled(archive: Archive) -> list[str]:
    """Let the scheduler see what is at rest; returns the jobs that it rang for."""
    bell = Bell()
    settings = ProcessingSettings(settle_s=0.0, quiet_s=0.0, study_settle_s=0.0)
    Scheduler(archive.index, {}, [], bell, settings).tick()
    return bell.rung


def cleaned(archive: Archive) -> list[Job]:
    """Run every cleaning job there is; returns them as they ended."""
    ended = []
    for job_id in scheduled(archive):
        run_job(archive, {}, job_id, worker="test")
        ended.append(archive.index.jobs.get(job_id))
    return ended


def ultrasound(frame: np.ndarray, **overrides: object) -> Dataset:
    """An ultrasound image of 8 bits, grey or RGB, that says nothing of text in it."""
    colour = frame.ndim == 3
    ds = making.dataset(
        frame=frame[..., 0] if colour else frame,
        **{
            "SOPClassUID": ULTRASOUND,
            "Modality": "US",
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
            "ImageType": ["ORIGINAL", "PRIMARY"],
            **({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0} if colour else {}),
            **overrides,
        },
    )
    ds.add_new(0x7FE00010, "OB", frame.tobytes())
    return ds
