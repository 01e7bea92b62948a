"""What is refused on the way in is kept, encrypted, and what is no instance is left alone."""

from dataclasses import replace
from pathlib import Path

import making
import pytest

from pacs.cli.studies import take
from pacs.ingest import ingest
from pacs.model.errors import DataSetMismatch, NotUnderstood, Quarantined, Refused, SOPClassNotSupported

PRIVATE_CLASS = "1.3.46.670589.11.0.0.12.1"
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ({"SOPClassUID": PRIVATE_CLASS}, SOPClassNotSupported),
        ({"StudyInstanceUID": ""}, DataSetMismatch),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, Quarantined),
    ],
)
def test_what_is_refused_is_in_quarantine(tmp_path: Path, overrides: dict[str, str], kind: type[Refused]) -> None:
    """The right error for the sender, the whole object sealed for us, nothing in the archive."""
    ds = making.dataset(**overrides)
    with making.archive(tmp_path / "home") as archive:
        with pytest.raises(kind):
            ingest(archive, making.received(ds))

        (row,) = archive.index.quarantine.list()
        assert row.kind == kind.__name__ and row.reason
        assert archive.quarantine.open(row.quarantine_id).data_set == making.encode(ds)
        assert archive.index.summary()["instances"] == 0


def test_truncated_bytes_are_in_quarantine(tmp_path: Path) -> None:
    """What cannot be parsed to its end is kept as it came."""
    received = making.received(making.dataset())
    with making.archive(tmp_path / "home") as archive:
        with pytest.raises(NotUnderstood):
            ingest(archive, replace(received, data_set=bytes(received.data_set)[:-100]))

        assert [row.kind for row in archive.index.quarantine.list()] == ["NotUnderstood"]


def test_import_leaves_alone_what_is_no_instance(tmp_path: Path) -> None:
    """A text file and a media directory are neither stored nor kept; a broken DICOM file is kept."""
    (tmp_path / "notes.txt").write_text("nothing to see")
    directory = making.dataset(SOPClassUID=MEDIA_DIRECTORY)
    (tmp_path / "DICOMDIR").write_bytes(making.part10(directory))
    (tmp_path / "private.dcm").write_bytes(making.part10(making.dataset(SOPClassUID=PRIVATE_CLASS)))
    (tmp_path / "good.dcm").write_bytes(making.part10(making.dataset()))
    with making.archive(tmp_path / "home") as archive:
        for name, outcome in {
            "notes.txt": "not_dicom",
            "DICOMDIR": "not_dicom",
            "private.dcm": "quarantined",
            "good.dcm": "stored",
        }.items():
            assert take(archive, tmp_path / name, "a")["outcome"] == outcome, name

        assert [row.kind for row in archive.index.quarantine.list()] == ["SOPClassNotSupported"]
