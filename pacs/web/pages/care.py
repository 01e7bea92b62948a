"""Pages of those who look after de-identification: the quarantine, by reason and never by value, and the policy tester.

The tester keeps nothing: what is uploaded is looked at in memory, and the table it answers with has names of elements and rows
of tables, no value. A stored instance is tried as it was sent, if the vault has its original; still no value is shown.
"""

from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pacs import reidentify, retrieve
from pacs.archive import Archive
from pacs.deid.explain import KEPT, Explanation, explain
from pacs.dicom import part10
from pacs.dicom.elements import EXPLICIT_LITTLE_ENDIAN
from pacs.ingest import release
from pacs.model.errors import ArchiveError, InvalidQuery, NotFound, NotUnderstood
from pacs.model.instance import Origin, Received
from pacs.model.summary import QuarantineRow
from pacs.web.door import door, in_thread, uid
from pacs.web.multipart import Reader
from pacs.web.pages import show

LARGEST_FORM_BYTES = 64 << 20
_FORM_BYTES = 1 << 16


async def quarantine(request: Request) -> Response:
    """List what is in quarantine, newest first."""
    at = door(request)
    rows = await in_thread(at.read, at.archive.index.quarantine.list)
    stranded, _ = await in_thread(at.read, at.archive.index.stranded)
    return await show(request, "quarantine.html", rows=rows, stranded=stranded, done=request.query_params.get("done", ""))


async def quarantined(request: Request) -> Response:
    """Show one quarantined object: why it is there, and what would become of it now."""
    return await _one(request, "")


async def release_one(request: Request) -> Response:
    """Let an object in, under the policy chosen; if it would come back, say why and leave it."""
    at, quarantine_id = door(request), request.path_params["quarantine"]
    fields = await fields_of(request)
    policy, reason = (str(fields.get(name, ""))[:200] for name in ("policy", "reason"))

    def work() -> str:
        stored = release(at.archive, quarantine_id, policy, reason=reason)
        key = stored.key
        at.archive.index.note(
            "quarantine_released",
            quarantine_id=quarantine_id,
            policy=policy or at.archive.deidentifier.policy.name,
            user=request.state.caller,
            reason=reason,
            study_instance_uid=key.study_instance_uid,
        )
        return "held" if stored.pending else key.study_instance_uid

    try:
        done = await in_thread(at.store, work)
    except NotFound:
        raise
    except ArchiveError as error:
        return await _one(request, f"It stays in quarantine: {error}.", status=409)
    return RedirectResponse("/quarantine?done=held" if done == "held" else f"/studies/{done}", 303)


async def discard_one(request: Request) -> Response:
    """Destroy an object for good; the form asks for a tick first."""
    at, quarantine_id = door(request), request.path_params["quarantine"]
    if (await fields_of(request)).get("sure") != "yes":
        return await _one(request, "Tick the box first: it cannot be brought back.", status=400)

    def work() -> None:
        at.archive.index.quarantine.get(quarantine_id)
        at.archive.quarantine.discard(quarantine_id)
        at.archive.index.note("quarantine_discarded", quarantine_id=quarantine_id, user=request.state.caller)

    await in_thread(at.read, work)
    return RedirectResponse("/quarantine?done=discarded", 303)


async def policy(request: Request) -> Response:
    """Offer to try a policy: on an uploaded file, a quarantined object, or a stored instance."""
    at, given = door(request), request.query_params
    chosen, instance, quarantine_id = given.get("policy", ""), given.get("instance", "").strip(), given.get("quarantine", "")
    if not instance and not quarantine_id:
        return await _tester(request, None, chosen, "")

    def work() -> Explanation:
        if quarantine_id:
            return _explained(at.archive, at.archive.quarantine.open(quarantine_id), chosen)
        return _explained(at.archive, _stored(at.archive, uid(instance)), chosen)

    return await _tried(request, work, chosen)


async def try_policy(request: Request) -> Response:
    """Try a policy on what was uploaded; nothing of it is kept."""
    at = door(request)
    fields = await fields_of(request, LARGEST_FORM_BYTES)
    chosen, file = fields.get("policy", ""), fields.get("file", b"")
    if not isinstance(chosen, str) or not isinstance(file, bytes) or not file:
        return await _tester(request, None, "", "Choose a file first.", status=400)

    def work() -> Explanation:
        parts = part10.split(file)
        received = Received(parts.data_set, parts.transfer_syntax_uid, Origin.STOW, "policy tester")
        return _explained(at.archive, received, chosen)

    return await _tried(request, work, chosen)


ROUTES = [
    ("/quarantine", quarantine, ("GET",)),
    ("/quarantine/{quarantine}", quarantined, ("GET",)),
    ("/quarantine/{quarantine}/release", release_one, ("POST",)),
    ("/quarantine/{quarantine}/discard", discard_one, ("POST",)),
    ("/policy", policy, ("GET",)),
    ("/policy", try_policy, ("POST",)),
]


def _explained(archive: Archive, received: Received, chosen: str) -> Explanation:
    return explain(archive.deidentifier.under(chosen or archive.deidentifier.policy.name), received)


def _stored(archive: Archive, sop_instance_uid: str) -> Received:
    """Return a stored instance as it was sent, without pixels, or as it is where the vault knows nothing of it."""
    found = archive.index.locate(sop_instance_uids=[sop_instance_uid])
    if not found:
        raise NotFound("nothing is stored under this SOP Instance UID")
    originals = reidentify.Originals(archive) if archive.vault is not None else None
    return Received(retrieve.header(archive, found[0], originals), EXPLICIT_LITTLE_ENDIAN, Origin.IMPORT, "policy tester")


async def _tried(request: Request, work: Callable[[], Explanation], chosen: str) -> Response:
    try:
        found = await in_thread(door(request).draw, work)
    except NotUnderstood as error:
        return await _tester(request, None, chosen, f"This cannot be understood: {error}.", status=400)
    except ArchiveError as error:
        return await _tester(request, None, chosen, f"{error}.", status=404 if isinstance(error, NotFound) else 400)
    return await _tester(request, found, chosen, "")


async def _tester(request: Request, found: Explanation | None, chosen: str, problem: str, status: int = 200) -> Response:
    deidentifier = door(request).archive.deidentifier
    counts: dict[str, int] = {}
    for line in found.lines if found else ():
        counts[line.fate] = counts.get(line.fate, 0) + 1
    response = await show(
        request,
        "policy.html",
        found=found,
        counts=counts,
        kept=KEPT,
        chosen=chosen or deidentifier.policy.name,
        policies=sorted(deidentifier.policies.values(), key=lambda one: one.name),
        problem=problem,
    )
    response.status_code = status
    return response


async def _one(request: Request, problem: str, status: int = 200) -> Response:
    at, quarantine_id = door(request), request.path_params["quarantine"]

    def ask() -> tuple[QuarantineRow, str]:
        row = at.archive.index.quarantine.get(quarantine_id)
        received = at.archive.quarantine.open(quarantine_id)
        if received.origin is Origin.PROCESSOR:
            return row, ""
        try:
            at.archive.deidentifier.deidentify(received)
        except ArchiveError as error:
            return row, str(error)
        return row, ""

    row, again = await in_thread(at.read, ask)
    policies = sorted(at.archive.deidentifier.policies)
    response = await show(
        request,
        "quarantined.html",
        row=row,
        again=again,
        problem=problem,
        policies=policies,
        default=at.archive.deidentifier.policy.name,
    )
    response.status_code = status
    return response


async def fields_of(request: Request, largest: int = _FORM_BYTES) -> dict[str, str | bytes]:
    """Return the fields of a form: text as str, a file as bytes. Raises `InvalidQuery` for what is no form or too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            raise InvalidQuery(f"more than {largest >> 20} MiB cannot be tried here; use `pacs deid explain`")
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() == "application/x-www-form-urlencoded":
        return {name: said[-1] for name, said in parse_qs(body.decode("utf-8", "replace")).items()}
    boundary = rest.partition("boundary=")[2].strip().strip('"')
    if kind.strip().lower() != "multipart/form-data" or not boundary:
        raise InvalidQuery("the request is no form")
    reader = Reader(boundary, maximum_part_bytes=largest)
    fields: dict[str, str | bytes] = {}
    for part in reader.feed(bytes(body)):
        said = part.headers.get("content-disposition", "")
        name = said.partition(' name="')[2].partition('"')[0]
        assert isinstance(part.body, bytearray)
        content = bytes(part.body)
        fields[name] = content if "filename=" in said else content.decode("utf-8", "replace")
    return fields
