"""Bodies of answers: one value or a range of it, parts of a multipart message, an array that grows (RFC 9110 14, RFC 2046 5.1).

What a stream begins with is made before the answer begins, so that its failure still has a status; what comes after is made
while what precedes it is being sent.
"""

import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from pacs.model.bulk import Content, Slice, blocks
from pacs.model.instance import Buffer
from pacs.web import multipart
from pacs.web.door import Door, Stream, ahead, door, made

T = TypeVar("T")


def pieces(value: Content) -> Iterable[Buffer]:
    """Return a value as buffers to be written one after another."""
    return (value,) if isinstance(value, bytes | bytearray | memoryview) else blocks(value)


def ranged(request: Request, value: Content, headers: dict[str, str]) -> Response:
    """Answer with `value` or the one range of bytes asked for (RFC 9110 14): 200, 206 or 416."""
    size = len(value)
    headers = {**headers, "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", request.headers.get("range", "").replace(" ", ""))
    if not asked or not (asked[1] or asked[2]):
        return _span(request, value, 0, size, 200, headers)
    if asked[1]:
        first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
    else:
        first, last = max(size - int(asked[2]), 0), size - 1
    if first > last or first >= size:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return _span(request, value, first, last + 1, 206, headers)


def _span(request: Request, value: Content, begin: int, end: int, status: int, headers: dict[str, str]) -> Response:
    kind = "application/octet-stream"
    if isinstance(value, bytes | bytearray | memoryview):
        return Response(bytes(memoryview(value)[begin:end]), status, headers, media_type=kind)
    parts = blocks(Slice(value, begin, end - begin))
    headers["Content-Length"] = str(end - begin)
    return Stream(made(parts, door(request).read), status, headers, media_type=kind)


async def in_parts(
    at: Door,
    calls: Iterable[Callable[[], tuple[str, str, Iterable[Buffer]]]],
    content_type: str,
    status: int,
    headers: dict[str, str],
    depth: int = 2,
) -> Response:
    """Stream parts; the first is made before the answer begins, so that its failure still has a status."""
    boundary = multipart.new_boundary()
    source = await started(ahead(calls, at.read, depth))

    async def body() -> AsyncIterator[bytes]:
        first = True
        async with aclosing(source):
            async for kind, location, buffers in source:
                head = multipart.part_head(boundary, kind, location, first=first)
                if isinstance(buffers, Sequence):
                    buffers = (head, *buffers)
                else:
                    yield head
                async for chunk in made(buffers, at.read):
                    yield chunk
                first = False
        yield multipart.closing(boundary)

    return Stream(body(), status, headers, media_type=f'multipart/related; type="{content_type}"; boundary={boundary}')


async def started(source: AsyncIterator[T]) -> "Started[T]":
    """Wait for the first item, so that its failure still has a status."""
    return Started(await anext(source), source)


class Started(Generic[T]):
    """An async iterator whose first item is here already."""

    def __init__(self, first: T, rest: AsyncIterator[T]) -> None:
        self._first: list[T] = [first]
        self._rest = rest

    def __aiter__(self) -> "Started[T]":
        return self

    async def __anext__(self) -> T:
        return self._first.pop() if self._first else await anext(self._rest)

    async def aclose(self) -> None:
        """Close the source."""
        await self._rest.aclose()  # type: ignore[attr-defined]  # always an async generator


async def json_array(source: "Started[list[bytes]]", zipped: bool) -> AsyncIterator[bytes]:
    """Yield a JSON array of what `source` brings in batches, encoded already."""
    squeeze = zlib.compressobj(2, zlib.DEFLATED, 31) if zipped else None
    opening = b"["
    async with aclosing(source):
        async for batch in source:
            text = opening + b",".join(batch)
            opening = b","
            chunk = squeeze.compress(text) if squeeze else text
            if chunk:
                yield chunk
    yield squeeze.compress(b"]") + squeeze.flush() if squeeze else b"]"
