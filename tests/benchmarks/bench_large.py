"""A large multi-frame object in and out of a whole server over loopback: times, and the memory that each process needed.

    python tests/benchmarks/bench_large.py --gb 4
    python tests/benchmarks/bench_large.py --gb 10 --compressed

The object is made while it is sent and counted while it is received; neither side ever holds it. Memory is the high-water mark
of a server process above what it was after one small object (VmHWM, Linux). Frame 3,000 is asked for alone, and what the web
process reads for it (rchar) is compared with the size of a frame.
"""

import argparse
import asyncio
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

import imagecodecs
import large_objects
import numpy as np
import psutil
import whole
from pydicom.uid import EnhancedCTImageStorage

from pacs.dicom import part10
from pacs.dimse import contexts, messages, requestor, scu
from pacs.dimse.messages import Command
from pacs.model.bulk import blocks

HTJ2K = "1.2.840.10008.1.2.4.201"
MIB = 1 << 20


def compressed(frames: int) -> Iterator[bytes]:
    """Yield a data set whose frames are noise as HTJ2K: as large as can be."""
    patterns = [large_objects.frame(number, noisy=True) for number in range(8)]
    streams = []
    for one in patterns:
        array = np.frombuffer(one, "<i2").reshape(large_objects.ROWS, large_objects.COLUMNS)
        streams.append(bytes(imagecodecs.htj2k_encode(array, reversible=True)))
    streams = [one + b"\0" * (len(one) % 2) for one in streams]
    yield large_objects.header(frames, instance=2)
    yield struct.pack("<HH2sHIHHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0)
    for number in range(frames):
        stream = streams[number % 8]
        yield struct.pack("<HHI", 0xFFFE, 0xE000, len(stream)) + stream
    yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


class Counted:
    """A stream that knows how much of it went by."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self.source, self.size = source, 0

    def __iter__(self) -> Iterator[bytes]:
        for one in self.source:
            self.size += len(one)
            yield one


class Memory:
    """High-water marks of a server's processes above a base line."""

    def __init__(self, server: whole.Server) -> None:
        self._server = server
        self.base: dict[int, int] = {}

    def begin(self) -> None:
        """Take the base line now."""
        for one in self._server.processes():
            Path(f"/proc/{one.pid}/clear_refs").write_text("5")
            self.base[one.pid] = _kib(one.pid, "VmRSS")

    def most(self) -> tuple[int, str]:
        """Return the largest growth of a process in MiB, and which it was."""
        grown = []
        for one in self._server.processes():
            if one.pid in self.base:
                words = [word for word in one.cmdline() if not word.startswith("-")]
                grown.append(((_kib(one.pid, "VmHWM") - self.base[one.pid]) >> 10, " ".join(words[-2:])))
        return max(grown)


def _kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def _told(what: str, seconds: float, size: int, memory: Memory) -> None:
    grown, process = memory.most()
    print(f"{what:<44} {seconds:8.1f} s {size / seconds / 1e6:8.0f} MB/s   +{grown} MiB ({process})", flush=True)


def _store(server: whole.Server, data_set: Iterator[bytes], syntax: str, uid: str) -> int:
    proposals = [(EnhancedCTImageStorage, (syntax,))]
    association = requestor.associate(
        "127.0.0.1", server.dicom_port, called="MINIPACS", calling="BENCH", proposals=proposals, timeout_s=3600
    )
    context_id = requestor.accepted(association, EnhancedCTImageStorage)[syntax]
    code = requestor.store(
        association, context_id, sop_class_uid=EnhancedCTImageStorage, sop_instance_uid=uid, data_set=data_set, message_id=1
    )
    association.release_and_wait()
    return code


def _get(server: whole.Server, study: str, syntax: str) -> int:
    """C-GET a study with one instance; returns the bytes of its data set."""
    get = contexts.STUDY_ROOT_GET
    proposals = [(get, contexts.MESSAGE_SYNTAXES), (EnhancedCTImageStorage, (syntax,))]
    association = requestor.associate(
        "127.0.0.1", server.dicom_port, called="MINIPACS", calling="BENCH", proposals=proposals,
        as_scp=[EnhancedCTImageStorage], timeout_s=3600,
    )  # fmt: skip
    context_id, message_syntax = scu._context(association, get)
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study}
    scu._request(association, context_id, message_syntax, Command.C_GET_RQ, get, keys)
    size = 0
    while True:
        message = association.dimse.receive(3600)
        if message.command_field == Command.C_STORE_RQ:
            assert message.content is not None
            size += sum(len(block) for block in blocks(message.content))
            association.dimse.give_back(message.content)
            answer: dict[int, int | str] = {
                messages.AFFECTED_SOP_CLASS_UID: message.sop_class_uid,
                messages.MESSAGE_ID_RESPONDED_TO: message.message_id,
                messages.STATUS: 0,
                messages.AFFECTED_SOP_INSTANCE_UID: message.sop_instance_uid,
            }
            association.dimse.send(message.context_id, messages.encode(Command.C_STORE_RSP, answer))
        elif message.status != 0xFF00:
            assert message.status == 0, f"{message.status:04X}"
            association.release_and_wait()
            return size


async def _stow(url: str, source: Iterator[bytes], syntax: str, uid: str) -> None:
    async def body():  # type: ignore[no-untyped-def]
        yield part10.file_meta(EnhancedCTImageStorage, uid, syntax)
        for one in source:
            yield one

    async with httpx.AsyncClient(timeout=3600) as client:
        answer = await client.post(f"{url}/studies", content=body(), headers={"Content-Type": "application/dicom"})
        assert answer.status_code == 200, (answer.status_code, answer.text[:500])


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=4.0, help="size of the object in 10^9 bytes")
    parser.add_argument("--compressed", action="store_true", help="send HTJ2K of noise instead of native frames of a phantom")
    parser.add_argument("--noisy", action="store_true", help="native frames of noise, which stay as they are")
    parser.add_argument("--without-web", action="store_true", help="leave STOW-RS out")
    given = parser.parse_args()
    frames = int(given.gb * 1e9 // large_objects.FRAME_BYTES)
    if not given.compressed:
        frames = min(frames, 0xFFFFFFFE // large_objects.FRAME_BYTES)
    syntax = HTJ2K if given.compressed else large_objects.EXPLICIT
    uid = large_objects.sop_instance_uid(instance=2)

    def made() -> Counted:
        return Counted(compressed(frames) if given.compressed else large_objects.native(frames, noisy=given.noisy, instance=2))

    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        server = whole.Server(Path(folder) / "home", PACS_PROCESSING_ENABLED="false").start()
        try:
            url = f"http://127.0.0.1:{server.web_port}/dicom-web"
            small = large_objects.native(1, instance=1)
            assert _store(server, small, large_objects.EXPLICIT, large_objects.sop_instance_uid(instance=1)) == 0
            asyncio.run(
                _stow(
                    url, large_objects.native(1, instance=3), large_objects.EXPLICIT, large_objects.sop_instance_uid(instance=3)
                )
            )
            memory = Memory(server)
            memory.begin()
            object_ = made()
            print(f"{frames} frames, {given.gb:g} GB, {syntax}", flush=True)
            began = time.monotonic()
            assert _store(server, iter(object_), syntax, uid) == 0
            size = object_.size
            _told("C-STORE", time.monotonic() - began, size, memory)
            began = time.monotonic()
            assert _store(server, iter(made()), syntax, uid) == 0
            _told("C-STORE again (equal)", time.monotonic() - began, size, memory)
            if not given.without_web:
                began = time.monotonic()
                asyncio.run(_stow(url, iter(made()), syntax, uid))
                _told("STOW-RS (equal)", time.monotonic() - began, size, memory)
            study = server.rows("studies")[0]["study_instance_uid"]
            found = httpx.get(
                f"{url}/instances", params={"NumberOfFrames": str(frames), "includefield": "00080018"}, timeout=60
            ).json()
            big = next(one for one in found if one.get("00280008", {}).get("Value", [1])[0] == frames)
            series, instance = (big[tag]["Value"][0] for tag in ("0020000E", "00080018"))
            base = f"{url}/studies/{study}/series/{series}/instances/{instance}"
            number = min(3000, frames)
            web = [one for one in server.processes() if "web" in one.cmdline()]
            before = sum(one.io_counters().read_chars for one in web)
            began = time.monotonic()
            one = httpx.get(f"{base}/frames/{number}", headers={"Accept": "application/octet-stream"}, timeout=60)
            seconds = time.monotonic() - began
            read = sum(one.io_counters().read_chars for one in web) - before
            if not given.compressed:
                assert one.content == large_objects.frame(number, noisy=given.noisy)
            print(
                f"frame {number}: {seconds * 1000:.0f} ms, {read / 1024:.0f} KiB read of a record of {size / 1e9:.1f} GB",
                flush=True,
            )
            for accept in ("application/dicom; transfer-syntax=*", *(() if given.compressed else ("application/dicom",))):
                began, got, digest = time.monotonic(), 0, sha256()
                with httpx.stream("GET", base, headers={"Accept": accept}, timeout=3600) as answer:
                    assert answer.status_code == 200, answer.read()[:500]
                    for chunk in answer.iter_raw():
                        got += len(chunk)
                        digest.update(chunk[-64:])
                _told(f"WADO-RS {accept}", time.monotonic() - began, got, memory)
            stored = next(one for one in (HTJ2K, large_objects.EXPLICIT))
            for wanted in dict.fromkeys((HTJ2K, *(() if given.compressed else (large_objects.EXPLICIT,)))):
                began = time.monotonic()
                got = _get(server, study, wanted)
                _told(f"C-GET {wanted}", time.monotonic() - began, got, memory)
            began = time.monotonic()
            target = Path(folder) / "got"
            command = [
                sys.executable,
                "-m",
                "pacs",
                "get",
                instance,
                "-o",
                str(target),
                *(["--as-stored"] if given.compressed else []),
            ]
            child = psutil.Popen(command, env=server.environment)
            most = 0
            while child.poll() is None:
                most = max(most, child.memory_info().rss if child.is_running() and child.status() != "zombie" else 0)
                time.sleep(0.05)
            written = sum(path.stat().st_size for path in target.rglob("*.dcm"))
            seconds = time.monotonic() - began
            print(
                f"{'pacs get':<44} {seconds:8.1f} s {written / seconds / 1e6:8.0f} MB/s   {most >> 20} MiB in all", flush=True
            )
            began = time.monotonic()
            print(
                server.pacs("verify", "--deep", timeout=3600).stdout.strip(),
                f"{time.monotonic() - began:.1f} s",
                stored,
                flush=True,
            )
        finally:
            server.kill()


if __name__ == "__main__":
    main()
