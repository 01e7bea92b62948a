"""How fast the store alone takes instances in, durably, what each step costs, and how far that is from what the disk can do.

Run it by hand: `.venv/bin/python tests/benchmarks/bench_store.py [--instances N] [--rounds N] [--kib SIZE] [--folder DIR]
[--database URL]`. It seals records of the size a compressed CT has (140 kB), appends and syncs them in groups, and writes their
rows: no network, no de-identification, no codec. Three tables, medians of the rounds: what the disk does bare, with the
patterns of the store (a log written ahead and overwritten, one fdatasync for each group); each step alone; and 1, 4 and 8
writers, each of whom waits until his instance is durable, beside the bare log with as many instances a sync.
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import sealing  # noqa: E402
from sqlalchemy import create_engine, make_url  # noqa: E402

from pacs.committer import Committer  # noqa: E402
from pacs.index import schema  # noqa: E402
from pacs.index.database import Index  # noqa: E402
from pacs.model.identity import Taken  # noqa: E402
from pacs.model.instance import Arrival, Encoded, InstanceKey, Location, Origin, Sealed  # noqa: E402
from pacs.model.query import Level  # noqa: E402
from pacs.store.envelope import Sealer  # noqa: E402
from pacs.store.providers import LocalKeys  # noqa: E402
from pacs.store.segments import SegmentStore  # noqa: E402
from pacs.store.vault import Vault  # noqa: E402

GROUP = 64
WRITERS = (1, 4, 8)
AHEAD_BYTES = 64 << 20


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


def opened(folder: Path, database: str) -> tuple[Sealer, SegmentStore, Index]:
    """Make an empty store in a folder, with its index there or in a schema of a PostgreSQL database."""
    folder.mkdir(parents=True)
    url = database or f"sqlite:///{folder / 'index.db'}"
    schema.upgrade(url)
    store = SegmentStore(folder / "store", writer="bench", segment_bytes=128 << 20, floor_bytes=0)
    return Sealer(sealing.ring(folder)), store, Index.open(url)


def taken(one: Encoded) -> Taken:
    """Return what de-identification takes of an ordinary CT: ten elements a level, and what they are found by."""
    key = one.key
    uids = (key.study_instance_uid, key.study_instance_uid, key.series_instance_uid, key.sop_instance_uid)
    levels = {
        level: {0x00100010 + number: b"%d %s" % (number, uid.encode()) for number in range(10)}
        for level, uid in zip((Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE), uids, strict=True)
    }
    return Taken(key.study_instance_uid, levels, tuple((level, "uid", uid) for level, uid in zip(levels, uids, strict=True)))


def steps(folder: Path, instances: list[Encoded], database: str) -> dict[str, tuple[float, float]]:
    """Return step -> (seconds, processor seconds) for all instances, each step on its own, in groups."""
    sealer, store, index = opened(folder, database)
    keys = LocalKeys(os.urandom(32))
    Vault.create(folder / "identity", keys)
    vault = Vault.open(folder / "identity", keys, "bench")
    sealed: list[Sealed] = []
    places: list[Location] = []
    rows: list[tuple[Arrival, Location]] = []
    identities = [(one.key, one.digest, taken(one)) for one in instances]

    def in_groups(work: Callable[[slice], object]) -> Callable[[], None]:
        def all_of_them() -> None:
            for at in range(0, len(instances), GROUP):
                work(slice(at, at + GROUP))

        return all_of_them

    def read() -> None:
        for one, record, place in zip(instances, sealed, places, strict=True):
            sealer.open(sealing.stored(one, record, place), store)

    found = {"seal (HKDF, AES-256-GCM, CRC)": timed(lambda: sealed.extend(sealing.seal(sealer, one) for one in instances))}
    found[f"append and fdatasync, {GROUP} a group"] = timed(in_groups(lambda some: places.extend(store.put(sealed[some]))))
    rows += [
        (Arrival(one, record, Origin.STORAGE_SCU, "bench", "", "research"), place)
        for one, record, place in zip(instances, sealed, places, strict=True)
    ]
    found[f"index rows, {GROUP} a transaction"] = timed(in_groups(lambda some: index.add(rows[some])))
    found[f"identities into the vault and its log, {GROUP} a group"] = timed(
        in_groups(lambda some: vault.keep(identities[some]))
    )
    found["read back and open"] = timed(read)
    vault.close()
    store.close()
    index.close()
    return found


def ingest(folder: Path, instances: list[Encoded], writers: int, database: str) -> tuple[float, float, float]:
    """Return (seconds, processor seconds, median latency) with so many writers that wait for each of theirs to be durable."""
    sealer, store, index = opened(folder, database)
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


def ceilings(folder: Path, count: int, size: int) -> dict[str, float]:
    """Return pattern -> instances a second of what the disk does bare."""
    folder.mkdir(parents=True)
    data = os.urandom(size)

    def files() -> None:
        for number in range(count):
            with (folder / str(number)).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def appended() -> None:
        with (folder / "log").open("wb") as file:
            for _ in range(count):
                file.write(data)
                file.flush()
                os.fdatasync(file.fileno())

    ahead = os.open(folder / "ahead", os.O_RDWR | os.O_CREAT, 0o600)
    for at in range(0, AHEAD_BYTES, 1 << 20):
        os.pwrite(ahead, bytes(1 << 20), at)
    os.fsync(ahead)

    def overwritten(group: int) -> Callable[[], None]:
        def work() -> None:
            for number in range(count):
                os.pwrite(ahead, data, number * size % (AHEAD_BYTES - size))
                if number % group == group - 1:
                    os.fdatasync(ahead)

        return work

    found = {"a file and fsync each": count / timed(files)[0], "append to a log, fdatasync each": count / timed(appended)[0]}
    for group in (*WRITERS, GROUP):
        found[overwrite(group)] = count / timed(overwritten(group))[0]
    os.close(ahead)
    return found


def overwrite(group: int) -> str:
    """Return the name of the pattern that the store follows, with so many instances a sync."""
    return f"overwrite a log that was written ahead, fdatasync per {group}"


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def measured(given: argparse.Namespace, base: Path, instances: list[Encoded]) -> None:
    """Measure everything, a round after the other, and print the tables."""
    count, size = given.instances, given.kib << 10
    bare: list[dict[str, float]] = []
    alone: list[dict[str, tuple[float, float]]] = []
    together: dict[int, list[tuple[float, float, float]]] = {writers: [] for writers in WRITERS}
    for number in range(given.rounds):
        folder = base / str(number)
        bare.append(ceilings(folder / "bare", min(count, 300), size))
        with database(given.database) as url:
            alone.append(steps(folder / "steps", instances, url))
        for writers in WRITERS:
            with database(given.database) as url:
                together[writers].append(ingest(folder / f"ingest{writers}", instances, writers, url))
        shutil.rmtree(folder)
    limit = {name: median([one[name] for one in bare]) for name in bare[0]}
    print("| bare pattern | instances/s |\n|---|---|")
    for name, rate in limit.items():
        print(f"| {name} | {rate:.0f} |")
    print("\n| step | ms each | CPU ms each |\n|---|---|---|")
    for name in alone[0]:
        seconds, processor = (median([one[name][place] for one in alone]) / count * 1000 for place in (0, 1))
        print(f"| {name} | {seconds:.3f} | {processor:.3f} |")
    print("\n| writers | instances/s | MB/s | p50 ms | CPU ms each | of the bare log |\n|---|---|---|---|---|---|")
    for writers, runs in together.items():
        seconds, processor, latency = (median([one[place] for one in runs]) for place in (0, 1, 2))
        rate = count / seconds
        print(
            f"| {writers} | {rate:.0f} | {rate * size / 1e6:.0f} | {latency * 1000:.2f} | {processor / count * 1000:.3f} "
            f"| {rate / limit[overwrite(writers)]:.0%} |"
        )


@contextmanager
def database(server: str) -> Iterator[str]:
    """Yield the URL of an empty database on a server, dropped afterwards; "" for SQLite in the folder."""
    if not server:
        yield ""
        return
    url, name = make_url(server), f"bench_{uuid.uuid4().hex}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()


def main() -> None:
    """Print the tables, and beside them how busy the machine was: of a busy one they say little."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kib", type=int, default=137, help="size of a frame; 137: a CT of 512 x 512 after HTJ2K")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--database", default="", metavar="URL", help="a PostgreSQL server for the index (default: SQLite)")
    given = parser.parse_args()
    print(
        f"{given.instances} instances of {(given.kib << 10) / 1000:.0f} kB, index in "
        f"{'PostgreSQL' if given.database else 'SQLite'}, medians of {given.rounds} rounds; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it\n"
    )
    instances = [instance(number, given.kib << 10) for number in range(given.instances)]
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        measured(given, Path(folder), instances)


if __name__ == "__main__":
    main()
