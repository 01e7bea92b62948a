"""The identity vault: what goes in comes out, is found by digests only, and survives a power cut."""

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import making
import pytest

from pacs.dicom.elements import element
from pacs.model.errors import ConfigurationError, IntegrityError, OutOfResources
from pacs.model.identity import Found, Taken
from pacs.model.instance import InstanceKey
from pacs.model.query import Level
from pacs.store import journal
from pacs.store.journal import entries
from pacs.store.keys import FileKeyProvider
from pacs.store.vault import Vault
from pacs.sweep import prepare

DIGEST = bytes(range(32))
NAME, PATIENT_ID, STUDY_DATE, STUDY_UID, SERIES_UID, SOP_UID = (
    0x00100010,
    0x00100020,
    0x00080020,
    0x0020000D,
    0x0020000E,
    0x00080018,
)


def encoded(tag: int, vr: str, value: str) -> bytes:
    """Return an element as it stands in a data set."""
    return bytes(element(tag, vr, value.encode()).encoded)


def taken(number: int = 1, *, name: str = "Quillfeather^Zebulon", study: str = "1.2.3", date: str = "20240229") -> Taken:
    """Return what was taken from instance `number`."""
    levels = {
        Level.PATIENT: {NAME: encoded(NAME, "PN", name), PATIENT_ID: encoded(PATIENT_ID, "LO", "MRN-1")},
        Level.STUDY: {STUDY_DATE: encoded(STUDY_DATE, "DA", date), STUDY_UID: encoded(STUDY_UID, "UI", study)},
        Level.SERIES: {SERIES_UID: encoded(SERIES_UID, "UI", f"{study}.1"), 0x00120062: b""},
        Level.IMAGE: {SOP_UID: encoded(SOP_UID, "UI", f"{study}.1.{number}")},
    }
    names = (
        (Level.PATIENT, "name", name),
        (Level.PATIENT, "id", "MRN-1"),
        (Level.PATIENT, "patient", "MRN-1\\ISSUER"),
        (Level.STUDY, "accession", "ACC-7"),
        (Level.STUDY, "uid", study),
        (Level.SERIES, "uid", f"{study}.1"),
        (Level.IMAGE, "uid", f"{study}.1.{number}"),
    )
    return Taken("MP-A", levels, names)


def key(number: int = 1) -> InstanceKey:
    """Return the pseudonymous UIDs of instance `number`."""
    return InstanceKey("2.25.1", "2.25.11", f"2.25.11{number}")


def whole(one: Taken) -> dict[int, bytes]:
    """Return everything that was taken, without levels."""
    return {tag: value for level in one.levels.values() for tag, value in level.items()}


@pytest.fixture
def provider() -> FileKeyProvider:
    """A key of the test's own."""
    return FileKeyProvider(b"i" * 32)


@pytest.fixture
def vault(tmp_path: Path, provider: FileKeyProvider) -> Vault:
    """An empty vault."""
    Vault.create(tmp_path / "identity", provider)
    return Vault.open(tmp_path / "identity", provider, "scp")


def test_what_was_taken_comes_back(vault: Vault) -> None:
    """Every element, byte for byte, with the place that the instance has in the archive; unknown contents are None."""
    vault.keep([(key(), DIGEST, taken())])

    found = vault.of_instance("2.25.111", DIGEST)

    assert found is not None and found.taken == whole(taken())
    assert found.found == Found(Level.IMAGE, "MP-A", "2.25.1", "2.25.11", "2.25.111")
    assert vault.of_instance("2.25.111", bytes(32)) is None
    assert vault.has("2.25.111", DIGEST) and not vault.has("2.25.112", DIGEST)


def test_equal_values_are_kept_once(vault: Vault) -> None:
    """A series of 200 costs one row more for each instance, with its own UID in it and little else."""
    vault.keep([(key(number), DIGEST, taken(number)) for number in range(200)])

    assert vault.count() == 203
    sizes = [len(row[0]) for row in vault._file.all("SELECT sealed FROM record WHERE level = 3")]
    assert max(sizes) < 110


def test_an_instance_may_differ_from_its_patient(vault: Vault) -> None:
    """A name that was corrected, a date that is missing: each instance gets back exactly its own."""
    married = taken(2, name="Featherstonehaugh^Ada")
    lacking = taken(3)
    lacking = replace(lacking, levels={**lacking.levels, Level.STUDY: {STUDY_UID: lacking.levels[Level.STUDY][STUDY_UID]}})
    vault.keep([(key(1), DIGEST, taken(1)), (key(2), DIGEST, married), (key(3), DIGEST, lacking)])

    for number, one in ((1, taken(1)), (2, married), (3, lacking)):
        found = vault.of_instance(f"2.25.11{number}", DIGEST)
        assert found is not None and found.taken == whole(one)
    assert {one.found.patient_id for one in vault.find("name", "Featherstonehaugh^Ada")} == {"MP-A"}


def test_a_conflict_keeps_both_identities(vault: Vault) -> None:
    """Two contents under one SOP Instance UID are two rows; what is there is never replaced."""
    other = taken(1, date="19990101")
    vault.keep([(key(), DIGEST, taken())])
    vault.keep([(key(), bytes(32), other), (key(), DIGEST, other)])

    first, second = vault.of_instance("2.25.111", DIGEST), vault.of_instance("2.25.111", bytes(32))

    assert first is not None and first.taken == whole(taken())
    assert second is not None and second.taken == whole(other)
    assert len(vault.under("2.25.111")) == 2


@pytest.mark.parametrize(
    ("kind", "value", "level"),
    [
        ("id", " MRN-1 ", Level.PATIENT),
        ("patient", "MRN-1\\ISSUER", Level.PATIENT),
        ("name", "QUILLFEATHER^zebulon^^", Level.PATIENT),
        ("accession", "ACC-7", Level.STUDY),
        ("uid", "1.2.3", Level.STUDY),
        ("uid", "1.2.3.1", Level.SERIES),
        ("uid", "1.2.3.1.1", Level.IMAGE),
    ],
)
def test_it_is_found_by_what_it_was_called(vault: Vault, kind: str, value: str, level: Level) -> None:
    """By ID, ID and issuer, name, accession number and UID; not by a part of them."""
    vault.keep([(key(), DIGEST, taken())])

    assert [one.found.level for one in vault.find(kind, value)] == [level]
    assert vault.find(kind, value.strip(" ^")[:-1] + "~") == []


def test_it_is_found_by_its_pseudonyms(vault: Vault) -> None:
    """Patient, study, series and instance; and what is below them."""
    vault.keep([(key(1), DIGEST, taken(1)), (key(2), DIGEST, taken(2))])

    for pseudonym, level in (
        ("MP-A", Level.PATIENT),
        ("2.25.1", Level.STUDY),
        ("2.25.11", Level.SERIES),
        ("2.25.112", Level.IMAGE),
    ):
        assert [one.found.level for one in vault.under(pseudonym)] == [level]
    (series,) = vault.under("2.25.11")
    assert {one.found.sop_instance_uid for one in vault.below(series.found)} == {"2.25.111", "2.25.112"}


def test_nothing_is_there_in_the_clear(vault: Vault, tmp_path: Path) -> None:
    """Neither values nor UIDs nor pseudonyms stand in any file, and no row says whose it is."""
    vault.keep([(key(), DIGEST, taken())])

    for path in (tmp_path / "identity").iterdir():
        content = path.read_bytes().lower()
        assert not any(word in content for word in (b"quillfeather", b"mrn-1", b"1.2.3", b"2.25.1", b"mp-a", b"20240229")), path
        assert path.stat().st_mode & 0o077 == 0


def test_another_key_does_not_open_it(vault: Vault, tmp_path: Path) -> None:
    """Refused at once, and a row that was moved or changed does not authenticate."""
    vault.keep([(key(1), DIGEST, taken(1)), (key(2), DIGEST, taken(2))])
    vault.close()

    with pytest.raises(ConfigurationError):
        Vault.open(tmp_path / "identity", FileKeyProvider(b"j" * 32), "scp")
    with sqlite3.connect(tmp_path / "identity" / "vault.db") as connection:
        rows = connection.execute("SELECT name, sealed FROM record WHERE level = 3").fetchall()
        connection.execute("UPDATE record SET sealed = ? WHERE name = ?", (rows[0][1], rows[1][0]))
    reopened = Vault.open(tmp_path / "identity", FileKeyProvider(b"i" * 32), "scp")
    with pytest.raises(IntegrityError):
        [reopened.of_instance(f"2.25.11{number}", DIGEST) for number in (1, 2)]


def test_a_missing_vault_is_said(tmp_path: Path, provider: FileKeyProvider) -> None:
    """Opening never makes one."""
    with pytest.raises(ConfigurationError, match="is missing"):
        Vault.open(tmp_path, provider, "scp")


def test_the_log_heals_a_database_that_lost_its_last_commits(tmp_path: Path, provider: FileKeyProvider) -> None:
    """A power cut may take what SQLite had not brought to the disk; what was acknowledged is in the log."""
    folder = tmp_path / "identity"
    Vault.create(folder, provider)
    before = tmp_path / "before"
    shutil.copytree(folder, before)
    vault = Vault.open(folder, provider, "scp")
    vault.keep([(key(1), DIGEST, taken(1))])
    vault.keep([(key(2), DIGEST, taken(2))])
    vault.close()
    shutil.copy(folder / "scp.log", before / "scp.log")

    after = Vault.open(before, provider, "web")
    after.recover()

    assert after.has("2.25.111", DIGEST) and after.has("2.25.112", DIGEST)
    found = after.of_instance("2.25.112", DIGEST)
    assert found is not None and found.taken == whole(taken(2))
    assert [one.found.level for one in after.find("id", "MRN-1")] == [Level.PATIENT]


def test_the_same_writer_goes_on_where_its_log_ended(tmp_path: Path, provider: FileKeyProvider) -> None:
    """Reopened without a recovery, it first brings in what the log holds, and appends behind it."""
    folder = tmp_path / "identity"
    Vault.create(folder, provider)
    empty = tmp_path / "empty"
    shutil.copytree(folder, empty)
    first = Vault.open(folder, provider, "scp")
    first.keep([(key(1), DIGEST, taken(1))])
    first.close()
    shutil.copy(folder / "scp.log", empty / "scp.log")

    second = Vault.open(empty, provider, "scp")
    second.keep([(key(2), DIGEST, taken(2))])
    second.close()

    third = Vault.open(empty, provider, "web")
    assert third.has("2.25.111", DIGEST) and third.has("2.25.112", DIGEST)


def test_a_torn_entry_ends_the_log(tmp_path: Path, vault: Vault, provider: FileKeyProvider) -> None:
    """Half of an entry was never acknowledged; what stands before it counts."""
    vault.keep([(key(1), DIGEST, taken(1))])
    end = vault._journal.position
    vault.keep([(key(2), DIGEST, taken(2))])
    last = vault._journal.position
    vault.close()
    folder = tmp_path / "identity"
    with (folder / "scp.log").open("r+b") as file:
        file.seek((end + last) // 2)
        file.write(bytes(last - (end + last) // 2))
    for name in ("vault.db", "vault.db-wal", "vault.db-shm"):
        (folder / name).unlink(missing_ok=True)
    lost = list(entries((folder / "scp.log").read_bytes(), 0))

    assert len(lost) == 1


def test_a_full_log_begins_again_and_nothing_is_lost(
    tmp_path: Path, provider: FileKeyProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log no longer holds the database holds durably; entries of an older round are not replayed."""
    monkeypatch.setattr(journal, "LOG_BYTES", 4096)
    folder = tmp_path / "identity"
    Vault.create(folder, provider)
    vault = Vault.open(folder, provider, "scp")
    for number in range(60):
        vault.keep([(key(number), DIGEST, taken(number))])
    assert vault._journal.generation >= 2
    vault.close()

    again = Vault.open(folder, provider, "scp")
    again.recover()

    assert all(again.has(f"2.25.11{number}", DIGEST) for number in range(60))
    assert (folder / "scp.log").stat().st_size == 4096


def test_writers_do_not_get_in_each_others_way(tmp_path: Path, provider: FileKeyProvider) -> None:
    """Two processes, even of one name: each has a log, and one row for the patient they share."""
    Vault.create(tmp_path, provider)
    writers = [Vault.open(tmp_path, provider, "scp") for _ in range(2)]
    failures: list[BaseException] = []

    def work(vault: Vault, first: int) -> None:
        try:
            for number in range(first, first + 20):
                vault.keep([(key(number), DIGEST, taken(number))])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(vault, 100 * place)) for place, vault in enumerate(writers)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert failures == []
    assert writers[0].count() == 43
    assert {path.name for path in tmp_path.glob("*.log")} == {"scp.log", "scp.1.log"}
    for first in (0, 100):
        found = writers[0].of_instance(f"2.25.11{first + 7}", DIGEST)
        assert found is not None and found.taken == whole(taken(first + 7))


def test_each_log_can_stand_alone(tmp_path: Path, provider: FileKeyProvider) -> None:
    """A row that another process wrote may not be on the disk yet: who builds upon it logs it, too."""
    Vault.create(tmp_path / "a", provider)
    empty = tmp_path / "empty"
    shutil.copytree(tmp_path / "a", empty)
    first, second = Vault.open(tmp_path / "a", provider, "scp"), Vault.open(tmp_path / "a", provider, "web")
    first.keep([(key(1), DIGEST, taken(1))])
    second.keep([(key(2), DIGEST, taken(2))])
    second.close()
    shutil.copy(tmp_path / "a" / "web.log", empty / "web.log")

    after = Vault.open(empty, provider, "scp")
    after.recover()

    found = after.of_instance("2.25.112", DIGEST)
    assert found is not None and found.taken == whole(taken(2))


def test_a_full_disk_is_said_and_leaves_nothing_half(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OutOfResources`; afterwards the same instance goes in whole."""

    def full(*_: object) -> int:
        raise OSError(28, "no room")

    vault.keep([(key(1), DIGEST, taken(1))])
    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "pwrite", full)
        with pytest.raises(OutOfResources):
            vault.keep([(key(2), DIGEST, taken(2, study="9.9"))])

    assert not vault.has("2.25.112", DIGEST)
    vault.keep([(key(2), DIGEST, taken(2))])
    found = vault.of_instance("2.25.112", DIGEST)
    assert found is not None and found.taken == whole(taken(2))


def test_a_row_costs_little(vault: Vault) -> None:
    """Far below the wait for the disk, which runs beside that of the segment: well under a millisecond of work each."""
    vault.keep([(key(0), DIGEST, taken(0))])
    group = [(key(number), DIGEST, taken(number)) for number in range(1, 401)]

    started = time.process_time()
    vault.keep(group)

    assert (time.process_time() - started) / len(group) < 0.001


def test_two_processes_may_begin_at_once(tmp_path: Path) -> None:
    """Whoever opens while another makes the vault finds all of it; every one of them has the same secret."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import making; from pathlib import Path; from pacs.archive import Archive\n"
        "with Archive.opened(making.settings(Path(sys.argv[2])), writer='w') as archive:\n"
        "    print(archive.vault._seals._digest_key.hex())"
    )
    home = tmp_path / "home"
    prepare(making.settings(home))
    for path in (home / "identity").glob("*"):
        path.unlink()
    tests = str(Path(making.__file__).parent)
    started = [
        subprocess.Popen([sys.executable, "-c", program, tests, str(home)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]

    said = [one.communicate(timeout=120)[0].strip() for one in started]

    assert [one.returncode for one in started] == [0] * 4
    assert len(set(said)) == 1 and said[0]
