"""Devices that write text at fixed places: what is blanked, what is held, and what a mistake in the table says."""

from pathlib import Path

import making
import numpy as np
import pytest
from deid.deidentifying import deidentifier
from deid.lettering import speckle
from processing.held_images import cleaned, ultrasound

from pacs.archive import Archive
from pacs.codec import decode
from pacs.codec.image import describe
from pacs.deid.devices import devices, rectangles
from pacs.dicom.elements import walk
from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError

ECHO = {"where": {"Manufacturer": "Acme*", "ManufacturerModelName": "Echo 7", "Columns": 160}, "rectangles": [[0, 0, 160, 20]]}


def stored_frame(archive: Archive) -> np.ndarray:
    """The one frame that the archive shows, decoded."""
    (study,) = archive.index.studies()
    (stored,) = archive.index.locate(study_instance_uids=[study.study_instance_uid])
    head, frames = archive.sealer.open(stored, archive.objects)
    about = describe({one.tag: one for one in walk(head)})
    if stored.transfer_syntax_uid == "1.2.840.10008.1.2.1":
        return decode.native_frame(frames.frames[0], about)
    return decode.decoded(frames.frames[0], about, stored.transfer_syntax_uid)[0]


def test_a_known_rectangle_is_blanked_though_nothing_can_be_read_there(tmp_path: Path) -> None:
    """The device's rows are black, every other pixel is as it came, and the header says that it was searched."""
    frame = speckle()[:, :160]
    with making.archive(tmp_path / "home", deid__devices=(ECHO,)) as archive:
        ingest(archive, making.received(ultrasound(frame, Manufacturer="ACME Ltd", ManufacturerModelName="Echo 7")))
        (job,) = cleaned(archive)
        after = stored_frame(archive)

    assert job.reason == "1 clean"
    assert not after[:20].any() and np.array_equal(after[20:], frame[20:])


def test_an_image_of_a_known_device_is_held_whatever_it_says() -> None:
    """A class that is not at risk, and NO in Burned In Annotation; another device's image passes at once."""
    table = devices([{"where": {"Manufacturer": "Acme*"}, "rectangles": [[0, 0, 8, 8]]}])
    one = deidentifier(devices=table)

    known = one.deidentify(making.received(making.dataset(Manufacturer="Acme", BurnedInAnnotation="NO")))
    other = one.deidentify(making.received(making.dataset(Manufacturer="Other", BurnedInAnnotation="NO")))

    assert (known.pending, other.pending) == (("pixels",), ())


def test_every_entry_that_matches_counts() -> None:
    """A device may be in the table more than once; absent attributes match only an empty condition."""
    table = devices([ECHO, {"where": {"Manufacturer": "acme ltd"}, "rectangles": [[1, 2, 3, 4]]}])
    about = {"Manufacturer": "ACME Ltd", "ManufacturerModelName": "Echo 7"}

    assert rectangles(table, about) == ((1, 2, 3, 4),)
    assert rectangles(table, about | {"Columns": "160"}) == ((0, 0, 160, 20), (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"rectangles": [[0, 0, 1, 1]]}, "entry 1: where must be"),
        ({"where": {"StationName": "X"}, "rectangles": [[0, 0, 1, 1]]}, "StationName may be gone"),
        ({"where": {"Rows": ">x"}, "rectangles": [[0, 0, 1, 1]]}, "a comparison is"),
        ({"where": {"Rows": 8}, "rectangles": [[0, 0, 0, 1]]}, "rectangles must be"),
        ({"where": {"Rows": 8}, "rectangles": [[0, 0, 1]]}, "rectangles must be"),
        ({"where": {"Rows": 8}, "boxes": []}, "unknown key boxes"),
    ],
)
def test_a_mistake_stops_the_start(table: dict[str, object], said: str) -> None:
    """The message names the entry and what is wrong."""
    with pytest.raises(ConfigurationError, match=said):
        devices([table])
