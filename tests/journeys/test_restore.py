"""The home is destroyed, and comes back: from a backup, from the keys' export, and from the records alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import filling
import making
import pytest

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError, IntegrityError
from pacs.settings import Settings
from pacs.sweep import prepare, recover
from pacs.upkeep.backup import MANIFEST, back_up
from pacs.upkeep.rebuild import COMPLETION, rebuild
from pacs.upkeep.restore import restore
from pacs.upkeep.verify import verify

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("with_keys", [True, False], ids=["with keys", "keys from their export"])
def test_the_home_is_destroyed_and_everything_answers_as_before(tmp_path: Path, with_keys: bool) -> None:
    """Destroy the home, restore it, bring the keys back: queries, retrievals, versions and quarantine answer the same."""
    home, copy = tmp_path / "home", tmp_path / "backup"
    with making.archive(home) as archive:
        filling.fill(archive)
        before = filling.answers(archive)
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
