"""Keys: made once, kept from others, and forgotten for good."""

import base64
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
import sealing

from pacs.model.errors import ConfigurationError, IntegrityError
from pacs.store.keys import FileKeyProvider, KeyRing


def test_a_key_file_opens_as_the_key_it_was_made_with(tmp_path: Path) -> None:
    """What one process wraps, another that opens the same file unwraps; derived keys are equal too."""
    made = FileKeyProvider.create(tmp_path / "keys" / "image.key")
    opened = FileKeyProvider.open(tmp_path / "keys" / "image.key")

    assert opened.key_id == made.key_id
    assert opened.unwrap(made.key_id, made.wrap(b"k" * 32, b"context"), b"context") == b"k" * 32
    assert opened.derive("pseudonym") == made.derive("pseudonym")
    assert made.derive("pseudonym") != made.derive("another purpose")


def test_a_key_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """File 0600, folder 0700; a file that others may read is refused, and the message says what to do."""
    path = tmp_path / "keys" / "image.key"
    FileKeyProvider.create(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            FileKeyProvider.open(path)


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    """Making a key changes nothing about a folder that is not ours."""
    tmp_path.chmod(0o755)

    FileKeyProvider.create(tmp_path / "image.key")

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    """A second creation fails and leaves the first key as it was."""
    path = tmp_path / "keys" / "image.key"
    first = FileKeyProvider.create(path)

    with pytest.raises(ConfigurationError, match="never replaced"):
        FileKeyProvider.create(path)

    assert FileKeyProvider.open(path).key_id == first.key_id


def test_a_missing_or_changed_key_file_is_refused(tmp_path: Path) -> None:
    """Missing, empty, cut short, or with any one character changed: never taken for a key."""
    path = tmp_path / "image.key"
    with pytest.raises(ConfigurationError, match="missing"):
        FileKeyProvider.open(path)
    FileKeyProvider.create(path)
    text = path.read_text(encoding="ascii")

    for position in range(len(text)):
        if text[position] in "\n ":
            continue
        other = "0" if text[position] != "0" else "1"
        path.write_text(text[:position] + other + text[position + 1 :], encoding="ascii")
        with pytest.raises(ConfigurationError):
            FileKeyProvider.open(path)
    for content in (b"", b"\xff" * 100, text[:40].encode()):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError):
            FileKeyProvider.open(path)


def test_the_key_shows_nowhere(tmp_path: Path) -> None:
    """Neither the name of a key nor its repr tells the key."""
    path = tmp_path / "image.key"
    provider = FileKeyProvider.create(path)
    secret = path.read_text(encoding="ascii").split("\nkey: ")[1].split("\n")[0]

    assert len(secret) == 44
    assert secret not in repr(provider)
    assert base64.b64decode(secret).hex()[:16] != provider.key_id


def test_wrapping_binds_context_and_key(tmp_path: Path) -> None:
    """A wrapped key opens neither in another context, nor changed, nor under another key-encryption key."""
    first, second = FileKeyProvider.create(tmp_path / "1"), FileKeyProvider.create(tmp_path / "2")
    wrapped = first.wrap(b"k" * 32, b"here")

    for provider, key_id, blob, context in (
        (first, first.key_id, wrapped, b"there"),
        (first, first.key_id, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"here"),
        (first, first.key_id, b"", b"here"),
        (second, first.key_id, wrapped, b"here"),
        (second, second.key_id, wrapped, b"here"),
    ):
        with pytest.raises(ConfigurationError):
            provider.unwrap(key_id, blob, context)


def test_a_study_keeps_its_key(tmp_path: Path) -> None:
    """The same study has the same key in every ring over the file; other studies have others."""
    ring = sealing.ring(tmp_path)
    again = KeyRing.open(tmp_path / "keys" / "study-keys.db", FileKeyProvider.open(tmp_path / "keys" / "image.key"))

    number, key = ring.for_study("2.25.1")

    assert ring.for_study("2.25.1") == again.for_study("2.25.1") == (number, key)
    assert again.key(number) == key
    assert ring.for_study("2.25.2")[0] != number
    assert ring.for_study("2.25.2")[1] != key
    assert len(key) == 32


def test_the_ring_shows_neither_studies_nor_keys(tmp_path: Path) -> None:
    """The file holds no Study Instance UID and no key in the clear, and is for its owner only."""
    ring = sealing.ring(tmp_path)
    _, key = ring.for_study("2.25.123456789")
    ring.close()
    path = tmp_path / "keys" / "study-keys.db"
    content = path.read_bytes()

    assert b"2.25.123456789" not in content
    assert key not in content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_ring_needs_its_own_key(tmp_path: Path) -> None:
    """A ring opened with another key-encryption key is refused at once; so is a missing or foreign file."""
    sealing.ring(tmp_path).close()
    other = FileKeyProvider.create(tmp_path / "other.key")
    (tmp_path / "text").write_text("not a database, not even nearly" * 40, encoding="ascii")

    for path in (tmp_path / "keys" / "study-keys.db", tmp_path / "nowhere.db", tmp_path / "text"):
        with pytest.raises(ConfigurationError):
            KeyRing.open(path, other)


def test_creating_twice_keeps_the_ring(tmp_path: Path) -> None:
    """Creation over a ring that is there keeps its keys."""
    first = sealing.ring(tmp_path)
    made = first.for_study("2.25.1")

    again = KeyRing.create(tmp_path / "keys" / "study-keys.db", FileKeyProvider.open(tmp_path / "keys" / "image.key"))

    assert again.for_study("2.25.1") == made


def test_forgetting_is_for_good_and_for_all(tmp_path: Path) -> None:
    """A forgotten key is gone from the file's bytes and from other rings' memory, and its id is never given again."""
    ring = sealing.ring(tmp_path)
    path = tmp_path / "keys" / "study-keys.db"
    other = KeyRing.open(path, FileKeyProvider.open(tmp_path / "keys" / "image.key"))
    number, key = ring.for_study("2.25.1")
    assert other.key(number) == key
    wrapped = next(iter(ring._connect().execute("SELECT wrapped FROM study_key")))[0]
    assert wrapped in path.read_bytes()

    assert ring.forget("2.25.1")

    assert not ring.forget("2.25.1")
    for one in (ring, other):
        with pytest.raises(IntegrityError):
            one.key(number)
    assert wrapped not in b"".join(file.read_bytes() for file in path.parent.glob("study-keys.db*"))
    assert ring.for_study("2.25.1")[0] > number


def test_rewrapping_changes_the_lock_and_no_key(tmp_path: Path) -> None:
    """After a change of the key-encryption key the ring opens with the new one only, and every study key is as before."""
    ring = sealing.ring(tmp_path)
    path = tmp_path / "keys" / "study-keys.db"
    made = {study: ring.for_study(study) for study in ("2.25.1", "2.25.2", "2.25.3")}
    old, new = FileKeyProvider.open(tmp_path / "keys" / "image.key"), FileKeyProvider.create(tmp_path / "new.key")

    assert ring.rewrap(new) == 3

    with pytest.raises(ConfigurationError):
        KeyRing.open(path, old)
    again = KeyRing.open(path, new)
    assert {study: again.for_study(study) for study in made} == made
    assert {study: ring.for_study(study) for study in made} == made


def _make_keys(folder: Path, count: int, answers: "multiprocessing.Queue[list[tuple[int, bytes]]]") -> None:
    ring = KeyRing.open(folder / "keys" / "study-keys.db", FileKeyProvider.open(folder / "keys" / "image.key"))
    answers.put([ring.for_study(f"2.25.{study}") for study in range(count)])


def test_processes_agree_on_new_keys(tmp_path: Path) -> None:
    """Processes that meet the same new studies at the same moment all get the same keys."""
    sealing.ring(tmp_path).close()
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[list[tuple[int, bytes]]] = context.Queue()
    processes = [context.Process(target=_make_keys, args=(tmp_path, 12, answers)) for _ in range(3)]

    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()

    assert found[0] == found[1] == found[2]
    assert len({key for _, key in found[0]}) == 12


def test_a_ring_survives_a_fork(tmp_path: Path) -> None:
    """A child that was forked uses the ring through a connection of its own."""
    ring = sealing.ring(tmp_path)
    made = ring.for_study("2.25.1")

    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if ring.for_study("2.25.1") == made and ring.for_study("2.25.2")[0] != made[0] else 1)
        finally:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ring.for_study("2.25.2")[1] != made[1]
