"""Segments go to a bucket and come back: nothing is lost on the way, no name is given twice, and an absence shows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import filling
import making
import numpy as np
import pytest

from pacs import retrieve
from pacs.archive import Archive
from pacs.cli import doctor
from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError, IntegrityError, NotFound, Unavailable
from pacs.ports import Bucket
from pacs.store import sending
from pacs.store.bucket import FolderBucket
from pacs.store.ledger import FILE
from pacs.store.tiers import FOLDER, TieredStore
from pacs.sweep import recover
from pacs.upkeep.compact import compact
from pacs.upkeep.forget import belongings, forget
from pacs.upkeep.rebuild import rebuild
from pacs.upkeep.ship import Shipper, said, send_now, standing
from pacs.upkeep.verify import verify

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder that stands for a bucket."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


@pytest.fixture
def archive(tmp_path: Path, bucket: Path) -> Iterator[Archive]:
    """An archive with a bucket, of segments of 1 MiB."""
    with making.archive(tmp_path / "home", store__url=bucket.as_uri(), store__segment_mb=1) as archive:
        recover(archive)
        yield archive


def tiers(archive: Archive) -> TieredStore:
    """Return both places."""
    assert archive.tiers is not None
    return archive.tiers


def take_in(archive: Archive, *numbers: int) -> None:
    """Put small images in."""
    for number in numbers:
        ingest(archive, making.received(making.dataset(instance=number)))


def send_all(archive: Archive, *, let_go: bool = True) -> None:
    """Close and send everything, and keep nothing of it here."""
    tiers(archive).local.turn_over(0.0)
    send_now(archive)
    if let_go:
        sending.make_room(tiers(archive), keep_bytes=1, free_bytes=0)
        assert not any(one.container in tiers(archive).ledger.copies() for one in tiers(archive).local.segments())


def served(archive: Archive, number: int = 0) -> bytes:
    """Return the whole of a stored instance, as a door would send it."""
    row = list(archive.index.upkeep.rows())[number]
    return b"".join(bytes(one) for one in retrieve.part10_file(archive, row.stored, [EXPLICIT]))


def test_everything_answers_from_the_bucket(archive: Archive, bucket: Path) -> None:
    """With no record left here, every query, image and version is as before, and both checks find nothing wrong."""
    filling.fill(archive)
    before = filling.answers(archive)

    send_all(archive)

    assert filling.answers(archive) == before
    assert list(verify(archive)) == list(verify(archive, deep=True)) == []
    assert {path.name for path in (bucket / FOLDER).iterdir()} == tiers(archive).ledger.copies().keys()
    take_in(archive, 77)
    assert archive.index.summary()["instances"] == before["summary"]["instances"] + 1


def test_a_frame_is_read_without_its_neighbours(archive: Archive, bucket: Path) -> None:
    """One frame of a large segment costs a few blocks, once."""

    class Counting(FolderBucket):
        asked: list[int] = []  # noqa: RUF012

        def read(self, name: str, span: tuple[int, int] | None = None) -> bytes:
            """Count, then read."""
            assert span is not None
            self.asked.append(span[1])
            return super().read(name, span)

    noise = np.random.default_rng(1).integers(-2000, 2000, (1400, 1400)).astype("<i2")
    ingest(archive, making.received(making.dataset(instance=1, frame=noise)))
    take_in(archive, 2)
    send_all(archive)
    small = list(archive.index.upkeep.rows())[1]
    counting = Counting(bucket)
    store = TieredStore(tiers(archive).local, counting, tiers(archive).ledger, owner="", turn_over_s=60)
    elsewhere = replace(archive, objects=store)

    for _ in range(3):
        assert retrieve.frame(elsewhere, small.stored, 1).data

    assert len(counting.asked) <= 2 and sum(counting.asked) <= 2 << 20


@pytest.mark.parametrize("at", ["before the upload", "after the upload", "while it is read back"])
def test_what_is_cut_short_is_done_again(archive: Archive, bucket: Path, at: str) -> None:
    """Wherever sending ends, nothing counts as sent that was not read back, nothing goes, and the next pass ends it."""

    class Leaving(FolderBucket):
        def create(self, name: str, content: bytes | Path) -> None:
            """Go away before or after the object is there."""
            if at != "before the upload":
                super().create(name, content)
            if at != "while it is read back":
                raise Unavailable("away")

        def blocks(self, name: str) -> Iterator[bytes]:
            """Go away in the middle."""
            yield next(super().blocks(name))[:100]
            raise Unavailable("away")

    take_in(archive, 1)
    store = tiers(archive)
    store.local.turn_over(0.0)
    (name,) = sending.waiting(store)
    real: Bucket = store.bucket
    store.bucket = Leaving(bucket)
    with pytest.raises(Unavailable):
        sending.send(store, name)

    assert store.ledger.copies() == {}
    assert sending.make_room(store, keep_bytes=1, free_bytes=0) == 0
    assert served(archive)
    store.bucket = real
    archive.objects.delete(next(archive.index.upkeep.rows()).stored.location)  # the segment changes before the second try
    assert sending.send(store, name)
    assert (bucket / FOLDER / name).read_bytes() == store.local.path(name).read_bytes()


def test_what_arrives_otherwise_does_not_count(archive: Archive, bucket: Path) -> None:
    """A byte that changed on the way is noticed when it is read back; the next try puts it right."""

    class Garbling(FolderBucket):
        def create(self, name: str, content: bytes | Path) -> None:
            """Keep something else."""
            assert isinstance(content, Path)
            garbled = bytearray(content.read_bytes())
            garbled[len(garbled) // 2] ^= 1
            super().create(name, bytes(garbled))

    take_in(archive, 1)
    store = tiers(archive)
    store.local.turn_over(0.0)
    (name,) = sending.waiting(store)
    real: Bucket = store.bucket
    store.bucket = Garbling(bucket)

    assert not sending.send(store, name)
    assert store.ledger.copies() == {} and store.local.holds(name)
    store.bucket = real
    assert sending.send(store, name)


def test_another_s_object_is_never_replaced(archive: Archive, bucket: Path) -> None:
    """An object of our segment's name that we did not send stays as it is, ours stays here, and the others are sent."""
    take_in(archive, 1)
    store = tiers(archive)
    store.local.turn_over(0.0)
    (taken,) = sending.waiting(store)
    store.bucket.create(f"{FOLDER}/{taken}", b"somebody's")
    take_in(archive, 2)
    store.local.turn_over(0.0)

    Shipper(archive).tick()

    assert (bucket / FOLDER / taken).read_bytes() == b"somebody's"
    assert store.local.holds(taken) and len(store.ledger.copies()) == 1
    assert "other content" in said(standing(store))


def test_what_is_given_up_later_stays_so(archive: Archive, bucket: Path) -> None:
    """Deleted after it was sent: not found any more, also not after the ledger was lost; its neighbours are."""
    take_in(archive, 1, 2)
    first, second = archive.index.upkeep.rows()
    send_all(archive)

    archive.objects.delete(first.stored.location)
    send_now(archive)

    for _ in range(2):
        with pytest.raises(NotFound):
            archive.objects.get(first.stored.location)
        assert len(archive.objects.get(second.stored.location)) == second.stored.location.size_bytes
        walked = [place for place, _ in archive.objects.records(first.stored.location.container)]
        assert walked == [second.stored.location]
        archive.objects.close()
        for path in (archive.settings.home / "store").glob(f"{FILE}*"):
            path.unlink()
        tiers(archive).begin()


def test_a_number_is_never_given_twice(tmp_path: Path, archive: Archive) -> None:
    """A writer whose segments are all in the bucket goes on above them, also when the ledger had to be found again."""
    take_in(archive, 1)
    send_all(archive)
    for path in (archive.settings.home / "store").glob("*.seg"):
        path.unlink()
    archive.objects.close()
    for path in (archive.settings.home / "store").glob(f"{FILE}*"):
        path.unlink()
    with Archive.opened(archive.settings, writer="test") as again:
        assert recover(again) == 0
        sent = set(tiers(again).ledger.copies())
        take_in(again, 2)

        assert not sent & set(tiers(again).local.containers())
        assert len({row.stored.location for row in again.index.upkeep.rows()}) == 2
        assert list(verify(again)) == []


def test_while_the_bucket_is_away_the_archive_goes_on(archive: Archive, bucket: Path) -> None:
    """Stores and local reads go on, reads of what is away say so and work again later; who asks is told; nothing is lost."""
    take_in(archive, 1)
    send_all(archive)
    shipper = Shipper(archive)
    bucket.rename(bucket.with_name("away"))

    take_in(archive, 2)
    tiers(archive).local.turn_over(0.0)
    shipper.tick()
    take_in(archive, 3)
    shipper.tick()

    assert served(archive, 1) and served(archive, 2)
    with pytest.raises(Unavailable):
        served(archive, 0)
    assert [one.kind for one in verify(archive)] == ["unreachable"]
    assert standing(tiers(archive)).failure and "AWAY" in said(standing(tiers(archive)))
    with Archive.opened(archive.settings, writer="other") as other:
        assert recover(other) == 0, "one that has begun before starts without its bucket"

    with pytest.raises(Unavailable, match="C-STORE goes on"):
        doctor._bucket(archive.settings)

    bucket.with_name("away").rename(bucket)
    assert "is ours" in doctor._bucket(archive.settings)
    shipper = Shipper(archive)
    shipper.tick()

    assert all(served(archive, number) for number in range(3))
    assert list(verify(archive)) == []
    assert "AWAY" not in said(standing(tiers(archive)))


def test_tries_come_later_each_time(archive: Archive, bucket: Path) -> None:
    """A bucket that is away is not asked in every pass."""
    shipper = Shipper(archive)
    bucket.rename(bucket.with_name("away"))
    shipper.tick()
    since = tiers(archive).ledger.notes()["away_since"]

    for _ in range(50):
        shipper.tick()

    assert shipper._failed == 1
    assert tiers(archive).ledger.notes()["away_since"] == since


def test_a_first_start_needs_its_bucket(tmp_path: Path) -> None:
    """Where nobody has ever seen the bucket, a start says what is wrong instead of hoping."""
    with (
        making.archive(tmp_path / "home", store__url=(tmp_path / "nowhere").as_uri()) as archive,
        pytest.raises(Unavailable, match="mounted"),
    ):
        recover(archive)


def test_another_bucket_than_the_one_that_was_sent_to_is_refused(archive: Archive, tmp_path: Path) -> None:
    """An empty one, none at all: both would make images disappear, so the archive does not start."""
    take_in(archive, 1)
    send_all(archive)
    (tmp_path / "other").mkdir()
    other = replace(archive.settings, store=replace(archive.settings.store, url=(tmp_path / "other").as_uri()))

    with Archive.opened(other, writer="other") as wrong, pytest.raises(ConfigurationError, match="none of the"):
        recover(wrong)
    none = replace(archive.settings, store=replace(archive.settings.store, url=""))
    with pytest.raises(ConfigurationError, match=r"store\.url"):
        Archive.open(none, writer="other")


def test_the_newest_stay_within_their_bound(archive: Archive) -> None:
    """Of what was sent so much stays here as the setting says, the newest; what was not sent stays whatever it says."""
    store = tiers(archive)
    for number in range(1, 6):
        take_in(archive, number)
        store.local.turn_over(0.0)
    sizes = [one.size_bytes for one in store.local.segments()][:5]
    assert sending.make_room(store, keep_bytes=1, free_bytes=0) == 0
    send_now(archive)

    given = sending.make_room(store, keep_bytes=sum(sizes[3:]), free_bytes=0)

    assert given == sum(sizes[:3])
    assert [store.local.holds(name) for name in store.ledger.copies()] == [False] * 3 + [True] * 2


def test_a_copy_that_vanished_is_sent_again_and_not_let_go(archive: Archive, bucket: Path) -> None:
    """Before a local copy goes the bucket is asked for the other; what it lost it gets again."""
    take_in(archive, 1)
    send_all(archive, let_go=False)
    (name,) = tiers(archive).ledger.copies()
    (bucket / FOLDER / name).unlink()

    assert sending.make_room(tiers(archive), keep_bytes=1, free_bytes=0) == 0
    assert tiers(archive).local.holds(name)
    assert send_now(archive) == 1 and (bucket / FOLDER / name).exists()


def test_segments_are_closed_by_their_age(archive: Archive) -> None:
    """A live writer closes its own, an empty one never; those of writers that ended are closed by whoever sends."""
    store = tiers(archive)
    take_in(archive, 1)
    store.local.turn_over(3600)
    store.local.turn_over_idle(0.0)
    assert sending.waiting(store) == [], "too young, and its writer lives"
    with Archive.opened(archive.settings, writer="ended") as other:
        take_in(other, 2)
    store.local.turn_over_idle(3600)
    assert sending.waiting(store) == []

    store.local.turn_over(0.0)
    store.local.turn_over_idle(0.0)
    for _ in range(3):
        store.local.turn_over(0.0)
        store.local.turn_over_idle(0.0)

    assert sending.waiting(store) == ["ended-00000001.seg", "test-00000001.seg"]
    take_in(archive, 3)
    assert list(archive.index.upkeep.rows())[-1].stored.location.container == "test-00000002.seg"


def test_a_forgotten_study_leaves_the_bucket(archive: Archive, bucket: Path) -> None:
    """Its key is gone at once; a compaction rewrites what else its segment holds, and removes the object."""
    take_in(archive, 1, 2, 3)
    ingest(archive, making.received(making.dataset(study_uid=filling.OTHER_STUDY, series_uid=f"{filling.OTHER_STUDY}.1")))
    study = next(one.study_instance_uid for one in archive.index.studies() if one.instances == 3)
    send_all(archive)
    before = {path.name for path in (bucket / FOLDER).iterdir()}
    kept = served(archive, 3)

    forget(archive, belongings(archive, study_instance_uids=[study]))
    for _ in range(2):
        compact(archive, below=0.9, grace_s=0.0, at_rest_s=0.0)

    assert not before & {path.name for path in (bucket / FOLDER).iterdir()}
    assert not before & set(archive.objects.containers())
    assert served(archive) == kept
    assert list(verify(archive)) == []


def test_the_index_is_rebuilt_from_the_bucket(archive: Archive, tmp_path: Path) -> None:
    """Index and ledger lost, no segment here: keys and bucket give everything back that records know."""
    filling.fill(archive)
    before = filling.answers(archive)
    send_all(archive)
    archive.close()
    for path in [*archive.settings.home.glob("index.db*"), *(archive.settings.home / "store").glob("*")]:
        path.unlink()

    with making.archive(tmp_path / "home", store__url=archive.settings.store.url) as again:
        tiers(again).begin()
        rebuild(again)

        after = filling.answers(again)
        assert {name: value for name, value in after.items() if name.startswith("2.25") or name == "versions"} == {
            name: value for name, value in before.items() if name.startswith("2.25") or name == "versions"
        }
        assert list(verify(again, deep=True)) == []


def test_a_restored_index_follows_records_that_were_moved_since(archive: Archive, tmp_path: Path) -> None:
    """An index older than the bucket: rows that point to segments that a compaction dropped find their records again."""
    take_in(archive, 1, 2)
    send_all(archive)
    before = {row.stored.key: served(archive, number) for number, row in enumerate(archive.index.upkeep.rows())}
    old = _snapshot(archive.settings.home / "index.db", tmp_path / "old.db")
    archive.objects.delete(next(archive.index.upkeep.rows()).stored.location)
    compact(archive, below=1.1, grace_s=0.0, at_rest_s=0.0)
    send_all(archive)
    archive.close()
    for path in [*archive.settings.home.glob("index.db*"), *(archive.settings.home / "store").glob("*")]:
        path.unlink()
    (archive.settings.home / "index.db").write_bytes(old)

    with making.archive(tmp_path / "home", store__url=archive.settings.store.url) as again:
        recover(again)

        rows = list(again.index.upkeep.rows())
        assert served(again, 1) == before[rows[1].stored.key]
        assert [one.kind for one in verify(again)] == ["missing"], "only what was really given up"


def _snapshot(source: Path, target: Path) -> bytes:
    import sqlite3

    with sqlite3.connect(source) as database, sqlite3.connect(target) as copy:
        database.backup(copy)
    return target.read_bytes()


def test_a_segment_of_another_archive_s_keys_is_no_record_of_ours(archive: Archive, tmp_path: Path) -> None:
    """Two archives cannot share a prefix: the second is refused before it sends anything."""
    with making.archive(tmp_path / "second", store__url=archive.settings.store.url) as second:
        with pytest.raises(ConfigurationError, match="another archive"):
            recover(second)
        take_in(second, 1)
        with pytest.raises(ConfigurationError):
            send_now(second)


def test_a_damaged_local_record_is_never_served_from_here(archive: Archive) -> None:
    """A sent segment that rots here is an error until it is repaired, not something that looks like an image."""
    take_in(archive, 1)
    send_all(archive, let_go=False)
    place = next(archive.index.upkeep.rows()).stored.location
    with tiers(archive).local.path(place.container).open("r+b") as file:
        file.seek(place.offset + 2000)
        file.write(b"rotten")

    with pytest.raises(IntegrityError):
        served(archive)


def test_rows_are_durable_before_a_copy_goes(archive: Archive) -> None:
    """A power cut may undo the last rows, and they are written again from what is here: so what goes has durable ones."""
    take_in(archive, 1)
    send_all(archive, let_go=False)
    synced: list[int] = []

    def before() -> None:
        archive.index.upkeep.make_durable()
        synced.append(len(tiers(archive).local.containers()))

    held = len(tiers(archive).local.containers())
    assert sending.make_room(tiers(archive), keep_bytes=1, free_bytes=0, before=before)
    assert synced == [held], "once, and before anything went"


def test_who_died_in_the_middle_has_its_rows_before_its_segment_goes(archive: Archive) -> None:
    """Records of a writer that ended between its segment and its rows: whoever closes the segment writes the rows first."""
    received = making.received(making.dataset(instance=9))
    deidentified = archive.deidentifier.deidentify(received)
    with Archive.opened(archive.settings, writer="died") as other:
        encoded = other.codec.encode(deidentified, other.codec.digest(deidentified))
        other.objects.put([other.sealer.seal(encoded, policy="research", origin=received.origin)])
    assert archive.index.upkeep.is_empty()

    tiers(archive).local.turn_over_idle(0.0)

    assert served(archive)
