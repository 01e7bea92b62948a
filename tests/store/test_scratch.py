"""The encrypted scratch: nothing readable on disk, nothing left of it, and memory that is shared out."""

import os
from pathlib import Path

import pytest

from pacs.model.errors import IntegrityError, OutOfResources
from pacs.store.scratch import CHUNK_BYTES, Arriving, Intake, OpenFile, Scratch

NEEDLE = b"Winterbottom^Aloysius"


def intake(folder: Path, *, large: int = 1000, memory: int = 2500) -> Intake:
    """Return an intake with bounds of a few bytes."""
    return Intake(Scratch(folder / "scratch", floor_bytes=0), large_bytes=large, memory_bytes=memory)


def on_disk(number: int) -> bytes:
    """Return the bytes of an open file without a name."""
    return Path(f"/proc/self/fd/{number}").read_bytes()


def test_bytes_come_back_by_range(tmp_path: Path) -> None:
    """Whatever the pieces were, every range is what was appended; one that reaches beyond the end is refused."""
    content = os.urandom(3 * CHUNK_BYTES + 1234)
    file = Scratch(tmp_path, floor_bytes=0).new()
    for begin, end in ((0, 5), (5, CHUNK_BYTES + 7), (CHUNK_BYTES + 7, len(content))):
        file.append(content[begin:end])

    assert len(file) == len(content)
    for offset, length in ((0, len(content)), (CHUNK_BYTES - 1, 2), (len(content) - 1, 1), (7, 0), (2 * CHUNK_BYTES, 1234)):
        assert bytes(file.read(offset, length)) == content[offset : offset + length]
    with pytest.raises(IntegrityError):
        file.read(len(content), 1)


def test_nothing_lies_in_the_folder_and_nothing_in_the_clear(tmp_path: Path) -> None:
    """While a scratch file is in use its folder is empty, and what the disk holds of it is noise."""
    file = Scratch(tmp_path, floor_bytes=0).new()

    file.append(NEEDLE * 40_000)

    assert list(tmp_path.iterdir()) == []
    held = on_disk(file._descriptor)
    assert len(held) > 500_000 and NEEDLE not in held


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """What the disk gives back is authenticated."""
    file = Scratch(tmp_path, floor_bytes=0).new()
    file.append(bytes(2 * CHUNK_BYTES))

    os.pwrite(file._descriptor, b"\xff", CHUNK_BYTES + 100)

    assert bytes(file.read(0, 10)) == bytes(10)
    with pytest.raises(IntegrityError):
        file.read(CHUNK_BYTES + 1, 1)


def test_the_disk_floor_holds(tmp_path: Path) -> None:
    """A disk that is nearly full takes nothing in."""
    status = os.statvfs(tmp_path)
    if status.f_bavail * 20 > status.f_blocks:
        # The floor is a twentieth of the disk at most: this disk has more free than that.
        Scratch(tmp_path, floor_bytes=1 << 60).new().append(bytes(CHUNK_BYTES))
        return
    with pytest.raises(OutOfResources):
        Scratch(tmp_path, floor_bytes=1 << 60).new().append(bytes(CHUNK_BYTES))


def test_small_stays_in_memory_large_does_not(tmp_path: Path) -> None:
    """Up to the bound an object is a bytearray; beyond it lies in the scratch, byte for byte the same."""
    shared = intake(tmp_path)
    small, large = Arriving(shared), Arriving(shared)
    for _ in range(10):
        small += bytes(100)
        large += bytes(range(200))

    assert not small.spilled and small.content() == bytes(1000)
    assert large.spilled and len(large) == 2000
    found = large.content()
    assert not isinstance(found, bytearray) and bytes(found.read(0, 2000)) == bytes(range(200)) * 10


def test_many_at_once_share_the_memory(tmp_path: Path) -> None:
    """Who comes when the memory is taken goes to the scratch, however small; what is given back is there for the next."""
    shared = intake(tmp_path)
    first, second, third = (Arriving(shared) for _ in range(3))
    for one in (first, second, third):
        one += bytes(900)

    assert [one.spilled for one in (first, second, third)] == [False, False, True]
    shared.release(first.content())
    second.clear()
    fourth = Arriving(shared)
    fourth += bytes(1000)
    assert not fourth.spilled


def test_what_is_dropped_gives_its_memory_back(tmp_path: Path) -> None:
    """An object whose sender went away holds nothing any more."""
    shared = intake(tmp_path)
    dropped = Arriving(shared)
    dropped += bytes(1000)
    assert shared._used == 1000

    del dropped

    assert shared._used == 0


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    """A file that is read where it lies must stay what it is."""
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    file = OpenFile(path)
    os.truncate(path, 50)

    assert file.read(0, 50) == bytes(50)
    with pytest.raises(IntegrityError):
        file.read(0, 100)
