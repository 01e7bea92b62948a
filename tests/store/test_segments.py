"""The append log under what happens to logs: kill -9, a full disk, torn writes, two writers."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sealing

from pacs.model.errors import ConfigurationError, NotFound, OutOfResources
from pacs.model.instance import Location, Sealed
from pacs.store import record
from pacs.store.envelope import Sealer
from pacs.store.segments import SegmentStore
from pacs.store.walk import ALIGNMENT

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    """A sealer whose ring lies where the writing process looks for it."""
    return Sealer(sealing.ring(tmp_path))


def _store(home: Path, writer: str = "test", segment_bytes: int = 4 << 20) -> SegmentStore:
    return SegmentStore(home / "store", writer=writer, segment_bytes=segment_bytes, floor_bytes=0)


def _sealed(sealer: Sealer, size_bytes: int = 2000) -> Sealed:
    return sealing.seal(sealer, sealing.encoded(frames=(b"\x5a" * size_bytes,)))


def _walk(store: SegmentStore) -> list[Location]:
    return [location for container in store.containers() for location, _ in store.records(container)]


def _writer(home: Path, writer: str, largest_file_bytes: int = 0) -> subprocess.Popen[str]:
    program = [sys.executable, str(TESTS / "store" / "writing.py"), str(home), writer, str(largest_file_bytes)]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment)


def _location(line: str) -> Location:
    container, offset, size_bytes = line.split()
    return Location(container, int(offset), int(size_bytes))


def test_the_walk_finds_every_record(tmp_path: Path, sealer: Sealer) -> None:
    """Records come in the order they were written, over several segments, and from any point on."""
    store = _store(tmp_path, segment_bytes=20_000)
    put = [location for _ in range(10) for location in store.put([_sealed(sealer), _sealed(sealer, 100)])]

    assert len(store.containers()) > 1
    assert _walk(store) == put
    first = [location for location in put if location.container == put[0].container]
    high_water = first[1].offset + first[1].size_bytes
    assert [location for location, _ in store.records(first[0].container, high_water)] == first[2:]
    for container in store.containers():
        for location, content in store.records(container):
            assert content == store.get(location)
            assert location.offset % ALIGNMENT == 0


def test_what_was_given_up_is_not_walked_and_gives_room_back(tmp_path: Path, sealer: Sealer) -> None:
    """A deleted record is passed over, those behind it are still found, and its blocks are free again."""
    store = _store(tmp_path)
    put = store.put([_sealed(sealer, 1_000_000) for _ in range(3)])
    blocks = (tmp_path / "store" / put[0].container).stat().st_blocks

    store.delete(put[1])

    assert _walk(store) == [put[0], put[2]]
    assert (tmp_path / "store" / put[0].container).stat().st_blocks <= blocks - 900_000 // 512
    store.close()
    again = _store(tmp_path)
    assert _walk(again) == [put[0], put[2]]
    assert again.put([_sealed(sealer)])[0].offset > put[2].offset


def test_a_record_larger_than_a_segment_has_one_to_itself(tmp_path: Path, sealer: Sealer) -> None:
    """Nothing is too large for the log as long as the disk holds it."""
    store = _store(tmp_path, segment_bytes=50_000)

    small, large, after = store.put([_sealed(sealer), _sealed(sealer, 300_000), _sealed(sealer)])

    assert len({small.container, large.container, after.container}) == 3
    assert len(store.get(large)) == large.size_bytes


def test_a_stop_cuts_the_zeros_off_and_the_next_start_goes_on(tmp_path: Path, sealer: Sealer) -> None:
    """After a clean stop a segment ends with its last record, and the next record follows it."""
    store = _store(tmp_path)
    (first,) = store.put([_sealed(sealer)])
    path = tmp_path / "store" / first.container
    assert path.stat().st_size > first.offset + first.size_bytes + ALIGNMENT

    store.close()

    assert path.stat().st_size - (first.offset + first.size_bytes) < ALIGNMENT
    (second,) = _store(tmp_path).put([_sealed(sealer)])
    assert second.container == first.container
    assert 0 <= second.offset - (first.offset + first.size_bytes) < ALIGNMENT


@pytest.mark.parametrize("damage", ["head", "table", "body", "mark", "end"])
def test_a_torn_record_is_trimmed_and_costs_no_other(tmp_path: Path, sealer: Sealer, damage: str) -> None:
    """Whatever part of the last record did not reach the disk, it is trimmed; those before stay, and the log goes on."""
    store = _store(tmp_path)
    first, second, torn = store.put([_sealed(sealer, 5000) for _ in range(3)])
    path = tmp_path / "store" / torn.container
    store.close()
    begin, length = {
        "head": (0, 64),
        "table": (64, 16),
        "body": (3000, 600),
        "mark": (torn.size_bytes - record.TRAILER.size, 16),
        "end": (4000, torn.size_bytes - 4000),
    }[damage]
    with path.open("r+b") as file:
        file.seek(torn.offset + begin)
        file.write(bytes(length))

    again = _store(tmp_path)

    assert _walk(again) == [first, second]
    (following,) = again.put([_sealed(sealer, 300)])
    assert following.offset == torn.offset
    assert _walk(again) == [first, second, following]
    assert not any(path.read_bytes()[following.offset + following.size_bytes :])


def test_a_torn_record_is_trimmed_before_its_writer_comes_back(tmp_path: Path, sealer: Sealer) -> None:
    """By whoever looks after the store, from a known place on; while its writer is at work, nothing is touched."""
    store = _store(tmp_path)
    first, torn = store.put([_sealed(sealer, 5000) for _ in range(2)])
    path = tmp_path / "store" / torn.container
    with path.open("r+b") as file:
        file.seek(torn.offset + torn.size_bytes - record.TRAILER.size)
        file.write(bytes(record.TRAILER.size))
    other = _store(tmp_path)

    other.trim(torn.container, first.offset + first.size_bytes)
    at_work = [piece.kind for piece in other.survey(torn.container)]
    store.close()
    other.trim(torn.container, first.offset + first.size_bytes)

    assert at_work == ["record", "damage"]
    assert [piece.location for piece in other.survey(torn.container)] == [first]


def test_damage_in_the_middle_costs_one_record(tmp_path: Path, sealer: Sealer) -> None:
    """A record whose head rotted away does not hide those behind it, and nothing of them is trimmed."""
    store = _store(tmp_path)
    first, rotten, third = store.put([_sealed(sealer) for _ in range(3)])
    store.close()
    with (tmp_path / "store" / rotten.container).open("r+b") as file:
        file.seek(rotten.offset)
        file.write(b"rotten")

    again = _store(tmp_path)
    (fourth,) = again.put([_sealed(sealer)])

    assert _walk(again) == [first, third, fourth]


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, sealer: Sealer) -> None:
    """A writer killed in the middle of its work leaves every acknowledged record whole, and a log that goes on."""
    acknowledged: list[Location] = []
    for count in (1, 17, 60):
        process = _writer(tmp_path, "killed")
        assert process.stdout is not None
        acknowledged += [_location(process.stdout.readline()) for _ in range(count)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [_location(line) for line in process.stdout if line.endswith("\n") and len(line.split()) == 3]
        process.wait()

    store = _store(tmp_path, "killed")
    walked = _walk(store)

    assert set(acknowledged) <= set(walked)
    for location in acknowledged:
        assert record.is_complete(store.get(location))
    (following,) = store.put([_sealed(sealer)])
    assert set(_walk(store)) == {*walked, following}


def test_two_writers_of_one_name_do_not_meet(tmp_path: Path, sealer: Sealer) -> None:
    """A second store of the same name writes to a segment of its own while the first one lives."""
    first, second = _store(tmp_path), _store(tmp_path)

    one, other = first.put([_sealed(sealer)])[0], second.put([_sealed(sealer)])[0]

    assert one.container != other.container
    assert first.get(other) == second.get(other)
    first.close()
    assert _store(tmp_path).put([_sealed(sealer)])[0].container == one.container


def test_threads_share_a_store(tmp_path: Path, sealer: Sealer) -> None:
    """Puts and gets from several threads at once keep every record apart."""
    store = _store(tmp_path, segment_bytes=100_000)
    found: dict[Location, bytes] = {}

    def work(number: int) -> None:
        for size in range(100, 9000, 900):
            sealed = sealing.seal(sealer, sealing.encoded(frames=(bytes([number]) * size,)))
            (location,) = store.put([sealed])
            assert store.get(location) == b"".join(sealed.record)
            found[location] = b"".join(sealed.record)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 40
    assert {location: store.get(location) for location in _walk(store)} == found


def test_a_file_that_takes_no_more_leaves_a_clean_tail(tmp_path: Path, sealer: Sealer) -> None:
    """When the system refuses to write, the put fails as a whole, what was acknowledged stays, and the tail is clean."""
    process = _writer(tmp_path, "limited", 1_000_000)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    process.wait()
    acknowledged = [_location(line) for line in lines[:-1]]

    assert lines[-1] == "full"
    assert acknowledged
    store = _store(tmp_path, "limited")
    assert _walk(store) == acknowledged
    assert store.put([_sealed(sealer)])[0].offset >= acknowledged[-1].offset + acknowledged[-1].size_bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk; the limit on a file's size stands in for it above")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_four_writers_fill_a_small_disk_to_its_floor(small_disk: Path, sealer: Sealer) -> None:
    """Four writers get well over half of 64 MiB, then OutOfResources; the floor stays free, and room given back counts."""
    stores = [
        SegmentStore(small_disk / "store", writer=f"writer-{number}", segment_bytes=128 << 20, floor_bytes=64 << 20)
        for number in range(4)
    ]
    put: list[Location] = []
    full = 0
    while full < len(stores):
        full = 0
        for store in stores:
            try:
                put += store.put([_sealed(sealer, 150_000)])
            except OutOfResources:
                full += 1
    status = os.statvfs(small_disk)

    assert sum(location.size_bytes for location in put) > 40 << 20
    assert status.f_bavail * status.f_frsize >= 2 << 20
    assert sorted(map(repr, _walk(stores[0]))) == sorted(map(repr, put))
    for location in put[:200]:
        stores[0].delete(location)
    assert stores[1].put([_sealed(sealer, 150_000)])
    for store in stores:
        store.close()


def test_a_full_disk_takes_nothing_of_a_group(small_disk: Path, sealer: Sealer) -> None:
    """A group that does not fit leaves nothing behind that a walk could take for a record; a smaller one still fits."""
    store = SegmentStore(small_disk / "store", writer="writer", segment_bytes=4 << 20, floor_bytes=0)
    kept = store.put([_sealed(sealer, 1_000_000)])
    group = [_sealed(sealer, 6_000_000) for _ in range(12)]

    with pytest.raises(OutOfResources):
        store.put(group)
    (small_disk / "ballast").write_bytes(bytes(20 << 20))
    with pytest.raises(OutOfResources):
        store.put(group[:8])

    assert _walk(store) == kept
    kept += store.put([_sealed(sealer, 500_000)])
    assert _walk(store) == kept
    store.close()


def test_a_disk_that_fills_in_the_middle_of_a_group_gives_its_room_back(small_disk: Path, sealer: Sealer) -> None:
    """When others take the last room while a group is written, all of the group goes, and what it took is free again."""

    class Surprised(SegmentStore):
        def _check_floor(self, size_bytes: int) -> None:
            """See room where there is none."""

    store = Surprised(small_disk / "store", writer="writer", segment_bytes=16 << 20, floor_bytes=0)
    kept = store.put([_sealed(sealer, 1_000_000)])

    with pytest.raises(OutOfResources):
        store.put([_sealed(sealer, 6_000_000) for _ in range(12)])

    status = os.statvfs(small_disk)
    assert status.f_bavail * status.f_frsize > 50 << 20
    assert _walk(store) == kept
    kept += store.put([_sealed(sealer, 6_000_000) for _ in range(8)])
    assert sorted(map(repr, _walk(store))) == sorted(map(repr, kept))
    store.close()


def test_a_writer_needs_a_plain_name(tmp_path: Path) -> None:
    """A name that could leave the folder is refused."""
    for name in ("", "../up", "a/b", "a.b", "x" * 80):
        with pytest.raises(ConfigurationError):
            _store(tmp_path, name)


def test_reading_takes_no_lock_and_makes_no_file(tmp_path: Path, sealer: Sealer) -> None:
    """A store that only reads leaves the folder as it is."""
    writer = _store(tmp_path)
    (location,) = writer.put([_sealed(sealer)])
    writer.close()
    before = sorted(path.name for path in (tmp_path / "store").iterdir())

    reader = _store(tmp_path, "reader")
    reader.get(location)
    assert _walk(reader) == [location]
    reader.close()

    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == before
    with pytest.raises(NotFound):
        reader.get(Location("reader-00000001.seg", 512, 100))
