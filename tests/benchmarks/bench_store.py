"""How fast the store alone takes instances in, durably, and what each step costs.

Run it by hand: `.venv/bin/python tests/benchmarks/bench_store.py [--instances N] [--kib SIZE] [--folder DIR]`. It seals records
of the size a compressed CT has (140 kB), appends and syncs them in groups, and writes their rows: no network, no
de-identification, no codec. Compare ratios within one run, and with what the disk does bare, which is printed first.
"""

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import sealing  # noqa: E402

from pacs.committer import Committer  # noqa: E402
from pacs.index import schema  # noqa: E402
from pacs.index.database import Index  # noqa: E402
from pacs.model.instance import Arrival, Encoded, InstanceKey, Location, Origin, Sealed  # noqa: E402
from pacs.store.envelope import Sealer  # noqa: E402
from pacs.store.segments import SegmentStore  # noqa: E402

GROUP = 64


def instance(number: int, size: int) -> Encoded:
    """Return an encoded instance; a hundred make a study."""
    study = f"2.25.9{number // 100}"
    key = InstanceKey(study, f"{study}.1", f"{study}.1.{number}")
    attributes = {"PatientID": study, "Modality": "CT", "InstanceNumber": str(number), "StudyDate": "20240229"}
    one = sealing.encoded(key=key, header=b"header %d " % number * 150, frames=(os.urandom(size),))
    return Encoded(key, one.sop_class_uid, one.header, one.frames, one.transfer_syntax_uid, attributes, os.urandom(32), 1)


def cpu() -> float:
    """Return seconds of processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return (seconds, seconds of processor time) that `work` takes."""
    begin, begin_cpu = time.perf_counter(), cpu()
    work()
    return time.perf_counter() - begin, cpu() - begin_cpu


def opened(folder: Path) -> tuple[Sealer, SegmentStore, Index]:
    """Make an empty store with its index in a folder."""
    folder.mkdir(parents=True)
    url = f"sqlite:///{folder / 'index.db'}"
    schema.upgrade(url)
    store = SegmentStore(folder / "store", writer="bench", segment_bytes=128 << 20, floor_bytes=0)
    return Sealer(sealing.ring(folder)), store, Index.open(url)


def steps(folder: Path, instances: list[Encoded]) -> list[tuple[str, float, float]]:
    """Return (step, seconds, processor seconds) for all instances, each step on its own, in groups."""
    sealer, store, index = opened(folder)
    sealed: list[Sealed] = []
    places: list[Location] = []
    rows: list[tuple[Arrival, Location]] = []

    def put() -> None:
        for at in range(0, len(sealed), GROUP):
            places.extend(store.put(sealed[at : at + GROUP]))

    def add() -> None:
        for at in range(0, len(rows), GROUP):
            index.add(rows[at : at + GROUP])

    def read() -> None:
        for one, record, place in zip(instances, sealed, places, strict=True):
            sealer.open(sealing.stored(one, record, place), store)

    found = [("seal (HKDF, AES-256-GCM, CRC)", *timed(lambda: sealed.extend(sealing.seal(sealer, one) for one in instances)))]
    found.append((f"append and fdatasync, {GROUP} a group", *timed(put)))
    rows += [
        (Arrival(one, record, Origin.STORAGE_SCU, "bench", "", "research"), place)
        for one, record, place in zip(instances, sealed, places, strict=True)
    ]
    found.append((f"index rows, {GROUP} a transaction", *timed(add)))
    found.append(("read back and open", *timed(read)))
    store.close()
    index.close()
    return found


def ingest(folder: Path, instances: list[Encoded], writers: int) -> tuple[float, float, float]:
    """Return (seconds, processor seconds, median latency) with so many writers that wait for each of theirs to be durable."""
    sealer, store, index = opened(folder)
    committer = Committer(store, index)
    latencies: list[float] = []

    def write(mine: list[Encoded]) -> None:
        for one in mine:
            begin = time.perf_counter()
            sealed = sealing.seal(sealer, one)
            committer.commit(Arrival(one, sealed, Origin.STORAGE_SCU, "bench", "", "research"))
            latencies.append(time.perf_counter() - begin)

    def all_of_them() -> None:
        threads = [threading.Thread(target=write, args=(instances[number::writers],)) for number in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    took = timed(all_of_them)
    committer.close()
    store.close()
    index.close()
    return *took, sorted(latencies)[len(latencies) // 2]


def ceilings(folder: Path, count: int, size: int) -> list[tuple[str, float]]:
    """Return (pattern, instances a second) of what the disk does bare."""
    folder.mkdir(parents=True)
    data = os.urandom(size)

    def files() -> None:
        for number in range(count):
            with (folder / str(number)).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def log(group: int) -> Callable[[], None]:
        def work() -> None:
            with (folder / f"log{group}").open("wb") as file:
                for number in range(count):
                    file.write(data)
                    if number % group == group - 1:
                        file.flush()
                        os.fdatasync(file.fileno())

        return work

    return [
        ("a file and fsync each", count / timed(files)[0]),
        ("append, fdatasync each", count / timed(log(1))[0]),
        (f"append, fdatasync per {GROUP}", count / timed(log(GROUP))[0]),
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=600)
    parser.add_argument("--kib", type=int, default=137, help="size of a frame; 137: a CT of 512 x 512 after HTJ2K")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    given = parser.parse_args()
    count, size = given.instances, given.kib << 10
    instances = [instance(number, size) for number in range(count)]
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        base = Path(folder)
        print(f"{count} instances of {size / 1000:.0f} kB\n\n| bare pattern | instances/s |\n|---|---|")
        for name, rate in ceilings(base / "bare", min(count, 300), size):
            print(f"| {name} | {rate:.0f} |")
        print("\n| step | ms each | CPU ms each |\n|---|---|---|")
        for name, seconds, processor in steps(base / "steps", instances):
            print(f"| {name} | {seconds / count * 1000:.3f} | {processor / count * 1000:.3f} |")
        print("\n| writers | instances/s | MB/s | p50 ms | CPU ms each |\n|---|---|---|---|---|")
        for writers in (1, 4, 8):
            seconds, processor, median = ingest(base / f"ingest{writers}", instances, writers)
            rate = count / seconds
            print(
                f"| {writers} | {rate:.0f} | {rate * size / 1e6:.0f} | {median * 1000:.2f} | {processor / count * 1000:.3f} |"
            )


if __name__ == "__main__":
    main()
