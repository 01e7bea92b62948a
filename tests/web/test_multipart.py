"""multipart/related is taken apart the same way however it arrives, within bounds."""

import random
import re

import pytest

from pacs.model.errors import NotUnderstood
from pacs.web import multipart
from pacs.web.multipart import Part, Reader

PARTS = [b"first", b"", b"with --mark inside\r\n--markX and\r\n\r\n--mar", bytes(range(256)) * 9]


def message(parts: list[bytes], *, final: bool = True, preamble: bytes = b"") -> bytes:
    """Return a message with boundary `mark`."""
    body = preamble + b"".join(b"\r\n--mark\r\nContent-Type: application/dicom\r\n\r\n" + part for part in parts)
    return body + (b"\r\n--mark--\r\nepilogue" if final else b"")


def read(data: bytes, sizes: list[int], *, maximum: int = 1 << 20) -> list[Part]:
    """Feed `data` in pieces of `sizes`, cyclically."""
    reader, found, at, turn = Reader("mark", maximum_part_bytes=maximum), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += list(reader.feed(data[at : at + size]))
        at, turn = at + size, turn + 1
    last = reader.finish()
    return found + ([last] if last else [])


@pytest.mark.parametrize("sizes", [[1], [2], [7], [3, 50, 1], [10_000]])
def test_parts_do_not_depend_on_how_the_bytes_arrive(sizes: list[int]) -> None:
    """Whatever the chunks, the bodies come out whole, lookalikes of the boundary included."""
    found = read(message(PARTS), sizes)

    assert [bytes(part.body) for part in found] == PARTS
    assert {part.headers["content-type"] for part in found} == {"application/dicom"}


def test_random_bodies_survive() -> None:
    """Random bodies made of boundary pieces come out as they went in."""
    random.seed(7)
    for _ in range(200):
        parts = [b"".join(random.choices([b"\r", b"\n", b"-", b"--mark", b"m", b"\r\n--mark1"], k=9)) for _ in range(3)]
        parts = [re.sub(rb"\r\n--mark(?!1)", b"", part) for part in parts]  # A sender never puts the real delimiter in a body.
        if any(re.search(rb"\r\n--mark(?!1)", part) for part in parts):
            continue
        assert [bytes(part.body) for part in read(message(parts), [random.randint(1, 9)])] == parts


def test_a_first_delimiter_without_a_line_break_is_found() -> None:
    """The message may start with the delimiter at once, or after a preamble (RFC 2046 5.1.1)."""
    assert len(read(message([b"x"])[2:], [4])) == 1
    assert len(read(message([b"x"], preamble=b"please ignore"), [4])) == 1


def test_w15_missing_final_boundary_reports_the_part_it_broke_off_in() -> None:
    """Complete parts count; the last one is known to be truncated."""
    found = read(message([b"whole", b"half"], final=False), [5])

    assert [(bytes(part.body), part.truncated) for part in found] == [(b"whole", False), (b"half", True)]


def test_an_oversized_part_is_skipped_and_the_next_is_read() -> None:
    """A part over the bound costs no memory and does not spoil its neighbours."""
    found = read(message([b"a", b"b" * 5000, b"c"]), [64], maximum=1000)

    assert [(bytes(part.body), part.oversized) for part in found] == [(b"a", False), (b"", True), (b"c", False)]


@pytest.mark.parametrize("data", [b"", b"no boundary here", b"\r\n--mark garbage\r\n\r\nx", b"x" * 100_000])
def test_what_is_no_multipart_is_refused(data: bytes) -> None:
    """No boundary, or a boundary line with something else on it, is a syntax error."""
    with pytest.raises(NotUnderstood):
        read(data, [1000])


@pytest.mark.parametrize("boundary", ["", "x" * 300, "ü"])
def test_a_boundary_must_be_plausible(boundary: str) -> None:
    """An empty, endless or non-ASCII boundary is refused."""
    with pytest.raises(NotUnderstood):
        Reader(boundary, maximum_part_bytes=10)


def test_endless_headers_are_refused() -> None:
    """Headers have a bound too."""
    with pytest.raises(NotUnderstood):
        read(b"--mark\r\n" + b"a" * 40_000, [1000])


def test_what_we_write_we_can_read() -> None:
    """The writing half and the reading half agree."""
    boundary = multipart.new_boundary()
    reader = Reader(boundary, maximum_part_bytes=100)
    data = multipart.part_head(boundary, "image/jphc", "http://x/1", first=True) + b"one"
    data += multipart.part_head(boundary, "image/jphc") + b"two" + multipart.closing(boundary)

    found = list(reader.feed(data))

    assert [bytes(part.body) for part in found] == [b"one", b"two"]
    assert found[0].headers["content-location"] == "http://x/1"
    assert reader.ended
