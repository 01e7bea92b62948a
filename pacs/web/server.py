"""The web door as an ASGI application, and the server it runs on (granian, embedded in this process).

One process, one event loop; blocking work runs in threads. Everything that leaves passes `Threshold`: it refuses strange
Host headers, adds the security headers, logs one line without path or query, and turns errors into answers.
"""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacs import logs
from pacs.archive import Archive
from pacs.model.errors import ArchiveError, ConfigurationError, Unavailable
from pacs.settings import Settings
from pacs.web import auth, health, metrics, pages, qido, rendered, stow, viewer, wado, workitems
from pacs.web.door import Door, Echo
from pacs.web.pages import care, peers, rules, schedule
from pacs.web.status import http_status

log = logs.get_logger(__name__)
STOP_S = 4.0
"""Seconds that open requests get to finish when the server stops."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}


def create_app(archive: Archive, echo: Echo | None = None) -> Starlette:
    """Return the application over an open archive; `echo` asks a peer whether it answers."""
    people = [
        Route(path, auth.for_people(handler), methods=list(methods), name=handler.__name__)
        for path, handler, methods in (*pages.ROUTES, *care.ROUTES, *rules.ROUTES, *schedule.ROUTES, *peers.ROUTES)
    ]
    routes: list[BaseRoute] = [
        Route("/livez", health.livez),
        Route("/readyz", health.readyz),
        Route("/metrics", auth.for_dicomweb(metrics.metrics)),
        Route("/sign-in", pages.sign_in),
        Route("/sign-in/{secret}", auth.sign_in),
        Route("/sign-out", auth.sign_out, methods=["POST"]),
        Mount("/static", pages.static()),
        *people,
        *viewer.routes(archive.settings.web.viewer),
        Mount("/dicom-web", routes=dicomweb_routes()),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Threshold)],
        exception_handlers={ArchiveError: archive_error, HTTPException: http_error},
    )
    app.state.door = Door(archive, echo)
    app.state.remembered = auth.Remembered()
    return app


def dicomweb_routes() -> list[BaseRoute]:
    """Return the routes of the Studies and Worklist Services (PS3.18 10 and 11), all of them behind the same guard."""
    study, series, instance = "/studies/{study}", "/series/{series}", "/instances/{instance}"
    table: list[tuple[str, auth.Handler, str]] = [
        ("/studies", qido.studies, "GET"),
        ("/series", qido.series, "GET"),
        ("/instances", qido.instances, "GET"),
        (f"{study}/series", qido.series, "GET"),
        (f"{study}/instances", qido.instances, "GET"),
        (f"{study}{series}/instances", qido.instances, "GET"),
        ("/studies", stow.store, "POST"),
        (study, stow.store, "POST"),
    ]
    for level in (study, f"{study}{series}", f"{study}{series}{instance}"):
        table += [
            (level, wado.retrieve, "GET"),
            (f"{level}/metadata", wado.metadata, "GET"),
            (f"{level}/rendered", rendered.rendered, "GET"),
            (f"{level}/thumbnail", rendered.thumbnail, "GET"),
        ]
    one = f"{study}{series}{instance}"
    table += [
        (f"{one}/frames/{{frames}}", wado.frames, "GET"),
        (f"{one}/frames/{{frames}}/rendered", rendered.rendered, "GET"),
        (f"{one}/frames/{{frames}}/thumbnail", rendered.thumbnail, "GET"),
        (f"{one}/bulkdata/{{path:path}}", wado.bulkdata, "GET"),
        *workitems.ROUTES,
    ]
    methods: dict[str, list[str]] = {}
    for path, _, method in table:
        methods.setdefault(path, []).append(method)
    routes: list[BaseRoute] = [Route(path, auth.for_dicomweb(handler), methods=[method]) for path, handler, method in table]
    return [*routes, Route("/{rest:path}", auth.for_dicomweb(no_such_resource), methods=["GET", "POST", "PUT", "DELETE"])]


async def no_such_resource(request: Request) -> Response:
    """Answer paths and methods that are none of ours."""
    raise HTTPException(404 if request.method in ("GET", "HEAD", "POST") else 405)


async def archive_error(request: Request, error: Exception) -> Response:
    """Answer an error of the archive with its number (web/status.py) and its message, which holds no values."""
    status = http_status(error)
    if status >= 500:
        log.exception("request_failed", error, http_status=status)
    headers = {"Retry-After": "10"} if isinstance(error, Unavailable) else None
    if _wants_page(request):
        return pages.error_page(request, status, str(error))
    return JSONResponse({"error": str(error)}, status, headers)


async def http_error(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses."""
    assert isinstance(error, HTTPException)
    if _wants_page(request):
        return pages.error_page(
            request, error.status_code, "There is no such page." if error.status_code == 404 else error.detail
        )
    return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))


def _wants_page(request: Request) -> bool:
    return not request.url.path.startswith(("/dicom-web", "/static")) and "text/html" in request.headers.get("accept", "")


class Threshold:
    """Outermost middleware: host check, security headers, one log line, and no exception gets past it with its message."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (k.lower().encode(), v.encode())
                        for k, v in SECURITY_HEADERS.items()
                        if k.lower().encode() not in present
                    ),
                ]
            await send(message)

        request = Request(scope, receive)
        broken = False
        try:
            if auth.wrong_host(request, scope["app"].state.door):
                response = Response("this host name is not ours", 403, media_type="text/plain")
                await response(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception as error:
            broken = bool(status)
            log.exception("request_failed", error, http_status=status or 500)
            if not broken:
                await JSONResponse({"error": "internal error"}, 500)(scope, receive, send_with_headers)
        # Neither path nor query: a caller may have put a name into either.
        route = getattr(scope.get("endpoint"), "__name__", "none")
        log.info(
            "request_answered",
            method=scope["method"],
            route=route,
            http_status=status,
            duration_ms=round((time.perf_counter() - started) * 1000, 1),
        )
        if broken:
            # Half an answer is out; breaking the connection is the only way left to say that it is not whole.
            raise ConnectionAbortedError


def check_port(settings: Settings) -> None:
    """Raise `ConfigurationError` unless the web port is free.

    Asked by an exclusive bind of our own: the server's listener shares its port (SO_REUSEPORT) and would not notice.
    """
    host, port = settings.web.host, settings.web.port
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except PermissionError as error:
        raise ConfigurationError(f"web port {port} on {host} needs more rights; set web.port to one above 1023") from error
    except OSError as error:
        raise ConfigurationError(f"web port {port} is in use or {host} is not ours; set web.port or web.host") from error


def serve(settings: Settings, stop: threading.Event | None = None, echo: Echo | None = None) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; `echo` asks a peer whether it answers.

    Raises `ConfigurationError` if the port is in use or the archive cannot be opened.
    """
    check_port(settings)
    with Archive.opened(settings, writer="web") as archive:
        asyncio.run(_serve(create_app(archive, echo), settings, stop))


async def _serve(app: Starlette, settings: Settings, stop: threading.Event | None) -> None:
    server = Server(
        app,
        address=settings.web.host,
        port=settings.web.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.auto,
        websockets=False,
        backlog=1024,
        log_enabled=False,
    )
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
    serving = asyncio.create_task(server.serve())
    log.info("web_started", pid=os.getpid(), port=settings.web.port)
    while not serving.done() and not asked.is_set() and not (stop is not None and stop.is_set()):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), 0.2)
    server.stop()  # type: ignore[no-untyped-call]  # granian annotates nothing here
    try:
        await asyncio.wait_for(serving, STOP_S)
    except TimeoutError:
        log.warning("requests_cut_short")
    log.info("web_stopped")


__all__ = ["check_port", "create_app", "serve"]
