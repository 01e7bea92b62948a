"""Damage is found wherever it is, named, and never served; what is well raises no alarm."""

import os
from collections.abc import Iterator
from pathlib import Path

import making
import numpy as np
import pytest

from pacs import retrieve
from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import IntegrityError, NotFound
from pacs.model.instance import Arrival, Location
from pacs.model.upkeep import Finding, RecordRow
from pacs.store.record import TRAILER
from pacs.upkeep import verify as upkeep
from pacs.upkeep.tend import Tender
from pacs.upkeep.verify import verify

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    """An archive of three small images in one segment; nobody writes it, so nothing needs time to settle."""
    monkeypatch.setattr(upkeep, "SETTLE_S", 0.0)
    with making.archive(tmp_path / "home", deid__vault=False) as archive:
        for number in (1, 2, 3):
            ingest(archive, making.received(making.dataset(instance=number, frame=making.pixels(6, 6, seed=number))))
        archive.objects.close()
        yield archive


def rows(archive: Archive) -> list[RecordRow]:
    """Return all rows by their place."""
    return sorted(archive.index.upkeep.rows(), key=lambda row: row.stored.location.offset)


def segment(archive: Archive) -> Path:
    """Return the one segment's path."""
    (name,) = archive.objects.containers()
    return archive.settings.home / "store" / name


def served(archive: Archive, row: RecordRow) -> bytes | None:
    """Return what a door would send for an instance, None if it sends nothing."""
    try:
        return b"".join(bytes(one) for one in retrieve.part10_file(archive, row.stored, [EXPLICIT]))
    except (IntegrityError, NotFound):
        return None


@pytest.mark.parametrize("deep", [False, True], ids=["plain", "deep"])
def test_what_is_well_raises_no_alarm(archive: Archive, deep: bool) -> None:
    """Nothing is found in an archive that nothing happened to, and every byte of every record was read."""
    seen: list[int] = []

    assert list(verify(archive, deep=deep, on_record=seen.append)) == []
    assert sum(seen) == sum(row.stored.location.size_bytes for row in rows(archive))


def test_a_bit_flipped_anywhere_in_a_segment_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_run: bool) -> None:
    """Every byte of a small segment: a flip in a record is named by instance, and read as it was or not at all; any other
    flip is named by its place. Only what was given up may rot."""
    monkeypatch.setattr(upkeep, "SETTLE_S", 0.0)
    with making.archive(tmp_path / "home", deid__vault=False) as archive:
        for number in range(1, 4 if long_run else 2):
            ingest(archive, making.received(making.dataset(instance=number, frame=making.pixels(6, 6, seed=number))))
        archive.objects.close()
        path, all_rows = segment(archive), rows(archive)
        genuine = path.read_bytes()
        truth = {row.pk: served(archive, row) for row in all_rows}
        unread = 0
        with path.open("r+b") as file:
            for position in range(len(genuine)):
                for bit in range(8) if long_run else (position % 8,):
                    flip(file.fileno(), position, genuine[position] ^ 1 << bit)
                    found = list(verify(archive))
                    hit = next((row for row in all_rows if within(row.stored.location, position)), None)
                    if hit is None:
                        assert [one.kind for one in found] == ["damaged"], position
                        assert found[0].container == path.name
                    else:
                        uid = hit.stored.key.sop_instance_uid
                        assert {one.sop_instance_uid for one in found} == {uid}, (position, found)
                        assert {one.kind for one in found} <= {"corrupt", "missing"}
                        answer = served(archive, hit)
                        assert answer in (None, truth[hit.pk]), "never served otherwise than it was"
                        # The commit mark holds nothing that is served; reading does without it, verifying does not.
                        in_mark = position - hit.stored.location.offset >= hit.stored.location.size_bytes - TRAILER.size
                        assert (answer is None) != in_mark, position
                        unread += answer is None
                    flip(file.fileno(), position, genuine[position])
        assert unread and list(verify(archive, deep=True)) == []


def flip(descriptor: int, position: int, value: int) -> None:
    """Change one byte of a segment."""
    os.pwrite(descriptor, bytes([value]), position)


def within(location: Location, position: int) -> bool:
    """Say whether a record covers a position."""
    return location.offset <= position < location.offset + location.size_bytes


def test_sampled_flips_in_a_larger_segment_are_found(tmp_path: Path, long_run: bool) -> None:
    """Records of several chunks and frames: what is flipped is the one that is named, and is not served."""
    with making.archive(tmp_path / "home") as archive:
        for number in range(1, 9):
            ingest(archive, making.received(making.dataset(instance=number, frame=making.pixels(256, 256, seed=number))))
        archive.objects.close()
        path, all_rows = segment(archive), rows(archive)
        random = np.random.default_rng(20261122)
        for row in (all_rows[at] for at in random.integers(0, len(all_rows), 200 if long_run else 25)):
            place = row.stored.location
            position = place.offset + int(random.integers(0, place.size_bytes - TRAILER.size))
            with path.open("r+b") as file:
                before = os.pread(file.fileno(), 1, position)[0]
                flip(file.fileno(), position, before ^ 1 << int(random.integers(0, 8)))
                assert served(archive, row) is None
                assert {one.sop_instance_uid for one in verify(archive)} == {row.stored.key.sop_instance_uid}
                flip(file.fileno(), position, before)


def only(findings: Iterator[Finding]) -> Finding:
    """Return the one finding there must be."""
    (found,) = findings
    return found


def test_each_kind_of_trouble_has_its_name(archive: Archive) -> None:
    """missing, orphan, unreadable_key, index_mismatch, and quarantine."""
    import sqlalchemy as sa

    first, second, third = rows(archive)
    engine = sa.create_engine(archive.settings.database_url)

    def sql(statement: str, **values: object) -> None:
        with engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    sql("UPDATE instance SET sop_class_uid = '1.2.3' WHERE pk = :pk", pk=first.pk)
    found = only(verify(archive))
    assert (found.kind, found.sop_instance_uid) == ("index_mismatch", first.stored.key.sop_instance_uid)
    assert "SOP Class" in found.detail
    sql("UPDATE instance SET sop_class_uid = :uid WHERE pk = :pk", uid=first.stored.sop_class_uid, pk=first.pk)

    sql("DELETE FROM instance WHERE pk = :pk", pk=third.pk)
    found = only(upkeep.verify(archive, now=9e9))
    assert (found.kind, found.sop_instance_uid) == ("orphan", third.stored.key.sop_instance_uid)
    assert list(verify(archive)) == [], "a record without a row may be on its way for a while"
    archive.objects.delete(third.stored.location)

    archive.objects.delete(second.stored.location)
    found = only(verify(archive))
    assert (found.kind, found.sop_instance_uid) == ("missing", second.stored.key.sop_instance_uid)
    sql("DELETE FROM instance WHERE pk = :pk", pk=second.pk)

    kept = archive.quarantine.keep(making.received(making.dataset()), "Quarantined", "for the test")
    archive.index.quarantine.remove(kept)
    assert only(verify(archive)).kind == "quarantine"
    archive.quarantine.discard(kept)

    archive.ring.forget(first.stored.key.study_instance_uid)
    found = only(verify(archive))
    assert (found.kind, found.sop_instance_uid) == ("unreadable_key", first.stored.key.sop_instance_uid)
    engine.dispose()


def test_a_segment_that_is_gone_is_missed(archive: Archive) -> None:
    """All its instances are named."""
    segment(archive).unlink()
    archive.objects.close()

    found = list(verify(archive))

    assert [one.kind for one in found] == ["missing"] * 3
    assert {one.sop_instance_uid for one in found} == {row.stored.key.sop_instance_uid for row in rows(archive)}


def test_the_deep_check_sees_what_only_pixels_show(archive: Archive) -> None:
    """A record that is whole and genuine, but whose digest is of other content, passes the plain check and not the deep one."""
    received = making.received(making.dataset(instance=7))
    deidentified = archive.deidentifier.deidentify(received)
    encoded = archive.codec.encode(deidentified, digest=bytes(32))
    sealed = archive.sealer.seal(encoded, policy=deidentified.policy, origin=received.origin)
    archive.committer.commit(Arrival(encoded, sealed, received.origin, "MODALITY", "a1", deidentified.policy))

    assert list(verify(archive)) == []
    found = only(verify(archive, deep=True))
    assert "digest" in found.detail
    assert found.sop_instance_uid == deidentified.key.sop_instance_uid


def test_scrubbing_goes_by_the_oldest_check(tmp_path: Path) -> None:
    """The rate is kept, the longest unchecked come first, and damage becomes an event; a fresh record waits for its turn."""
    with making.archive(tmp_path / "home", store__scrub_days=1e-9, store__scrub_mb_s=1e-9) as archive:
        for number in (1, 2, 3):
            ingest(archive, making.received(making.dataset(instance=number)))
        tender = Tender(archive)
        assert [tender.scrub(1.0) for _ in range(3)] == [1, 1, 1], "at least one, and no more than the rate allows"
        checked = [row.verified_at for row in archive.index.upkeep.rows()]
        assert checked == sorted(checked) and all(checked)
        row = next(archive.index.upkeep.rows())
        path = archive.settings.home / "store" / row.stored.location.container
        with path.open("r+b") as file:
            position = row.stored.location.offset + 3000
            flip(file.fileno(), position, os.pread(file.fileno(), 1, position)[0] ^ 0x55)

        for _ in range(3):
            tender.scrub(1.0)

        event = next(one for one in archive.index.events(limit=1000) if one.kind == "record_damaged")
        assert event.sop_instance_uid == row.stored.key.sop_instance_uid
    with making.archive(tmp_path / "home") as archive:
        assert Tender(archive).scrub(1.0) == 0, "not due for 30 days"
