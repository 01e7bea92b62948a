"""Real ultrasound, angiography and captures: in by the way of all objects, out without a legible word."""

from pathlib import Path

import making
import numpy as np
import pytest
from processing.held_images import cleaned

from pacs.archive import Archive
from pacs.deid import pixels
from pacs.dicom import part10
from pacs.ingest import ingest
from pacs.model.errors import Quarantined
from pacs.model.instance import Origin, Received, Stored
from pacs.processing.clean_pixels import _look
from pacs.processing.cleaners import HeldImage

BURNED = ("us_burned_in_text/GREYSCALE_IMAGE.dcm", "xa_nm_us/ybrFull-RLE.dcm")
TEXT_FREE = ("xa_nm_us/NM1_J2KR", "xa_nm_us/IM00001.fragmented_no_bot_jpeg_baseline.50.dcm")
VIDEO = "video/h264_mp4_xa.dcm"


def take_in(archive: Archive, path: Path) -> Stored:
    """Take one real file in."""
    parts = part10.split(path.read_bytes())
    return ingest(archive, Received(parts.data_set, parts.transfer_syntax_uid, Origin.IMPORT, "import"))


def opened(archive: Archive, stored: Stored) -> HeldImage:
    """What is stored, as a cleaner sees it."""
    header, frames = archive.sealer.open(stored, archive.objects)
    return HeldImage(stored.key.sop_instance_uid, (), header, frames.frames, stored.transfer_syntax_uid, packed=frames.packed)


@pytest.mark.timeout(600)
def test_real_ultrasound_comes_back_without_legible_text(shared_data: Path, tmp_path: Path) -> None:
    """Burned-in names are gone, text-free controls keep every bit, and what cannot be searched is not taken in."""
    with making.archive(tmp_path / "home") as archive:
        burned = [take_in(archive, shared_data / name) for name in BURNED]
        free = [take_in(archive, shared_data / name) for name in TEXT_FREE]
        before = {one.key: opened(archive, one).frames for one in [*burned, *free]}
        with pytest.raises(Quarantined):
            take_in(archive, shared_data / VIDEO)
        assert archive.index.studies() == []

        cleaned(archive)

        now = {
            one.key: one
            for study in archive.index.studies()
            for one in archive.index.locate(study_instance_uids=[study.study_instance_uid])
        }
        assert set(now) == set(before)
        for stored in burned:
            image = opened(archive, now[stored.key])
            look = _look(image)
            assert len(pixels.find(before[stored.key][0], look)) > 10, "there was a lot to read"
            assert pixels.find(image.frames[0], look) == []
            assert image.header.BurnedInAnnotation == "NO"
        for stored in free:
            image = opened(archive, now[stored.key])
            assert image.transfer_syntax_uid == stored.transfer_syntax_uid
            for one, other in zip(before[stored.key], image.frames, strict=True):
                assert np.array_equal(one, other)
