"""The quarantine keeps what could not be made safe: whole, sealed, and listed."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pacs.model.errors import ConfigurationError, IntegrityError, NotFound, OutOfResources
from pacs.model.instance import Origin, Received
from pacs.store.keys import FileKeyProvider
from pacs.store.quarantine import Quarantine

RECEIVED = Received(
    data_set=b"Quillfeather^Zebulon" * 100_000,
    transfer_syntax_uid="1.2.840.10008.1.2",
    origin=Origin.STOW,
    source="Wilfrid",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="1.2.3.4.5",
    association="a1",
)


@dataclass
class Rows:
    """A list in memory."""

    listed: dict[str, tuple[str, str, str, int]] = field(default_factory=dict)
    fails: bool = False

    def add(self, quarantine_id: str, kind: str, reason: str, origin: str, size_bytes: int) -> None:
        """List one."""
        if self.fails:
            raise RuntimeError
        self.listed[quarantine_id] = (kind, reason, origin, size_bytes)

    def remove(self, quarantine_id: str) -> None:
        """Strike one off."""
        self.listed.pop(quarantine_id, None)


@pytest.fixture
def rows() -> Rows:
    """An empty list."""
    return Rows()


@pytest.fixture
def quarantine(tmp_path: Path, rows: Rows) -> Quarantine:
    """An empty quarantine."""
    return Quarantine(tmp_path / "quarantine", FileKeyProvider.create(tmp_path / "keys" / "image.key"), rows, floor_bytes=0)


@pytest.mark.parametrize("data_set", [b"", b"x", b"Quillfeather^Zebulon" * 200_000])
def test_an_object_comes_back_as_it_was(quarantine: Quarantine, rows: Rows, data_set: bytes) -> None:
    """Every byte and everything known of it comes back, and it is listed with its reason."""
    quarantine_id = quarantine.keep(replace(RECEIVED, data_set=data_set), "NotUnderstood", "cut short")

    assert quarantine.open(quarantine_id) == replace(RECEIVED, data_set=data_set)
    assert rows.listed[quarantine_id][:3] == ("NotUnderstood", "cut short", "stow")


def test_nothing_of_it_is_on_disk_in_the_clear(quarantine: Quarantine, tmp_path: Path) -> None:
    """Neither the data set nor who sent it can be read in the folder; the files are for their owner only."""
    quarantine.keep(RECEIVED, "Quarantined", "a reason")

    (path,) = (tmp_path / "quarantine").iterdir()
    for text in (b"Quillfeather", b"Zebulon", b"Wilfrid", b"1.2.3.4.5", b"a reason"):
        assert text not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_changed_object_does_not_open(quarantine: Quarantine, tmp_path: Path) -> None:
    """A bit flipped in any byte, a cut end, or an exchange of two files is found."""
    first = quarantine.keep(replace(RECEIVED, data_set=b"short"), "Quarantined", "")
    second = quarantine.keep(replace(RECEIVED, data_set=b"other"), "Quarantined", "")
    path = tmp_path / "quarantine" / f"{first}.sealed"
    genuine = path.read_bytes()

    for position in range(len(genuine)):
        path.write_bytes(genuine[:position] + bytes([genuine[position] ^ 4]) + genuine[position + 1 :])
        with pytest.raises((IntegrityError, ConfigurationError)):
            quarantine.open(first)
        path.write_bytes(genuine[:position])
        with pytest.raises((IntegrityError, ConfigurationError)):
            quarantine.open(first)
    path.write_bytes((tmp_path / "quarantine" / f"{second}.sealed").read_bytes())
    with pytest.raises(IntegrityError):
        quarantine.open(first)


def test_discarding_is_for_good(quarantine: Quarantine, rows: Rows, tmp_path: Path) -> None:
    """A discarded object is neither there nor listed; discarding twice is harmless."""
    quarantine_id = quarantine.keep(RECEIVED, "Quarantined", "")

    quarantine.discard(quarantine_id)
    quarantine.discard(quarantine_id)

    assert not rows.listed
    assert not list((tmp_path / "quarantine").iterdir())
    for unknown in (quarantine_id, "../keys/image", ""):
        with pytest.raises(NotFound):
            quarantine.open(unknown)


def test_a_full_disk_keeps_nothing_half(tmp_path: Path, rows: Rows) -> None:
    """Below the floor nothing is taken in and nothing is left behind."""
    provider = FileKeyProvider.create(tmp_path / "image.key")
    quarantine = Quarantine(tmp_path / "quarantine", provider, rows, floor_bytes=1 << 62)
    # The floor is at most a twentieth of the disk, so an object as large as the disk stands in for a full one.
    huge = memoryview(bytearray(1)).cast("B")

    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 60

    with pytest.raises(OutOfResources):
        quarantine.keep(replace(RECEIVED, data_set=Huge(huge)), "Quarantined", "")
    assert not rows.listed
    assert not list((tmp_path / "quarantine").iterdir())


def test_what_cannot_be_listed_is_not_kept(quarantine: Quarantine, rows: Rows, tmp_path: Path) -> None:
    """If the row cannot be written the file goes too: the sender hears of the failure and keeps its copy."""
    rows.fails = True

    with pytest.raises(RuntimeError):
        quarantine.keep(RECEIVED, "Quarantined", "")

    assert not list((tmp_path / "quarantine").iterdir())


def test_what_a_crash_left_half_written_is_swept(quarantine: Quarantine, rows: Rows, tmp_path: Path) -> None:
    """An old unfinished file is removed when the quarantine is opened; one that may still be written, and whole ones, stay."""
    kept = quarantine.keep(RECEIVED, "Quarantined", "")
    old, new = (tmp_path / "quarantine" / name for name in ("old.part", "new.part"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))

    Quarantine(tmp_path / "quarantine", FileKeyProvider.open(tmp_path / "keys" / "image.key"), rows, floor_bytes=0)

    assert (old.exists(), new.exists()) == (False, True)
    assert quarantine.files() == [kept]
