"""What is missing or damaged comes back from another copy, and only what is proven good is put in place."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import filling
import making
import pytest

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.instance import Location
from pacs.model.upkeep import RecordRow
from pacs.store import sending
from pacs.store.tiers import FOLDER
from pacs.sweep import recover
from pacs.upkeep.backup import back_up, copies
from pacs.upkeep.repair import IN_PLACE, LEFT, MOVED, SENT_AGAIN, repair
from pacs.upkeep.ship import send_now
from pacs.upkeep.tend import Tender
from pacs.upkeep.verify import verify


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An archive of three images, closed, and no bucket."""
    with making.archive(tmp_path / "home") as archive:
        take_in(archive)
        yield archive


@pytest.fixture
def tiered(tmp_path: Path) -> Iterator[Archive]:
    """An archive of three images, here and in a bucket."""
    (tmp_path / "bucket").mkdir()
    settings = {"store__url": (tmp_path / "bucket").as_uri(), "store__scrub_days": 1e-9}
    with making.archive(tmp_path / "home", **settings) as archive:
        recover(archive)
        take_in(archive)
        assert archive.tiers is not None
        archive.tiers.local.turn_over(0.0)
        assert send_now(archive) == 1
        yield archive


def take_in(archive: Archive) -> None:
    """Put three small images in."""
    for number in (1, 2, 3):
        ingest(archive, making.received(making.dataset(instance=number)))


def rows(archive: Archive) -> list[RecordRow]:
    """Return all rows in the order in which they were written."""
    return list(archive.index.upkeep.rows())


def spoil(path: Path, place: Location, at: int = 3000, content: bytes = b"rotten") -> None:
    """Overwrite a few bytes of a record."""
    with path.open("r+b") as file:
        file.seek(place.offset + at)
        file.write(content)


def local(archive: Archive, row: RecordRow) -> Path:
    """Return the segment of a record, here."""
    return archive.settings.home / "store" / row.stored.location.container


def outcomes(archive: Archive, *others: Path) -> dict[str, str]:
    """Repair; return what became of each instance's finding."""
    return {
        one.finding.sop_instance_uid: one.outcome for one in repair(archive, [copies(other) for other in others], deep=True)
    }


@pytest.mark.parametrize("at", [0, 70, 3000], ids=["head", "table", "body"])
def test_a_damaged_record_comes_back_from_a_backup(archive: Archive, tmp_path: Path, at: int) -> None:
    """It is written over its damaged self; the segment is byte for byte what it was."""
    archive.objects.close()
    back_up(archive, tmp_path / "backup")
    row = rows(archive)[1]
    genuine, before = local(archive, row).read_bytes(), filling.answers(archive)
    spoil(local(archive, row), row.stored.location, at)
    assert [one.kind for one in verify(archive)] == ["corrupt"]

    assert outcomes(archive, tmp_path / "backup") == {row.stored.key.sop_instance_uid: IN_PLACE}

    assert local(archive, row).read_bytes() == genuine
    assert list(verify(archive, deep=True)) == []
    assert filling.answers(archive) == before


def test_a_lost_segment_comes_back_from_a_backup(archive: Archive, tmp_path: Path) -> None:
    """Every record goes into the own segment, and its row follows."""
    back_up(archive, tmp_path / "backup")
    before = filling.answers(archive)
    archive.objects.close()
    local(archive, rows(archive)[0]).unlink()

    with Archive.opened(archive.settings, writer="other") as again:
        assert set(outcomes(again, tmp_path / "backup").values()) == {MOVED}

        assert list(verify(again, deep=True)) == []
        assert filling.answers(again) == before


def test_a_record_that_was_moved_since_is_found_by_what_it_is(archive: Archive, tmp_path: Path) -> None:
    """The backup has it at another place, because a compaction came between."""
    back_up(archive, tmp_path / "backup")
    row = rows(archive)[1]
    (there,) = archive.objects.copy([row.stored.location])
    archive.index.upkeep.move([(row, there)])
    archive.objects.delete(row.stored.location)
    spoil(archive.settings.home / "store" / there.container, there)

    assert outcomes(archive, tmp_path / "backup") == {row.stored.key.sop_instance_uid: IN_PLACE}
    assert list(verify(archive, deep=True)) == []


def test_a_copy_that_is_not_good_is_not_taken(archive: Archive, tmp_path: Path) -> None:
    """Damaged in the backup too, at another byte: nothing is changed, and the finding stays."""
    archive.objects.close()
    back_up(archive, tmp_path / "backup")
    row = rows(archive)[1]
    for path in (tmp_path / "backup" / "files").iterdir():
        if path.stat().st_size == local(archive, row).stat().st_size:
            spoil(path, row.stored.location, 2000)
    spoil(local(archive, row), row.stored.location)
    damaged = local(archive, row).read_bytes()

    assert outcomes(archive, tmp_path / "backup") == {row.stored.key.sop_instance_uid: LEFT}
    assert local(archive, row).read_bytes() == damaged


def test_another_record_of_the_right_size_is_not_taken(archive: Archive, tmp_path: Path) -> None:
    """A genuine record of another instance, where the backup should have ours, is seen for what it is."""
    archive.objects.close()
    back_up(archive, tmp_path / "backup")
    first, second, _ = rows(archive)
    wrong = archive.objects.get(first.stored.location)
    for path in (tmp_path / "backup" / "files").iterdir():
        if path.stat().st_size == local(archive, second).stat().st_size:
            spoil(path, replace(second.stored.location), 0, wrong)
    spoil(local(archive, second), second.stored.location)

    assert outcomes(archive, tmp_path / "backup") == {second.stored.key.sop_instance_uid: LEFT}


def test_the_bucket_repairs_what_is_here(tiered: Archive) -> None:
    """Without a word about where from: the other place has it."""
    row = rows(tiered)[2]
    spoil(local(tiered, row), row.stored.location)

    assert outcomes(tiered) == {row.stored.key.sop_instance_uid: IN_PLACE}
    assert list(verify(tiered, deep=True)) == []


def test_the_background_check_repairs_by_itself(tiered: Archive) -> None:
    """It finds the damage, takes the record from the bucket, and says so in the events."""
    row = rows(tiered)[0]
    spoil(local(tiered, row), row.stored.location)

    Tender(tiered).scrub(1000.0)

    assert list(verify(tiered, deep=True)) == []
    events = [one for one in tiered.index.events(limit=1000) if one.kind.startswith("record_")]
    assert [(one.kind, one.sop_instance_uid) for one in events] == [("record_repaired", row.stored.key.sop_instance_uid)]


def test_what_is_here_repairs_the_bucket(tiered: Archive, tmp_path: Path) -> None:
    """A copy in the bucket that rotted, shrank or vanished is named, and sent again."""
    (copy,) = (tmp_path / "bucket" / FOLDER).iterdir()
    genuine = copy.read_bytes()
    for harm in ("flipped", "shorter", "gone"):
        if harm == "flipped":
            copy.write_bytes(genuine[:4000] + bytes([genuine[4000] ^ 1]) + genuine[4001:])
        elif harm == "shorter":
            copy.write_bytes(genuine[:-512])
        else:
            copy.unlink()
        assert [(one.kind, one.container) for one in verify(tiered, deep=True)] == [("copy", copy.name)], harm

        assert set(outcomes(tiered).values()) == {SENT_AGAIN}
        assert copy.read_bytes() == genuine
        assert list(verify(tiered, deep=True)) == []


def test_what_rots_in_the_bucket_alone_comes_from_a_backup(tiered: Archive, tmp_path: Path) -> None:
    """The backup is of the whole; the record goes into the own segment, and the rotten one is not looked at any more."""
    back_up(tiered, tmp_path / "backup", whole=True)
    assert tiered.tiers is not None
    sending.make_room(tiered.tiers, keep_bytes=1, free_bytes=0)
    row = rows(tiered)[1]
    spoil(tmp_path / "bucket" / FOLDER / row.stored.location.container, row.stored.location)
    found = [(one.kind, one.sop_instance_uid) for one in verify(tiered)]
    assert found == [("corrupt", row.stored.key.sop_instance_uid)]
    assert set(outcomes(tiered).values()) == {LEFT}

    assert outcomes(tiered, tmp_path / "backup") == {row.stored.key.sop_instance_uid: MOVED}
    assert list(verify(tiered, deep=True)) == []
