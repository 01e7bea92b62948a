"""STOW-RS: store instances (PS3.18 10.5, Annex I).

Parts are taken in while the message is still arriving: at most a few are held at once, and each goes through `pacs.ingest`,
the same way in that C-STORE uses. The answer names the archive's own UIDs for what was stored, so that the caller can find
its instances again, and the sent UIDs for what was not.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response

from pacs.archive import Archive
from pacs.dicom import large, values
from pacs.ingest import ingest
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, DataSetMismatch, NotUnderstood, Unavailable
from pacs.model.instance import Origin, Received, Stored
from pacs.store.scratch import Arriving
from pacs.web.accept import NotAcceptable, UnsupportedMediaType, parse_accept, parse_media_type
from pacs.web.door import Door, door, in_thread, json_response, service_url, uid
from pacs.web.multipart import Part, Reader
from pacs.web.status import Stalled, TooLarge, failure_reason, http_status

log = get_logger(__name__)
IN_FLIGHT = 4
IN_FLIGHT_BYTES = 256 << 20
STALLED_S = 60.0
"""Seconds of silence within a body after which the sender is given up."""
_SOP_CLASS, _SOP_INSTANCE, _STUDY = 0x00080016, 0x00080018, 0x0020000D


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one part: `stored`, or `error` and what the part said it was."""

    stored: Stored | None = None
    error: BaseException | None = None
    sop_class_uid: str = ""
    sop_instance_uid: str = field(default="", repr=False)


async def store(request: Request) -> Response:
    """Take in the instances of the request's body, as they arrive."""
    at = door(request)
    study = uid(request.path_params["study"]) if "study" in request.path_params else ""
    ranges = parse_accept(request.headers.get("accept", ""), request.query_params.getlist("accept"))
    if not any(one.covers("application/dicom+json") or one.covers("application/json") for one in ranges):
        raise NotAcceptable("the answer is made as application/dicom+json only")
    parts = _parts(request, at)
    try:
        at.uploads.acquire_nowait()
    except anyio.WouldBlock as error:
        raise Unavailable("too many uploads at once") from error
    association = f"stow-{uuid.uuid4()}"
    try:
        outcomes, ended_by = await _take_in(at, parts, study, association, request.state.caller)
    finally:
        await parts.aclose()
        at.uploads.release()
        with anyio.CancelScope(shield=True):
            await in_thread(at.store, at.archive.index.end_association, association)
    if not outcomes and ended_by is not None:
        raise ended_by
    status = _status(outcomes, ended_by)
    log.info(
        "instances_stored_by_stow",
        count=sum(one.stored is not None for one in outcomes),
        failed=sum(one.stored is None for one in outcomes),
        http_status=status,
    )
    return json_response(request, answer(outcomes, service_url(request)), status=status)


def _parts(request: Request, at: Door) -> AsyncGenerator[Part, None]:
    """Check the head of the request and return its parts as they arrive."""
    web = at.settings.web
    maximum = web.maximum_upload_mb << 20
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > maximum:
        raise TooLarge(f"the body is larger than {web.maximum_upload_mb} MiB (web.maximum_upload_mb)")
    maximum_part = min(at.settings.dicom.maximum_object_mb << 20, maximum)
    name, parameters = parse_media_type(request.headers.get("content-type", ""))
    if name == "application/dicom":
        return _single(request, at, maximum_part)
    if name != "multipart/related":
        raise UnsupportedMediaType("send multipart/related; type=application/dicom, or application/dicom")
    if parameters.get("type", "application/dicom").lower() != "application/dicom":
        raise UnsupportedMediaType("of multipart/related only type=application/dicom is taken")
    new_body = partial(Arriving, at.archive.intake)
    return _several(
        request, Reader(parameters.get("boundary", ""), maximum_part_bytes=maximum_part, new_body=new_body), at, maximum
    )


async def _chunks(request: Request, maximum: int) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives; give up on one that is too large or does not go on."""
    stream, total = request.stream(), 0
    while True:
        try:
            async with asyncio.timeout(STALLED_S):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            raise Stalled(f"nothing came for {STALLED_S:.0f} seconds") from error
        if chunk is None:
            return
        total += len(chunk)
        if total > maximum:
            raise TooLarge("the body is larger than the settings allow")
        yield chunk


async def _single(request: Request, at: Door, maximum: int) -> AsyncGenerator[Part, None]:
    body = Arriving(at.archive.intake)
    async for chunk in _chunks(request, maximum):
        body = await in_thread(at.store, body.__iadd__, chunk) if body.spilled else body.__iadd__(chunk)
    yield Part({"content-type": "application/dicom"}, body)


async def _several(request: Request, reader: Reader, at: Door, maximum: int) -> AsyncGenerator[Part, None]:
    async for chunk in _chunks(request, maximum):
        body = reader.body
        if isinstance(body, Arriving) and body.spilled:
            # It is sealed and written to disk: that is not for the event loop.
            parts = await in_thread(at.store, lambda chunk=chunk: list(reader.feed(chunk)))
        else:
            parts = list(reader.feed(chunk))
        for part in parts:
            yield part
    last = reader.finish()
    if last is not None:
        yield last


async def _take_in(
    at: Door, parts: AsyncIterator[Part], study: str, association: str, source: str
) -> tuple[list[Outcome], ArchiveError | None]:
    """Ingest parts as they come, a few at once, in order; return what became of each and what ended the message early."""
    outcomes: list[Outcome] = []
    running: deque[tuple[int, asyncio.Task[Outcome]]] = deque()
    ended_by: ArchiveError | None = None

    async def settle(room: int, size: int) -> None:
        while running and (len(running) > room or sum(held for held, _ in running) + size > IN_FLIGHT_BYTES):
            outcomes.append(await running.popleft()[1])

    try:
        try:
            async for part in parts:
                size = len(part.body)
                await settle(IN_FLIGHT - 1, size)
                task = asyncio.create_task(in_thread(at.store, store_part, at.archive, part, study, association, source))
                running.append((size, task))
        except ArchiveError as error:
            ended_by = error
        await settle(0, IN_FLIGHT_BYTES + 1)
    finally:
        # The client went away: what is being stored is finished, and nothing new begins.
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)
    return outcomes, ended_by


def store_part(archive: Archive, part: Part, study: str, association: str, source: str) -> Outcome:
    """Store one part; what goes wrong is in the outcome, because its neighbours must not suffer."""
    said = Outcome()
    content = part.body.content() if isinstance(part.body, Arriving) else bytes(part.body)
    try:
        if part.oversized:
            raise TooLarge("this instance is larger than the settings allow (dicom.maximum_object_mb)")
        if part.truncated:
            raise NotUnderstood("the message ended within this instance")
        if parse_media_type(part.headers.get("content-type", "application/dicom"))[0] != "application/dicom":
            raise UnsupportedMediaType("a part is not application/dicom")
        file = large.split(content)
        said = Outcome(sop_class_uid=file.sop_class_uid, sop_instance_uid=file.sop_instance_uid)
        if study or not (said.sop_class_uid and said.sop_instance_uid):
            found = _identity(file)
            said = Outcome(
                sop_class_uid=said.sop_class_uid or found.get(_SOP_CLASS, ""),
                sop_instance_uid=said.sop_instance_uid or found.get(_SOP_INSTANCE, ""),
            )
            # PS3.18 10.5.1.1.1: instances of another study are not stored here.
            if study and found.get(_STUDY) != study:
                raise DataSetMismatch("the instance is of another study than the one that the URL names")
        received = Received(
            data_set=file.data_set,
            transfer_syntax_uid=file.transfer_syntax_uid,
            origin=Origin.STOW,
            source=source,
            sop_class_uid=file.sop_class_uid,
            sop_instance_uid=file.sop_instance_uid,
            association=association,
        )
        return replace(said, stored=ingest(archive, received))
    except ArchiveError as error:
        return replace(said, error=error)
    except Exception as error:
        log.exception("stow_part_failed", error)
        return replace(said, error=error)
    finally:
        archive.intake.release(content)


def _identity(file: large.File) -> dict[int, str]:
    wanted = (_SOP_CLASS, _SOP_INSTANCE, _STUDY)
    found = (one for one in large.read(file.data_set, file.transfer_syntax_uid) if one.tag in wanted)
    return {one.tag: "".join(values.text(one)[:1]) for one in found}


def _status(outcomes: Sequence[Outcome], ended_by: ArchiveError | None) -> int:
    """Choose the status of the whole (PS3.18 Table 10.5.3-1)."""
    stored = sum(one.stored is not None for one in outcomes)
    if stored == len(outcomes) and ended_by is None and stored:
        return 200
    if stored:
        return 202
    errors = [one.error for one in outcomes if one.error is not None] + ([ended_by] if ended_by else [])
    found = {http_status(error) for error in errors}
    # All failed alike: that number says it best (400, 413, 415, 503, 507); else a conflict in the request.
    return found.pop() if len(found) == 1 else 409


def answer(outcomes: Sequence[Outcome], base: str) -> dict[str, Any]:
    """Return the Store Instances Response in the DICOM JSON Model (PS3.18 Annex I.2)."""
    stored = [one.stored for one in outcomes if one.stored is not None]
    failed = [one for one in outcomes if one.stored is None]
    named = [one for one in failed if one.sop_class_uid and one.sop_instance_uid]
    nameless = [one for one in failed if not (one.sop_class_uid and one.sop_instance_uid)]
    body: dict[str, Any] = {}
    studies = {one.key.study_instance_uid for one in stored}
    if len(studies) == 1:
        body["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{studies.pop()}"]}
    if named:
        body["00081198"] = {
            "vr": "SQ",
            "Value": [{**_reference(one.sop_class_uid, one.sop_instance_uid), **_reason(one)} for one in named],
        }
    if stored:
        body["00081199"] = {"vr": "SQ", "Value": [_stored(one, base) for one in stored]}
    if nameless:
        body["0008119A"] = {"vr": "SQ", "Value": [_reason(one) for one in nameless]}
    return body


def _stored(stored: Stored, base: str) -> dict[str, Any]:
    key = stored.key
    url = f"{base}/studies/{key.study_instance_uid}/series/{key.series_instance_uid}/instances/{key.sop_instance_uid}"
    return {**_reference(stored.sop_class_uid, key.sop_instance_uid), "00081190": {"vr": "UR", "Value": [url]}}


def _reference(sop_class_uid: str, sop_instance_uid: str) -> dict[str, Any]:
    return {"00081150": {"vr": "UI", "Value": [sop_class_uid]}, "00081155": {"vr": "UI", "Value": [sop_instance_uid]}}


def _reason(outcome: Outcome) -> dict[str, Any]:
    assert outcome.error is not None
    return {"00081197": {"vr": "US", "Value": [failure_reason(outcome.error)]}}
