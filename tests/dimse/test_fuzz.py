"""A raw-PDU fuzzer: two thousand hostile callers (100,000 with --long), one honest one beside them."""

import os
import random
import socket
import struct
import threading

import making
import psutil
import pytest
from dimse.door import Door, associate_bytes, echo, p_data, raw, read_pdu, until
from pydicom.uid import ImplicitVRLittleEndian

from pacs.dimse import contexts, messages
from pacs.dimse.messages import Command

CT = "1.2.840.10008.5.1.4.1.1.2"
GROWTH = 400 << 20
"""Bytes that this process may grow by; a length that was believed once would cost 4 GiB."""
LENGTHS = (0, 1, 2, 5, 6, 7, 0x7F, 0x80, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def streams() -> dict[str, bytes]:
    """Return good conversations, by abstract syntax: a store, a query and a request for commitment."""
    ds = making.dataset(frame=making.pixels(8, 8))
    store = messages.encode(Command.C_STORE_RQ, {0x0002: CT, 0x0110: 1, 0x0700: 0, 0x1000: ds.SOPInstanceUID}, data_set=True)
    body = making.encode(ds, ImplicitVRLittleEndian)
    find = messages.encode(Command.C_FIND_RQ, {0x0002: contexts.STUDY_ROOT_FIND, 0x0110: 1, 0x0700: 0}, data_set=True)
    asked = {0x0003: contexts.STORAGE_COMMITMENT, 0x0110: 1, 0x1001: contexts.STORAGE_COMMITMENT_INSTANCE, 0x1008: 1}
    action = messages.encode(Command.N_ACTION_RQ, asked, data_set=True)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 12) + b"\x08\0\x50\x11\4\0\0\x001.2\0"
    commit = b"\x08\0\x95\x11\4\0\0\x001.2\0" + b"\x08\0\x99\x11" + struct.pack("<I", len(items)) + items
    return {
        CT: p_data(1, 3, store) + p_data(1, 0, body[:1000]) + p_data(1, 2, body[1000:]),
        contexts.STUDY_ROOT_FIND: p_data(1, 3, find) + p_data(1, 2, b"\x08\0\x52\0\6\0\0\0STUDY "),
        contexts.STORAGE_COMMITMENT: p_data(1, 3, action) + p_data(1, 2, commit),
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


def attack(door: Door, good: dict[str, bytes], chance: random.Random) -> None:
    """Be hostile once: before the association or within it."""
    if chance.random() < 0.4:
        connection = socket.create_connection(("127.0.0.1", door.port), timeout=10)
        noise = mutated(associate_bytes(), chance)
    else:
        abstract_syntax = chance.choice(list(good))
        connection = raw(door.port, abstract_syntax=abstract_syntax)
        noise = mutated(good[abstract_syntax], chance) + b"\5\0\0\0\0\4\0\0\0\0"
    with connection:
        try:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            while read_pdu(connection)[0]:
                pass
        except OSError:
            pass


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a13_thousands_of_hostile_streams_break_nothing(shared_door: Door, long_run: bool) -> None:
    """Lengths, nesting, truncation, item types: the server stays up, its memory bounded, and others are served meanwhile."""
    good, process = streams(), psutil.Process(os.getpid())
    before = process.memory_info().rss
    count = 100_000 if long_run else 2_000
    seeds = iter(range(count))
    lock = threading.Lock()
    wrong: list[BaseException] = []

    def work() -> None:
        while not wrong:
            with lock:
                seed = next(seeds, None)
            if seed is None:
                return
            try:
                attack(shared_door, good, random.Random(seed))
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    honest = raw(shared_door.port)
    for thread in threads:
        thread.start()
    served = 0
    while any(thread.is_alive() for thread in threads):
        honest.sendall(p_data(1, 3, messages.encode(Command.C_ECHO_RQ, {0x0002: contexts.VERIFICATION, 0x0110: 1})))
        assert read_pdu(honest)[0] == 4
        served += 1
        threads[0].join(0.1)
    honest.close()

    assert not wrong, repr(wrong[0])
    assert served > 1 and echo(shared_door.port) == 0
    assert until(lambda: not shared_door.server.active_associations, 20)
    assert shared_door.server.archive.intake._used == 0
    assert process.memory_info().rss - before < GROWTH
