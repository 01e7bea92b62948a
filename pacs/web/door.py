"""What every service of the web door shares: the archive, threads with a bound, streams that look a little ahead, base URLs.

The archive is synchronous. Each blocking call runs in a worker thread; a stream asks for the next instances while the present
one is being sent, so that memory is bounded by the look-ahead and a slow client slows its own request only.
"""

import asyncio
import gzip
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import orjson
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from pacs.archive import Archive
from pacs.model.errors import InvalidQuery
from pacs.model.instance import Buffer
from pacs.model.peer import Echoed, Peer
from pacs.settings import DicomSettings, Settings

T = TypeVar("T")
Echo = Callable[[DicomSettings, Peer], Echoed]
"""Asks a peer for a C-ECHO. DIMSE is another door's business, so whoever starts this one hands it in."""
LOOK_AHEAD = 2
CHUNK_BYTES = 512 * 1024
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Door:
    """The parts that requests share. `store` bounds ingests, `draw` renderings, `uploads` STOW requests at once.

    `echo` asks a peer whether it answers; None where nobody handed it in.
    """

    archive: Archive
    echo: Echo | None = None
    read: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(16))
    store: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(4))
    draw: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(4))
    uploads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.archive.settings

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the port."""
        return is_loopback(self.settings.web.host)


def door(request: Request) -> Door:
    """Return the door that `request` came through."""
    found: Door = request.app.state.door
    return found


async def in_thread(limiter: anyio.CapacityLimiter, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Run a blocking call in a worker thread."""
    return await to_thread.run_sync(partial(call, *arguments, **named), limiter=limiter)


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine's own."""
    return host in LOOPBACK or host.startswith("127.") or host == "::ffff:127.0.0.1"


def origin(request: Request) -> str:
    """Return scheme and authority under which the caller reaches us."""
    settings = door(request).settings
    if settings.web.public_url:
        return settings.web.public_url.rstrip("/")
    host = request.headers.get("host", "localhost")
    if door(request).on_loopback and not urlsplit(f"//{host}").port:
        # dicomweb-client leaves the port out of Host; nobody reaches a loopback listener but on its own port.
        host = f"{host}:{settings.web.port}"
    return f"{request.url.scheme}://{host}"


def own_hosts(settings: Settings) -> frozenset[str]:
    """Return the host names that a caller on this machine may use for us."""
    named = {urlsplit(settings.web.public_url).hostname or ""} if settings.web.public_url else set()
    return frozenset({*LOOPBACK, settings.web.host.lower(), *named} - {""})


def service_url(request: Request) -> str:
    """Return the base of the DICOMweb service."""
    return f"{origin(request)}/dicom-web"


# PS3.5 9.1: at most 64 characters. Leading zeros of a component are wrong, but seen; the index finds nothing for them.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")


def uid(value: str) -> str:
    """Return `value` if it is a UID. Raises `InvalidQuery` otherwise."""
    if len(value) > 64 or not _UID.match(value):
        raise InvalidQuery("a UID in the request is malformed (PS3.5 9.1)")
    return value


async def ahead(calls: Iterable[Callable[[], T]], limiter: anyio.CapacityLimiter, depth: int = LOOK_AHEAD) -> AsyncIterator[T]:
    """Yield the results of blocking `calls` in order, working on at most `depth` of them before they are asked for."""
    waiting: deque[asyncio.Task[T]] = deque()
    rest: Iterator[Callable[[], T]] = iter(calls)
    try:
        while True:
            while len(waiting) < depth:
                call = next(rest, None)
                if call is None:
                    break
                waiting.append(asyncio.create_task(in_thread(limiter, call)))
            if not waiting:
                return
            # Take it out first, so that nothing holds what was sent while the next is awaited.
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()


def chunks(buffers: Iterable[Buffer]) -> Iterator[bytes]:
    """Join small buffers and cut large ones, so that each chunk is worth a write."""
    held: list[Buffer] = []
    size = 0
    for buffer in buffers:
        view = memoryview(buffer)
        while len(view) > CHUNK_BYTES:
            if held:
                yield b"".join(held)
                held, size = [], 0
            yield bytes(view[:CHUNK_BYTES])
            view = view[CHUNK_BYTES:]
        held.append(view)
        size += len(view)
        if size >= CHUNK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def made(buffers: Iterable[Buffer], limiter: anyio.CapacityLimiter) -> AsyncIterator[bytes]:
    """Yield the chunks of `buffers`; those that are made while they are asked for are made in a worker thread."""
    source = chunks(buffers)
    if isinstance(buffers, tuple | list):
        for chunk in source:
            yield chunk
        return
    while True:
        following = await in_thread(limiter, next, source, None)
        if following is None:
            return
        yield following


class Stream(StreamingResponse):
    """A streaming response that closes its source at once when the client goes away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        source = self.body_iterator
        if hasattr(source, "aclose"):
            async with aclosing(source):  # type: ignore[type-var]  # an async generator, as every caller makes it
                await super().__call__(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def json_response(request: Request, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `application/dicom+json`, zipped where the client takes that and it is worth it."""
    body = orjson.dumps(value)
    named = {"Vary": "Accept, Accept-Encoding, Authorization, Cookie", **(headers or {})}
    if len(body) > 1024 and takes_gzip(request):
        body = gzip.compress(body, compresslevel=2)
        named["Content-Encoding"] = "gzip"
    return Response(body, status, named, media_type="application/dicom+json")


def takes_gzip(request: Request) -> bool:
    """Tell whether the client accepts gzip."""
    return any(one.strip().partition(";")[0] == "gzip" for one in request.headers.get("accept-encoding", "").split(","))


def not_modified(request: Request, etag: str) -> Response | None:
    """Return 304 if the client has this representation already (RFC 9110 13.1.2)."""
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if etag.removeprefix("W/") in known or "*" in known:
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": "private, no-cache"})
    return None
