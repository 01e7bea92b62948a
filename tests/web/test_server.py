"""The server: starts, tells whether it is ready, logs nothing it should not, survives its clients, and ends when told to."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import making
import pytest
from serving import Served, free_port, run
from starlette.testclient import TestClient

from pacs.archive import Archive
from pacs.model.errors import ArchiveError, ConfigurationError, IntegrityError, OutOfResources, Unavailable
from pacs.model.instance import Location
from pacs.settings import Settings
from pacs.sweep import prepare
from pacs.web import health
from pacs.web.server import check_port, create_app, serve
from pacs.web.status import failure_reason, http_status

RUN = """
import sys
from pathlib import Path
from pacs import logs
from pacs.settings import load
from pacs.web.server import serve
logs.configure("info", "web")
serve(load(Path(sys.argv[1])))
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A web server in a process of its own, and its port."""
    prepare(making.settings(tmp_path))
    port = free_port()
    running = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)],
        env={**os.environ, "PACS_WEB_PORT": str(port), "PACS_STORE_SEGMENT_MB": "8"},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/livez")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline and running.poll() is None, "the server did not start"
                time.sleep(0.05)
        yield running, port
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


def gone(port: int) -> bool:
    """Tell whether nobody listens on `port` any more."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return True
        time.sleep(0.05)
    return False


def test_sigterm_ends_it_with_code_0_even_while_a_client_holds_on(process: tuple["subprocess.Popen[bytes]", int]) -> None:
    """An idle keep-alive connection and a half-sent request do not keep it."""
    running, port = process
    with httpx.Client() as client, socket.create_connection(("127.0.0.1", port)) as half:
        client.get(f"http://127.0.0.1:{port}/livez")
        half.sendall(
            b"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/dicom\r\nContent-Length: 99\r\n\r\nx"
        )
        started = time.monotonic()
        running.send_signal(signal.SIGTERM)

        assert running.wait(10) == 0
        assert time.monotonic() - started < 9
    assert gone(port)


def test_kill_leaves_nothing_behind(process: tuple["subprocess.Popen[bytes]", int]) -> None:
    """It is one process without children: killing it frees the port."""
    running, port = process
    running.kill()
    running.wait(5)

    assert gone(port)


def test_a_busy_port_is_said_at_once(tmp_path: Path) -> None:
    """The message names the port; nothing else was touched, not even the archive."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f"web port {port} .*is in use"):
            serve(making.settings(tmp_path / "never", web__port=port))
    assert not (tmp_path / "never").exists()
    check_port(making.settings(tmp_path, web__port=free_port()))


def test_the_log_has_no_path_query_or_value(process: tuple["subprocess.Popen[bytes]", int]) -> None:
    """One line a request: method, route by name, status, time; whatever the caller put into path or query stays out."""
    running, port = process
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        client.get("/dicom-web/studies", params={"PatientName": "Quillfeather*", "PatientID": "MRN-7734921"})
        client.get("/dicom-web/studies/Quillfeather/metadata")
        client.get("/Quillfeather")
        file = making.part10(making.dataset())
        client.post("/dicom-web/studies", content=file, headers={"Content-Type": "application/dicom"})
        client.post("/dicom-web/studies", content=file[:-99], headers={"Content-Type": "application/dicom"})
    running.send_signal(signal.SIGTERM)
    text = running.communicate(timeout=15)[1].decode()

    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    answered = [line for line in lines if line["event"] == "request_answered"]
    assert [line["http_status"] for line in answered[-5:]] == [200, 400, 404, 200, 400]
    assert {"studies", "metadata", "store"} <= {line["route"] for line in answered}
    assert not [planted for planted in making.PLANTED if planted in text]


def test_readyz_names_what_is_not_ready(served: Served) -> None:
    """No DICOM server runs here: 503, and the report says that it is this and nothing else."""
    answer = served.client.get("/readyz")

    report = answer.json()
    assert answer.status_code == 503
    assert [name for name, check in report["checks"].items() if not check["ready"]] == ["dicom"]


def test_readyz_is_200_when_all_is_ready(tmp_path: Path) -> None:
    """Every check passes once the DICOM port answers; a broker that is away is named."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with making.archive(tmp_path, dicom__port=listening.getsockname()[1]) as archive:
            answer = TestClient(create_app(archive), base_url="http://localhost").get("/readyz")
            away = replace(archive, settings=making.settings(tmp_path, broker__url=f"redis+socket://{tmp_path}/none.sock"))
            with pytest.raises(Unavailable):
                health.broker(away)

    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    assert {"database", "store", "keys", "disk", "dicom", "broker"} <= set(answer.json()["checks"])


def test_a_disk_below_its_floor_is_not_ready() -> None:
    """The floor of the settings counts, but at most a twentieth of the disk."""
    mib = 1 << 20

    assert health.above_floor(100 * mib, 10_000 * mib, 64 * mib) == "100 MiB free"
    assert health.above_floor(10 * mib, 100 * mib, 64 * mib) == "10 MiB free"
    for free, total in ((60, 10_000), (5, 100)):
        with pytest.raises(Unavailable):
            health.above_floor(free * mib, total * mib, 64 * mib)


class Broken:
    """An object store whose bytes cannot be trusted, or that has no room."""

    def __init__(self, error: ArchiveError) -> None:
        self._error = error

    def put(self, group: Any) -> list[Location]:
        """Refuse."""
        raise self._error

    def get(self, location: Location, span: tuple[int, int] | None = None) -> bytes:
        """Refuse."""
        raise self._error

    def delete(self, location: Location) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def test_damage_is_500_before_the_first_byte_and_never_served(tmp_path: Path) -> None:
    """A record that does not authenticate is an error of ours, told as such."""
    with making.archive(tmp_path) as archive:
        good = TestClient(create_app(archive), base_url="http://localhost", client=("127.0.0.1", 1))
        place = good.post(
            "/dicom-web/studies", content=making.part10(making.dataset()), headers={"Content-Type": "application/dicom"}
        ).json()["00081199"]["Value"][0]["00081190"]["Value"][0]
        damaged = replace(archive, objects=Broken(IntegrityError("a sealed chunk does not authenticate")))
        bad = TestClient(
            create_app(damaged), base_url="http://localhost", client=("127.0.0.1", 1), raise_server_exceptions=False
        )

        assert [bad.get(place + end).status_code for end in ("", "/metadata", "/frames/1", "/rendered")] == [500] * 4


def test_damage_found_later_breaks_the_connection(tmp_path: Path) -> None:
    """Where half of the answer is out already, the client is not told that it is whole."""
    settings = making.settings(tmp_path, web__port=free_port())
    for server in run(settings):
        answer = server.stow(*making.ct_series(12, frame=making.pixels(256, 256)))
        study = answer.json()["00081190"]["Value"][0]
        (segment,) = [path for path in (tmp_path / "store").glob("*.seg") if path.stat().st_size]
        with Archive.opened(settings, writer="other") as archive:
            last = archive.index.locate(study_instance_uids=[study.rpartition("/")[2]])[-1]
        with segment.open("r+b") as file:
            file.seek(last.location.offset + last.location.size_bytes // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))

        with pytest.raises(httpx.RemoteProtocolError):
            server.client.get(study)


def test_a_bug_is_500_without_its_message(tmp_path: Path) -> None:
    """What is no error of ours is answered without a word of it."""
    with making.archive(tmp_path) as archive:

        class Bug:
            """An index that has a bug."""

            def search(self, query: object) -> object:
                """Fail with a value in the message, as libraries do."""
                raise RuntimeError("Quillfeather^Zebulon")

        app = create_app(replace(archive, index=Bug()))  # type: ignore[arg-type]
        answer = TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)).get("/dicom-web/studies")

    assert answer.status_code == 500
    assert "Quillfeather" not in answer.text


def test_a_client_that_goes_away_stops_the_work(served: Served) -> None:
    """After a broken download the server still answers, and no thread is stuck."""
    answer = served.stow(*making.ct_series(30, frame=making.pixels(512, 512), study_uid="1.2.8.1", series_uid="1.2.8.1.1"))
    study = answer.json()["00081190"]["Value"][0]

    for _ in range(5):
        with served.client.stream("GET", study) as stream:
            next(stream.iter_bytes(100))

    assert served.client.get(f"{study}/series").status_code == 200
    assert len(served.client.get(study).content) > 30 * 512 * 512 * 2


def test_numbers_follow_the_class() -> None:
    """A new subclass has its parent's number at once; what is not ours is 500 and 0110."""

    class DiskOnFire(OutOfResources):
        """Nearest known class: OutOfResources."""

    assert (http_status(DiskOnFire()), failure_reason(DiskOnFire())) == (507, 0xA700)
    assert (http_status(ValueError()), failure_reason(ValueError())) == (500, 0x0110)


def test_a_home_that_was_never_prepared_is_a_configuration_error(tmp_path: Path) -> None:
    """`serve` says what is missing instead of serving nothing."""
    settings: Settings = making.settings(tmp_path, web__port=free_port())

    with pytest.raises(ConfigurationError):
        serve(settings)
    assert isinstance(Archive, type)
