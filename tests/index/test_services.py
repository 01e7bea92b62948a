"""The servers that tests run on."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import sqlalchemy as sa


def test_postgres_is_real_and_compares_by_code_point(postgres_url: str) -> None:
    """A server of its own, in UTF-8."""
    engine = sa.create_engine(postgres_url)
    with engine.connect() as connection:
        assert "PostgreSQL" in connection.exec_driver_sql("SELECT version()").scalar_one()
        assert connection.exec_driver_sql("SHOW server_encoding").scalar_one() == "UTF8"
    engine.dispose()


def test_valkey_answers_on_a_socket(valkey_url: str) -> None:
    """A PING gets its PONG."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(valkey_url.removeprefix("redis+socket://"))
        client.sendall(b"PING\r\n")
        assert client.recv(100) == b"+PONG\r\n"


def test_no_server_outlives_its_test_process(valkey_url: str) -> None:
    """Even one that was killed: the pipe that holds its servers ends with it."""
    program = "import services, time; print(services.valkey(), flush=True); time.sleep(60)"
    path = str(Path(__file__).parents[1])
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": path})
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address and address not in valkey_url

    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    deadline = time.monotonic() + 20
    while _answers(address):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(address) == 0
