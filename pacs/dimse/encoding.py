"""Data sets of answers as bytes, from rows of tag, VR and text; pure.

PS3.5 7.1 (little endian, explicit and implicit) and 7.5 (sequences), PS3.3 C.12.1.1.2 (character sets).
"""

import struct
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from pacs.dicom import elements, nested, values
from pacs.dicom.dictionary import tag_of, vr_of

NestedKeys: TypeAlias = dict[str, "NestedKeys"]
"""The keys that an item of a sequence key names, and theirs; none for the whole sequence."""
_NUMBER_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_LONG_VRS = elements.LONG_VRS


def encode(rows: Iterable[tuple[int, str, bytes]], *, explicit: bool) -> bytes:
    """Return a little endian data set of (tag, VR, value) in tag order, values padded (PS3.5 7.1)."""
    out: list[bytes] = []
    for tag, vr, value in rows:
        if len(value) % 2:
            value += b"\0" if vr in ("UI", "OB", "UN") else b" "
        if explicit and vr not in _LONG_VRS and len(value) > 0xFFFF:
            vr = "UN"  # PS3.5 6.2.2: a value too long for its VR's 16-bit length travels as UN
        if not explicit:
            head = struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value))
        elif vr in _LONG_VRS:
            head = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value))
        else:
            head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value))
        out += (head, value)
    return b"".join(out)


def texts(items: nested.Items) -> Iterator[str]:
    """Yield every text within items."""
    for value in (value for item in items for value in item.values()):
        if isinstance(value, list):
            yield from texts(value)
        else:
            yield value


def sequence(items: nested.Items, wanted: NestedKeys, codec: str, explicit: bool) -> bytes:
    """Return the value of a sequence: each item with the keys that were asked for, or with all where none was named."""
    out = []
    for item in items:
        rows: list[tuple[int, str, bytes]] = []
        for keyword in wanted or item:
            tag, value = tag_of(keyword), item.get(keyword, "")
            if isinstance(value, list):
                rows.append((tag, "SQ", sequence(value, wanted.get(keyword, {}), codec, explicit)))
            else:
                rows.append((tag, vr_of(tag), value_bytes(vr_of(tag), value, codec) if vr_of(tag) != "SQ" else b""))
        body = encode(sorted(rows), explicit=explicit)
        out.append(struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body)
    return b"".join(out)


def answer_charset(rows: Iterable[tuple[str, str]], requested: str) -> tuple[str, str]:
    """Return the Specific Character Set of an answer and its codec: none for ASCII, the asked one if it fits, else UTF-8."""
    text = "".join(value for vr, value in rows if vr in values.CHARSET_VRS)
    if text.isascii():
        return "", "ascii"
    if requested and "\\" not in requested and not requested.startswith("ISO 2022"):
        codec = values.charsets_of(requested.encode("ascii"))[0]
        try:
            text.encode(codec)
        except UnicodeEncodeError:
            pass
        else:
            return requested, codec
    return "ISO_IR 192", "utf-8"


def value_bytes(vr: str, text: str, codec: str) -> bytes:
    """Return a value of an answer encoded; empty where a number is none."""
    if not text:
        return b""
    form = _NUMBER_FORMATS.get(vr)
    if form is not None:
        convert = float if form in "fd" else int
        try:
            return b"".join(struct.pack(f"<{form}", convert(part)) for part in text.split("\\"))
        except (ValueError, struct.error):
            return b""
    return text.encode(codec if vr in values.CHARSET_VRS else "ascii", "replace")
