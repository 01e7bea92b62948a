"""The page of peers: who may call us and what for, where we send to, and whether they answer.

What a form says goes through the same door as `pacs peers add` (`pacs.model.peer.described`), so it is refused in the same
words. Whether a peer answers is asked by what `pacs serve` hands in (`Door.echo`), for this room knows no DIMSE. Changes and
echoes are audited.
"""

from collections.abc import Mapping
from typing import Any

from pydicom.uid import UID
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pacs.archive import Archive
from pacs.model.errors import ConfigurationError, NotFound
from pacs.model.instance import Origin
from pacs.model.peer import IDENTITIES, OPTIONS, SERVICES, USUAL, Away, Echoed, Peer, described
from pacs.web.door import door, in_thread
from pacs.web.pages import show
from pacs.web.pages.care import fields_of

_MEANING = {
    "echo": "ask whether we are there",
    "store": "send us images",
    "find": "query",
    "move": "have images sent to peers",
    "get": "fetch images",
    "commit": "ask us to vouch for what it sent",
    "worklist": "see the worklist, with original identities",
    "workitems": "follow and request processing",
}
_OPTION = {
    "tls": "Called over TLS",
    "any-address": "May call from other addresses than its own",
    "user": "Must give name and secret of an API token",
    "warn": "Is told that what it stored was changed (B000)",
    "availability": "Is told of complete studies and results",
    "as-stored": "Gets our compression over DICOMweb",
}
_DONE = {
    "added": "The peer is known from now on.",
    "changed": "Changed; it holds from now on.",
    "removed": "The peer is forgotten.",
}


async def peers(request: Request) -> Response:
    """List the peers; with `edit`, the form is filled in for one of them."""
    at, wanted = door(request), request.query_params.get("edit", "")
    if not wanted:
        return await _page(request, _as_form(Peer("", "", 0)) | {"port": ""})
    found = await in_thread(at.read, at.archive.index.peers.get, wanted)
    if found is None:
        raise NotFound("There is no such peer.")
    return await _page(request, _as_form(found), editing=found.ae_title)


async def save(request: Request) -> Response:
    """Add a peer or change one; a form that cannot be used comes back as it was filled in, and says why."""
    at, given = door(request), await _given(request)

    def work() -> str:
        wanted = _from_form(given)
        known = at.archive.index.peers.get(wanted.ae_title) is not None
        if known and given.get("editing", "") != wanted.ae_title:
            raise ConfigurationError(f"there is a peer {wanted.ae_title} already; choose Edit beside it to change it")
        at.archive.index.peers.add(wanted, by=request.state.caller)
        return "changed" if known else "added"

    try:
        done = await in_thread(at.read, work)
    except ConfigurationError as error:
        return await _page(request, given, editing=given.get("editing", ""), problem=f"Not saved: {error}.", status=400)
    return RedirectResponse(f"/peers?done={done}", 303)


async def remove(request: Request) -> Response:
    """Forget a peer; the form asks for a tick first."""
    at, given = door(request), await _given(request)
    ae_title = given.get("ae_title", "")
    if given.get("sure") != "yes":
        found = await in_thread(at.read, at.archive.index.peers.get, ae_title)
        if found is None:
            raise NotFound("There is no such peer.")
        problem = "Tick the box first: sends to it that still wait would fail."
        return await _page(request, _as_form(found), editing=ae_title, problem=problem, status=400)
    await in_thread(at.read, lambda: at.archive.index.peers.remove(ae_title, by=request.state.caller))
    return RedirectResponse("/peers?done=removed", 303)


async def echo(request: Request) -> Response:
    """Ask a peer for a C-ECHO, and say in words what came of it."""
    at, given = door(request), await _given(request)
    ae_title = given.get("ae_title", "")

    ask = at.echo

    def work() -> Echoed:
        peer = at.archive.index.peers.get(ae_title)
        if peer is None or peer.url or ask is None:
            raise NotFound("There is no such peer that could be asked.")
        found = ask(at.settings.dicom, peer)
        if found.answers:
            at.archive.index.away.reached(ae_title)
        at.archive.index.note("peer_asked", ae_title=ae_title, by=request.state.caller, answers=found.answers)
        return found

    found = await in_thread(at.draw, work)
    words = f"{found.said}. It took {found.took_ms} ms."
    blank = _as_form(Peer("", "", 0)) | {"port": ""}
    return await _page(request, blank, notice=words) if found.answers else await _page(request, blank, problem=words)


ROUTES = [
    ("/peers", peers, ("GET",)),
    ("/peers", save, ("POST",)),
    ("/peers/remove", remove, ("POST",)),
    ("/peers/echo", echo, ("POST",)),
]


async def _given(request: Request) -> dict[str, str]:
    return {name: said.strip() for name, said in (await fields_of(request)).items() if isinstance(said, str)}


def _as_form(peer: Peer) -> dict[str, str]:
    """Return the fields of the form for a peer; a tick is a field that is there."""
    fields = {
        "ae_title": peer.ae_title,
        "place": peer.url or peer.host,
        "port": "" if peer.url else str(peer.port),
        "identity": peer.identity,
        "prefers": ", ".join(peer.prefers),
        "private": ", ".join(sorted(peer.private)),
    }
    ticks = [f"may-{one}" for one in peer.may] + [f"option-{one}" for one in peer.options if one in OPTIONS]
    return fields | dict.fromkeys(ticks, "yes")


def _from_form(given: Mapping[str, str]) -> Peer:
    port = given.get("port", "") or "0"
    if not port.isdecimal() or len(port) > 5:
        raise ConfigurationError("a port lies between 1 and 65535")
    return described(
        given.get("ae_title", ""),
        given.get("place", ""),
        int(port),
        may=[one for one in SERVICES if f"may-{one}" in given],
        identity=given.get("identity", IDENTITIES[0]),
        options=[one for one in OPTIONS if f"option-{one}" in given],
        private=given.get("private", "").split(","),
        prefers=given.get("prefers", "").split(","),
    )


def _row(archive: Archive, peer: Peer, away: Mapping[str, Away]) -> dict[str, Any]:
    return {
        "peer": peer,
        "away": away.get(peer.ae_title),
        "may": [one for one in SERVICES if one in peer.may],
        "options": [_OPTION[one] for one in OPTIONS if one in peer.options and one != "tls"],
        "prefers": [UID(uid).name for uid in peer.prefers],
        "policy": archive.deidentifier.usual_policy(peer.ae_title, Origin.STORAGE_SCU).name,
    }


async def _page(
    request: Request, given: Mapping[str, str], *, editing: str = "", problem: str = "", notice: str = "", status: int = 200
) -> Response:
    at = door(request)

    def ask() -> list[dict[str, Any]]:
        away = at.archive.index.away.list()
        return [_row(at.archive, one, away) for one in at.archive.index.peers.list()]

    rows = await in_thread(at.read, ask)
    response = await show(
        request,
        "peers.html",
        rows=rows,
        given=given,
        editing=editing,
        services=[(one, _MEANING[one], one in USUAL) for one in SERVICES],
        options=[(one, _OPTION[one]) for one in OPTIONS],
        identities=IDENTITIES,
        asks=at.echo is not None,
        ruled=bool(at.settings.deid.rules),
        done=_DONE.get(request.query_params.get("done", ""), ""),
        problem=problem,
        notice=notice,
    )
    response.status_code = status
    return response
