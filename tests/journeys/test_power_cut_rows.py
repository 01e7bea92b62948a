"""The power goes and takes the end of the database's log along: rows of arrivals that did not wait for the disk (ADR 19)."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest
import sqlalchemy as sa

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import ArchiveError
from pacs.model.instance import Origin
from pacs.sweep import recover

ARRIVALS = 4


def database(home: Path) -> Path:
    """Return where a home's index is."""
    return Path(making.settings(home).database_url.split("///", 1)[1])


def log_of(home: Path) -> Path:
    """Return the write-ahead log of a home's index."""
    return database(home).with_name(database(home).name + "-wal")


def rows(home: Path) -> list[list[Any]]:
    """Return what the index says of every instance, but for keys of rows and times, which a replay gives anew."""
    statement = """
        SELECT sop_instance_uid, version, current, state, container, offset, digest, origin, source, policy, sop_class_uid,
        deid_report, i.attributes, s.series_instance_uid, s.instances, s.size_bytes, s.generation, s.attributes, p.attributes
        FROM instance i JOIN series s ON s.pk = i.series_pk JOIN study u ON u.pk = s.study_pk
        JOIN patient p ON p.pk = u.patient_pk ORDER BY 1, 2"""
    with closing(sqlite3.connect(database(home))) as connection:
        found = connection.execute(statement).fetchall()
    return [[json.loads(one) if isinstance(one, str) and one.startswith("{") else one for one in row] for row in found]


def received(number: int) -> Any:
    """Return an arrival that names its sender."""
    return replace(making.received(making.dataset(instance=number)), source="SCANNER", origin=Origin.STORAGE_SCU)


def cut(home: Path, to: Path, size_bytes: int) -> None:
    """Copy a home as a power cut would leave it: its files, and the database's log up to here."""
    shutil.copytree(home, to, ignore=shutil.ignore_patterns("*-shm"))
    with log_of(to).open("r+b") as file:
        file.truncate(size_bytes)


@pytest.fixture
def sizes(tmp_path: Path) -> list[int]:
    """Fill a home with arrivals; return how long the log was after each, and leave a copy of the home as it was then."""
    home, sizes = tmp_path / "home", []
    with making.archive(home) as archive:
        for number in range(1, ARRIVALS + 1):
            ingest(archive, received(number))
            sizes.append(log_of(home).stat().st_size)
        shutil.copytree(home, tmp_path / "before", ignore=shutil.ignore_patterns("*-shm"))
    assert sizes == sorted(set(sizes)), "nothing was brought from the log into the database meanwhile"
    return sizes


def test_rows_that_a_power_cut_undid_are_written_again(tmp_path: Path, sizes: list[int]) -> None:
    """Cut after each arrival, and within a transaction: after a start the index says of all of them what it said."""
    cut(tmp_path / "before", tmp_path / "whole", sizes[-1])
    expected = rows(tmp_path / "whole")
    assert len(expected) == ARRIVALS
    for number, size_bytes in enumerate([*sizes[:-1], sizes[-1] - 100]):
        home = tmp_path / f"cut{number}"
        cut(tmp_path / "before", home, size_bytes)
        assert len(rows(home)) == min(number + 1, ARRIVALS - 1), "the cut is one"

        with making.archive(home) as archive:
            assert recover(archive) >= 1

        assert rows(home) == expected


def test_whoever_goes_on_with_a_segment_replays_its_tail_first(tmp_path: Path, sizes: list[int]) -> None:
    """An import before the next start would hide the gap from it: the end of the last row is where a start begins to look."""
    home = tmp_path / "cut"
    cut(tmp_path / "before", home, sizes[0])

    with Archive.opened(making.settings(home), writer="test") as archive:
        ingest(archive, received(ARRIVALS + 1))

    assert len(rows(home)) == ARRIVALS + 1


def test_what_is_not_replayed_waits_for_the_disk(tmp_path: Path) -> None:
    """A further version, the end of an association and a quarantined object are synced, and everything before them."""
    synced: list[str] = []
    with making.archive(tmp_path / "home") as archive:
        writer, replayed = archive.index._connections._writer, archive.index._connections._replayed
        for name, engine in (("waits", writer), ("replayed", replayed)):
            with engine.connect() as connection:
                level = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
                assert level == {"waits": 2, "replayed": 1}[name]
            sa.event.listen(engine.engine, "commit", lambda connection, name=name: synced.append(name))

        synced.clear()
        first = making.dataset(instance=1)
        ingest(archive, making.received(first))
        assert synced == ["replayed"]
        first.SeriesDescription = "another content"
        ingest(archive, making.received(first))
        assert synced[1:] == ["waits"]
        archive.index.end_association("somebody")
        assert synced[2:] == ["waits"]
        with pytest.raises(ArchiveError):
            ingest(archive, replace(making.received(making.dataset(instance=2)), sop_class_uid="1.2.3"))
        assert synced[3:] == ["waits"]
