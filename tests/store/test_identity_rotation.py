"""Rotation of the identity key: every name stays, what the old key sealed it opens no more, and no cut leaves anything half."""

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest
from workflow.orders import item

from pacs.archive import Archive
from pacs.index.sealed import SealedRows
from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError, Unavailable
from pacs.model.job import NewJob
from pacs.model.sealed import Kind
from pacs.reidentify import Originals
from pacs.store import certificate, identity_keys
from pacs.store.identity_keys import IdentityKeys
from pacs.store.keychange import KeyChange
from pacs.store.keyhouse import KeyHouse
from pacs.store.keys import FileKeyProvider, KeyRing
from pacs.store.notes import Notes
from pacs.store.providers import LocalKeys
from pacs.store.vault import Vault
from pacs.upkeep.backup import back_up
from pacs.upkeep.rotate import keys_held, rotate_identity, sealed_by_others
from pacs.workflow.worklist import Worklist

PURPOSES = ("pseudonym", "notes", "bucket", "backup", "certificate")


class PowerCut(BaseException):
    """Nothing after this line happens any more."""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as older releases left it: the identity key itself has named and sealed everything."""
    home = tmp_path_factory.mktemp("older") / "home"
    for name in ("image", "identity"):
        FileKeyProvider.create(home / "keys" / f"{name}.key")
    key = FileKeyProvider.open(home / "keys" / "identity.key")
    KeyRing.create(home / "keys" / "study-keys.db", FileKeyProvider.open(home / "keys" / "image.key")).close()
    Vault.create(home / "identity", key)
    with making.archive(home) as opened:
        archive = replace(opened, notes=Notes(key))
        ingest(archive, making.received(making.dataset()))
        for number in range(3):
            Worklist(archive).add(item(AccessionNumber=f"ACC-{number}"))
        seal, index = archive.notes.seal, archive.index
        index.performed.add("2.25.5", "CT1", "2.25.6", *seal(Kind.PERFORMED, "2.25.5", b"performed"))
        (job,) = index.jobs.add([NewJob("k", "lungs", "1", {}, "r", "cpu", "2.25.1", ("2.25.2",), "asked for")])
        index.workitems.add(job, "digest", *seal(Kind.WORKITEM, job, b"workitem"))
        key_id, sealed = seal(Kind.COMMITMENT, "CT1", b"asked")
        index.commitments.add("CT1", "2.25.7", sealed, key_id, 1)
        ended = index.commitments.add("CT1", "2.25.8", sealed, key_id, 1)
        index.commitments.end(ended, "reported", attempts=1)
    # Opening it has brought it up to date, which is what the tests are to see.
    with contextlib.closing(sqlite3.connect(home / "keys" / "study-keys.db", isolation_level=None)) as connection:
        connection.execute("DROP TABLE identity")
    return home


@pytest.fixture
def home(older: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    return Path(shutil.copytree(older, tmp_path / "home"))


def says(archive: Archive) -> dict[str, Any]:
    """Return all that must be as it was: names, digests, what is revealed, what is found, what rows say."""
    known = ingest(archive, making.received(making.dataset()))
    assert not known.fresh, "a resend of the same original is known"
    assert archive.vault is not None
    (stored,) = archive.index.locate(sop_instance_uids=[known.key.sop_instance_uid])
    opened: dict[str, bytes] = {}
    for batch in archive.index.sealed.under_others(""):
        for row in batch:
            opened[f"{row.kind} {row.row_id}"] = archive.notes.open(row.kind, row.bound_to, row.key_id, row.sealed)
    return {
        "names": [archive.identity.derive(purpose) for purpose in PURPOSES],
        "key": known.key,
        "found": [one.found for one in archive.vault.find("id", making.PATIENT_ID)],
        "revealed": Originals(archive).key(stored),
        "worklist": [one.item_id for one in Worklist(archive).items()],
        "asked": len(list(Worklist(archive).find({}))),
        "rows": opened,
        "signs": certificate.public_key(archive.identity),
    }


def test_a_home_of_an_older_release_is_taken_over_as_it_is(home: Path) -> None:
    """Its key becomes the secret that names: every name stays; rows open, and what is new is sealed by another secret."""
    key = FileKeyProvider.open(home / "keys" / "identity.key")
    with making.archive(home) as archive:
        assert [archive.identity.derive(one) for one in PURPOSES] == [key.derive(one) for one in PURPOSES]
        assert archive.identity.key_id != key.key_id
        assert identity_keys.wrapped_with(archive.keys.ring) == {key.key_id: 2}
        assert sealed_by_others(archive) == 7
        assert len(says(archive)["rows"]) == 6
        Worklist(archive).add(item(AccessionNumber="ACC-new"))
        assert archive.index.sealed.sealed_with() == {key.key_id: 6, archive.identity.key_id: 1}


def test_a_wrong_identity_key_is_refused(home: Path, tmp_path: Path) -> None:
    """Before a home is taken over because of its vault, and after it because of its secrets; nothing is written meanwhile."""
    right = (home / "keys" / "identity.key").read_bytes()
    (home / "keys" / "identity.key").unlink()
    FileKeyProvider.create(home / "keys" / "identity.key")
    with pytest.raises(ConfigurationError, match="wrapped with the key"), making.archive(home):
        pass
    (home / "keys" / "identity.key").write_bytes(right)
    with making.archive(home):
        pass
    (home / "keys" / "identity.key").unlink()
    FileKeyProvider.create(home / "keys" / "identity.key")
    with pytest.raises(ConfigurationError, match="wrapped with the key"), making.archive(home):
        pass


def test_names_stay_and_the_old_key_opens_nothing(home: Path) -> None:
    """Reveal, search by patient id, resend, worklist, signatures: all as before; the old key, kept by a thief, opens no row."""
    with making.archive(home) as archive:
        before = says(archive)
        old = LocalKeys(FileKeyProvider.open(home / "keys" / "identity.key").reveal())
        done = rotate_identity(archive)

    assert (done.resealed, done.left, done.destroyed) == (7, 0, old.key_id)
    assert sorted(path.name for path in (home / "keys").glob("*key*")) == ["identity.key", "image.key", "study-keys.db"]
    with making.archive(home) as archive:
        assert says(archive) == before
        assert archive.keys.open("identity").key_id == done.key_id != old.key_id
        assert sealed_by_others(archive) == 0
        thief = Notes(old)
        for batch in archive.index.sealed.under_others(""):
            for row in batch:
                with pytest.raises(ConfigurationError):
                    thief.open(row.kind, row.bound_to, row.key_id, row.sealed)
                with pytest.raises(ConfigurationError):
                    thief.open(row.kind, row.bound_to, old.key_id, row.sealed)
        with pytest.raises(ConfigurationError):
            Vault.open(home / "identity", old, "thief")
        with pytest.raises(ConfigurationError):
            IdentityKeys.open(archive.keys.ring, old)


def test_in_a_new_home_the_key_is_good_for_nothing_but_to_wrap(tmp_path: Path) -> None:
    """Names are not derived from it, so that a key that was seen says nothing once it is rotated away; again and again."""
    with making.archive(tmp_path / "home") as archive:
        key = archive.keys.open("identity")
        assert key.derive("pseudonym") != archive.identity.derive("pseudonym")
        ingest(archive, making.received(making.dataset()))
        before = says(archive)
        ids = {rotate_identity(archive).key_id for _ in range(3)}
        assert len(ids) == 3 and key.key_id not in ids
    with making.archive(tmp_path / "home") as archive:
        assert says(archive) == before


def test_who_serves_goes_on_through_a_rotation(home: Path) -> None:
    """An opening from before stores, reveals, and seals rows that open afterwards, without opening anew."""
    with making.archive(home) as serving:
        before = says(serving)
        with Archive.opened(serving.settings, writer="cli") as admin:
            rotate_identity(admin, lambda _: Worklist(serving).add(item(AccessionNumber="ACC-meanwhile")) and None)
        assert says(serving)["names"] == before["names"]
        Worklist(serving).add(item(AccessionNumber="ACC-after"))
        ingest(serving, making.received(making.dataset(instance=2)))
    with making.archive(home) as archive:
        assert says(archive)["revealed"] == before["revealed"]
        assert len(Worklist(archive).items()) == 5
        assert archive.index.sealed.sealed_with() == {archive.identity.key_id: 8}


STEPS: dict[str, tuple[object, str]] = {
    "next_key": (KeyChange, "next_key"),
    "vault": (Vault, "rewrap"),
    "row": (SealedRows, "replace"),
    "secrets": (identity_keys, "rewrap"),
    "swap": (KeyChange, "swap"),
    "rename": (Path, "rename"),
    "destroy": (KeyChange, "destroy_old"),
    "unlink": (Path, "unlink"),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_that_was_cut_short_is_finished(home: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str) -> None:
    """The power goes before or behind each step: everything answers as before, and rotating again ends what was begun."""
    owner, name = STEPS[step]
    real: Callable[..., Any] = getattr(owner, name)

    def cut(*given: Any, **named: Any) -> Any:
        if when == "after":
            real(*given, **named)
        raise PowerCut

    with making.archive(home) as archive:
        before = says(archive)
        old = archive.keys.open("identity").key_id
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, staticmethod(cut) if name == "rewrap" and owner is Vault else cut)
            with pytest.raises(PowerCut):
                rotate_identity(archive)

    with making.archive(home) as archive:
        assert says(archive) == before
        done = rotate_identity(archive)
        assert says(archive) == before
        assert not archive.keys.change("identity").begun()
        assert identity_keys.wrapped_with(archive.keys.ring) == {done.key_id: 2}
        assert archive.keys.open("identity").key_id == done.key_id != old
        assert sealed_by_others(archive) == 0
    with making.archive(home) as archive:
        assert says(archive) == before


ROTATOR = """
import sys; sys.path.insert(0, sys.argv[1])
import making
from pathlib import Path
from pacs.upkeep.rotate import rotate_identity
with making.archive(Path(sys.argv[2])) as archive:
    print("ready", flush=True)
    while True:
        rotate_identity(archive)
        print("rotated", flush=True)
"""


def test_kill_9_in_the_middle_of_it(home: Path, long_run: bool) -> None:
    """Who rotates again and again is killed, twice (60 times with --long); the archive opens and says the same every time."""
    with making.archive(home) as archive:
        before = says(archive)
    rotations = 0
    for number in range(60 if long_run else 2):
        command = [sys.executable, "-c", ROTATOR, str(Path(making.__file__).parent), str(home)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as rotator:
            assert rotator.stdout is not None and rotator.stdout.readline() == "ready\n"
            time.sleep(0.0017 * (7 * number % 60))
            rotator.send_signal(signal.SIGKILL)
            rotations += len(rotator.stdout.readlines())
        with making.archive(home) as archive:
            assert says(archive) == before
    assert rotations or not long_run
    with making.archive(home) as archive:
        rotate_identity(archive)
        assert says(archive) == before


def test_one_rotates_at_a_time_and_no_backup_meanwhile(tmp_path: Path) -> None:
    """A copy of the ring beside a key that goes would be a backup that does not open."""
    with making.archive(tmp_path / "home") as archive:
        with keys_held(tmp_path / "home", exclusive=False), pytest.raises(Unavailable, match="backup"):
            rotate_identity(archive)
        with keys_held(tmp_path / "home", exclusive=True), pytest.raises(Unavailable, match="rotation"):
            back_up(archive, tmp_path / "backup")
        assert rotate_identity(archive).destroyed


def test_a_damaged_row_holds_nothing_up(home: Path) -> None:
    """It opens neither before nor after; it is counted, and the rest is sealed anew."""
    with making.archive(home) as archive:
        row = next(archive.index.sealed.under_others(""))[0]
        assert archive.index.sealed.replace(row, row.key_id, row.sealed[:-1] + bytes([row.sealed[-1] ^ 1]))
        done = rotate_identity(archive)
    assert (done.resealed, done.left) == (6, 1)


def test_an_export_brings_the_names_to_a_new_home(home: Path, tmp_path: Path) -> None:
    """After a rotation, too: what the export holds gives the same pseudonyms where nothing is left but the originals."""
    with making.archive(home) as archive:
        rotate_identity(archive)
        text = archive.keys.export()
        uid = archive.deidentifier.pseudonymous_uid("1.2.3")
    assert KeyHouse(tmp_path / "new" / "keys").bring_back(text) == ["image", "identity"]
    with making.archive(tmp_path / "new") as archive:
        assert archive.deidentifier.pseudonymous_uid("1.2.3") == uid
        rotate_identity(archive)
    (tmp_path / "new" / "keys" / "identity.key").unlink()
    with pytest.raises(ConfigurationError, match="last rotation"):
        KeyHouse(tmp_path / "new" / "keys").bring_back(text)
