"""Data sets of messages that are no images: bytes to the DICOM JSON Model and back; pure.

Worklist, performed procedure steps and workitems are nested and may hold any attribute. They are decoded as the web door shows
data sets, and encoded in either VR form, in the character set that was asked for if it holds the text, else in UTF-8.
"""

import base64
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from pacs.dicom import dicomjson, elements
from pacs.dicom.values import CHARSET_VRS
from pacs.dimse import encoding, identifier
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Buffer
from pacs.workflow.attributes import Attributes, as_text

_ITEM = struct.Struct("<HHI")


def decode(data: Buffer | None, transfer_syntax_uid: str) -> tuple[Attributes, str]:
    """Return a message's data set and its Specific Character Set as it was said. Raises `NotUnderstood`."""
    if not data:
        raise NotUnderstood("the request has no data set")
    found = elements.read(data, transfer_syntax_uid)
    character_set, _ = identifier.declared_charset(found)
    decoded = dicomjson.to_json(found, bulk_data_uri=None, inline_limit=1 << 16)
    return {name: element for name, element in decoded.items() if element["vr"] != "UN"}, character_set


def of_ours(data_set: Mapping[str, Any]) -> Attributes:
    """Return a data set without Specific Character Set, which only its transport needs."""
    return {name: element for name, element in data_set.items() if name != "00080005"}


def encode(data_set: Mapping[str, Any], *, explicit: bool, character_set: str = "") -> bytes:
    """Return the data set little endian, with Specific Character Set where a value is not ASCII."""
    term, codec = encoding.answer_charset([("LO", one) for one in _texts(data_set)], character_set)
    whole = {**data_set, "00080005": {"vr": "CS", "Value": [term]}} if term else dict(data_set)
    return _encode(whole, explicit, codec)


def _encode(data_set: Mapping[str, Any], explicit: bool, codec: str) -> bytes:
    rows = []
    for name, element in sorted(data_set.items()):
        vr = element["vr"]
        if vr == "SQ":
            bodies = [_encode(one, explicit, codec) for one in element.get("Value", ())]
            value = b"".join(_ITEM.pack(0xFFFE, 0xE000, len(body)) + body for body in bodies)
        elif "InlineBinary" in element:
            value = base64.b64decode(element["InlineBinary"])
        elif vr == "AT":
            tags = [int(one, 16) for one in element.get("Value", ())]
            value = b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in tags)
        else:
            value = encoding.value_bytes(vr, "\\".join(as_text(one) for one in element.get("Value", ())), codec)
        rows.append((int(name, 16), vr, value))
    return encoding.encode(rows, explicit=explicit)


def _texts(data_set: Mapping[str, Any]) -> Iterator[str]:
    for element in data_set.values():
        for one in element.get("Value", ()):
            if element["vr"] == "SQ":
                yield from _texts(one)
            elif element["vr"] in CHARSET_VRS:
                yield as_text(one)
