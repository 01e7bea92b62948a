"""Held images through the running parts: ingest, scheduler, worker, isolated process, store and index."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imagecodecs
import making
import numpy as np
import pytest
from deid.lettering import NAME, speckle, written
from processing.held_images import cleaned, scheduled, ultrasound
from pydicom.encaps import encapsulate

from pacs.archive import Archive
from pacs.codec import decode
from pacs.codec.image import describe
from pacs.deid import pixels
from pacs.dicom.elements import walk
from pacs.index.database import Index
from pacs.ingest import ingest, release
from pacs.model.errors import Quarantined, Unavailable
from pacs.model.instance import Origin, Stored
from pacs.model.job import JobState
from pacs.model.query import Level, Query
from pacs.processing.runner import run_job
from pacs.retrieve import data_set, header
from pacs.sweep import recover

JPEG = "1.2.840.10008.1.2.4.50"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with making.archive(tmp_path / "home") as opened:
        yield opened


def shown(archive: Archive) -> list[Stored]:
    """What any door would find of the phantom's study."""
    studies = [one.study_instance_uid for one in archive.index.studies()]
    return archive.index.locate(study_instance_uids=studies)


def frame_of(archive: Archive, stored: Stored) -> np.ndarray:
    """The first frame, decoded."""
    head, frames = archive.sealer.open(stored, archive.objects)
    about = describe({one.tag: one for one in walk(head)})
    if stored.transfer_syntax_uid == "1.2.840.10008.1.2.1":
        return decode.native_frame(frames.frames[0], about)
    return decode.decoded(frames.frames[0], about, stored.transfer_syntax_uid)[0]


def test_an_ultrasound_image_becomes_visible_only_when_its_text_is_gone(archive: Archive) -> None:
    """Held it is durable and in no search, count or retrieval; cleaned it is shown, says so, and can be read by nobody."""
    colour = np.stack([speckle()] * 3, axis=-1)
    burned = written(colour, value=(255, 255, 0), size=16)
    stored = ingest(archive, making.received(ultrasound(burned)))
    archive.index.end_association("a1")

    assert stored.pending == ("pixels",)
    assert not shown(archive) and not archive.index.studies()
    for level in (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE):
        assert archive.index.count(Query(level=level, matches={})) == 0
    assert archive.index.summary()["instances"] == 0
    assert archive.index.pending() > 0

    (job,) = cleaned(archive)

    assert (job.processor, job.state, job.reason) == ("clean-pixels", JobState.SUCCEEDED, "1 clean")
    (now,) = shown(archive)
    after = frame_of(archive, now)
    assert pixels.find(after, pixels.Look("RGB"), least=0.3) == []
    changed = (after != burned).any(axis=2)
    assert changed[30:55].any() and np.array_equal(after[80:], burned[80:])
    elements = {one.tag: bytes(one.value) for one in walk(header(archive, now))}
    assert elements[0x00280301] == b"NO" and b"113101" in elements[0x00120064]
    assert NAME.encode() not in b"".join(elements.values())


def test_trap_52_a_text_free_image_keeps_every_bit(archive: Archive) -> None:
    """Its frames stay as they are stored, lossy ones too; only the markers say that it was searched."""
    frame = speckle()
    stream = imagecodecs.jpeg8_encode(frame, level=85)
    lossy = ultrasound(frame, LossyImageCompression="01")
    lossy.add_new(0x7FE00010, "OB", encapsulate([stream]))
    lossy["PixelData"].is_undefined_length = True
    held = ingest(archive, making.received(lossy, JPEG))
    before = archive.sealer.open(held, archive.objects)[1]

    (job,) = cleaned(archive)

    assert job.reason == "1 clean"
    (now,) = shown(archive)
    assert (now.transfer_syntax_uid, archive.sealer.open(now, archive.objects)[1]) == (JPEG, before)
    assert b"113101" in header(archive, now)


def test_trap_42_a_lossy_image_with_text_is_kept_without_loss_and_says_that_it_was_lossy(archive: Archive) -> None:
    """Decoded, blanked, and never compressed with loss again."""
    stream = imagecodecs.jpeg8_encode(written(speckle(), value=255, size=18), level=95)
    ds = ultrasound(speckle())
    ds.add_new(0x7FE00010, "OB", encapsulate([stream]))
    ds["PixelData"].is_undefined_length = True
    ingest(archive, making.received(ds, JPEG))

    cleaned(archive)

    (now,) = shown(archive)
    after, decoded = frame_of(archive, now), imagecodecs.jpeg8_decode(stream)
    assert now.transfer_syntax_uid not in (JPEG, "1.2.840.10008.1.2.4.51")
    assert pixels.find(after, pixels.Look("MONOCHROME2"), least=0.3) == []
    assert np.array_equal(after[80:], decoded[80:])
    assert {one.tag: bytes(one.value) for one in walk(header(archive, now))}[0x00282110] == b"01"


def test_trap_66_an_equal_resend_of_a_cleaned_image_changes_nothing(archive: Archive) -> None:
    """Held or cleaned: success, nothing written, and no further job."""
    received = making.received(ultrasound(written(speckle(), value=255)))
    first = ingest(archive, received)
    while_held = ingest(archive, received)
    cleaned(archive)
    (clean,) = shown(archive)

    again = ingest(archive, received)

    assert (first.fresh, while_held.fresh, again.fresh) == (True, False, False)
    assert again.location == clean.location
    assert [one.key for one in shown(archive)] == [first.key]
    assert scheduled(archive) == []


def test_what_cannot_be_decoded_goes_to_quarantine_and_out_of_the_index(archive: Archive) -> None:
    """With an event and a reason; the same sent again is held and judged again."""
    ds = ultrasound(speckle())
    ds.Columns = 300  # the code stream holds an image of another size
    ds.add_new(0x7FE00010, "OB", encapsulate([imagecodecs.jpeg8_encode(speckle(), level=85)]))
    ds["PixelData"].is_undefined_length = True
    received = making.received(ds, JPEG)
    for times in (1, 2):
        assert ingest(archive, received).fresh

        (job,) = cleaned(archive)

        assert job.reason == "0 clean, 1 to quarantine"
        assert not shown(archive)
        assert len(archive.index.quarantine.list()) == times
    (event, _) = (one for one in archive.index.events(limit=1000) if one.kind == "instance_withdrawn")
    assert "cannot be decoded" in event.detail["reason"]
    assert "cannot be decoded" in archive.index.quarantine.list()[0].reason


def test_what_a_job_was_in_doubt_about_is_let_in_on_somebodys_word(archive: Archive) -> None:
    """With a reason and under no other policy; as it is, with nothing claimed of its pixels, and not as a result."""
    ds = ultrasound(speckle())
    ds.Columns = 300
    ds.add_new(0x7FE00010, "OB", encapsulate([imagecodecs.jpeg8_encode(speckle(), level=85)]))
    ds["PixelData"].is_undefined_length = True
    held = ingest(archive, making.received(ds, JPEG))
    cleaned(archive)
    (row,) = archive.index.quarantine.list()

    for policy, reason in (("", ""), ("", "  "), ("basic", "seen")):
        with pytest.raises(Quarantined):
            release(archive, row.quarantine_id, policy, reason=reason)
    assert archive.index.quarantine.list() and not shown(archive)
    released = release(archive, row.quarantine_id, reason="an empty frame, looked at on the scanner")

    (now,) = shown(archive)
    assert now.key == held.key == released.key and now.pending == ()
    assert b"113101" not in header(archive, now) and now.origin is not Origin.PROCESSOR
    assert archive.index.quarantine.list() == []


def test_images_whose_cleaning_failed_for_good_are_counted(archive: Archive) -> None:
    """Held with a job that waits or runs is no alarm; held with a failed one is, until it runs again."""
    ingest(archive, making.received(ultrasound(speckle())))
    assert archive.index.stranded() == (0, 0)
    (job_id,) = scheduled(archive)
    assert archive.index.stranded() == (0, 0)

    archive.index.jobs.cancel(job_id)
    assert archive.index.stranded() == (1, 1)

    archive.index.jobs.again(job_id)
    assert archive.index.stranded() == (0, 0)
    run_job(archive, {}, job_id, worker="test")
    assert archive.index.stranded() == (0, 0) and len(shown(archive)) == 1


def test_a_series_is_given_to_rules_only_when_nothing_of_it_is_held(archive: Archive) -> None:
    """One plain slice and one that declares text, in one series: the rules see both, at once, when both are clean."""
    ingest(archive, making.received(making.dataset(instance=1)))
    ingest(archive, making.received(making.dataset(instance=2, BurnedInAnnotation="YES")))
    rest = {"settle_s": 0.0, "quiet_s": 0.0, "study_settle_s": 0.0}

    assert not archive.index.settled(2e9, **rest)
    (job,) = cleaned(archive)

    assert job.reason == "1 clean"
    (series,) = (one for one in archive.index.settled(2e9, **rest) if one.series_instance_uid)
    assert series.attributes["NumberOfSeriesRelatedInstances"] == "2"


def test_a_cleaner_that_takes_too_long_leaves_nothing_visible(archive: Archive) -> None:
    """Its time is up: the image goes to quarantine, and never out."""
    hasty = replace(archive, settings=making.settings(archive.settings.home, processing__timeout_s=0.2))
    ingest(archive, making.received(ultrasound(written(speckle(), value=255))))
    (job_id,) = scheduled(archive)

    run_job(hasty, {}, job_id, worker="test")

    assert archive.index.jobs.get(job_id).reason == "0 clean, 1 to quarantine"
    assert not shown(archive)


def test_a_crash_between_the_new_record_and_its_row_leaves_the_image_held(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaying finds the new record, doubles nothing and shows nothing; the next attempt cleans it."""
    ingest(archive, making.received(ultrasound(written(speckle(), value=255))))
    (job_id,) = scheduled(archive)

    def breaks(*_: object, **__: object) -> list[bool]:
        raise Unavailable("the connection broke")

    with monkeypatch.context() as broken:
        broken.setattr(Index, "cleaned", breaks)
        assert run_job(archive, {}, job_id, worker="test") is JobState.QUEUED
    assert recover(archive) == 0
    assert not shown(archive)

    archive.index.jobs.cancel(job_id)
    archive.index.jobs.again(job_id)
    assert run_job(archive, {}, job_id, worker="test") is JobState.SUCCEEDED

    assert len(shown(archive)) == 1


def test_a_held_record_says_so_itself(archive: Archive) -> None:
    """An index that is written anew from the records holds it again; a cleaned record is not held."""
    held = ingest(archive, making.received(ultrasound(written(speckle(), value=255))))
    entry = archive.sealer.open_entry(archive.objects.get(held.location))
    assert entry.pending == ("pixels",)

    cleaned(archive)
    (now,) = shown(archive)

    entry = archive.sealer.open_entry(archive.objects.get(now.location))
    assert (entry.pending, entry.received_digest) == ((), held.digest)
    assert data_set(archive, now).size_bytes > 0


def test_a_plain_slice_is_never_held(archive: Archive) -> None:
    """CT, MR and PET are visible at once: nobody reads them for text."""
    assert ingest(archive, making.received(making.dataset())).pending == ()
    assert len(shown(archive)) == 1
