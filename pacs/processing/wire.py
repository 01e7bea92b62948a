"""Messages between a worker and the isolated process of one job: a JSON head and raw bytes, over a pipe.

No pickle: what comes back from a processor's process is read as data, never as code.
"""

import json
import os
import select
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pacs.model.instance import Buffer

_LENGTHS = struct.Struct(">IQ")
_LARGEST_HEAD = 1 << 20


class Closed(Exception):
    """The other side is gone."""


class TimedOut(Exception):
    """Nothing came in time."""


def write(descriptor: int, head: Mapping[str, Any], payload: Iterable[Buffer] = (), size_bytes: int | None = None) -> None:
    """Send one message; raises `Closed` where nobody reads any more.

    A payload that is made while it is sent comes with its `size_bytes`.
    """
    encoded = json.dumps(head).encode()
    if size_bytes is None:
        payload = [memoryview(one).cast("B") for one in payload]
        size_bytes = sum(map(len, payload))
    try:
        _write_all(descriptor, memoryview(_LENGTHS.pack(len(encoded), size_bytes) + encoded))
        for buffer in payload:
            _write_all(descriptor, memoryview(buffer).cast("B"))
    except (BrokenPipeError, ConnectionError) as error:
        raise Closed from error


class Reader:
    """Reads messages, optionally with a deadline."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def wait(self, timeout_s: float) -> bool:
        """Whether something (or the end) can be read within `timeout_s`."""
        return bool(select.select([self._descriptor], [], [], max(timeout_s, 0))[0])

    def read(self, deadline: float | None = None) -> tuple[dict[str, Any], bytearray]:
        """Return the next message. Raises `Closed` at the end, `TimedOut` at `deadline` (monotonic seconds)."""
        head_size, payload_size = _LENGTHS.unpack(self._exactly(_LENGTHS.size, deadline))
        if head_size > _LARGEST_HEAD:
            raise Closed
        head = json.loads(bytes(self._exactly(head_size, deadline)))
        if not isinstance(head, dict):
            raise Closed
        return head, self._exactly(payload_size, deadline)

    def _exactly(self, count: int, deadline: float | None) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        done = 0
        while done < count:
            if deadline is not None and not self.wait(deadline - time.monotonic()):
                raise TimedOut
            got = os.readv(self._descriptor, [view[done : done + (1 << 20)]])
            if got == 0:
                raise Closed
            done += got
        view.release()
        return data


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data[: 1 << 20]) :]
