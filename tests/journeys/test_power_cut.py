"""The power goes at every step of the way in: what was acknowledged is there, nothing is half there, a resend heals."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pydicom
import pytest
from whole import Server, gone_by

from pacs import retrieve
from pacs.archive import Archive
from pacs.committer import Committer
from pacs.dimse import outbound
from pacs.ingest import ingest
from pacs.model.instance import Stored
from pacs.phantoms import petct
from pacs.sweep import prepare, recover
from pacs.upkeep.verify import verify


class PowerCut(BaseException):
    """Nothing after this line happens any more."""


class CutAround:
    """Stands before a part and goes dark before or after the `n`-th call of one method."""

    def __init__(self, part: Any, method: str, *, after: bool) -> None:
        self._part = part
        self._method = method
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found: Callable[..., Any] = getattr(self._part, name)
        if name != self._method:
            return found

        def cut(*arguments: Any, **named: Any) -> None:
            if self._after:
                found(*arguments, **named)
            raise PowerCut

        return cut


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["sealer.seal", "objects.put", "index.add"])
def test_a_cut_at_each_step_loses_nothing(tmp_path: Path, step: str, after: bool) -> None:
    """Cut before or after each step: earlier objects stay readable, the cut one is whole or absent, and a resend succeeds."""
    first, second = making.dataset(instance=1), making.dataset(instance=2)
    part, method = step.split(".")
    with making.archive(tmp_path / "home") as archive:
        acknowledged = ingest(archive, making.received(first))
        dark: dict[str, Any] = {part: CutAround(getattr(archive, part), method, after=after)}
        if part in ("objects", "index"):
            parts = {"objects": archive.objects, "index": archive.index, **dark}
            dark["committer"] = Committer(parts["objects"], parts["index"])
        with pytest.raises(PowerCut):
            ingest(replace(archive, **dark), making.received(second))

    with making.archive(tmp_path / "home") as again:
        recover(again)
        assert pixels(again, acknowledged.key.sop_instance_uid) == first.PixelData
        there = again.index.locate(study_instance_uids=[acknowledged.key.study_instance_uid])
        assert len(there) in (1, 2)
        for stored in there:
            assert pixels(again, stored.key.sop_instance_uid) in (first.PixelData, second.PixelData)

        healed = ingest(again, making.received(second))
        assert pixels(again, healed.key.sop_instance_uid) == second.PixelData
        assert len(again.index.locate(study_instance_uids=[acknowledged.key.study_instance_uid])) == 2


def test_a_record_without_rows_is_replayed(tmp_path: Path) -> None:
    """A cut between record and rows: at the next start the rows are written from the record itself."""
    ds = making.dataset()
    with making.archive(tmp_path / "home") as archive:
        dark = CutAround(archive.index, "add", after=False)
        with pytest.raises(PowerCut):
            # The process is gone with the power: nobody deletes the record again.
            objects = Undeletable(archive.objects)
            ingest(replace(archive, committer=Committer(objects, dark)), making.received(ds))  # type: ignore[arg-type]
        assert archive.index.summary()["instances"] == 0

    with making.archive(tmp_path / "home") as again:
        assert recover(again) == 1
        assert recover(again) == 0, "a second start finds nothing to do"
        (stored,) = everything(again)
        assert pixels(again, stored.key.sop_instance_uid) == ds.PixelData
        assert again.index.settled(time.time() + 100, settle_s=1, quiet_s=1, study_settle_s=1), (
            "what was replayed is processed like any other arrival"
        )


def test_a_record_that_was_cut_off_is_no_damage_after_the_next_start(tmp_path: Path) -> None:
    """Half a record behind the last one was never acknowledged: it is gone before its writer writes again."""
    with making.archive(tmp_path / "home") as archive:
        stored = ingest(archive, making.received(making.dataset()))
        record = archive.objects.get(stored.location)
    (segment,) = (tmp_path / "home" / "store").glob("*.seg")
    with segment.open("ab") as file:
        file.write(record[: len(record) * 2 // 3])

    with making.archive(tmp_path / "home") as again:
        assert [one.kind for one in verify(again)] == ["damaged"]
        recover(again)
        assert list(verify(again, deep=True)) == []
        assert len(everything(again)) == 1


def test_a_quarantine_file_without_a_row_is_listed_again(tmp_path: Path) -> None:
    """A cut between the sealed file and its row: at the next start the object is in the list."""
    with making.archive(tmp_path / "home") as archive:
        kept = archive.quarantine.keep(making.received(making.dataset()), "Quarantined", "for the test")
        archive.index.quarantine.remove(kept)
        assert archive.index.quarantine.list() == []

        assert recover(archive) == 1
        assert [row.quarantine_id for row in archive.index.quarantine.list()] == [kept]
        assert recover(archive) == 0


class Undeletable:
    """An object store whose `delete` never happens any more."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: None) if name == "delete" else getattr(self._part, name)


def everything(archive: Archive) -> list[Stored]:
    """Return every instance of the archive."""
    return archive.index.locate(study_instance_uids=[study.study_instance_uid for study in archive.index.studies()])


def pixels(archive: Archive, sop_instance_uid: str) -> bytes:
    """Return the native pixel data of an instance, read back from the store."""
    (stored,) = archive.index.locate(sop_instance_uids=[sop_instance_uid])
    data = b"".join(retrieve.part10_file(archive, stored, [str(pydicom.uid.ExplicitVRLittleEndian)]))
    return bytes(pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).PixelData)


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import making
from pathlib import Path
from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.instance import Stored
with Archive.opened(making.settings(Path(sys.argv[2])), writer="test") as archive:
    for instance in range(int(sys.argv[3]), int(sys.argv[3]) + 100000):
        ingest(archive, making.received(making.dataset(instance=instance)))
        sys.stdout.write(f"{instance}\\n"); sys.stdout.flush()
"""


def test_kill_in_the_middle_of_a_send_again_and_again(tmp_path: Path, long_run: bool) -> None:
    """A writing process is killed at arbitrary moments; every instance it had acknowledged is there and bit-exact."""
    home = tmp_path / "home"
    prepare(making.settings(home))
    acknowledged: list[int] = []
    for round_number in range(200 if long_run else 12):
        begin = round_number * 1000 + 1
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(Path(making.__file__).parent), str(home), str(begin)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None and writer.stderr is not None
            for _ in range(1 + round_number % 7):
                line = writer.stdout.readline()
                assert line, writer.stderr.read()
                acknowledged.append(int(line))
            threading.Event().wait(0.0017 * (round_number % 11))
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().splitlines(keepends=True)
            acknowledged += [int(line) for line in rest if line.endswith("\n")]

    with making.archive(home) as archive:
        recover(archive)
        there = {int(stored.attributes["InstanceNumber"]): stored for stored in everything(archive)}
        assert set(acknowledged) <= there.keys()
        assert len(there) == archive.index.summary()["instances"], "nothing is doubled"
        for number, stored in there.items():
            assert pixels(archive, stored.key.sop_instance_uid) == making.dataset(instance=number).PixelData


def test_kill_of_every_process_in_the_middle_of_a_send(tmp_path: Path) -> None:
    """kill -9 of all processes while a modality sends: what was answered 0000 is there, its jobs finish, nothing is doubled."""
    files = [path for paths in petct.write(tmp_path / "modality").values() for path in paths]
    server = Server(tmp_path / "home").start()
    sent: list[outbound.FileResult] = []

    def send() -> None:
        outbound.send(
            files,
            "127.0.0.1",
            server.dicom_port,
            "MINIPACS",
            calling="SCANNER",
            on_progress=lambda one: sent.append(one),
        )

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    while sum(one.stored for one in sent) < 40:
        time.sleep(0.002)
    processes = server.processes()
    server.kill()
    assert gone_by(processes, 5) == []
    sender.join(60)
    answered = {pydicom.dcmread(one.path).SOPInstanceUID for one in sent if one.stored}
    assert 40 <= len(answered) < len(files)

    server.start()
    try:
        (study,) = server.rows("studies")
        assert len(answered) <= study["instances"] <= len(answered) + 64
        again = outbound.send(files, "127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER")
        assert again.stored == len(files)
        server.pacs("jobs", "--wait", "--timeout", "240")
        jobs = server.rows("jobs")
        (study,) = server.rows("studies")
        derived = {uid for job in jobs if job["state"] == "succeeded" for uid in job["output_series_instance_uids"]}
        rows = server.rows("get", study["study_instance_uid"], "-o", str(tmp_path / "back"))
        back = [pydicom.dcmread(row["path"]) for row in rows]
        sources = [one for one in back if one.SeriesNumber in (2, 3) and one.SeriesInstanceUID not in derived]
        assert len(sources) == len(files) == len({(one.Modality, one.InstanceNumber) for one in sources})
        truth = {(ds.Modality, ds.InstanceNumber): ds.PixelData for ds in map(pydicom.dcmread, files)}
        assert all(one.PixelData == truth[one.Modality, one.InstanceNumber] for one in sources)
        assert {job["state"] for job in jobs} <= {"succeeded", "superseded"}, jobs
        assert {job["processor"] for job in jobs if job["state"] == "succeeded"} == {
            "enhance",
            "ct-lungs",
            "petct-fusion",
            "classify-series",
        }
    finally:
        server.stop()
