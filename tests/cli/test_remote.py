"""Asking and sending to other servers from the command line, by a peer's name and by HOST:PORT."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import making
import pytest
from dimse.door import Door, held, opened, stored
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage
from serving import free_port
from typer.testing import CliRunner

from pacs.cli.app import app
from pacs.model.job import JobState
from pacs.model.peer import Peer


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A server that holds two series of one study, and is a peer of itself by the name PACS."""
    monkeypatch.setenv("PACS_HOME", str(tmp_path / "home"))
    settings: dict[str, Any] = {"dicom__port": 0, "dicom__commitment_grace_s": 0.0}
    with making.archive(tmp_path / "home", **settings) as archive, opened(archive) as door:
        other = making.ct_series(2, series_uid=f"{making.SERIES_UID}.7")
        assert set(stored(door, *making.ct_series(3), *other)) == {0}
        archive.index.peers.add(Peer("MINIPACS", "127.0.0.1", door.port))
        yield door


def pacs(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run a command; return its exit code, the JSON lines of stdout, and all of stderr."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return result.exit_code, lines, " ".join(result.stderr.split())


def study(door: Door) -> str:
    return held(door.archive)[0].key.study_instance_uid


def test_find_walks_down_the_levels(door: Door) -> None:
    """By name and by address; keys restrict, and what they leave out is said by the exit code."""
    address = f"127.0.0.1:{door.port}"
    code, (found,), _ = pacs("find", "--from", "MINIPACS", "--json")
    assert (code, found["StudyInstanceUID"], found["ModalitiesInStudy"]) == (0, study(door), "CT")

    key = f"StudyInstanceUID={study(door)}"
    assert len(pacs("find", key, "--level", "series", "--from", address, "--json")[1]) == 2
    assert pacs("find", "--from", address, "--level", "patient", "--json")[0] == 0
    assert len(pacs("find", key, "--level", "series", "--from", address, "--limit", "1", "--json")[1]) == 1
    assert pacs("find", "Modality=MR", "ModalitiesInStudy=MR", "--from", address, "--json")[:2] == (1, [])


def test_find_says_what_is_wrong(door: Door) -> None:
    """A keyword that is none, a level without the one above, a peer that is none: usage errors that teach."""
    assert pacs("find", "PatientsName=DOE")[0] == 2
    code, _, said = pacs("find", "--level", "series")
    assert code == 2 and "StudyInstanceUID=UID" in said
    code, _, said = pacs("find", "--from", "NOBODY")
    assert code == 2 and "pacs peers list" in said
    code, _, said = pacs("find", "--from", f"127.0.0.1:{free_port()}")
    assert code == 1 and "does not answer" in said


def test_move_has_a_server_send(door: Door) -> None:
    """Counters and exit code; a destination that the server does not know is said."""
    ae = AE(ae_title="SINK")
    ae.add_supported_context(CTImageStorage)
    came: list[Any] = []
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda e: came.append(e) or 0)])
    try:
        door.archive.index.peers.add(Peer("SINK", "127.0.0.1", server.server_address[1]))
        code, (counts,), _ = pacs("move", study(door), "--to", "SINK", "--from", "MINIPACS", "--json")
    finally:
        server.shutdown()

    assert (code, counts, len(came)) == (0, {"completed": 5, "warning": 0, "failed": 0}, 5)
    code, _, said = pacs("move", study(door), "--to", "NOBODY", "--from", "MINIPACS")
    assert code == 1 and "A801" in said


def test_get_fetches_from_a_server(door: Door, tmp_path: Path) -> None:
    """A whole study, or one series of it; an unknown study is an error."""
    series = held(door.archive)[0].key.series_instance_uid
    out = ("-o", str(tmp_path / "out"), "--from", "MINIPACS", "--json")

    assert pacs("get", study(door), *out)[1][0]["count"] == 5
    assert pacs("get", study(door), "--series", series, *out)[1][0]["count"] in (2, 3)
    assert len(list((tmp_path / "out").glob("*.dcm"))) == 5
    assert pacs("get", "1.2.3", *out)[0] == 1


def test_send_by_name(door: Door, tmp_path: Path) -> None:
    """To a peer, or to an address; what is sent again is stored all the same."""
    making.write_files(tmp_path / "in", making.ct_series(2))

    code, rows, _ = pacs("send", str(tmp_path / "in"), "--to", "MINIPACS", "--json")

    assert (code, [row["status"] for row in rows]) == (0, ["0000", "0000"])


def test_commit_waits_for_the_report(door: Door, tmp_path: Path) -> None:
    """On an association that the server opens to us; what it does not have is named with its reason."""
    port = free_port()
    door.archive.index.peers.add(Peer("CALLER", "127.0.0.1", port))
    making.write_files(tmp_path / "sent", making.ct_series(2))
    making.write_files(tmp_path / "unsent", [making.dataset(instance=77)])
    stop = threading.Event()
    desk = threading.Thread(target=door.server.desk.run, args=(stop,))
    desk.start()
    try:
        asked = ("--to", "MINIPACS", "--calling", "CALLER", "--listen", str(port), "--wait", "20", "--json")
        good = pacs("commit", str(tmp_path / "sent"), *asked)
        bad = pacs("commit", str(tmp_path / "sent"), str(tmp_path / "unsent"), *asked)
    finally:
        stop.set()
        desk.join()

    assert (good[0], [row["committed"] for row in good[1]]) == (0, [True, True])
    assert (bad[0], [row["reason"] for row in bad[1]]) == (1, ["", "", "0112"])


def test_push_queues_a_job(door: Door) -> None:
    """The job is there for a worker; asked again, it is not queued twice."""
    code, (queued,), _ = pacs("push", study(door), "--to", "MINIPACS", "--json")

    job = door.archive.index.jobs.get(queued["job_id"])
    assert (code, queued["series"], job.processor, job.state) == (0, 2, "send:MINIPACS", JobState.QUEUED)
    assert pacs("push", study(door), "--to", "MINIPACS", "--json")[1][0]["queued"] is False
    code, _, said = pacs("push", study(door), "--to", "NOBODY")
    assert code == 1 and "pacs peers add" in said


def test_a_dicomweb_server_is_added_by_its_url(door: Door) -> None:
    """Host and port come from it; commands of DIMSE say that it is none."""
    assert pacs("peers", "add", "WEB", "https://pacs.example.org/dicom-web/")[0] == 0

    peer = door.archive.index.peers.get("WEB")
    assert peer is not None
    assert (peer.host, peer.port, peer.url) == ("pacs.example.org", 443, "https://pacs.example.org/dicom-web")
    assert pacs("find", "--from", "WEB")[0] == 2
    assert pacs("peers", "add", "WEB", "ftp://pacs.example.org/")[0] == 2
