"""What is taken away on arrival is in the vault before the sender is told so, whatever goes wrong around it."""

import sqlite3
from pathlib import Path

import making
import pytest

from pacs.archive import Archive
from pacs.ingest import ingest, ingest_derived
from pacs.model.errors import OutOfResources
from pacs.model.identity import Taken
from pacs.model.instance import InstanceKey, Origin
from pacs.sweep import recover


def vault_rows(home: Path) -> int:
    """Return how many rows the vault of a home holds."""
    with sqlite3.connect(home / "identity" / "vault.db") as connection:
        return int(connection.execute("SELECT count(*) FROM record").fetchone()[0])


def test_every_instance_is_in_the_vault_when_it_is_said_to_be_stored(tmp_path: Path) -> None:
    """One row each, beside patient, study and series; an equal resend adds none, what a job made adds none."""
    with making.archive(tmp_path / "home") as archive:
        for ds in (*making.ct_series(3), *making.ct_series(3)):
            stored = ingest(archive, making.received(ds))
            assert archive.vault is not None and archive.vault.has(stored.key.sop_instance_uid, stored.digest)
        assert vault_rows(tmp_path / "home") == 6
        made = making.dataset(
            study_uid=stored.key.study_instance_uid,
            series_uid="2.25.7",
            patient_id="",
            patient_name="",
            SOPInstanceUID="2.25.71",
        )
        ingest_derived(archive, [making.received(made, origin=Origin.PROCESSOR)], finishing=None)
        assert vault_rows(tmp_path / "home") == 6


def test_a_resend_brings_back_what_a_crash_or_an_older_setting_left_out(tmp_path: Path) -> None:
    """An instance that is known without a row gets it when it comes again."""
    with making.archive(tmp_path / "home", deid__vault=False) as archive:
        before = ingest(archive, making.received(making.dataset()))
    assert not (tmp_path / "home" / "identity").exists()

    with making.archive(tmp_path / "home") as archive:
        again = ingest(archive, making.received(making.dataset()))

        assert not again.fresh and again.key == before.key
        found = archive.vault.of_instance(again.key.sop_instance_uid, again.digest) if archive.vault else None
        assert found is not None and making.PATIENT_NAME.encode() in found.taken[0x00100010]


def test_where_the_vault_has_no_room_nothing_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender is told to try again; then everything is there."""
    with making.archive(tmp_path / "home") as archive:
        assert archive.vault is not None

        def full(group: list[tuple[InstanceKey, bytes, Taken]]) -> None:
            raise OutOfResources("no room for the identity vault")

        with monkeypatch.context() as patch:
            patch.setattr(archive.vault, "keep", full)
            with pytest.raises(OutOfResources):
                ingest(archive, making.received(making.dataset()))
        assert archive.index.summary()["instances"] == 0
        assert recover(archive) == 0

        stored = ingest(archive, making.received(making.dataset()))
        assert stored.fresh and archive.vault.has(stored.key.sop_instance_uid, stored.digest)


def test_the_vault_may_live_apart(tmp_path: Path) -> None:
    """`deid.vault_path` puts it elsewhere; the home holds nothing of it, and both are needed to get an original."""
    with making.archive(tmp_path / "home", deid__vault_path=str(tmp_path / "safe")) as archive:
        stored = ingest(archive, making.received(making.dataset()))
    assert not (tmp_path / "home" / "identity").exists()
    assert {path.name for path in (tmp_path / "safe").iterdir()} >= {"vault.db", "test.log"}

    with Archive.opened(making.settings(tmp_path / "home", deid__vault_path=str(tmp_path / "safe")), writer="web") as archive:
        assert archive.vault is not None and archive.vault.has(stored.key.sop_instance_uid, stored.digest)


def test_what_was_taken_stays_out_of_every_repr(tmp_path: Path) -> None:
    """Deidentified, Taken, and what the vault finds hide what they hold."""
    with making.archive(tmp_path / "home") as archive:
        made = archive.deidentifier.deidentify(making.received(making.dataset()))
        stored = ingest(archive, making.received(making.dataset()))
        found = archive.vault.of_instance(stored.key.sop_instance_uid, stored.digest) if archive.vault else None

    said = repr((made, made.taken, found, archive.vault))
    assert not any(word in said for word in making.PLANTED)
