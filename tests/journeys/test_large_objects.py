"""Large objects, in by every door and out by every door, bit for bit, with bounded memory, and nothing left of a half one."""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import large_objects
import making
import pydicom
import pytest
import serving
from dcmtk import run as dcmtk
from dimse.door import opened, until
from large_objects import EXPLICIT
from pydicom.uid import EnhancedCTImageStorage
from whole import free_port

from pacs import retrieve
from pacs.archive import Archive
from pacs.cli.studies import take
from pacs.codec.large import Stream
from pacs.dimse import requestor, scu
from pacs.dimse.lane import AssociationLost
from pacs.model.errors import IntegrityError, Quarantined
from pacs.model.instance import Origin, Received, Stored
from pacs.sweep import recover
from pacs.upkeep.verify import verify

FRAMES = 5
HTJ2K = "1.2.840.10008.1.2.4.202"
PLANTED = [word.encode() for word in (making.PATIENT_NAME.split("^")[0], making.PATIENT_ID)]


def stored(archive: Archive) -> Stored:
    """Return the only large instance."""
    studies = [one.study_instance_uid for one in archive.index.studies()]
    (one,) = (one for one in archive.index.locate(study_instance_uids=studies) if one.number_of_frames > 1)
    return one


def pixels(buffers: object) -> str:
    """Return SHA-256 of the native pixels of a Part 10 file."""
    data = b"".join(bytes(one) for one in buffers)  # type: ignore[attr-defined]
    return sha256(data[-FRAMES * large_objects.FRAME_BYTES :]).hexdigest()


def as_scratch(archive: Archive, frames: int, *, noisy: bool = False, **overrides: object) -> Received:
    """Return an object as a door hands it in that lies in the scratch."""
    file = archive.intake.scratch.new()
    file.extend(large_objects.native(frames, noisy=noisy, **overrides))
    return Received(file, EXPLICIT, Origin.STORAGE_SCU, "MODALITY", association="a1")


def test_in_by_every_door(tmp_path: Path) -> None:
    """C-STORE (DCMTK), STOW-RS and import of one object give one instance: the others say that they know it."""
    file = large_objects.file(tmp_path / "in.dcm", FRAMES)
    with making.archive(tmp_path / "home", store__large_mb=1, dicom__port=0) as archive, opened(archive) as door:
        sent = dcmtk("storescu", "-aec", "MINIPACS", "127.0.0.1", door.port, file)
        assert sent.returncode == 0, sent.stderr
        digest = stored(archive).digest
        assert take(archive, file, "import")["outcome"] == "known"
        assert archive.intake._used == 0 and list((tmp_path / "home" / "scratch").iterdir()) == []
        assert stored(archive).transfer_syntax_uid == HTJ2K
    settings = making.settings(tmp_path / "home", store__large_mb=1, web__port=serving.free_port())
    for served in serving.run(settings):
        body, content_type = serving.stow_body([file.read_bytes()])
        several = served.client.post("/dicom-web/studies", content=body, headers={"Content-Type": content_type})
        single = served.client.post(
            "/dicom-web/studies", content=file.read_bytes(), headers={"Content-Type": "application/dicom"}
        )
        assert (several.status_code, single.status_code) == (200, 200), several.text
    with making.archive(tmp_path / "home") as archive:
        assert stored(archive).digest == digest, "one instance, one version"


def test_out_by_every_door(tmp_path: Path) -> None:
    """C-GET, WADO-RS (whole and frames) and `pacs get` give the pixels that came, bit for bit."""
    home = tmp_path / "home"
    expected = large_objects.pixel_digest(70)
    with making.archive(home, store__large_mb=1, dicom__port=0) as archive:
        assert take(archive, large_objects.file(tmp_path / "in.dcm", 70), "import")["outcome"] == "stored"
        one = stored(archive)
        assert isinstance(retrieve.part10_file(archive, one, [EXPLICIT]), Stream), "37 MB are not made as a whole"
        with opened(archive) as door:
            scu.get("127.0.0.1", door.port, "MINIPACS", one.key.study_instance_uid, tmp_path / "got")
    (got,) = (tmp_path / "got").iterdir()
    ds = pydicom.dcmread(got)
    assert ds.file_meta.TransferSyntaxUID == HTJ2K and int(ds.NumberOfFrames) == 70
    settings = making.settings(home, web__port=serving.free_port())
    key = one.key
    for served in serving.run(settings):
        base = f"/dicom-web/studies/{key.study_instance_uid}/series/{key.series_instance_uid}/instances/{key.sop_instance_uid}"
        whole = served.client.get(base, headers={"Accept": "application/dicom"})
        assert whole.status_code == 200 and int(whole.headers["content-length"]) == len(whole.content)
        assert sha256(whole.content[-70 * large_objects.FRAME_BYTES :]).hexdigest() == expected
        parts = served.client.get(base)
        assert large_objects.frame(7) in parts.content
        native = served.client.get(f"{base}/frames/69", headers={"Accept": "application/octet-stream"})
        assert native.content == large_objects.frame(69)
        bulk = served.client.get(
            f"{base}/bulkdata/7FE00010", headers={"Accept": "application/octet-stream", "Range": "bytes=524288-1048577"}
        )
        assert bulk.status_code == 206
        assert bulk.content == large_objects.frame(2) + large_objects.frame(3)[:2]
    environment = os.environ | {"PACS_HOME": str(home)}
    command = [sys.executable, "-m", "pacs", "get", key.sop_instance_uid, "-o", str(tmp_path / "files")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    (file,) = (tmp_path / "files").rglob("*.dcm")
    assert sha256(file.read_bytes()[-70 * large_objects.FRAME_BYTES :]).hexdigest() == expected


def test_a_large_record_has_a_container_of_its_own(tmp_path: Path) -> None:
    """Noise of 47 MB is kept beside the log; it is verified, copied, lost from the index and found again like any other."""
    with making.archive(tmp_path / "home", store__large_mb=1) as archive:
        take(archive, large_objects.file(tmp_path / "in.dcm", 90, noisy=True), "import")
        one = stored(archive)
        assert one.location.container == "test.large-00000001.seg"
        assert list(verify(archive, deep=True)) == []
        assert retrieve.frame(archive, one, 90).data == large_objects.frame(90, noisy=True)

        (copy,) = archive.objects.copy([one.location])
        assert copy.container == "test.large-00000002.seg" and copy.size_bytes == one.location.size_bytes
        archive.objects.delete(copy)

        archive.index.upkeep.forget(one.key.study_instance_uid)
        assert recover(archive) == 1 and stored(archive).digest == one.digest

        path = tmp_path / "home" / "store" / one.location.container
        with path.open("r+b") as file:
            file.seek(20_000_000)
            file.write(b"damage!")
        assert [found.kind for found in verify(archive)] == ["corrupt"]


def test_other_content_is_a_version_and_quarantine_streams(tmp_path: Path) -> None:
    """A conflict is seen by the digest; what may show text and is too large to be searched is kept, sealed, as it came."""
    with making.archive(tmp_path / "home", store__large_mb=1, deid__policy="basic") as archive:
        take(archive, large_objects.file(tmp_path / "a.dcm", FRAMES), "import")
        take(archive, large_objects.file(tmp_path / "b.dcm", FRAMES, noisy=True), "import")
        assert [row.version for row in archive.index.upkeep.versions()] == [1, 2]

        held = tmp_path / "c.dcm"
        large_objects.file(held, 70, noisy=True, instance=9, BurnedInAnnotation="YES")
        assert take(archive, held, "import")["outcome"] == "quarantined"
        (row,) = archive.index.quarantine.list()
        received = archive.quarantine.open(row.quarantine_id)
        digest = sha256()
        for at in range(0, len(received.data_set), 1_000_000):
            digest.update(received.data_set.read(at, min(1_000_000, len(received.data_set) - at)))  # type: ignore[union-attr]
        meta = len(held.read_bytes()) - len(received.data_set)
        assert digest.digest() == sha256(held.read_bytes()[meta:]).digest()
        assert list(verify(archive, deep=True)) == []
        with pytest.raises(Quarantined):
            archive.deidentifier.deidentify(received)


def test_encapsulated_frames_are_cleaned_one_by_one(tmp_path: Path) -> None:
    """Comments go out of the code streams of a large object, too; a stream that cannot be followed keeps it out."""
    import imagecodecs
    import numpy as np

    comment = b"\xff\xfe\x00\x1cWinterbottom^Aloysius 1958"
    streams = []
    for number in range(1, 9):
        array = np.frombuffer(large_objects.frame(number, noisy=True), "<u2").reshape(512, 512) >> 4
        streams.append(bytes(imagecodecs.jpegls_encode(array)))
    planted = [one[:2] + comment + one[2:] for one in streams]

    def encapsulated(frames: list[bytes]) -> Iterator[bytes]:
        yield large_objects.header(len(frames), instance=3)
        yield struct.pack("<HH2sHIHHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0)
        for one in frames:
            yield struct.pack("<HHI", 0xFFFE, 0xE000, len(one) + len(one) % 2) + one + b"\0" * (len(one) % 2)
        yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)

    with making.archive(tmp_path / "home") as archive:

        def received(frames: list[bytes]) -> Received:
            file = archive.intake.scratch.new()
            file.extend(encapsulated(frames))
            return Received(file, "1.2.840.10008.1.2.4.80", Origin.STOW, "x", association="a")

        from pacs.ingest import ingest

        one = ingest(archive, received(planted))
        for number in (1, 8):
            clean = retrieve.frame(archive, one, number).data
            assert comment[4:] not in clean
            assert np.array_equal(imagecodecs.jpegls_decode(clean), imagecodecs.jpegls_decode(streams[number - 1]))
        assert leaks(tmp_path / "home") == []
        with pytest.raises(Quarantined):
            ingest(archive, received([*planted[:7], b"no code stream" * 500]))


_CHILD = """
import json, sys
sys.path[:0] = {path!r}
import large_objects, making
from pathlib import Path
from hashlib import sha256
from pacs import retrieve
from pacs.cli.studies import take
home, file, frames = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def status(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))

with making.archive(home) as archive:
    take(archive, large_objects.file(home.parent / "small.dcm", 1, instance=9), "a")
    base = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    outcome = take(archive, file, "a")
    coming = status("VmHWM") - base
    one = archive.index.locate(sop_instance_uids=[outcome["sop_instance_uid"]])[0]
    digest = sha256()
    for buffer in retrieve.data_set(archive, one, [large_objects.EXPLICIT]).buffers:
        if len(buffer) == large_objects.FRAME_BYTES:
            digest.update(buffer)
    print(json.dumps([outcome["outcome"], coming >> 10, status("VmHWM") - base >> 10, digest.hexdigest()]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's high-water mark")
@pytest.mark.parametrize("noisy", [False, True])
def test_memory_is_bounded(tmp_path: Path, long_run: bool, noisy: bool) -> None:
    """100 MB (50 of noise; 300 with --long) in and out of a process that grows by less than 100 MiB."""
    frames = 600 if long_run else 100 if noisy else 200
    file = large_objects.file(tmp_path / "in.dcm", frames, noisy=noisy)
    code = _CHILD.format(path=[str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "home"), str(file), str(frames)],
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcome, coming, both, digest = json.loads(done.stdout)

    assert outcome == "stored" and digest == large_objects.pixel_digest(frames, noisy=noisy)
    assert coming < 100 and both < 100, f"{coming} MiB on the way in, {both} MiB with the way out"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`pacs scp` with one receiver and files of at most 3 MB; a larger write fails as on a full disk."""
    home, port = tmp_path / "home", free_port()
    with making.archive(home):
        pass
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PACS_")} | {
        "PACS_HOME": str(home), "PACS_DICOM_PORT": str(port), "PACS_STORE_LARGE_MB": "1", "PACS_DICOM_RECEIVERS": "1",
    }  # fmt: skip
    limit = tmp_path / "limit"

    def bounded() -> None:
        if limit.exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    if os.environ.get("PYTEST_CURRENT_TEST", "").find("full_disk") >= 0:
        limit.touch()
    command = [sys.executable, "-m", "pacs", "scp"]
    with (tmp_path / "scp.log").open("wb") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, preexec_fn=bounded)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert scu.echo("127.0.0.1", port, "MINIPACS") == 0
                break
            except requestor.PeerUnavailable:
                assert time.monotonic() < deadline, "it did not start"
                time.sleep(0.2)
        yield process, port
    finally:
        process.kill()
        process.wait()


def _send(port: int, data_set: Iterator[bytes]) -> int:
    proposals = [(EnhancedCTImageStorage, (EXPLICIT,))]
    association = requestor.associate("127.0.0.1", port, called="MINIPACS", calling="S", proposals=proposals, timeout_s=60)
    context_id = requestor.accepted(association, EnhancedCTImageStorage)[EXPLICIT]
    try:
        return requestor.store(
            association, context_id, sop_class_uid=EnhancedCTImageStorage,
            sop_instance_uid=large_objects.sop_instance_uid(), data_set=data_set, message_id=1,
        )  # fmt: skip
    finally:
        association.terminate()


def leaks(home: Path) -> list[str]:
    """Return the files that hold a planted value."""
    return [str(one) for one in home.rglob("*") if one.is_file() and any(word in one.read_bytes() for word in PLANTED)]


def test_kill_in_the_middle_leaves_nothing(tmp_path: Path, listening: tuple[subprocess.Popen[bytes], int]) -> None:
    """kill -9 while a large object arrives: nothing of it is readable, nothing is in the scratch, nothing becomes visible."""
    process, port = listening
    home = tmp_path / "home"

    def interrupted() -> Iterator[bytes]:
        for number, piece in enumerate(large_objects.native(12)):
            yield piece
            if number == 9:
                yield bytes(0)
                time.sleep(0.5)
                assert leaks(home) == [], "while it lies in the scratch"
                os.kill(process.pid, signal.SIGKILL)
                for child in _children(process.pid):
                    os.kill(child, signal.SIGKILL)

    children = _children(process.pid)
    with pytest.raises(Exception):  # noqa: B017  # however the broken connection shows
        _send(port, interrupted())
    for child in children:
        if Path(f"/proc/{child}").exists():
            os.kill(child, signal.SIGKILL)
    process.wait()

    assert leaks(home) == [] and list((home / "scratch").iterdir()) == []
    with making.archive(home) as archive:
        assert recover(archive) == 0 and archive.index.summary()["instances"] == 0
        assert list(verify(archive)) == []


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_a_full_disk_is_answered_and_leaves_nothing(tmp_path: Path, listening: tuple[subprocess.Popen[bytes], int]) -> None:
    """The scratch cannot grow: A700, nothing kept, and the same process goes on with what fits."""
    _, port = listening
    home = tmp_path / "home"

    assert _send(port, large_objects.native(12)) == 0xA700

    assert list((home / "scratch").iterdir()) == [] and list(home.glob("store/*.part")) == []
    assert _send(port, large_objects.native(1)) == 0
    assert leaks(home) == []


def test_a_data_set_that_breaks_off_ends_the_association(tmp_path: Path) -> None:
    """What cannot be made to its end is never followed by another message, and the receiver keeps nothing of it."""

    def broken() -> Iterator[bytes]:
        for number, piece in enumerate(large_objects.native(12)):
            yield piece
            if number == 9:
                raise IntegrityError("frame 9 is damaged")

    with making.archive(tmp_path / "home", store__large_mb=1, dicom__port=0) as archive, opened(archive) as door:
        with pytest.raises(AssociationLost):
            _send(door.port, broken())
        assert until(lambda: not door.server.active_associations)
        assert archive.intake._used == 0 and archive.index.summary()["instances"] == 0
        assert _send(door.port, large_objects.native(FRAMES)) == 0


def test_a_torn_large_record_is_swept(tmp_path: Path) -> None:
    """A record that was being written when its process died is gone with the next start; one that is being written stays."""
    home = tmp_path / "home"
    with making.archive(home):
        pass
    torn = home / "store" / "other.large-00000001.part"
    torn.write_bytes(bytes(1000))

    with making.archive(home) as archive:
        assert not torn.exists()
        take(archive, _small(tmp_path), "a")
        own = home / "store" / "test.large-00000001.part"
        own.write_bytes(bytes(1000))
        with making.archive(home, writer="second"):
            assert own.exists(), "its writer lives"


def _small(folder: Path) -> Path:
    (path,) = making.write_files(folder / "small", [making.dataset()])
    return path


def test_a_large_segmentation_shrinks(tmp_path: Path) -> None:
    """Native frames that HTJ2K does not take are coded where that pays, each for itself, and come back the same."""
    from pacs.ingest import ingest

    frames, step = 64, 512 * 512 // 8
    head = large_objects.header(frames, instance=5, BitsAllocated=1, BitsStored=1, HighBit=0, PixelRepresentation=0)
    with making.archive(tmp_path / "home", store__large_mb=1) as archive:
        file = archive.intake.scratch.new()
        file.append(head + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, frames * step))
        file.extend(bytes([number]) * step for number in range(frames))

        one = ingest(archive, Received(file, EXPLICIT, Origin.STOW, "x", association="a"))

        assert one.location.size_bytes < frames * step // 20
        assert [retrieve.frame(archive, one, number).data for number in (1, 64)] == [bytes(step), bytes([63]) * step]
        assert list(verify(archive, deep=True)) == []


def test_a_deflated_giant_is_taken_in_pieces(tmp_path: Path) -> None:
    """A deflated object that becomes large goes through the scratch, and is the same instance as the plain one."""
    import zlib

    from pacs.ingest import ingest

    deflate = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    content = b"".join(deflate.compress(piece) for piece in large_objects.native(FRAMES)) + deflate.flush()
    with making.archive(tmp_path / "home", store__large_mb=1) as archive:
        first = ingest(archive, as_scratch(archive, FRAMES))
        again = ingest(archive, Received(content, "1.2.840.10008.1.2.1.99", Origin.STOW, "x", association="b"))

        assert (first.fresh, again.fresh, again.digest) == (True, False, first.digest)
        assert archive.intake._used == 0
