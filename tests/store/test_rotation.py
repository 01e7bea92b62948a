"""Rotation of the image key: no record touched, resumable at every step, noticed by who serves, nothing lost with a key."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import making
import pytest

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError, IntegrityError, Unavailable
from pacs.store.envelope import Sealer
from pacs.store.keyhouse import KeyHouse
from pacs.store.keys import KeyRing
from pacs.store.segments import SegmentStore
from pacs.upkeep import forget
from pacs.upkeep.rotate import rotate
from pacs.upkeep.verify import verify


class PowerCut(BaseException):
    """Nothing after this line happens any more."""


def put(archive: Archive, number: int) -> None:
    """Put an image of a study of its own in."""
    uid = f"1.2.826.0.1.3680043.8.498.{5000 + number}"
    ingest(archive, making.received(making.dataset(study_uid=uid, series_uid=f"{uid}.1")))


def test_rotation_rewrites_no_segment_byte(tmp_path: Path) -> None:
    """Every study key opens with the new key and is as before; the old key opens nothing any more and is destroyed."""
    home = tmp_path / "home"
    with making.archive(home) as archive:
        put(archive, 1)
        put(archive, 2)
        kept = archive.quarantine.keep(making.received(making.dataset()), "Quarantined", "for the test")
    segments = {path.name: path.read_bytes() for path in (home / "store").glob("*.seg")}
    old = (home / "keys" / "image.key").read_bytes()

    with making.archive(home) as archive:
        old_id = archive.image_key_id
        done = rotate(archive)

    assert (done.study_keys, done.quarantined, done.destroyed) == (2, 1, old_id)
    assert {path.name: path.read_bytes() for path in (home / "store").glob("*.seg")} == segments
    assert [path.name for path in sorted((home / "keys").glob("*.key"))] == ["identity.key", "image.key"]
    with making.archive(home) as archive:
        assert archive.image_key_id == done.key_id != old_id
        assert list(verify(archive, deep=True)) == []
        assert bytes(archive.quarantine.open(kept).data_set)
    (tmp_path / "image.key").write_bytes(old)
    (tmp_path / "image.key").chmod(0o600)
    with pytest.raises(ConfigurationError, match="wrapped with the key"):
        KeyRing.open(home / "keys" / "study-keys.db", KeyHouse(tmp_path).open("image"))


def test_who_serves_goes_on_through_a_rotation(tmp_path: Path) -> None:
    """Another opening of the archive reads, makes new studies and quarantines, before and after, without opening anew."""
    with making.archive(tmp_path / "home") as serving, Archive.opened(serving.settings, writer="cli") as admin:
        put(serving, 1)
        done = rotate(admin)
        put(serving, 2)
        put(serving, 1)
        kept = serving.quarantine.keep(making.received(making.dataset()), "Quarantined", "for the test")

        assert serving.ring.wrapped_with() == {done.key_id: 3}
        assert serving.quarantine.wrapped_with() == {done.key_id: 1}
        assert admin.quarantine.open(kept).data_set
        assert list(verify(serving, deep=True)) == []
        again = rotate(admin)
        assert serving.ring.for_study("2.25.1")[1]
        assert serving.ring.wrapped_with() == {again.key_id: 4}


@pytest.mark.parametrize("step", ["next_key", "rewrap", "batch", "swap", "swapped", "reseal", "destroy_old"])
def test_a_rotation_that_was_cut_short_is_finished(tmp_path: Path, step: str) -> None:
    """Cut at each step: the archive opens and reads all the same, and rotating again ends what was begun."""
    home = tmp_path / "home"
    with making.archive(home) as archive:
        for number in range(5):
            archive.ring.for_study(f"2.25.{number}")
        put(archive, 1)
        archive.quarantine.keep(making.received(making.dataset()), "Quarantined", "for the test")
        old_id = archive.image_key_id
        house, ring = archive.keys, archive.ring
        change = house.change("image")
        image = ring.provider
        new = change.next_key()
        if step != "next_key":
            image.use(new)
            if step == "batch":
                with pytest.raises(PowerCut):
                    ring.rewrap(image, batch=2, on_progress=cut)
                assert set(ring.wrapped_with()) == {old_id, new}
            else:
                ring.rewrap(image)
        if step == "swap":
            os.link(house.path("image"), home / "keys" / "image.old.key")
        if step in ("swapped", "reseal", "destroy_old"):
            change.swap()
        if step in ("reseal", "destroy_old"):
            for one in archive.quarantine.files():
                archive.quarantine.reseal(one)
        if step == "destroy_old":
            with (home / "keys" / "image.old.key").open("r+b"):
                pass

    with making.archive(home) as archive:
        assert archive.keys.change("image").begun()
        assert list(verify(archive, deep=True)) == []
        put(archive, 2)
        done = rotate(archive)
        assert done.key_id == new
        assert archive.ring.wrapped_with().keys() == archive.quarantine.wrapped_with().keys() == {new}
    with making.archive(home) as archive:
        assert not archive.keys.change("image").begun()
        assert archive.image_key_id == new
        assert list(verify(archive, deep=True)) == []


def cut(_: int) -> None:
    """Stand for a cut of the power."""
    raise PowerCut


def test_the_old_key_is_kept_while_anything_needs_it(tmp_path: Path) -> None:
    """A quarantined object that cannot be sealed anew keeps the old key here; when it is discarded, the rotation ends."""
    home = tmp_path / "home"
    with making.archive(home) as archive:
        kept = archive.quarantine.keep(making.received(making.dataset()), "Quarantined", "for the test")
        path = home / "quarantine" / f"{kept}.sealed"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(IntegrityError):
            rotate(archive)
        assert (home / "keys" / "image.old.key").exists()
        archive.quarantine.discard(kept)
        assert rotate(archive).destroyed
        assert not (home / "keys" / "image.old.key").exists()


def test_only_one_rotates_at_a_time(tmp_path: Path) -> None:
    """A second rotation beside a running one is refused, not mixed with it."""
    with making.archive(tmp_path / "home") as archive, Archive.opened(archive.settings, writer="cli") as other:
        archive.ring.for_study("2.25.1")

        def meanwhile(_: int) -> None:
            with pytest.raises(Unavailable):
                rotate(other)

        assert rotate(archive, meanwhile).study_keys == 1


def test_ten_thousand_studies_rotate_and_one_is_forgotten(tmp_path: Path) -> None:
    """All keys open as before after a rotation; of the forgotten one nothing is left that the present key could open."""
    import sealing

    ring = sealing.ring(tmp_path)
    house = KeyHouse(tmp_path / "keys")
    with ring._transaction():
        made = {f"2.25.{number}": ring_key(ring, f"2.25.{number}") for number in range(10_000)}
    sealed = sealing.seal(Sealer(ring), sealing.encoded())
    image = ring.provider
    image.use(house.change("image").next_key())

    assert ring.rewrap(image) == 10_000

    assert {study: ring.for_study(study) for study in list(made)[::97]} == {study: made[study] for study in list(made)[::97]}
    assert ring.forget("2.25.1")
    copy = sealing.Held(b"".join(sealed.record))
    again = KeyRing.open(shutil.copy(tmp_path / "keys" / "study-keys.db", tmp_path / "ring.db"), house.open("image"))
    with pytest.raises(IntegrityError, match="forgotten"):
        Sealer(again).open_entry(copy.records[0])


def ring_key(ring: KeyRing, study: str) -> tuple[int, bytes]:
    """Make a study's key without a transaction of its own: ten thousand of them would wait for the disk."""
    name = ring._name(study)
    key = os.urandom(32)
    key_id, wrapped = ring.provider.wrap_named(key, b"mini-pacs study key " + name)
    insert = "INSERT INTO study_key (name, key_id, wrapped) VALUES (?, ?, ?)"
    return ring._connect().execute(insert, (name, key_id, wrapped)).lastrowid or 0, key


def test_a_key_that_was_never_exported_is_named(tmp_path: Path) -> None:
    """Until it has been exported once; a rotation makes a key that has not been, and an export brings lost keys back."""
    home = tmp_path / "home"
    with making.archive(home) as archive:
        assert archive.keys.unexported() == ["image", "identity"]
        archive.keys.mark_exported(1.0)
        assert archive.keys.unexported() == []
        stale = archive.keys.export()
        rotate(archive)
        assert archive.keys.unexported() == ["image"]
        text = archive.keys.export()
        put(archive, 1)
        house = archive.keys

    (home / "keys" / "image.key").unlink()
    with pytest.raises(ConfigurationError, match="last rotation"):
        house.bring_back(stale)
    with pytest.raises(ConfigurationError, match="not a key export"):
        house.bring_back("nothing of ours")
    assert house.bring_back(text) == ["image"]
    assert house.bring_back(text) == []
    with making.archive(home) as archive:
        assert list(verify(archive, deep=True)) == []
    with making.archive(tmp_path / "another") as other, pytest.raises(ConfigurationError, match="never replaced"):
        other.keys.bring_back(text)


def test_of_many_records_rotation_touches_none_and_forgetting_takes_one_study(tmp_path: Path, long_run: bool) -> None:
    """300 records (10,000 with --long): no byte of a segment changes; of a saved copy all but one study opens."""
    studies, each = (100, 100) if long_run else (10, 30)
    home = tmp_path / "home"

    def send(archive: Archive, study: int) -> None:
        uid = f"1.2.826.0.1.3680043.8.498.{6000 + study}"
        for ds in making.ct_series(each, study_uid=uid, series_uid=f"{uid}.1", frame=making.pixels(16, 16)):
            ingest(archive, making.received(ds, association=f"a{study}"))

    with making.archive(home) as archive:
        with ThreadPoolExecutor(8) as senders:
            list(senders.map(lambda study: send(archive, study), range(studies)))
        before = digests(home)

        assert rotate(archive).study_keys == studies

        assert digests(home) == before
        shutil.copytree(home / "store", tmp_path / "saved")
        gone = archive.index.studies()[0].study_instance_uid
        forget.forget(archive, forget.belongings(archive, study_instance_uids=[gone]))
        saved = SegmentStore(tmp_path / "saved", writer="saved", segment_bytes=1 << 20, floor_bytes=0)
        opened, noise = set(), 0
        for container in saved.containers():
            for _, record in saved.records(container):
                try:
                    opened.add(archive.sealer.open_entry(record).key)
                except IntegrityError:
                    noise += 1
        assert (len(opened), noise) == ((studies - 1) * each, each)
        assert gone not in {key.study_instance_uid for key in opened}


def digests(home: Path) -> dict[str, str]:
    """Return the SHA-256 of every segment."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in (home / "store").glob("*.seg")}
