"""Compaction: room comes back, nothing that lives is lost or doubled, whenever it is cut and whoever reads meanwhile."""

import os
from pathlib import Path
from typing import Any

import making
import pytest

from pacs import retrieve
from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError, Unavailable
from pacs.sweep import recover
from pacs.upkeep import forget
from pacs.upkeep.compact import compact, segments_held
from pacs.upkeep.verify import verify

EXPLICIT = "1.2.840.10008.1.2.1"


class PowerCut(BaseException):
    """Nothing after this line happens any more."""


def study(number: int) -> str:
    """Return the UID of a study as it comes in."""
    return f"1.2.826.0.1.3680043.8.498.{7000 + number}"


def fill(archive: Archive, studies: int = 6, each: int = 6) -> None:
    """Put studies in, image by image in turn, so that every segment holds some of each."""
    for instance in range(1, each + 1):
        for number in range(studies):
            uid = study(number)
            frame = making.pixels(128, 128, seed=instance * 100 + number)
            ingest(
                archive, making.received(making.dataset(study_uid=uid, series_uid=f"{uid}.1", instance=instance, frame=frame))
            )


def forget_some(archive: Archive, count: int) -> None:
    """Forget all but two studies."""
    uids = [one.study_instance_uid for one in archive.index.studies()][:count]
    forget.forget(archive, forget.belongings(archive, study_instance_uids=uids))


def pictures(archive: Archive) -> dict[str, bytes]:
    """Return every instance as a door would send it."""
    uids = [one.study_instance_uid for one in archive.index.studies()]
    return {
        stored.key.sop_instance_uid: b"".join(bytes(one) for one in retrieve.part10_file(archive, stored, [EXPLICIT]))
        for stored in archive.index.locate(study_instance_uids=uids)
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose segments hold little that lives."""
    with small_segments(tmp_path / "home") as archive:
        fill(archive)
        assert len(archive.objects.containers()) > 3
        forget_some(archive, 4)
    return tmp_path / "home"


def small_segments(home: Path, **overrides: Any) -> Any:
    """Open an archive whose segments are 100 kB, so that there are several."""
    from contextlib import contextmanager
    from dataclasses import replace

    from pacs.committer import Committer
    from pacs.store.segments import SegmentStore

    @contextmanager
    def opened() -> Any:
        with making.archive(home, writer="unused", **overrides) as archive:
            store = SegmentStore(home / "store", writer="test", segment_bytes=100_000, floor_bytes=0)
            committer = Committer(store, archive.index, archive.vault)
            yield replace(archive, objects=store, committer=committer)
            committer.close()
            store.close()

    return opened()


def test_room_comes_back_and_nothing_else_changes(home: Path) -> None:
    """Segments of which little lives go; every living instance answers as before, from its new place."""
    with small_segments(home) as archive:
        before, sizes = pictures(archive), {one.container for one in archive.objects.segments()}
        done = compact(archive, below=0.5, grace_s=0, at_rest_s=0)
        again = compact(archive, below=0.5, grace_s=0, at_rest_s=0)

        assert done.moved and done.rewritten and done.dropped + again.dropped >= 3
        assert len(before) == 12 and pictures(archive) == before
        assert not sizes <= set(archive.objects.containers())
        assert list(verify(archive, deep=True)) == []
    with small_segments(home) as archive:
        assert recover(archive) == 0, "what was moved is not taken for something new"
        assert pictures(archive) == before


def test_readers_have_time(home: Path) -> None:
    """Who has looked up a place before a compaction still reads it, in this process or another, until the grace has passed."""
    with small_segments(home) as archive, Archive.opened(archive.settings, writer="reader") as reader:
        uids = [one.study_instance_uid for one in reader.index.studies()]
        places = reader.index.locate(study_instance_uids=uids)

        done = compact(archive, below=0.5, grace_s=900, at_rest_s=0)

        assert done.moved and not done.dropped and done.waiting
        for stored in places:
            assert retrieve.header(reader, stored)
        assert list(verify(archive)) == [], "two copies of one record are no trouble"
        assert compact(archive, below=0.5, grace_s=900, at_rest_s=0).dropped == 0


@pytest.mark.parametrize("step", ["copy", "move", "retire", "drop"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_cut_at_each_step_loses_nothing(home: Path, step: str, after: bool) -> None:
    """Cut before or after each step, again and again until it is through: every instance answers at all times, once."""
    from dataclasses import replace

    with small_segments(home) as archive:
        before = pictures(archive)

        class Cut:
            """Stands before a part and goes dark around one method."""

            def __init__(self, part: Any) -> None:
                self._part = part

            def __getattr__(self, name: str) -> Any:
                found = getattr(self._part, name)
                if name == "upkeep":
                    return Cut(found)
                if name != step:
                    return found

                def cut(*arguments: Any) -> None:
                    if after:
                        found(*arguments)
                    raise PowerCut

                return cut

        dark = replace(archive, objects=Cut(archive.objects), index=Cut(archive.index))  # type: ignore[arg-type]
        with pytest.raises(PowerCut):
            for _ in range(3):
                compact(dark, below=0.5, grace_s=0, at_rest_s=0)
        assert pictures(archive) == before
    with small_segments(home) as archive:
        assert recover(archive) == 0
        assert pictures(archive) == before
        for _ in range(3):
            compact(archive, below=0.5, grace_s=0, at_rest_s=0)
        assert pictures(archive) == before
        assert list(verify(archive, deep=True)) == []


def test_what_is_damaged_or_unknown_stays(home: Path) -> None:
    """A segment with damage, or with a record that might be somebody's, is not removed."""
    with small_segments(home) as archive:
        row = next(archive.index.upkeep.rows())
        path = home / "store" / row.stored.location.container
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), b"\xff", row.stored.location.offset + 2000)

        for _ in range(3):
            compact(archive, below=0.5, grace_s=0, at_rest_s=0)

        assert path.exists()
        assert {one.sop_instance_uid for one in verify(archive)} == {row.stored.key.sop_instance_uid}


def test_the_segment_being_written_is_left_alone(home: Path) -> None:
    """Its number would be given again, to other records."""
    with small_segments(home) as archive:
        for _ in range(3):
            newest = [one.container for one in archive.objects.segments() if one.newest]
            compact(archive, below=1.0, grace_s=0, at_rest_s=0)
            assert set(newest) <= set(archive.objects.containers())
        newest = [one.container for one in archive.objects.segments() if one.newest]
        with pytest.raises(ConfigurationError):
            archive.objects.drop(newest[0])


def test_a_backup_keeps_compaction_waiting(home: Path) -> None:
    """No segment goes away while a backup copies; two backups may run at once."""
    held = segments_held(home, exclusive=False), segments_held(home, exclusive=False)
    with small_segments(home) as archive, held[0], held[1], pytest.raises(Unavailable):
        compact(archive, below=0.5)
