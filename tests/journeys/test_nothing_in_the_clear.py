"""Planted identity is searched for in every byte at rest, every log line, and everything the broker holds."""

import time
from pathlib import Path

import making
import pydicom
import redis
from whole import Server, running

from pacs.dimse import outbound
from pacs.phantoms import petct


def needles(files: list[Path]) -> set[bytes]:
    """Every string that gives the patient away, in the encodings that a leak could take."""
    words = {part for value in petct.IDENTITY.values() for part in value.split("^") if len(part) > 3}
    words |= set(making.PLANTED)
    for path in files:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        words |= {str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)}
    return {form for word in words for form in (word.encode(), word.encode("utf-16-le"), word.encode("utf-16-be"))}


def leaks(folder: Path, wanted: set[bytes]) -> list[str]:
    """Return the names of files under `folder` that hold any of `wanted`."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and any(one in path.read_bytes() for one in wanted)]


def broker_content(server: Server) -> bytes:
    """Return everything the bundled broker holds, dumped key by key."""
    client = redis.Redis(unix_socket_path=str(server.home / "run" / "broker.sock"))
    return b"".join(key + (client.dump(key) or b"") for key in client.scan_iter())


def test_nothing_in_the_clear(tmp_path: Path) -> None:
    """Good, hostile and hopeless objects with a planted identity leave no trace of it in the home, the logs or the broker."""
    files = [path for paths in petct.write(tmp_path / "modality").values() for path in paths[:24]]
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "burned.dcm").write_bytes(making.part10(making.dataset(instance=90, BurnedInAnnotation="YES")))
    (odd / "truncated.dcm").write_bytes(making.part10(making.dataset(instance=91))[:-7000])
    (odd / "no_study.dcm").write_bytes(making.part10(making.dataset(instance=92, StudyInstanceUID="")))
    (odd / "good.dcm").write_bytes(making.part10(making.dataset(instance=93)))
    wanted = needles(files)
    assert leaks(tmp_path / "modality", wanted), "the search itself must be able to find"

    with running(tmp_path / "home") as server:
        report = outbound.send(files, "127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER")
        assert report.stored == len(files)
        outbound.send(sorted(odd.iterdir()), "127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER")
        server.pacs("import", str(odd), check=False)
        time.sleep(2)
        held = broker_content(server)
        assert leaks(server.home, wanted) == []
        server.pacs("jobs", "--wait", "--timeout", "240")
        held += broker_content(server)
        quarantined = server.rows("quarantine", "list")
        said = "".join(str(row) for row in [*quarantined, *server.rows("studies"), *server.rows("jobs")])

    assert leaks(server.home, wanted) == [], "after the end"
    assert not any(one in held for one in wanted)
    assert not any(one in server.output.read_bytes() for one in wanted)
    assert not any(one.decode() in said for one in wanted if b"\0" not in one)
    assert len(quarantined) >= 3, "what could not be made safe is kept, encrypted"


def test_no_file_in_the_home_is_dicom(tmp_path: Path) -> None:
    """Nothing in a used home parses as DICOM, and no row of pixels is there in the clear."""
    ds = making.dataset()
    with making.archive(tmp_path / "home") as archive:
        from pacs.ingest import ingest

        ingest(archive, making.received(ds))

    for path in (path for path in (tmp_path / "home").rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert content[128:132] != b"DICM", path
        assert ds.PixelData[4096:4160] not in content, path
