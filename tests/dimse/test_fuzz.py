"""A raw-PDU fuzzer: two thousand hostile cases (100,000 with --long), one honest caller beside them.

A case is what its number makes of `random`; one that went wrong runs again by itself with PACS_TEST_FUZZ_SEED=number.
"""

import logging
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping

import making
import psutil
import pytest
from dimse.door import Door, associate_bytes, echo, p_data, raw, read_pdu, until
from pydicom.uid import ImplicitVRLittleEndian

from pacs.dimse import contexts, messages
from pacs.dimse.messages import Command

CT = "1.2.840.10008.5.1.4.1.1.2"
GROWTH = 200 << 20
"""Bytes that this process may grow by (by 22 MiB in 100,000 cases); a length that was believed once would cost 4 GiB."""
LENGTHS = (0, 1, 2, 5, 6, 7, 0x7F, 0x80, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


ECHO_ID = struct.pack("<H", 0xEC40)
ECHO = messages.encode(Command.C_ECHO_RQ, {0x0002: contexts.VERIFICATION, 0x0110: 0xEC40})


def requests() -> dict[str, tuple[bytes, bytes]]:
    """Return good requests, by abstract syntax, as command and data set: a store, a query and a request for commitment."""
    ds = making.dataset(frame=making.pixels(8, 8))
    store = messages.encode(Command.C_STORE_RQ, {0x0002: CT, 0x0110: 1, 0x0700: 0, 0x1000: ds.SOPInstanceUID}, data_set=True)
    body = making.encode(ds, ImplicitVRLittleEndian)
    find = messages.encode(Command.C_FIND_RQ, {0x0002: contexts.STUDY_ROOT_FIND, 0x0110: 1, 0x0700: 0}, data_set=True)
    asked = {0x0003: contexts.STORAGE_COMMITMENT, 0x0110: 1, 0x1001: contexts.STORAGE_COMMITMENT_INSTANCE, 0x1008: 1}
    action = messages.encode(Command.N_ACTION_RQ, asked, data_set=True)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 12) + b"\x08\0\x50\x11\4\0\0\x001.2\0"
    commit = b"\x08\0\x95\x11\4\0\0\x001.2\0" + b"\x08\0\x99\x11" + struct.pack("<I", len(items)) + items
    return {
        CT: (store, body),
        contexts.STUDY_ROOT_FIND: (find, b"\x08\0\x52\0\6\0\0\0STUDY "),
        contexts.STORAGE_COMMITMENT: (action, commit),
    }


def streams(good: Mapping[str, tuple[bytes, bytes]]) -> dict[str, bytes]:
    """Return requests as PDUs, their data sets in two pieces where they are long enough."""
    return {
        one: p_data(1, 3, command) + (p_data(1, 0, body[:1000]) if body[1000:] else b"") + p_data(1, 2, body[1000:] or body)
        for one, (command, body) in good.items()
    }


def mutated(good: bytes, chance: random.Random) -> bytes:
    """Flip, cut, double, nest, or lie about a length."""
    stream = bytearray(good)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(stream)) if stream else 0
        kind = chance.randrange(6)
        if kind == 0 and stream:
            stream[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del stream[at : at + chance.randrange(1, 40)]
        elif kind == 2:
            stream[at:at] = stream[at : at + chance.randrange(1, 40)]
        elif kind == 3:
            stream[at : at + 4] = struct.pack(chance.choice("<>") + "I", chance.choice(LENGTHS))
        elif kind == 4:
            # Sequences within sequences, without an end.
            stream[at:at] = b"\x08\0\x40\x11\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * chance.randrange(1, 200)
        else:
            del stream[at:]
    return bytes(stream)


class Attacker:
    """Is hostile case after case; keeps an association for as long as the server does."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._requests = requests()
        self._good = streams(self._requests)
        self._hello = {one: associate_bytes(abstract_syntax=one) for one in self._requests}
        self._open: dict[str, socket.socket] = {}

    def attack(self, seed: int) -> None:
        """Do what the seed says: before an association, with its framing, or with what a well-framed message holds."""
        chance = random.Random(seed)
        abstract_syntax = chance.choice(list(self._requests))
        way = chance.random()
        if way < 0.2:
            self._shout(mutated(self._hello[abstract_syntax], chance))
        elif way < 0.4:
            noise = mutated(self._good[abstract_syntax], chance)
            self._shout(self._hello[abstract_syntax] + noise + b"\5\0\0\0\0\4\0\0\0\0")
        else:
            command, body = self._requests[abstract_syntax]
            if chance.random() < 0.2:
                command = mutated(command, chance)
            else:
                body = mutated(body, chance)
            self._ask(abstract_syntax, command, body)

    def close(self) -> None:
        """Leave without a word."""
        for one in self._open.values():
            one.close()

    def _shout(self, noise: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self._door.port), timeout=20) as connection:
            try:
                connection.sendall(noise)
                connection.shutdown(socket.SHUT_WR)
                while read_pdu(connection)[0]:
                    pass
            except TimeoutError:
                raise
            except OSError:
                return  # the server was quicker to hang up

    def _ask(self, abstract_syntax: str, command: bytes, body: bytes) -> None:
        """Send a request and read its answers; an association that the server has ended is opened anew the next time."""
        connection = self._open.pop(abstract_syntax, None)
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", self._door.port), timeout=20)
            connection.sendall(self._hello[abstract_syntax])
            assert read_pdu(connection)[0] == 2
        try:
            connection.sendall(p_data(1, 3, command) + p_data(1, 2, body))
            # A command that announces no data set, or none that we know, may get no answer: the echo's comes in any case.
            connection.sendall(p_data(1, 3, ECHO))
            while True:
                kind, pdu = read_pdu(connection)
                if kind != 4:
                    connection.close()
                    return
                answer = messages.decode(pdu[6:]) if pdu[5] & 1 else {}
                if answer.get(messages.MESSAGE_ID_RESPONDED_TO) == ECHO_ID:
                    self._open[abstract_syntax] = connection
                    return
        except TimeoutError:
            raise
        except OSError:
            connection.close()


@pytest.fixture
def silent() -> Iterator[None]:
    """Without logs: pytest would keep every line of a hundred thousand complaints, and it is the server that is measured."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a13_thousands_of_hostile_streams_break_nothing(shared_door: Door, long_run: bool, silent: None) -> None:
    """Lengths, nesting, truncation, item types: the server stays up, its memory bounded, and others are served meanwhile."""
    process = psutil.Process(os.getpid())
    replay = os.environ.get("PACS_TEST_FUZZ_SEED")
    seeds = iter([int(replay)] if replay else range(100_000 if long_run else 2_000))
    lock = threading.Lock()
    wrong: list[str] = []
    before = process.memory_info().rss

    def work() -> None:
        attacker = Attacker(shared_door)
        while not wrong:
            with lock:
                seed = next(seeds, None)
            if seed is None:
                break
            try:
                attacker.attack(seed)
            except BaseException as error:
                wrong.append(f"PACS_TEST_FUZZ_SEED={seed}: {error!r}")
        attacker.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    honest = raw(shared_door.port)
    for thread in threads:
        thread.start()
    served, slowest_s = 0, 0.0
    while any(thread.is_alive() for thread in threads):
        asked = time.monotonic()
        honest.sendall(p_data(1, 3, ECHO))
        assert read_pdu(honest)[0] == 4
        slowest_s = max(slowest_s, time.monotonic() - asked)
        served += 1
        threads[0].join(0.1)
    honest.close()
    grown = process.memory_info().rss - before
    print(f"\nserved beside: {served}, slowest {slowest_s:.2f} s; grown by {grown >> 20} MiB")

    assert not wrong, wrong
    assert (served > 1 or replay) and echo(shared_door.port) == 0
    assert until(lambda: not shared_door.server.active_associations, 20)
    assert shared_door.server.archive.intake._used == 0
    assert grown < GROWTH
