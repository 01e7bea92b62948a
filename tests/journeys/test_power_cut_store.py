"""The power goes at every write, sync, rename and commit of the way in; processes are killed while others look after the store.

A process cuts itself off at the n-th call it makes that changes a file: it counts renames, unlinks and truncations by an audit
hook, and writes, syncs and commits by a profile of its own calls. What was acknowledged before must be there afterwards, whole
and once; what was not may be there, whole, or not at all.
"""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import making
import pytest
import services

from pacs import retrieve
from pacs.archive import Archive
from pacs.settings import Settings
from pacs.sweep import prepare, recover
from pacs.upkeep.rebuild import rebuild
from pacs.upkeep.verify import verify

TESTS = Path(making.__file__).parent
EXPLICIT = "1.2.840.10008.1.2.1"

# argv: tests folder, home, database URL, first instance, call at which the power goes (0: never)
WRITER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import making
from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.upkeep.compress import compress

settings = making.settings(Path(sys.argv[2]), database__url=sys.argv[3], store__compress="later")
calls, limit = 0, int(sys.argv[5])

def step(*_):
    global calls
    calls += 1
    if limit and calls >= limit:
        os._exit(9)  # nothing is flushed, closed or rolled back: the process is gone

WATCHED = {"pwrite", "fsync", "fdatasync", "write", "ftruncate", "commit", "execute"}

def profile(frame, event, argument):
    # Before each system call that changes a file, in whatever thread; SQLite's own writes lie behind execute and commit.
    if event == "c_call" and getattr(argument, "__name__", "") in WATCHED:
        module = getattr(argument, "__module__", None) or type(getattr(argument, "__self__", None)).__module__
        if module in ("posix", "sqlite3") or "psycopg" in str(module):
            step()

def audit(event, arguments):
    if event in ("os.rename", "os.remove", "os.truncate", "os.link"):
        step()

with Archive.opened(settings, writer="test") as archive:
    import threading
    sys.addaudithook(audit)
    threading.setprofile(profile)
    sys.setprofile(profile)
    for instance in range(int(sys.argv[4]), int(sys.argv[4]) + 3):
        ingest(archive, making.received(making.dataset(instance=instance)))
        os.write(1, f"{instance}\\n".encode())
    archive.quarantine.keep(making.received(making.dataset(instance=999)), "Quarantined", "for the test")
    os.write(1, b"quarantined\\n")
    assert compress(archive, until=time.monotonic() + 60, rest_s=-1), "what came in a hurry waits to be compressed"
    sys.setprofile(None)
    limit = 0
os.write(1, f"calls {calls}\\n".encode())
"""


def write(home: Path, url: str, first: int, limit: int) -> list[str]:
    """Run the writer; return the lines it managed to say."""
    command = [sys.executable, "-c", WRITER, str(TESTS), str(home), url, str(first), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == (9 if limit and "calls" not in done.stdout else 0), done.stderr
    return done.stdout.splitlines()


def settings_of(home: Path, url: str) -> Settings:
    """Return the settings of a home whose index is at `url`."""
    return making.settings(home, database__url=url)


def check(settings: Settings, acknowledged: set[int], quarantined: int) -> None:
    """Start again, and hold what is there against what was acknowledged."""
    with Archive.opened(settings, writer="test") as archive:
        recover(archive)
        studies = [one.study_instance_uid for one in archive.index.studies()]
        there = {int(one.attributes["InstanceNumber"]): one for one in archive.index.locate(study_instance_uids=studies)}
        assert acknowledged <= there.keys()
        assert len(there) == archive.index.summary()["instances"]
        for number, stored in there.items():
            data = b"".join(bytes(one) for one in retrieve.part10_file(archive, stored, [EXPLICIT]))
            assert data.endswith(making.dataset(instance=number).PixelData)
        assert len(archive.index.quarantine.list()) >= quarantined
        assert [one for one in verify(archive, deep=True) if one.kind != "orphan"] == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_cut_at_every_call_of_the_way_in(tmp_path: Path, kind: str, long_run: bool) -> None:
    """Cut before each write, sync, rename and commit (some of them on a short run): nothing acknowledged is lost or half."""
    home = tmp_path / "home"
    with services.database(kind, tmp_path) as url:
        settings = settings_of(home, url)
        prepare(settings)
        (said,) = (line for line in write(home, url, 1, 0) if line.startswith("calls"))
        calls = int(said.split()[1])
        assert calls > 20, "the calls are seen"
        acknowledged, quarantined = {1, 2, 3}, 1
        step = 1 if long_run else max(1, calls // 8)
        for round_number, limit in enumerate(range(1, calls + 1, step), 1):
            lines = write(home, url, round_number * 100, limit)
            acknowledged |= {int(line) for line in lines if line.isdigit()}
            quarantined += "quarantined" in lines
            check(settings, acknowledged, quarantined)
        assert len(acknowledged) > 3


LOOP = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import making
from pacs.archive import Archive
from pacs.upkeep import forget
from pacs.upkeep.backup import back_up
from pacs.upkeep.compact import compact
from pacs.upkeep.compress import compress
from pacs.upkeep.rotate import rotate
home = Path(sys.argv[2])
with Archive.opened(making.settings(home, database__url=sys.argv[3]), writer="care") as archive:
    sys.stdout.write("begun\\n"); sys.stdout.flush()
    while True:
        rotate(archive)
        forget.resume(archive)
        compress(archive, until=time.monotonic() + 1, rest_s=-1)
        compact(archive, below=0.9, grace_s=0.0, at_rest_s=0.0)
        back_up(archive, home.parent / "backup")
"""

SENDER = """
import sys
sys.path.insert(0, sys.argv[1])
import making
from pathlib import Path
from pacs.archive import Archive
from pacs.ingest import ingest
settings = making.settings(Path(sys.argv[2]), database__url=sys.argv[3], store__compress="later")
with Archive.opened(settings, writer="test") as archive:
    for instance in range(int(sys.argv[4]), int(sys.argv[4]) + 100000):
        ingest(archive, making.received(making.dataset(instance=instance)))
        sys.stdout.write(f"{instance}\\n"); sys.stdout.flush()
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kill_of_writer_and_upkeep_again_and_again(tmp_path: Path, kind: str, long_run: bool) -> None:
    """kill -9 of a writer and of a process that rotates, compresses, compacts and backs up, at arbitrary moments: nothing
    acknowledged is lost, the index can be rebuilt equal, and a rotation that was begun is ended."""
    home = tmp_path / "home"
    with services.database(kind, tmp_path) as url:
        settings = settings_of(home, url)
        prepare(settings)
        acknowledged: set[int] = set()
        for round_number in range(200 if long_run else 12 if kind == "sqlite" else 4):
            arguments = [str(TESTS), str(home), url]
            sender_command = [sys.executable, "-c", SENDER, *arguments]
            begin = str(round_number * 1000 + 1)
            with (
                subprocess.Popen([sys.executable, "-c", LOOP, *arguments], stdout=subprocess.PIPE, text=True) as care,
                subprocess.Popen([*sender_command, begin], stdout=subprocess.PIPE, text=True) as sender,
            ):
                assert care.stdout is not None and sender.stdout is not None
                for _ in range(1 + round_number % 5):
                    acknowledged.add(int(sender.stdout.readline()))
                assert care.stdout.readline() == "begun\n"
                threading.Event().wait(0.013 * (round_number % 9))
                care.send_signal(signal.SIGKILL)
                sender.send_signal(signal.SIGKILL)
                acknowledged |= {int(line) for line in sender.stdout.read().splitlines(keepends=True) if line.endswith("\n")}
        check(settings, acknowledged, 0)
        if kind == "postgresql":
            return
        for path in tmp_path.glob("index.db*"):
            path.unlink()
        prepare(settings)
        with Archive.opened(settings, writer="test") as archive:
            rebuild(archive)
        check(settings, acknowledged, 0)
