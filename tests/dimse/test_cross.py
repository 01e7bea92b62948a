"""Lines that cut across: the same counts through every door, restarts, clocks, and an index made anew from the store."""

import time
from pathlib import Path

import making
import pytest
from dimse.door import Door, echo, held, opened, raw, stored, until
from pydicom.dataset import Dataset
from starlette.testclient import TestClient

from pacs.archive import Archive
from pacs.dimse import scu
from pacs.model.query import Level, Query
from pacs.upkeep.rebuild import rebuild
from pacs.web.server import create_app


def test_x1_find_qido_and_the_index_count_alike(door: Door) -> None:
    """After each of three arrivals, at once."""
    client = TestClient(create_app(door.archive), base_url="http://127.0.0.1", client=("127.0.0.1", 50000))
    for number in range(3):
        assert stored(door, making.dataset(instance=number, series_uid=f"{making.SERIES_UID}{number}")) == [0]
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "NumberOfStudyRelatedInstances": ""}
        (study,) = scu.find("127.0.0.1", door.port, "MINIPACS", keys)
        (web,) = client.get("/dicom-web/studies").json()
        inside = list(door.archive.index.search(Query(Level.IMAGE)))

        assert int(study["NumberOfStudyRelatedInstances"]) == web["00201208"]["Value"][0] == len(inside) == number + 1


def test_x2_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    """Every instance answered 0000, and every request that waits."""
    with making.archive(tmp_path, dicom__port=0) as archive, opened(archive) as door:
        assert set(stored(door, *making.ct_series(3))) == {0}
        archive.index.commitments.add("SCU", "2.25.1", b"sealed", "key", 1)
        before = held(archive)

    with making.archive(tmp_path, dicom__port=0) as archive, opened(archive) as door:
        assert held(archive) == before
        assert len(archive.index.commitments.due(time.time())) == 1
        study = before[0].key.study_instance_uid
        assert scu.get("127.0.0.1", door.port, "MINIPACS", study, tmp_path / "out") == 3


@pytest.mark.parametrize("jump_s", [-86400.0, 86400.0], ids=["back", "ahead"])
def test_x3_a_jump_of_the_clock_ends_no_association(door: Door, monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    """A day back or ahead: an open association is neither aborted nor kept for ever, and others come in."""
    with raw(door.port):
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        time.sleep(1.2)
        assert len(door.server.active_associations) == 1
        assert echo(door.port) == 0
    assert until(lambda: not door.server.active_associations)


def test_x4_an_index_made_anew_from_the_store_is_equal(tmp_path: Path) -> None:
    """Move index.db away, rebuild: the same instances and places, and the same answers at every level, sequences among them."""

    def told(archive: Archive) -> object:
        answers = [dict(row) for level in Level for row in archive.index.search(Query(level))]
        return [(one.key, one.digest, one.location, one.attributes) for one in held(archive)], answers

    with making.archive(tmp_path, dicom__port=0) as archive, opened(archive) as door:
        series = making.ct_series(4)
        for ds in series:
            region = Dataset()
            region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "51185008", "SCT", "Thorax"
            ds.AnatomicRegionSequence, ds.TimezoneOffsetFromUTC = [region], "+0100"
        assert set(stored(door, *series)) == {0}
        before = told(archive)
        (study,) = archive.index.search(Query(Level.STUDY))
        assert "51185008" in str(before) and study["TimezoneOffsetFromUTC"] == "+0100"
    for path in tmp_path.glob("index.db*"):
        path.rename(path.with_suffix(path.suffix + ".lost"))

    with making.archive(tmp_path, dicom__port=0) as archive:
        assert rebuild(archive).instances == 4
        assert told(archive) == before
