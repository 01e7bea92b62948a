"""UPS-RS: the Worklist Service (PS3.18 11) over processing jobs; what `dimse/normalized` does on the wire, over HTTP.

Create, retrieve, update, change state, request cancellation, search, subscribe and unsubscribe; data sets are DICOM JSON. Event
reports go to configured peers by DIMSE: there is no WebSocket here, and the answer to a subscription says so.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from pacs.dicom.dictionary import is_known, keyword_of, tag_of, vr_of
from pacs.model.errors import InvalidQuery, NotUnderstood
from pacs.model.workitem import Notice
from pacs.web.accept import UnsupportedMediaType
from pacs.web.door import door, in_thread, json_response, service_url, uid
from pacs.web.status import TooLarge
from pacs.workflow.attributes import Attributes, key, parse, text
from pacs.workflow.workitems import Workitems

MAXIMUM_RESULTS = 1000
_LARGEST_BYTES = 1 << 20
_NAMES = frozenset(
    {"limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "accept"}
)
_SHOWN = (
    "SOPClassUID SOPInstanceUID ScheduledProcedureStepPriority ProcedureStepLabel WorklistLabel "
    "ScheduledProcedureStepStartDateTime ScheduledProcedureStepModificationDateTime InputReadinessState ProcedureStepState "
    "PatientName PatientID StudyInstanceUID ScheduledWorkitemCodeSequence ProcedureStepProgressInformationSequence"
).split()
"""Attributes of every search result, beside those that were asked for."""
_ALL = (
    "IssuerOfPatientID PatientBirthDate PatientSex AccessionNumber ReferencedRequestSequence ScheduledStationNameCodeSequence "
    "ScheduledProcessingParametersSequence InputInformationSequence UnifiedProcedureStepPerformedProcedureSequence"
).split()
"""What `includefield=all` adds."""


async def create(request: Request) -> Response:
    """Create a workitem: 201 with its place (PS3.18 11.4)."""
    at = door(request)
    asked = request.query_params.get("workitem") or _bare(request)
    given = await _data_set(request)
    named = uid(asked) if asked else text(given, "SOPInstanceUID")
    made, notice = await in_thread(at.read, Workitems(at.archive).create, named, given)
    place = f"{service_url(request)}/workitems/{made}"
    return Response(status_code=201, headers={"Location": place, "Content-Location": place, **_warning(notice)})


async def retrieve(request: Request) -> Response:
    """Return a workitem, without the Transaction UID that nobody but its performer knows (PS3.18 11.5)."""
    at = door(request)
    found = await in_thread(at.read, Workitems(at.archive).get, _uid(request))
    return json_response(request, [found])


async def update(request: Request) -> Response:
    """Change a workitem; with `transaction-uid` one that is performed elsewhere (PS3.18 11.6)."""
    at, given = door(request), await _data_set(request)
    transaction = request.query_params.get("transaction-uid", "")
    if transaction:
        given[key("TransactionUID")] = {"vr": "UI", "Value": [uid(transaction)]}
    await in_thread(at.read, Workitems(at.archive).change, _uid(request), given)
    return Response(status_code=200, headers={"Content-Location": f"{service_url(request)}/workitems/{_uid(request)}"})


async def change_state(request: Request) -> Response:
    """Claim, complete or cancel (PS3.18 11.7)."""
    at, given = door(request), await _data_set(request)
    notice = await in_thread(at.read, Workitems(at.archive).move, _uid(request), given)
    return Response(status_code=200, headers=_warning(notice))


async def request_cancel(request: Request) -> Response:
    """Ask that a workitem be cancelled (PS3.18 11.8)."""
    at = door(request)
    notice = await in_thread(at.read, Workitems(at.archive).cancel, _uid(request), at.settings.dicom.ae_title)
    return Response(status_code=202, headers=_warning(notice))


async def search(request: Request) -> Response:
    """Search for workitems, newest first (PS3.18 11.9)."""
    at = door(request)
    keys, limit, offset = parse_query(request.query_params.multi_items())

    def ask() -> tuple[list[Attributes], int]:
        found = list(Workitems(at.archive).find(keys))
        return found[offset : offset + limit], len(found)

    rows, total = await in_thread(at.read, ask)
    headers = {"X-Total-Count": str(total), "Cache-Control": "private, no-cache"}
    if offset + len(rows) < total:
        more = f"there are {total - offset - len(rows)} additional results that can be requested"
        headers["Warning"] = f'299 {request.headers.get("host", "-")} "{more}"'
    return json_response(request, rows, headers=headers)


async def subscribe(request: Request) -> Response:
    """Let a configured peer follow a workitem, or all of them; events go to it by DIMSE (PS3.18 11.10)."""
    at = door(request)
    await in_thread(at.read, Workitems(at.archive).subscribe, _uid(request), request.path_params["ae_title"])
    why = "events are sent as N-EVENT-REPORT to the peer; there is no WebSocket"
    return Response(status_code=201, headers={"Warning": f'299 {request.headers.get("host", "-")} "{why}"'})


async def unsubscribe(request: Request) -> Response:
    """End a subscription (PS3.18 11.11)."""
    at = door(request)
    await in_thread(at.read, Workitems(at.archive).unsubscribe, _uid(request), request.path_params["ae_title"])
    return Response(status_code=200)


async def suspend(request: Request) -> Response:
    """End a subscription to workitems yet to come (PS3.18 11.12)."""
    at, who = door(request), request.path_params["ae_title"]
    await in_thread(at.read, Workitems(at.archive).unsubscribe, _uid(request), who, suspend=True)
    return Response(status_code=200)


ROUTES = [
    ("/workitems", create, "POST"),
    ("/workitems", search, "GET"),
    ("/workitems/{workitem}", retrieve, "GET"),
    ("/workitems/{workitem}", update, "POST"),
    ("/workitems/{workitem}/state", change_state, "PUT"),
    ("/workitems/{workitem}/cancelrequest", request_cancel, "POST"),
    ("/workitems/{workitem}/subscribers/{ae_title}", subscribe, "POST"),
    ("/workitems/{workitem}/subscribers/{ae_title}", unsubscribe, "DELETE"),
    ("/workitems/{workitem}/subscribers/{ae_title}/suspend", suspend, "POST"),
]


def parse_query(parameters: list[tuple[str, str]]) -> tuple[Attributes, int, int]:
    """Return keys, limit and offset of a search (PS3.18 8.3.4). Raises `InvalidQuery` for an attribute that there is not."""
    keys: Attributes = {key(keyword): {"vr": vr_of(tag_of(keyword))} for keyword in _SHOWN}
    limit, offset = MAXIMUM_RESULTS, 0
    for name, value in parameters:
        if name in ("limit", "offset"):
            if not re.fullmatch(r"\d{1,9}", value):
                raise InvalidQuery(f"{name} must be a whole number, not negative")
            limit, offset = (min(int(value), MAXIMUM_RESULTS), offset) if name == "limit" else (limit, int(value))
        elif name == "includefield":
            for one in filter(None, value.split(",")):
                for tag in map(_tag, _ALL if one.lower() == "all" else [one.partition(".")[0]]):
                    keys.setdefault(f"{tag:08X}", {"vr": vr_of(tag)})
        elif name not in _NAMES:
            _put(keys, name.split("."), value)
    return keys, limit, offset


def _put(keys: Attributes, path: list[str], value: str) -> None:
    """Set a key, within a sequence where the path leads there."""
    tag = _tag(path[0])
    name, vr = f"{tag:08X}", vr_of(tag)
    if len(path) > 1:
        if vr != "SQ":
            raise InvalidQuery(f"{keyword_of(tag)} is no sequence")
        nested = keys.setdefault(name, {"vr": "SQ"}).setdefault("Value", [{}])[0]
        _put(nested, path[1:], value)
        return
    said = [one for one in re.split(r"[,\\]", value) if one] if vr == "UI" else [value] if value else []
    keys[name] = {"vr": vr, "Value": [{"Alphabetic": one} if vr == "PN" else one for one in said]}


def _tag(name: str) -> int:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name) and is_known(int(name, 16)):
        return int(name, 16)
    try:
        return tag_of(name)
    except KeyError:
        raise InvalidQuery("the query names an attribute that is neither a keyword nor a tag of PS3.6") from None


def _uid(request: Request) -> str:
    return uid(request.path_params["workitem"])


def _bare(request: Request) -> str:
    """Return the UID of `POST /workitems?1.2.3`, which PS3.18 11.4.1 writes without a name."""
    return request.url.query if re.fullmatch(r"[0-9.]+", request.url.query) else ""


async def _data_set(request: Request) -> Attributes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/dicom+json", "application/json"):
        raise UnsupportedMediaType("a workitem comes as application/dicom+json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BYTES:
            raise TooLarge("a workitem has at most 1 MiB")
    try:
        said: Any = orjson.loads(body)
    except ValueError:
        raise NotUnderstood("the body is not JSON") from None
    # PS3.18 11.4.1.3: an array of one data set; the state's body is sometimes sent bare.
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if not isinstance(said, Mapping):
        raise NotUnderstood("the body holds one data set")
    return parse(said)


def _warning(notice: Notice | None) -> dict[str, str]:
    return {} if notice is None else {"Warning": f'299 - "{notice.value}"'}
