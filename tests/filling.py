"""An archive with something of everything: studies, versions, quarantine, and an object that was made here."""

from typing import Any

import making
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from pacs import retrieve
from pacs.archive import Archive
from pacs.ingest import ingest, ingest_derived
from pacs.model.instance import Origin, Received
from pacs.model.query import Level, Query

EXPLICIT = "1.2.840.10008.1.2.1"
OTHER_STUDY = "1.2.826.0.1.3680043.8.498.2002"


def fill(archive: Archive) -> None:
    """Put in two studies, a second content under one UID, an object in quarantine, and one made here."""
    for number in range(1, 5):
        ingest(archive, making.received(making.dataset(instance=number)))
    ingest(archive, making.received(making.dataset(study_uid=OTHER_STUDY, series_uid=f"{OTHER_STUDY}.1")))
    ingest(archive, making.received(making.dataset(instance=2, frame=making.pixels(seed=99))))
    archive.quarantine.keep(making.received(making.dataset(instance=9)), "Quarantined", "for the test")
    ingest_derived(archive, [derived(archive)], finishing=None)
    archive.index.end_association("a1")


def derived(archive: Archive) -> Received:
    """Return an object made here from the first study's first image."""
    study = next(one for one in archive.index.studies() if one.instances >= 4)
    source = archive.index.locate(study_instance_uids=[study.study_instance_uid])[0]
    ds = dcmread(DicomBytesIO(b"".join(bytes(part) for part in retrieve.part10_file(archive, source, [EXPLICIT]))))
    ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SeriesNumber = "2.25.4711", "2.25.4712", 101
    ds.ImageType = ["DERIVED", "SECONDARY"]
    del ds.file_meta
    return making.received(ds, origin=Origin.PROCESSOR, source="test", association="j1")


def answers(archive: Archive) -> dict[str, Any]:
    """Return everything that a door would say, pixels and quarantine included."""
    studies = [one.study_instance_uid for one in archive.index.studies()]
    found: dict[str, Any] = {}
    for level in Level:
        found[level.value] = sorted(str(sorted(one.items())) for one in archive.index.search(Query(level)))
    for stored in archive.index.locate(study_instance_uids=studies):
        found[stored.key.sop_instance_uid] = b"".join(bytes(one) for one in retrieve.part10_file(archive, stored, [EXPLICIT]))
    for row in archive.index.quarantine.list():
        found[row.quarantine_id] = bytes(archive.quarantine.open(row.quarantine_id).data_set)
    found["versions"] = [
        (one.sop_instance_uid, one.version, one.current, one.digest) for one in archive.index.upkeep.versions()
    ]
    summary = archive.index.summary()
    found["summary"] = {name: value for name, value in summary.items() if name != "jobs"}
    return found
