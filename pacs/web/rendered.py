"""Rendered resources and thumbnails (PS3.18 10.4.1.1.3, 10.4.1.1.4, 8.3.5): a frame as image/jpeg or image/png."""

from functools import partial

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from pacs.archive import Archive
from pacs.dicom import elements
from pacs.model.errors import InvalidQuery, NotFound
from pacs.model.instance import Stored
from pacs.web import picture
from pacs.web.accept import NotAcceptable, parse_accept
from pacs.web.door import door, in_thread, not_modified
from pacs.web.picture import Viewport, Window
from pacs.web.wado import VARY, etag_of, frame_numbers, has_pixels, located, representative

THUMBNAIL = 160
LARGEST = 4096
MADE = ("image/jpeg", "image/png")
FUNCTIONS = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


async def rendered(request: Request) -> Response:
    """Render a frame; of a study or series, the one that stands for it."""
    return await _render(request, _viewport(request.query_params.get("viewport")))


async def thumbnail(request: Request) -> Response:
    """Render a small picture that stands for a study, series, instance or frame."""
    return await _render(request, _viewport(request.query_params.get("viewport")) or Viewport(THUMBNAIL, THUMBNAIL), small=True)


async def _render(request: Request, viewport: Viewport | None, *, small: bool = False) -> Response:
    at = door(request)
    media_type = _media_type(request)
    found = await located(request)
    stored = representative(found)
    number = 0
    if "frames" in request.path_params:
        numbers = frame_numbers(request.path_params["frames"], stored.number_of_frames)
        if len(numbers) != 1:
            raise NotAcceptable("one frame is rendered at a time")
        number = numbers[0]
    window = _window(request.query_params.get("window"))
    quality = _quality(request.query_params.get("quality"))
    form = (media_type, str(number), str(viewport), str(window), str(quality), str(small))
    etag = etag_of([stored], "picture", *form, weak=False)
    known = not_modified(request, etag)
    if known:
        return known
    make = partial(_draw, at.archive, stored, number, window, viewport, media_type, quality, small)
    data = await in_thread(at.draw, make)
    # The picture of one instance never changes; which one stands for a series may.
    fixed = "instance" in request.path_params
    headers = {"ETag": etag, "Cache-Control": f"private, max-age={3600 if fixed else 30}", **VARY}
    warned = [name for name in ("annotation", "iccprofile") if name in request.query_params]
    if warned:
        headers["Warning"] = f'299 - "{" and ".join(warned)} not supported and ignored"'
    return Response(data, 200, headers, media_type=media_type)


def _draw(
    archive: Archive,
    stored: Stored,
    number: int,
    window: Window | None,
    viewport: Viewport | None,
    media_type: str,
    quality: int,
    small: bool,
) -> bytes:
    """Decode, draw and encode; runs in a thread."""
    if not has_pixels(stored):
        raise NotFound("there is nothing to show here")
    number = number or _middle(archive, stored, small)
    header, data = archive.sealer.open_frame(stored, archive.objects, number)
    pixels = archive.codec.pixels(header, data, stored.transfer_syntax_uid)
    shown = picture.draw(elements.walk(header), pixels, number=number, window=window, viewport=viewport, small=small)
    return picture.encode(shown, media_type, quality)


def _middle(archive: Archive, stored: Stored, small: bool) -> int:
    """Choose the frame that stands for an instance: the middle one, or of a segmentation the fullest of a few."""
    if not small:
        return 1
    middle = stored.number_of_frames // 2 + 1 if stored.number_of_frames > 1 else 1
    if stored.sop_class_uid != _SEGMENTATION or stored.number_of_frames < 2:
        return middle
    step = max(1, stored.number_of_frames // 12)
    best, most = middle, -1
    for number in range(1, stored.number_of_frames + 1, step):
        header, data = archive.sealer.open_frame(stored, archive.objects, number)
        filled = int(np.count_nonzero(archive.codec.pixels(header, data, stored.transfer_syntax_uid)))
        if filled > most:
            best, most = number, filled
    return best


def _media_type(request: Request) -> str:
    ranges = parse_accept(request.headers.get("accept", ""), request.query_params.getlist("accept"))
    for one in ranges:
        for name in MADE:
            if one.covers(name):
                return name
    raise NotAcceptable("pictures are made as image/jpeg and image/png")


def _window(text: str | None) -> Window | None:
    """Read `center,width[,function]` (PS3.18 8.3.5.1.4)."""
    if not text:
        return None
    parts = text.split(",")
    try:
        center, width = float(parts[0]), float(parts[1])
        function = parts[2].strip().upper().replace("-", "_") if len(parts) > 2 else "LINEAR"
    except (ValueError, IndexError) as error:
        raise InvalidQuery("window must be center,width,function") from error
    if not (abs(center) < 1e9 and 0 < width < 1e9) or function not in FUNCTIONS or len(parts) > 3:
        raise InvalidQuery("window must be center,width,function with a positive width and linear, linear-exact or sigmoid")
    return Window(center, width, function)


def _viewport(text: str | None) -> Viewport | None:
    """Read `width,height[,left,top,source width,source height]` (PS3.18 8.3.5.1.3)."""
    if not text:
        return None
    parts = text.split(",")
    try:
        width, height = int(parts[0]), int(parts[1])
        rest = [float(one) if one.strip() else 0.0 for one in parts[2:]]
    except (ValueError, IndexError) as error:
        raise InvalidQuery("viewport must be width,height or width,height,x,y,width,height") from error
    if len(rest) not in (0, 4) or not (1 <= width <= LARGEST and 1 <= height <= LARGEST):
        raise InvalidQuery(f"viewport must be width,height or width,height,x,y,width,height, at most {LARGEST} each")
    if not all(-1e6 < one < 1e6 for one in rest):
        raise InvalidQuery("viewport names a place outside any image")
    # A negative size asks for a flipped picture; that is not made here.
    if any(one < 0 for one in rest[2:]):
        raise NotAcceptable("flipped pictures are not made here")
    return Viewport(width, height, *rest)


def _quality(text: str | None) -> int:
    if not text:
        return 90
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise InvalidQuery("quality must be a whole number from 1 to 100")
    return int(text)
