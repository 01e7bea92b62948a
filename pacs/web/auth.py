"""Who may come in: sessions for people, bearer tokens for scripts, and callers on this machine while we listen on loopback.

People sign in by a one-time link that the command line prints; nothing here knows a password. DICOMweb also answers callers
without credentials from this machine, as DICOM itself does, but only where a browser page of another origin cannot be
the caller (Sec-Fetch-Site, Origin, Host) and no proxy stands in front of us: behind one, everybody seems to be local.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pacs.logs import get_logger
from pacs.web.door import Door, door, in_thread, is_loopback, origin, own_hosts

log = get_logger(__name__)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "via", "x-real-ip")
REMEMBER_S = 5.0
"""How long an answer of the index about a secret holds; a revoked token works at most so much longer."""


@dataclass(slots=True)
class Remembered:
    """Secrets seen lately and whose they are, so that a hundred frames are not a hundred look-ups."""

    known: OrderedDict[str, tuple[float, str | None]] = field(default_factory=OrderedDict)

    def get(self, secret: str) -> tuple[bool, str | None]:
        """Return (whether it is known, whose it is)."""
        entry = self.known.get(secret)
        if entry is None or entry[0] < time.monotonic():
            return False, None
        return True, entry[1]

    def put(self, secret: str, who: str | None) -> None:
        """Keep the answer; the oldest goes when there are many."""
        self.known[secret] = (time.monotonic() + REMEMBER_S, who)
        while len(self.known) > 1000:
            self.known.popitem(last=False)


def cookie_name(request: Request) -> str:
    """Return the session cookie's name; ports of one host share cookies, so it names the port."""
    return f"pacs_session_{door(request).settings.web.port}"


async def caller(request: Request, *, local: bool) -> str | None:
    """Return who calls ("session", "token:name", "local"), or None for nobody we know.

    `local` says whether callers of this machine need no credentials here.
    """
    header = request.headers.get("authorization", "")
    if header:
        scheme, _, secret = header.partition(" ")
        return await _known(request, "token", secret.strip()) if scheme.lower() == "bearer" else None
    secret = request.cookies.get(cookie_name(request), "")
    if secret:
        who = await _known(request, "session", secret)
        if who:
            return who
    return "local" if local and _from_this_machine(request) else None


async def sees_originals(request: Request) -> bool:
    """Tell whether the caller bears a token that is marked to see original identities; a session never does."""
    kind, _, name = str(getattr(request.state, "caller", "")).partition(":")
    if kind != "token":
        return False
    remembered: Remembered = request.app.state.remembered
    known, answer = remembered.get(f"identity:{name}")
    if not known:
        marked = await in_thread(door(request).read, door(request).archive.index.access.sees_originals, name)
        answer = "original" if marked else None
        remembered.put(f"identity:{name}", answer)
    return answer == "original"


def foreign(request: Request) -> bool:
    """Tell whether a browser sends this request for a page of another origin (fetch metadata, then Origin)."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    sent = request.headers.get("origin")
    if sent is None:
        return False
    named = urlsplit(sent)
    return f"{named.scheme}://{named.netloc}" not in {origin(request), f"{request.url.scheme}://{request.headers.get('host')}"}


def wrong_host(request: Request, at: Door) -> bool:
    """Tell whether Host names a stranger while we listen on loopback: a page that has its DNS name point to us."""
    if not at.on_loopback:
        return False
    name = urlsplit(f"//{request.headers.get('host', '')}").hostname
    return name not in own_hosts(at.settings)


def _from_this_machine(request: Request) -> bool:
    at = door(request)
    return (
        at.settings.web.open_on_loopback
        and at.on_loopback
        and not at.settings.web.public_url
        and request.client is not None
        and is_loopback(request.client.host)
        and not any(name in request.headers for name in FORWARDED)
        and not foreign(request)
    )


async def _known(request: Request, kind: str, secret: str) -> str | None:
    if not secret or len(secret) > 512:
        return None
    remembered: Remembered = request.app.state.remembered
    known, who = remembered.get(f"{kind}:{secret}")
    if known:
        return who
    access = door(request).archive.index.access
    if kind == "token":
        name = await in_thread(door(request).read, access.token, secret)
        who = f"token:{name}" if name is not None else None
    else:
        who = "session" if await in_thread(door(request).read, access.session, secret) else None
    remembered.put(f"{kind}:{secret}", who)
    return who


Handler = Callable[[Request], Awaitable[Response]]


def for_dicomweb(handler: Handler) -> Handler:
    """Let `handler` answer known callers only; everybody else gets 401, whether or not anything is there."""

    async def guarded(request: Request) -> Response:
        who = await caller(request, local=True)
        if who is None:
            return Response(status_code=401, headers={"WWW-Authenticate": 'Bearer realm="mini-pacs"'})
        if request.method not in SAFE and foreign(request):
            return Response("this request comes from a page of another origin", 403, media_type="text/plain")
        request.state.caller = who
        return await handler(request)

    guarded.__name__ = handler.__name__
    return guarded


def for_people(handler: Handler) -> Handler:
    """Let `handler` answer signed-in people; everybody else is led to the sign-in page."""

    async def guarded(request: Request) -> Response:
        if request.method not in SAFE and foreign(request):
            return Response("this request comes from a page of another origin", 403, media_type="text/plain")
        who = await caller(request, local=False)
        if who != "session":
            return RedirectResponse("/sign-in", 303)
        request.state.caller = who
        return await handler(request)

    guarded.__name__ = handler.__name__
    return guarded


async def sign_in(request: Request) -> Response:
    """Turn a one-time link into a session cookie."""
    if request.method != "GET":
        # A link checker that only looks must not use the link up.
        return Response(status_code=405, headers={"Allow": "GET"})
    access = door(request).archive.index.access
    session = await in_thread(door(request).read, access.redeem, request.path_params["secret"])
    if session is None:
        log.warning("sign_in_refused")
        return RedirectResponse("/sign-in?used=1", 303)
    log.info("signed_in")
    response = RedirectResponse("/", 303)
    response.set_cookie(
        cookie_name(request), session, httponly=True, samesite="lax", secure=origin(request).startswith("https"), path="/"
    )
    return response


async def sign_out(request: Request) -> Response:
    """End the session."""
    secret = request.cookies.get(cookie_name(request), "")
    if secret and not foreign(request):
        await in_thread(door(request).read, door(request).archive.index.access.end, secret)
        request.app.state.remembered.known.pop(f"session:{secret}", None)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(cookie_name(request), httponly=True, samesite="lax", path="/")
    return response
