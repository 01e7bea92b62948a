"""multipart/related, both ways, without I/O (RFC 2046 5.1, PS3.18 8.6.1.2).

`Reader` is fed with chunks as they come and gives back parts as they are complete; it holds one part at a time and enforces
bounds on headers and parts. Writing is two small functions, because a response is streamed part by part.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pacs.model.errors import NotUnderstood
from pacs.store.scratch import Arriving

MAXIMUM_HEADER_BYTES = 16 * 1024
MAXIMUM_PREAMBLE_BYTES = 64 * 1024


Body = bytearray | Arriving
"""Where the bytes of a part go."""


@dataclass(frozen=True, slots=True)
class Part:
    """One body part. `oversized`: it passed the bound and was thrown away; `truncated`: the message ended within it."""

    headers: dict[str, str]
    body: Body = field(repr=False)
    oversized: bool = False
    truncated: bool = False


class Reader:
    """Takes a multipart message apart while it arrives.

    Parameters
    ----------
    boundary : str
        From the Content-Type, without quotation marks.
    maximum_part_bytes : int
        A longer part is skipped and reported as `oversized`; its bytes are never kept.
    new_body : callable
        Makes what the bytes of the next part go to.
    """

    def __init__(self, boundary: str, *, maximum_part_bytes: int, new_body: Callable[[], Body] = bytearray) -> None:
        # RFC 2046 5.1.1: 1 to 70 characters; we also take longer ones that clients make, within reason.
        if not boundary or len(boundary) > 200 or not boundary.isascii():
            raise NotUnderstood("the multipart boundary is missing or malformed")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._maximum = maximum_part_bytes
        # A line break before the first delimiter belongs to it; pretending there was one spares a special case.
        self._buffer = bytearray(b"\r\n")
        self._state = "preamble"
        self._skipped = 0
        self._headers: dict[str, str] = {}
        self._new_body = new_body
        self._body = new_body()
        self._oversized = False

    @property
    def ended(self) -> bool:
        """Whether the final boundary was seen."""
        return self._state == "end"

    @property
    def body(self) -> Body:
        """What there is of the present part."""
        return self._body

    def feed(self, chunk: bytes | memoryview) -> Iterator[Part]:
        """Take the next bytes of the message; yield the parts that they complete.

        Raises `NotUnderstood` for what cannot be a multipart message with this boundary.
        """
        self._buffer += chunk
        while True:
            if self._state in ("preamble", "body"):
                if not self._until_delimiter():
                    return
                whole, self._state = self._state == "body", "after"
                if whole:
                    yield self._take()
            elif self._state == "after":
                if not self._after_delimiter():
                    return
            elif self._state == "headers":
                if not self._read_headers():
                    return
            else:
                self._buffer.clear()  # RFC 2046 5.1.1: the epilogue is to be ignored.
                return

    def finish(self) -> Part | None:
        """Say that the message has ended; return the part it broke off in, if it did.

        Raises `NotUnderstood` if no boundary was found at all.
        """
        if self._state == "preamble":
            raise NotUnderstood("the body holds no part with this boundary")
        if self._state == "body":
            self._keep(self._buffer)
            self._buffer.clear()
            return self._take(truncated=True)
        if self._state == "headers" and self._buffer.strip():
            return Part({}, bytearray(), truncated=True)
        return None

    def _until_delimiter(self) -> bool:
        """Move everything before the next delimiter out of the buffer; tell whether there was one."""
        found = self._buffer.find(self._delimiter)
        while found >= 0:
            tail = bytes(self._buffer[found + len(self._delimiter) : found + len(self._delimiter) + 2])
            # "--boundaryX" is not our delimiter: "--", white space or a line break must follow.
            if len(tail) < 2 or tail == b"--" or tail[:1] in (b"\r", b" ", b"\t"):
                break
            found = self._buffer.find(self._delimiter, found + 1)
        if found < 0:
            keep = len(self._delimiter) - 1
            if len(self._buffer) > keep:
                self._pass_on(len(self._buffer) - keep)
            return False
        if len(self._buffer) < found + len(self._delimiter) + 2:
            self._pass_on(found)
            return False
        self._pass_on(found)
        del self._buffer[: len(self._delimiter)]
        return True

    def _pass_on(self, length: int) -> None:
        if self._state == "body":
            with memoryview(self._buffer) as view:
                self._keep(view[:length])
        else:
            self._skipped += length
            if self._skipped > MAXIMUM_PREAMBLE_BYTES:
                raise NotUnderstood("the body holds no part with this boundary")
        del self._buffer[:length]

    def _keep(self, data: bytes | bytearray | memoryview) -> None:
        if self._oversized or len(self._body) + len(data) > self._maximum:
            self._oversized = True
            self._body.clear()
        else:
            self._body.extend(data)

    def _after_delimiter(self) -> bool:
        if self._buffer[:2] == b"--":
            self._state = "end"
            return True
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAXIMUM_HEADER_BYTES:
                raise NotUnderstood("a boundary line does not end")
            return False
        if self._buffer[:end].strip(b" \t"):
            raise NotUnderstood("a boundary line holds something else")
        # The line break stays: it is also the first half of the empty line of a part without headers.
        del self._buffer[:end]
        self._state = "headers"
        return True

    def _read_headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > MAXIMUM_HEADER_BYTES:
            if len(self._buffer) > MAXIMUM_HEADER_BYTES:
                raise NotUnderstood("the headers of a part are too long")
            return False
        self._headers = {}
        for line in bytes(self._buffer[:end]).split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon:
                self._headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
        del self._buffer[: end + 4]
        self._state = "body"
        return True

    def _take(self, *, truncated: bool = False) -> Part:
        part = Part(self._headers, self._body, self._oversized, truncated)
        self._headers, self._body, self._oversized = {}, self._new_body(), False
        return part


def new_boundary() -> str:
    """Return a boundary that no data can guess: 128 random bits."""
    return f"mp{secrets.token_hex(16)}"


def part_head(boundary: str, content_type: str, location: str = "", *, first: bool = False) -> bytes:
    """Return the delimiter and headers that go before a part's body."""
    lines = [f"--{boundary}", f"Content-Type: {content_type}"]
    if location:
        lines.append(f"Content-Location: {location}")
    return (("" if first else "\r\n") + "\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def closing(boundary: str) -> bytes:
    """Return the final delimiter."""
    return f"\r\n--{boundary}--\r\n".encode("ascii")
