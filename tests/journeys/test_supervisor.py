"""`pacs serve` from start to end: it comes up whole, leaves nothing behind, and says in one line what is wrong."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import making
import pytest
from whole import Server, gone_by, running

from pacs.dimse import outbound
from pacs.sweep import prepare


def failing(server: Server) -> str:
    """Start a server that cannot start; return its one line."""
    done = subprocess.run(
        [sys.executable, "-m", "pacs", "serve"], env=server.environment, capture_output=True, text=True, timeout=60
    )
    said = done.stderr.strip()
    assert done.returncode == 1, said
    assert said.startswith("pacs:") and len(said.splitlines()) == 1, said
    return said


def test_kill_of_the_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    """After kill -9 of the supervisor every process is gone within five seconds, and the next start works."""
    server = Server(tmp_path / "home").start()
    processes = server.processes()
    names = {" ".join(one.cmdline()[-1:]) for one in processes}
    assert {"scp", "web", "schedule", "cpu,heavy,gpu", "send"} <= names, names

    server.kill(only_supervisor=True)

    assert gone_by(processes, 5) == []
    server.start()
    processes = server.processes()
    assert server.stop() == 0, "SIGTERM drains and ends all"
    assert gone_by(processes, 2) == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the tests that only look at one."""
    with running(tmp_path_factory.mktemp("up") / "home") as up:
        yield up


def test_the_panel_names_everything(server: Server) -> None:
    """The start message has the DICOM address, a one-time link, the home, the key id and the processors."""
    deadline = time.monotonic() + 30
    while "Processors" not in (said := server.output.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)

    assert f"MINIPACS at 127.0.0.1:{server.dicom_port}" in said
    assert f"http://127.0.0.1:{server.web_port}/sign-in/" in said
    assert str(server.home) in said
    for name in ("classify-series", "ct-lungs", "enhance", "petct-fusion"):
        assert name in said


def test_the_identity_key_is_changed_beside_it(server: Server, tmp_path: Path) -> None:
    """It goes on: what was sent before is known when it comes again, and nothing of it gets another name."""
    files = making.write_files(tmp_path / "modality", making.ct_series(2))
    assert outbound.send(files, "127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER").stored == 2
    names = ("study_instance_uid", "patient_id", "study_date")
    before = [[one[name] for name in names] for one in server.rows("studies")]
    asked = ("identity", "find", "--patient-id", making.PATIENT_ID, "--reason", "for the test")
    found = server.rows(*asked)

    (done,) = server.rows("keys", "rotate", "--identity")

    assert done["destroyed"] != done["key_id"]
    assert outbound.send(files, "127.0.0.1", server.dicom_port, "MINIPACS", calling="SCANNER").stored == 2
    assert len(before) == 1 and [[one[name] for name in names] for one in server.rows("studies")] == before
    assert found and server.rows(*asked) == found


@pytest.mark.parametrize("which", ["dicom_port", "web_port"])
def test_a_busy_port_is_one_clear_line(tmp_path: Path, which: str) -> None:
    """The message names the port and what to set."""
    server = Server(tmp_path / "home")
    with socket.socket() as other:
        other.bind(("127.0.0.1", getattr(server, which)))
        other.listen()

        said = failing(server)

    assert str(getattr(server, which)) in said and f"PACS_{which.upper()}" in said


def test_a_wrong_key_is_one_clear_line(tmp_path: Path) -> None:
    """A home whose key was exchanged is refused; no record is written under a wrong key."""
    for name in ("one", "two"):
        prepare(making.settings(tmp_path / name))
    key = tmp_path / "one" / "keys" / "image.key"
    key.write_bytes((tmp_path / "two" / "keys" / "image.key").read_bytes())

    said = failing(Server(tmp_path / "one"))

    assert "key" in said


def test_a_missing_key_beside_records_is_refused(tmp_path: Path) -> None:
    """A new key is never made where an old one is missing."""
    prepare(making.settings(tmp_path / "home"))
    (tmp_path / "home" / "store" / "scp-0.seg").write_bytes(b"\0")
    (tmp_path / "home" / "keys" / "image.key").unlink()

    assert "image.key" in failing(Server(tmp_path / "home"))


def test_an_unusable_home_is_one_clear_line(tmp_path: Path) -> None:
    """A file where the home should be is said plainly."""
    (tmp_path / "file").write_text("")

    assert "PACS_HOME" in failing(Server(tmp_path / "file"))


def test_a_second_server_in_the_same_home_is_refused(server: Server) -> None:
    """Two servers would write the same segments."""
    assert "another server" in failing(Server(server.home))


def test_an_unknown_setting_is_one_clear_line(tmp_path: Path) -> None:
    """A misspelt variable is not silently ignored."""
    assert "PACS_DICOM_PROT" in failing(Server(tmp_path / "home", PACS_DICOM_PROT="104"))


def test_keys_and_home_are_private(server: Server) -> None:
    """The home is 0700, the keys are 0600, and the settings file is there to be changed."""
    assert server.home.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in (server.home / "keys").glob("*.key")} == {"image.key", "identity.key"}
    for path in (server.home / "keys").glob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (server.home / "pacs.toml").is_file()


def test_a_child_that_dies_is_started_again(server: Server) -> None:
    """Losing the DICOM process costs a moment, not the server."""
    scp = next(one for one in server.processes() if one.cmdline()[-1:] == ["scp"] and "guard.py" not in " ".join(one.cmdline()))

    scp.kill()
    gone_by([scp], 10)

    server.pacs("health", "--wait", "30")
