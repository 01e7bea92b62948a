"""Real files in and out again: each is stored clean or kept in quarantine, and no judge has doubts."""

from pathlib import Path

import making
import pytest
from processing.held_images import cleaned

from pacs.archive import Archive
from pacs.cli import burned_in
from pacs.deid.check import check
from pacs.dicom import part10
from pacs.ingest import ingest
from pacs.model.errors import ArchiveError
from pacs.model.instance import Origin, Received, Stored
from pacs.retrieve import data_set

MOST_BYTES = 4_000_000


def file_of(archive: Archive, stored: Stored) -> bytes:
    """Return what `pacs get --as-stored` would write."""
    parts = data_set(archive, stored)
    meta = part10.file_meta(stored.sop_class_uid, stored.key.sop_instance_uid, str(parts.transfer_syntax_uid))
    return b"".join([meta, *map(bytes, parts.buffers)])


@pytest.mark.timeout(1800)
def test_what_is_retrieved_of_real_files_is_without_doubt(shared_data: Path, tmp_path: Path, long_run: bool) -> None:
    """Every file is stored or in quarantine with a reason; what the archive then shows has no finding, its pixels looked at."""
    paths = [path for path in sorted(shared_data.rglob("*")) if path.is_file() and path.stat().st_size < MOST_BYTES]
    stored = refused = unread = 0
    with making.archive(tmp_path / "home") as archive:
        for path in paths if long_run else paths[::97]:
            try:
                parts = part10.split(path.read_bytes())
            except ArchiveError:
                unread += 1
                continue
            before = len(archive.index.quarantine.list())
            try:
                ingest(archive, Received(parts.data_set, parts.transfer_syntax_uid, Origin.IMPORT, "import"))
                stored += 1
            except ArchiveError:
                rows = archive.index.quarantine.list()
                assert len(rows) == before + 1 and rows[0].reason, path.name
                refused += 1
        while cleaned(archive):
            pass
        assert archive.index.stranded() == (0, 0)

        for study in archive.index.studies():
            for one in archive.index.locate(study_instance_uids=[study.study_instance_uid]):
                judgement = check(archive.deidentifier, file_of(archive, one), look=burned_in.look)
                assert judgement.findings == (), one.key.sop_instance_uid

    assert stored > 8 and stored + refused + unread == len(paths if long_run else paths[::97])
