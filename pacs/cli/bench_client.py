"""A bare DICOM client for measuring servers: standard library only, the same for every server, about 0.3 ms a CT image.

`python -m pacs.cli.bench_client store|get|find HOST PORT AET …` associates, writes "ready", waits for a line on stdin, does its
work, and writes one JSON line: when it began and ended (monotonic seconds) and how long each operation took (milliseconds).
It speaks just enough of PS3.7 and PS3.8 to be fair to both sides: TCP_NODELAY, 128 KiB PDUs, one write per message.
"""

import argparse
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PDU_BYTES = 131072
PENDING = frozenset({0xFF00, 0xFF01})


class Connection:
    """One association; `contexts` are (abstract syntax, transfer syntax), `as_scp` those to be served by us (C-GET)."""

    def __init__(
        self, host: str, port: int, called: str, contexts: list[tuple[str, str]], as_scp: tuple[str, ...] = ()
    ) -> None:
        self._socket = socket.create_connection((host, port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", buffering=1 << 18)
        items = _item(0x10, APPLICATION_CONTEXT.encode())
        for index, (abstract, transfer) in enumerate(contexts):
            inner = _item(0x30, abstract.encode()) + _item(0x40, transfer.encode())
            items += _item(0x20, struct.pack(">BBBB", 2 * index + 1, 0, 0, 0) + inner)
        user = _item(0x51, struct.pack(">I", PDU_BYTES)) + _item(0x52, b"2.25.1") + _item(0x55, b"BENCH")
        for uid in as_scp:
            user += _item(0x54, struct.pack(">H", len(uid)) + uid.encode() + b"\0\1")
        items += _item(0x50, user)
        body = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + b"BENCH".ljust(16) + bytes(32) + items
        self._socket.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
        kind, answer = self._pdu()
        if kind != 2:
            raise SystemExit(f"{called} did not accept the association")
        self.limit = PDU_BYTES
        self.accepted: set[int] = set()
        position = 68
        while position < len(answer):
            item, length = struct.unpack_from(">BxH", answer, position)
            if item == 0x21 and answer[position + 6] == 0:
                self.accepted.add(answer[position + 4])
            elif item == 0x50:
                self.limit = min(PDU_BYTES, struct.unpack_from(">I", answer, position + 8)[0] or PDU_BYTES)
            position += 4 + length

    def send(self, context_id: int, command: bytes, data_set: bytes | memoryview | None = None) -> None:
        """Send one message."""
        out: list[bytes | memoryview] = [
            struct.pack(">BBIIBB", 4, 0, len(command) + 6, len(command) + 2, context_id, 3),
            command,
        ]
        if data_set is not None:
            view, room = memoryview(data_set), self.limit - 6
            for start in range(0, len(view), room):
                part = view[start : start + room]
                last = 2 if start + room >= len(view) else 0
                out += [struct.pack(">BBIIBB", 4, 0, len(part) + 6, len(part) + 2, context_id, last), part]
        self._write(out)

    def _write(self, out: list[bytes | memoryview]) -> None:
        while out:
            sent = self._socket.sendmsg(out[:64])
            while out and sent >= len(out[0]):
                sent -= len(out.pop(0))
            if sent:
                out[0] = memoryview(out[0])[sent:]

    def receive(self) -> tuple[int, dict[int, bytes], bytearray]:
        """Return (presentation context id, command elements of group 0000, data set) of the next message."""
        command, data = bytearray(), bytearray()
        expected = None
        while True:
            kind, body = self._pdu()
            if kind != 4:
                raise SystemExit(f"the server ended the association (PDU type {kind})")
            position = 0
            while position < len(body):
                length, context_id, control = struct.unpack_from(">IBB", body, position)
                part = body[position + 6 : position + 4 + length]
                position += 4 + length
                if control & 1:
                    command += part
                    if control & 2:
                        elements = _command(command)
                        expected = struct.unpack("<H", elements[0x0800])[0] != 0x0101
                else:
                    data += part
                if control & 2 and (not control & 1 or not expected):
                    return context_id, _command(command), data

    def release(self) -> None:
        """End the association."""
        self._socket.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        self._pdu()
        self._socket.close()

    def _pdu(self) -> tuple[int, memoryview]:
        head = self._file.read(6)
        if len(head) < 6:
            raise SystemExit("the server closed the connection")
        kind, length = struct.unpack(">BxI", head)
        return kind, memoryview(self._file.read(length))


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _command(encoded: bytes | bytearray) -> dict[int, bytes]:
    found, position = {}, 0
    while position < len(encoded):
        _, element, length = struct.unpack_from("<HHI", encoded, position)
        found[element] = bytes(encoded[position + 8 : position + 8 + length])
        position += 8 + length
    return found


def _encode(elements: dict[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHI", 0, key, len(value)) + value for key, value in sorted(elements.items()))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _uid(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _status(elements: dict[int, bytes]) -> int:
    return int(struct.unpack("<H", elements[0x0900])[0])


def _identifier(keys: dict[int, str]) -> bytes:
    out = b""
    for tag, text in sorted(keys.items()):
        value = text.encode()
        value += (b"\0" if tag in (0x0020000D, 0x00080018) else b" ") * (len(value) % 2)
        out += struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
    return out


def store(host: str, port: int, called: str, template: bytes, names: list[tuple[str, str]]) -> Iterator[float]:
    """C-STORE `template` under each of `names`, (study, SOP) instance UIDs of the template's length; yield milliseconds."""
    connection = Connection(host, port, called, [(CT_IMAGE_STORAGE, "1.2.840.10008.1.2.1")])
    study, sop = (b"@" * len(names[0][0])).replace(b"@", b"8"), (b"@" * len(names[0][1])).replace(b"@", b"9")
    messages = [(name, template.replace(study, name[0].encode()).replace(sop, name[1].encode())) for name in names]
    _ready()
    for number, ((_, sop_instance_uid), data_set) in enumerate(messages, 1):
        began = time.perf_counter()
        command = {2: _uid(CT_IMAGE_STORAGE), 0x100: b"\1\0", 0x110: struct.pack("<H", number), 0x700: b"\0\0"}
        connection.send(1, _encode({**command, 0x800: b"\0\0", 0x1000: _uid(sop_instance_uid)}), data_set)
        _, answer, _ = connection.receive()
        if _status(answer):
            raise SystemExit(f"C-STORE was answered {_status(answer):04X}")
        yield (time.perf_counter() - began) * 1000
    connection.release()


def get(host: str, port: int, called: str, study: str, transfer_syntax_uid: str) -> Iterator[float]:
    """C-GET a study in one transfer syntax; yield the milliseconds between instances."""
    contexts = [(STUDY_ROOT_GET, IMPLICIT_VR_LITTLE_ENDIAN), (CT_IMAGE_STORAGE, transfer_syntax_uid)]
    connection = Connection(host, port, called, contexts, (CT_IMAGE_STORAGE,))
    if 3 not in connection.accepted:
        raise SystemExit("the server does not send CT images in this transfer syntax")
    _ready()
    began = time.perf_counter()
    command = {2: _uid(STUDY_ROOT_GET), 0x100: b"\x10\0", 0x110: b"\1\0", 0x700: b"\0\0", 0x800: b"\0\0"}
    connection.send(1, _encode(command), _identifier({0x00080052: "STUDY", 0x0020000D: study}))
    while True:
        context_id, elements, _ = connection.receive()
        if elements[0x100] == b"\1\0":
            answer = {2: elements[2], 0x100: b"\1\x80", 0x120: elements[0x110], 0x800: b"\1\1", 0x900: b"\0\0"}
            connection.send(context_id, _encode({**answer, 0x1000: elements[0x1000]}))
            now = time.perf_counter()
            yield (now - began) * 1000
            began = now
        elif _status(elements) not in PENDING:
            if _status(elements):
                raise SystemExit(f"C-GET ended with {_status(elements):04X}")
            break
    connection.release()


def find(host: str, port: int, called: str, keys: dict[int, str], times: int) -> Iterator[float]:
    """C-FIND at study level `times` over; yield milliseconds each."""
    connection = Connection(host, port, called, [(STUDY_ROOT_FIND, IMPLICIT_VR_LITTLE_ENDIAN)])
    wanted = _identifier({0x00080020: "", 0x00080052: "STUDY", 0x00100010: "", 0x00100020: "", 0x0020000D: "", **keys})
    _ready()
    for number in range(1, times + 1):
        began = time.perf_counter()
        command = {2: _uid(STUDY_ROOT_FIND), 0x100: b"\x20\0", 0x110: struct.pack("<H", number), 0x700: b"\0\0", 0x800: b"\0\0"}
        connection.send(1, _encode(command), wanted)
        while _status(connection.receive()[1]) in PENDING:
            continue
        yield (time.perf_counter() - began) * 1000
    connection.release()


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


def main() -> None:
    """Parse the command line and run one client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["store", "get", "find"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("called")
    parser.add_argument("argument", help="JSON")
    given = parser.parse_args()
    argument = json.loads(given.argument)
    if given.what == "store":
        names = [tuple(name) for name in argument["names"]]
        work = store(given.host, given.port, given.called, Path(argument["template"]).read_bytes(), names)
    elif given.what == "get":
        work = get(given.host, given.port, given.called, argument["study"], argument["transfer_syntax_uid"])
    else:
        keys = {int(tag, 16): value for tag, value in argument["keys"].items()}
        work = find(given.host, given.port, given.called, keys, argument["times"])
    times_ms = []
    began = None
    for took_ms in work:
        ended = time.monotonic()
        began = began or ended - took_ms / 1000
        times_ms.append(took_ms)
    print(json.dumps({"began": began, "ended": time.monotonic(), "times_ms": times_ms}), flush=True)


if __name__ == "__main__":
    main()
