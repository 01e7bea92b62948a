"""WADO-RS: retrieve instances, metadata, frames and bulk data (PS3.18 10.4, 8.7).

Everything is looked up and negotiated before the first byte goes out; after that a failure can only break the connection.
Instances and frames are served as stored where the caller allows it, so that the server decodes as little as possible.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import partial

import orjson
from starlette.requests import Request
from starlette.responses import Response

from pacs import reidentify
from pacs import retrieve as way_out
from pacs.archive import Archive
from pacs.codec.large import Stream as Made
from pacs.dicom import dicomjson, elements
from pacs.model.errors import InvalidQuery, NotFound, NotTranscodable
from pacs.model.instance import Buffer, InstanceKey, Stored
from pacs.web.accept import (
    EXPLICIT_LE,
    MEDIA_TYPES,
    MediaRange,
    NotAcceptable,
    choose,
    media_type_of,
    parse_accept,
    transfer_syntaxes,
)
from pacs.web.auth import sees_originals
from pacs.web.bodies import in_parts, json_array, pieces, ranged, started
from pacs.web.door import Door, Stream, ahead, door, in_thread, made, not_modified, service_url, takes_gzip, uid

PIXEL_DATA = "7FE00010"
METADATA_BATCH = 16
MAXIMUM_FRAMES = 100_000
VARY = {"Vary": "Accept, Accept-Encoding, Authorization, Cookie"}


async def retrieve(request: Request) -> Response:
    """Retrieve a study, a series or an instance: multipart, or one Part 10 file (PS3.18 10.4.1.1)."""
    at, ranges, found = await _begin(request)
    wanted = transfer_syntaxes(ranges, "application/dicom")
    named = any(one.transfer_syntax for one in ranges)
    chosen: list[tuple[Stored, str]] = []
    for stored in found:
        syntax = choose(stored.transfer_syntax_uid, wanted, at.archive.codec.reachable(stored.transfer_syntax_uid))
        if syntax is None and not named:
            # Table 8.7.3-2: video has no uncompressed form; who names no transfer syntax gets it as it is.
            syntax = stored.transfer_syntax_uid
        if syntax is not None:
            chosen.append((stored, syntax))
    if not chosen:
        raise NotTranscodable("none of the transfer syntaxes asked for can be made from what is stored")
    single = "instance" in request.path_params and _first_covering(ranges, "application/dicom").name == "application/dicom"
    single = single and not _first_covering(ranges, "application/dicom").wrapped
    originals = request.state.originals
    etag = etag_of(found, _form(originals, "dicom"), *sorted({syntax for _, syntax in chosen}), weak=not single)
    known = not_modified(request, etag)
    if known:
        return known
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", **VARY}
    if single:
        stored, syntax = chosen[0]
        buffers = await in_thread(at.read, way_out.part10_file, at.archive, stored, _accepted(stored, syntax), originals)
        size = buffers.size_bytes if isinstance(buffers, Made) else sum(len(memoryview(one)) for one in buffers)
        if size is not None:
            headers["Content-Length"] = str(size)
        headers["Content-Disposition"] = f'attachment; filename="{_key(originals, stored).sop_instance_uid}.dcm"'
        return Stream(made(buffers, at.read), 200, headers, media_type=f"application/dicom; transfer-syntax={syntax}")
    base = service_url(request)
    calls = (partial(_file, at.archive, stored, syntax, base, originals) for stored, syntax in chosen)
    status = 200 if len(chosen) == len(found) else 206
    return await in_parts(at, calls, "application/dicom", status, headers)


async def metadata(request: Request) -> Response:
    """Retrieve everything but bulk data, as JSON (PS3.18 10.4.1.1.2, Annex F)."""
    at, ranges, found = await _begin(request)
    if not any(one.covers("application/dicom+json") or one.covers("application/json") for one in ranges):
        raise NotAcceptable("metadata is made as application/dicom+json only")
    zipped = takes_gzip(request)
    etag = etag_of(found, _form(request.state.originals, "metadata"), str(zipped), weak=True)
    known = not_modified(request, etag)
    if known:
        return known
    base = service_url(request)
    batches = [found[start : start + METADATA_BATCH] for start in range(0, len(found), METADATA_BATCH)]
    calls = (partial(_metadata, at.archive, batch, base, request.state.originals) for batch in batches)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", **VARY}
    if zipped:
        headers["Content-Encoding"] = "gzip"
    source = await started(ahead(calls, at.read))
    return Stream(json_array(source, zipped), 200, headers, media_type="application/dicom+json")


async def frames(request: Request) -> Response:
    """Retrieve frames of an instance, in the order asked for (PS3.18 10.4.1.1.6)."""
    at, ranges, found = await _begin(request)
    stored = found[0]
    if not has_pixels(stored):
        raise NotFound("this instance has no frames")
    numbers = frame_numbers(request.path_params["frames"], stored.number_of_frames)
    content_type, syntax = _frame_form(ranges, stored, at.archive.codec.reachable(stored.transfer_syntax_uid))
    etag = etag_of(found, "frames", request.path_params["frames"], syntax, content_type, weak=True)
    known = not_modified(request, etag)
    if known:
        return known
    headers = {"ETag": etag, "Cache-Control": "private, max-age=86400, immutable", **VARY}
    covering = _first_covering(ranges, content_type)
    accepted = _accepted(stored, syntax)
    part_type = f"{content_type}; transfer-syntax={syntax}"
    if covering.name != "*/*" and not covering.wrapped and len(numbers) == 1:
        one = await in_thread(at.read, way_out.frame, at.archive, stored, numbers[0], accepted)
        return Response(one.data, 200, headers, media_type=part_type)
    place = f"{instance_url(service_url(request), stored, request.state.originals)}/frames"

    def call(number: int) -> tuple[str, str, Sequence[Buffer]]:
        one = way_out.frame(at.archive, stored, number, accepted)
        return part_type, f"{place}/{number}", (one.data,)

    return await in_parts(at, (partial(call, number) for number in numbers), content_type, 200, headers, depth=4)


async def bulkdata(request: Request) -> Response:
    """Retrieve the value of one element, at the place that metadata named (PS3.18 10.4.1.1.5); ranges of bytes too."""
    at, ranges, found = await _begin(request)
    stored, path = found[0], request.path_params["path"].upper()
    if path == PIXEL_DATA and has_pixels(stored):
        return await _pixel_data(request, at, ranges, stored)
    if not any(one.covers("application/octet-stream") for one in ranges):
        raise NotAcceptable("bulk data is made as application/octet-stream only")
    value = await in_thread(at.read, _value_at, at.archive, stored, path, request.state.originals)
    etag = etag_of(found, _form(request.state.originals, "bulk"), path, weak=False)
    known = not_modified(request, etag)
    if known:
        return known
    headers = {"ETag": etag, "Cache-Control": "private, max-age=86400, immutable", **VARY}
    if _first_covering(ranges, "application/octet-stream").wrapped:
        part = ("application/octet-stream", str(request.url.replace(query="")), (value,))
        return await in_parts(at, (lambda: part,), "application/octet-stream", 200, headers)
    return ranged(request, value, headers)


async def _pixel_data(request: Request, at: Door, ranges: Sequence[MediaRange], stored: Stored) -> Response:
    """Pixel Data as bulk data: every frame a part, or all of them one uncompressed run of bytes."""
    content_type, syntax = _frame_form(ranges, stored, at.archive.codec.reachable(stored.transfer_syntax_uid))
    headers = {
        "ETag": etag_of([stored], "pixels", syntax, weak=True),
        "Cache-Control": "private, max-age=86400, immutable",
        **VARY,
    }
    known = not_modified(request, headers["ETag"])
    if known:
        return known
    covering = _first_covering(ranges, content_type)
    if syntax == EXPLICIT_LE:
        value = await in_thread(at.read, way_out.native_pixels, at.archive, stored)
        if covering.wrapped or covering.name == "*/*":
            part = (f"{content_type}; transfer-syntax={syntax}", str(request.url.replace(query="")), pieces(value))
            return await in_parts(at, (lambda: part,), content_type, 200, headers)
        headers["ETag"] = etag_of([stored], "pixels", syntax, weak=False)
        return ranged(request, value, headers)
    if not covering.wrapped and stored.number_of_frames > 1:
        raise NotAcceptable("several compressed frames are made as multipart/related only")

    def call(number: int) -> tuple[str, str, Sequence[Buffer]]:
        one = way_out.frame(at.archive, stored, number, _accepted(stored, syntax))
        return f"{content_type}; transfer-syntax={syntax}", "", (one.data,)

    calls = (partial(call, number) for number in range(1, stored.number_of_frames + 1))
    return await in_parts(at, calls, content_type, 200, headers)


async def _begin(request: Request) -> tuple[Door, list[MediaRange], list[Stored]]:
    """Read what every retrieval has: what the caller accepts and what the path names."""
    at = door(request)
    ranges = parse_accept(request.headers.get("accept", ""), request.query_params.getlist("accept"))
    return at, ranges, await located(request)


async def located(request: Request) -> list[Stored]:
    """Return the instances that the path names. Raises `NotFound` if there are none.

    For a caller that sees originals the path names those, and `request.state.originals` restores what is found.
    """
    named = request.path_params
    at = door(request)
    originals = await sees_originals(request)
    found = await in_thread(
        at.read,
        partial(reidentify.locate, at.archive) if originals else at.archive.index.locate,
        study_instance_uids=[uid(named["study"])],
        series_instance_uids=[uid(named["series"])] if "series" in named else (),
        sop_instance_uids=[uid(named["instance"])] if "instance" in named else (),
    )
    if not found:
        raise NotFound("nothing is stored under these UIDs")
    request.state.originals = None
    if originals:
        request.state.originals = reidentify.Originals(at.archive)
        who = request.state.caller
        await in_thread(
            at.read, partial(at.archive.index.note, "identity_restored", operation="WADO", caller=who, count=len(found))
        )
    return list(found)


def _form(originals: reidentify.Originals | None, name: str) -> str:
    """Name a representation; the restored one is another than the de-identified."""
    return name if originals is None else f"original {name}"


def _key(originals: reidentify.Originals | None, stored: Stored) -> InstanceKey:
    return stored.key if originals is None else originals.key(stored)


def has_pixels(stored: Stored) -> bool:
    """Tell whether an instance has frames: Rows is Type 1 wherever there is Pixel Data (PS3.3 C.7.6.3)."""
    return bool(stored.attributes.get("Rows")) and stored.number_of_frames > 0


def instance_url(base: str, stored: Stored, originals: reidentify.Originals | None = None) -> str:
    """Return the address of an instance, as its caller knows it."""
    key = _key(originals, stored)
    return f"{base}/studies/{key.study_instance_uid}/series/{key.series_instance_uid}/instances/{key.sop_instance_uid}"


def frame_numbers(text: str, number_of_frames: int) -> list[int]:
    """Read a list of frames; order is kept, ranges are allowed.

    >>> frame_numbers("3,1,4-", 6)
    [3, 1, 4, 5, 6]

    Raises `InvalidQuery` for what is no list, `NotFound` for a frame that is not there.
    """
    numbers: list[int] = []
    for one in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,7})\s*(-\s*(\d{1,7})?\s*)?", one)
        if not match:
            raise InvalidQuery("frames must be a list like 1,3-5")
        first = int(match[1])
        last = first if match[2] is None else int(match[3] or number_of_frames)
        if first < 1 or last > number_of_frames or first > last:
            raise NotFound(f"there are frames 1 to {number_of_frames}")
        numbers += range(first, last + 1)
        if len(numbers) > MAXIMUM_FRAMES:
            raise InvalidQuery("too many frames in one request")
    return numbers


def _frame_form(ranges: Sequence[MediaRange], stored: Stored, possible: Iterable[str]) -> tuple[str, str]:
    """Return (media type, transfer syntax) in which frames go out (PS3.18 Table 8.7.3-5)."""
    own = stored.transfer_syntax_uid
    possible = {own, *possible}
    for one in ranges:
        if one.name in ("*/*", "application/octet-stream"):
            syntax = choose(own, [one.transfer_syntax or EXPLICIT_LE], possible)
        elif one.transfer_syntax == "*":
            syntax = own if one.covers(media_type_of(own)) else None
        elif one.transfer_syntax:
            syntax = one.transfer_syntax if one.transfer_syntax in possible else None
            syntax = syntax if syntax and one.covers(media_type_of(syntax)) else None
        else:
            # Without a transfer syntax any of the media type will do; as stored costs nothing.
            of_type = [uid for name, uids in MEDIA_TYPES.items() if one.covers(name) for uid in uids]
            syntax = own if own in of_type else next((uid for uid in of_type if uid in possible), None)
        if syntax is not None:
            return media_type_of(syntax), syntax
    raise NotAcceptable("these frames cannot be made in any of the media types asked for")


def _first_covering(ranges: Sequence[MediaRange], media_type: str) -> MediaRange:
    octets = "application/octet-stream"
    fitting = (one for one in ranges if one.covers(media_type) or one.covers(octets))
    return next(fitting, MediaRange("*/*", wrapped=True))


def _accepted(stored: Stored, syntax: str) -> list[str] | None:
    return None if syntax == stored.transfer_syntax_uid else [syntax]


def _file(
    archive: Archive, stored: Stored, syntax: str, base: str, originals: reidentify.Originals | None
) -> tuple[str, str, Iterable[Buffer]]:
    buffers = way_out.part10_file(archive, stored, _accepted(stored, syntax), originals)
    return f"application/dicom; transfer-syntax={syntax}", instance_url(base, stored, originals), buffers


def _metadata(archive: Archive, batch: Sequence[Stored], base: str, originals: reidentify.Originals | None) -> list[bytes]:
    made = []
    for stored in batch:
        place = instance_url(base, stored, originals)
        walked = elements.walk(way_out.header(archive, stored, originals))
        found = dicomjson.to_json(walked, bulk_data_uri=lambda path, place=place: f"{place}/bulkdata/{path}")  # type: ignore[misc]
        # What the archive can say of itself (PS3.18 Table 10.6.3-5): how it is stored.
        found["00083002"] = {"vr": "UI", "Value": [stored.transfer_syntax_uid]}
        if has_pixels(stored):
            wide = stored.transfer_syntax_uid == EXPLICIT_LE and int(stored.attributes.get("BitsAllocated") or 8) > 8
            found[PIXEL_DATA] = {"vr": "OW" if wide else "OB", "BulkDataURI": f"{place}/bulkdata/{PIXEL_DATA}"}
        made.append(orjson.dumps(dict(sorted(found.items()))))
    return made


def _value_at(archive: Archive, stored: Stored, path: str, originals: reidentify.Originals | None) -> Buffer:
    """Return the value at a path like "00081115/0/00081199/2/00091001" of the header."""
    steps = path.split("/")
    if len(steps) % 2 == 0 or not all(
        re.fullmatch(r"[0-9A-F]{8}" if n % 2 == 0 else r"\d{1,6}", s) for n, s in enumerate(steps)
    ):
        raise InvalidQuery("the path of bulk data is malformed")
    level = elements.walk(way_out.header(archive, stored, originals))
    for position in range(0, len(steps), 2):
        found = elements.find(level, int(steps[position], 16))
        if found is None:
            raise NotFound("there is no such element")
        if position == len(steps) - 1:
            return found.value
        if found.vr != "SQ":
            raise NotFound("there is no such element")
        nested = elements.items(found.value)
        number = int(steps[position + 1])
        if number >= len(nested):
            raise NotFound("there is no such item")
        level = nested[number]
    raise NotFound("there is no such element")


def etag_of(found: Sequence[Stored], *form: str, weak: bool) -> str:
    """Name this representation by the content it is made of; it changes when an instance arrives or is replaced."""
    digest = hashlib.sha256("\0".join(form).encode())
    for one in found:
        digest.update(f"{one.key.sop_instance_uid} {one.version} {one.transfer_syntax_uid}".encode())
        digest.update(one.digest)
    return f'{"W/" if weak else ""}"{digest.hexdigest()[:32]}"'


def representative(found: Sequence[Stored]) -> Stored:
    """Return the instance that stands for a study or series: the middle one of the first series with pictures.

    Raises `NotFound` if nothing can be shown.
    """
    with_pixels = [one for one in found if has_pixels(one)]
    if not with_pixels:
        raise NotFound("there is nothing to show here")
    # Pictures of a body before masks and measurements made from them.
    plain = [one for one in with_pixels if one.attributes.get("Modality") not in ("SEG", "RTDOSE", "PR", "OT")] or with_pixels
    series = plain[0].key.series_instance_uid
    same = [one for one in plain if one.key.series_instance_uid == series]
    return same[len(same) // 2]
