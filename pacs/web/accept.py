"""What the caller wants to have: Accept headers, the `accept` query parameter and media types (PS3.18 8.7).

Pure. Clients differ more than the standard: types quoted or not, `*` percent-encoded, `multipart/related; type="*/*"`. All of
them are read here, so that the services see a list of `MediaRange` in the caller's order of preference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from pacs.model.errors import ArchiveError


class NotAcceptable(ArchiveError):
    """None of the representations that the caller accepts can be made."""


class UnsupportedMediaType(ArchiveError):
    """The body is of a type that this service does not take."""


EXPLICIT_LE = "1.2.840.10008.1.2.1"

# PS3.18 Table 8.7.3-2 and 8.7.3-5: which media type carries which transfer syntax.
MEDIA_TYPES: dict[str, tuple[str, ...]] = {
    "image/jphc": ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),
    "image/jp2": ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    "image/jpx": ("1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"),
    "image/jls": ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    "image/jpeg": (
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
    ),
    "image/dicom-rle": ("1.2.840.10008.1.2.5",),
    "image/jxl": ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"),
    "video/mpeg": ("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.101"),
    "video/mp4": (
        "1.2.840.10008.1.2.4.102",
        "1.2.840.10008.1.2.4.103",
        "1.2.840.10008.1.2.4.104",
        "1.2.840.10008.1.2.4.105",
        "1.2.840.10008.1.2.4.106",
    ),
    "video/H265": ("1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108"),
}
_BY_SYNTAX = {uid: name for name, uids in MEDIA_TYPES.items() for uid in uids}


def media_type_of(transfer_syntax_uid: str) -> str:
    """Return the media type of one frame in `transfer_syntax_uid`; native frames are octets."""
    return _BY_SYNTAX.get(transfer_syntax_uid, "application/octet-stream")


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One entry of an Accept header. `wrapped` says that it is the `type` of multipart/related."""

    name: str
    transfer_syntax: str = ""
    wrapped: bool = False
    quality: float = 1.0
    parameters: Mapping[str, str] = field(default_factory=dict)

    def covers(self, media_type: str) -> bool:
        """Tell whether `media_type` ("image/png") falls in this range ("image/*")."""
        name, wanted = self.name.lower(), media_type.lower()
        return name in ("*/*", wanted) or (name.endswith("/*") and wanted.startswith(name[:-1]))


def parse_media_type(text: str) -> tuple[str, dict[str, str]]:
    """Split `multipart/related; type="application/dicom"; boundary=x` into its name and its parameters.

    >>> parse_media_type('multipart/related; type="application/dicom"; boundary="a;b"')
    ('multipart/related', {'type': 'application/dicom', 'boundary': 'a;b'})
    """
    name, *rest = _split(text, ";")
    parameters: dict[str, str] = {}
    for one in rest:
        key, equals, value = one.partition("=")
        if equals:
            parameters[key.strip().lower()] = _unquote(value.strip())
    return name.strip().lower(), parameters


def parse_accept(header: str, query: Iterable[str] = ()) -> list[MediaRange]:
    """Return the media ranges of an Accept header, best first; `accept` query parameters come before it (PS3.18 8.3.3.1).

    Nothing said means anything goes. Ranges with q=0 are left out; equal qualities keep their order.
    """
    wanted = [one for value in query for one in _ranges(value)]
    if not wanted:
        wanted = _ranges(header) or [MediaRange("*/*")]
    return sorted((one for one in wanted if one.quality > 0), key=lambda one: -one.quality)


def transfer_syntaxes(ranges: Sequence[MediaRange], media_type: str, *, default: str = EXPLICIT_LE) -> list[str]:
    """Return the transfer syntaxes that `ranges` allow for `media_type`, best first; "*" is "as stored" (PS3.18 8.7.3.5.3).

    Raises `NotAcceptable` if no range covers the type.
    """
    wanted = [one.transfer_syntax or default for one in ranges if one.covers(media_type)]
    if not wanted:
        raise NotAcceptable(f"only {media_type} can be made here")
    return list(dict.fromkeys(wanted))


def choose(stored: str, wanted: Iterable[str], reachable: Iterable[str]) -> str | None:
    """Return the first of `wanted` that an object in `stored` can be sent in, or None.

    >>> choose("1.2.840.10008.1.2.4.201", ["1.2.840.10008.1.2.4.50", "*"], ["1.2.840.10008.1.2.1"])
    '1.2.840.10008.1.2.4.201'
    """
    possible = {stored, *reachable}
    for one in wanted:
        if one == "*":
            return stored
        if one in possible:
            return one
    return None


def _ranges(header: str) -> list[MediaRange]:
    found = []
    for one in _split(header, ","):
        if not one.strip():
            continue
        name, parameters = parse_media_type(one)
        wrapped = name == "multipart/related"
        if wrapped:
            name = parameters.get("type", "*/*").lower()
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        found.append(MediaRange(name, unquote(parameters.get("transfer-syntax", "")), wrapped, quality, parameters))
    return found


def _split(text: str, separator: str) -> list[str]:
    """Split at `separator` outside quotation marks."""
    parts, start, quoted = [], 0, False
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return parts


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return value[1:-1].replace('\\"', '"')
    return value
