"""What tests of held heads share: images in, scheduler and worker by hand, and what a door hands out afterwards."""

from collections.abc import Iterable
from io import BytesIO

import making
from processing.held_images import cleaned
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.job import Job
from pacs.retrieve import data_set

EXPLICIT = "1.2.840.10008.1.2.1"


def send(archive: Archive, images: Iterable[Dataset], association: str = "a1") -> None:
    """Bring images in, and end their association."""
    for one in images:
        ingest(archive, making.received(one, association=association))
    archive.index.end_association(association)


def clean(archive: Archive) -> list[Job]:
    """Do what scheduler and worker do, until nothing is left to be done."""
    jobs: list[Job] = []
    while more := cleaned(archive):
        jobs += more
    return jobs


def visible(archive: Archive, sop_class_uid: str = "") -> list[Dataset]:
    """Return what a door would hand out, of one class or of all, in slice order."""
    studies = [study.study_instance_uid for study in archive.index.studies()]
    out = []
    for one in archive.index.locate(study_instance_uids=studies):
        if sop_class_uid in ("", one.sop_class_uid):
            buffers = data_set(archive, one, [EXPLICIT]).buffers
            ds = dcmread(BytesIO(b"".join(bytes(part) for part in buffers)), force=True)
            ds.file_meta.TransferSyntaxUID = EXPLICIT
            out.append(ds)
    return sorted(out, key=lambda ds: int(ds.InstanceNumber))


def methods(ds: Dataset) -> set[str]:
    """Return the codes of what was done to it."""
    return {item.CodeValue for item in ds.DeidentificationMethodCodeSequence}


def reasons(archive: Archive) -> list[str]:
    """Return why what is in quarantine is there."""
    return [one.reason for one in archive.index.quarantine.list()]
