"""The home is destroyed, and comes back: from a backup, from the keys' export, and from the records alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import filling
import making
import pytest
from services import S3, postgres_database, postgres_programs

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError, IntegrityError
from pacs.settings import Settings
from pacs.store import sending
from pacs.sweep import prepare, recover
from pacs.upkeep.backup import MANIFEST, back_up
from pacs.upkeep.rebuild import COMPLETION, rebuild
from pacs.upkeep.restore import restore
from pacs.upkeep.ship import send_now
from pacs.upkeep.verify import verify

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("with_keys", [True, False], ids=["with keys", "keys from their export"])
def test_the_home_is_destroyed_and_everything_answers_as_before(tmp_path: Path, with_keys: bool) -> None:
    """Destroy the home, restore it, bring the keys back: queries, retrievals, versions and quarantine answer the same."""
    home, copy = tmp_path / "home", tmp_path / "backup"
    with making.archive(home) as archive:
        filling.fill(archive)
        before = filling.answers(archive)
        for name in ("routes.toml", "recalls.json"):
            (home / name).write_text("[]\n" if name.endswith("json") else "")
        back_up(archive, copy, with_keys=with_keys)
        export = archive.keys.export()
    shutil.rmtree(home)

    settings = making.settings(home)
    report = restore(settings, copy)

    assert (report.with_index, report.with_keys) == (True, with_keys)
    if not with_keys:
        assert not list((home / "keys").glob("*.key")), "no key in a backup unless asked for"
        with pytest.raises(ConfigurationError, match=r"image\.key"):
            prepare(settings)
        assert house(settings).bring_back(export) == ["image", "identity"]
    assert not prepare(settings), "nothing is made anew"
    assert (home / "routes.toml").exists() and (home / "recalls.json").exists()
    with Archive.opened(settings, writer="test") as archive:
        assert recover(archive) == 0
        assert filling.answers(archive) == before
        assert list(verify(archive, deep=True)) == []
        ingest(archive, making.received(making.dataset(instance=5)))
        assert archive.index.summary()["instances"] == before["summary"]["instances"] + 1


def house(settings: Settings) -> Any:
    """Return the keys of a home."""
    from pacs.archive import key_house

    return key_house(settings)


def test_a_second_backup_copies_only_what_is_new(tmp_path: Path) -> None:
    """An unchanged archive costs its index and key ring only; what is no longer needed leaves the folder."""
    copy = tmp_path / "backup"
    with making.archive(tmp_path / "home") as archive:
        filling.fill(archive)
        first = back_up(archive, copy)
        segments = {path.name for path in (tmp_path / "home" / "store").glob("*.seg")}
        named = json.loads((copy / MANIFEST).read_text())["files"]
        again = back_up(archive, copy)

    assert {f"store/{name}" for name in segments} <= named.keys()
    assert first.copied == first.files
    assert again.copied < 5
    assert {entry["sha256"] for entry in json.loads((copy / MANIFEST).read_text())["files"].values()} == {
        path.name for path in (copy / "files").iterdir()
    }


def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    """A bit flipped in any file of a backup, or a file that is missing, is found on the way back."""
    with making.archive(tmp_path / "home") as archive:
        filling.fill(archive)
        back_up(archive, tmp_path / "backup")
    files = sorted((tmp_path / "backup" / "files").iterdir())

    for number, path in enumerate(files):
        content = path.read_bytes()
        changed = bytearray(content or b"\0")
        changed[len(changed) // 2] ^= 1
        path.write_bytes(changed)
        with pytest.raises(IntegrityError):
            restore(making.settings(tmp_path / f"home{number}"), tmp_path / "backup")
        path.write_bytes(content)
    files[0].unlink()
    with pytest.raises(IntegrityError, match="lacks"):
        restore(making.settings(tmp_path / "without"), tmp_path / "backup")


def test_restoring_and_backing_up_refuse_the_wrong_place(tmp_path: Path) -> None:
    """A home that holds anything is never written over; a backup goes neither into the home nor among other things."""
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "letter.txt").write_text("dear")
    with making.archive(tmp_path / "home") as archive:
        back_up(archive, tmp_path / "backup")
        for wrong in (tmp_path / "home" / "backup", tmp_path / "things"):
            with pytest.raises(ConfigurationError):
                back_up(archive, wrong)

    with pytest.raises(ConfigurationError, match="not empty"):
        restore(making.settings(tmp_path / "home"), tmp_path / "backup")
    with pytest.raises(ConfigurationError, match="no backup"):
        restore(making.settings(tmp_path / "new"), tmp_path / "things")


def rows(archive: Archive) -> dict[str, list[str]]:
    """Return the rows of every level without what records cannot say: row numbers, times of arrival, sources, completion."""
    import sqlalchemy as sa

    left_out = {"pk", "patient_pk", "study_pk", "series_pk", "stored_at", "last_arrival", "source", "verified_at", "held_for"}
    left_out |= {"generation", "scheduled_generation", "held_generation", "cleaning_generation", "evidence", "completion"}
    engine = sa.create_engine(archive.settings.database_url)
    found = {}
    with engine.connect() as connection:
        for table in ("patient", "study", "series", "instance"):
            each = connection.execute(sa.text(f"SELECT * FROM {table}")).mappings()
            found[table] = sorted(repr({k: in_order(v) for k, v in sorted(row.items()) if k not in left_out}) for row in each)
    engine.dispose()
    return found


def in_order(value: Any) -> Any:
    """Return JSON text with its keys in order, anything else as it is."""
    return json.dumps(json.loads(value), sort_keys=True) if isinstance(value, str) and value.startswith("{") else value


def test_the_index_is_rebuilt_from_the_records(tmp_path: Path) -> None:
    """Without index.db, records and key ring give equal rows: sources, versions and derived objects; nothing runs again."""
    home = tmp_path / "home"
    with making.archive(home) as archive:
        filling.fill(archive)
        before, said = rows(archive), filling.answers(archive)
    with making.archive(home, writer="second") as archive:
        ingest(archive, making.received(making.dataset(instance=3, frame=making.pixels(seed=77))))
        before, said = rows(archive), filling.answers(archive)
        with pytest.raises(ConfigurationError, match="not empty"):
            rebuild(archive)
    for path in home.glob("index.db*"):
        path.unlink()

    with making.archive(home) as archive:
        done = rebuild(archive)

        assert (done.instances, done.unreadable) == (8, 0)
        assert rows(archive) == before
        assert filling.answers(archive) == said
        assert list(verify(archive)) == []
        assert archive.index.settled(9e9, settle_s=0, quiet_s=0, study_settle_s=0) == []
        assert {one.completion for one in archive.index.series_of(archive.index.studies()[0].study_instance_uid)} <= {
            COMPLETION,
            "made here",
        }


def test_home_and_bucket(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backup is in a bucket, the segments in another: what was sent is not copied, and both together give everything back,
    also what was stored after the backup."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    home, copy, url = tmp_path / "home", s3.new_prefix(), s3.new_prefix()
    with making.archive(home, store__url=url) as archive:
        recover(archive)
        filling.fill(archive)
        assert archive.tiers is not None
        archive.tiers.local.turn_over(0.0)
        assert send_now(archive) == 1
        first = back_up(archive, copy, with_keys=True)
        assert (first.elsewhere, back_up(archive, copy, with_keys=True).copied < 6) == (1, True)
        with pytest.raises(ConfigurationError, match="another archive"), making.archive(tmp_path / "second") as second:
            back_up(second, copy)
        with pytest.raises(ConfigurationError, match="replace"):
            back_up(archive, f"{url}/backup")
        ingest(archive, making.received(making.dataset(instance=6)))
        archive.tiers.local.turn_over(0.0)
        assert send_now(archive) == 1
        before = filling.answers(archive)
    shutil.rmtree(home)

    settings = making.settings(home, store__url=url)
    assert restore(settings, copy).elsewhere == 1

    with Archive.opened(settings, writer="test") as archive:
        assert recover(archive) == 1, "what came after the backup is in the bucket"
        assert filling.answers(archive) == before
        assert list(verify(archive, deep=True)) == []
        ingest(archive, making.received(making.dataset(instance=7)))
        assert not any(one.container in archive.tiers.ledger.copies() for one in archive.tiers.local.segments())  # type: ignore[union-attr]


def test_the_whole_stands_alone(tmp_path: Path) -> None:
    """With --whole the bucket of records may be lost as well: everything answers from the home again."""
    (tmp_path / "bucket").mkdir()
    with making.archive(tmp_path / "home", store__url=(tmp_path / "bucket").as_uri()) as archive:
        recover(archive)
        filling.fill(archive)
        assert archive.tiers is not None
        archive.tiers.local.turn_over(0.0)
        send_now(archive)
        sending.make_room(archive.tiers, keep_bytes=1, free_bytes=0)
        before = filling.answers(archive)
        assert back_up(archive, tmp_path / "backup", with_keys=True, whole=True).elsewhere == 0
    shutil.rmtree(tmp_path / "home")
    shutil.rmtree(tmp_path / "bucket")

    restore(making.settings(tmp_path / "home"), tmp_path / "backup")

    with making.archive(tmp_path / "home") as archive:
        assert filling.answers(archive) == before
        assert list(verify(archive, deep=True)) == []


def test_the_index_in_postgresql_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore carry it into an empty database of another name; without them both say what to install."""
    with postgres_database() as url, postgres_database() as other:
        with making.archive(tmp_path / "home", database__url=url) as archive:
            filling.fill(archive)
            before = filling.answers(archive)
            monkeypatch.setenv("PATH", str(tmp_path))
            with pytest.raises(ConfigurationError, match="pg_dump"):
                back_up(archive, tmp_path / "backup", with_keys=True)
            monkeypatch.setenv("PATH", f"{postgres_programs()}:/usr/bin:/bin")
            back_up(archive, tmp_path / "backup", with_keys=True)
        shutil.rmtree(tmp_path / "home")

        settings = making.settings(tmp_path / "home", database__url=other)
        report = restore(settings, tmp_path / "backup")

        assert report.with_index and not (tmp_path / "home" / "index.pgdump").exists()
        with Archive.opened(settings, writer="test") as archive:
            assert recover(archive) == 0
            assert filling.answers(archive) == before
            assert list(verify(archive, deep=True)) == []
            ingest(archive, making.received(making.dataset(instance=5)))
