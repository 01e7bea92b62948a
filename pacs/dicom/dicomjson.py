"""The DICOM JSON Model (PS3.18 Annex F): a data set, or the attributes of a query answer, as what `json.dumps` takes."""

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pacs.dicom import elements as walking
from pacs.dicom import nested, values
from pacs.dicom.dictionary import tag_of, vr_of
from pacs.model.instance import Element

BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_NAME_PARTS = ("Alphabetic", "Ideographic", "Phonetic")


def to_json(
    elements: Iterable[Element],
    *,
    bulk_data_uri: Callable[[str], str] | None,
    inline_limit: int = 1024,
) -> dict[str, Any]:
    """Return the data set in the DICOM JSON Model, in tag order; group lengths are left out.

    Parameters
    ----------
    bulk_data_uri : callable, optional
        Takes the path of an element ("7FE00010", nested "00081115/0/00081199") and returns where its value can be fetched.
        Without it Pixel Data has its VR and nothing else.
    inline_limit : int
        Bytes up to which binary values other than Pixel Data stand in the answer itself.
    """
    return _data_set(elements, bulk_data_uri, inline_limit, "", values.DEFAULT_CHARSETS)


def attributes_to_json(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Return the attributes of a query answer (keyword -> value) in the DICOM JSON Model; an empty value has no Value."""
    rows = sorted((tag_of(keyword), value) for keyword, value in attributes.items())
    return {f"{tag:08X}": _attribute(vr_of(tag), value) for tag, value in rows}


def _attribute(vr: str, value: str) -> dict[str, Any]:
    if not value:
        return {"vr": vr}
    if vr == "SQ":
        return {"vr": vr, "Value": [_item(one) for one in nested.from_text(value)]}
    parts = [value] if vr in values.UNSPLIT_VRS else value.split("\\")
    if vr in ("US", "SS", "UL", "SL", "SV", "UV"):
        return {"vr": vr, "Value": [int(part) for part in parts]}
    if vr in ("FL", "FD"):
        return {"vr": vr, "Value": [_finite(float(part)) for part in parts]}
    return {"vr": vr, "Value": [_value(vr, part) for part in parts]}


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item of `pacs.dicom.nested`."""
    found: dict[str, Any] = {}
    for keyword in sorted(item, key=tag_of):
        tag, value = tag_of(keyword), item[keyword]
        within = {"vr": "SQ", "Value": [_item(one) for one in value]} if isinstance(value, list) else None
        found[f"{tag:08X}"] = within or _attribute(vr_of(tag), value)
    return found


def _data_set(
    elements: Iterable[Element],
    bulk_data_uri: Callable[[str], str] | None,
    inline_limit: int,
    path: str,
    charsets: tuple[str, ...],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in elements:
        if one.tag == values.SPECIFIC_CHARACTER_SET:
            # The JSON itself is UTF-8 whatever the data set was (PS3.18 F.2.2).
            charsets = values.charsets_of(bytes(one.value))
        if one.tag & 0xFFFF == 0:
            continue
        name = f"{one.tag:08X}"
        if one.vr == "SQ":
            found[name] = _sequence(one, bulk_data_uri, inline_limit, f"{path}{name}/", charsets)
        elif one.tag in _PIXELS or one.undefined_length or (one.vr in BULK_VRS and len(one.value) > inline_limit):
            found[name] = {"vr": one.vr} if bulk_data_uri is None else {"vr": one.vr, "BulkDataURI": bulk_data_uri(path + name)}
        elif one.vr in BULK_VRS:
            found[name] = (
                {"vr": one.vr, "InlineBinary": base64.b64encode(one.value).decode("ascii")}
                if len(one.value)
                else {"vr": one.vr}
            )
        else:
            found[name] = _leaf(one, charsets)
    return found


def _sequence(
    one: Element, bulk_data_uri: Callable[[str], str] | None, inline_limit: int, path: str, charsets: tuple[str, ...]
) -> dict[str, Any]:
    nested = [
        _data_set(item, bulk_data_uri, inline_limit, f"{path}{number}/", charsets)
        for number, item in enumerate(walking.items(one.value))
    ]
    return {"vr": "SQ", "Value": nested} if nested else {"vr": "SQ"}


def _leaf(one: Element, charsets: tuple[str, ...]) -> dict[str, Any]:
    if one.vr == "AT":
        found: list[Any] = [f"{tag:08X}" for tag in values.tags(one)]
    elif one.vr in ("US", "SS", "UL", "SL", "SV", "UV", "FL", "FD"):
        found = [_finite(number) for number in values.numbers(one)]
    else:
        found = [_value(one.vr, value) for value in values.text(one, charsets)]
    if one.tag == values.SPECIFIC_CHARACTER_SET:
        found = ["ISO_IR 192"]
    return {"vr": one.vr, "Value": found} if found else {"vr": one.vr}


def _value(vr: str, value: str) -> Any:
    if not value:
        return None
    if vr == "PN":
        groups = [group.rstrip("^ ") for group in value.split("=")]
        return {name: group for name, group in zip(_NAME_PARTS, groups, strict=False) if group}
    if vr == "IS":
        return _number(value, int)
    if vr == "DS":
        return _number(value, float)
    return value


def _number(value: str, kind: Callable[[str], int | float]) -> int | float | str:
    """Return the number, or the string as it stands where it is none (PS3.18 F.2.3 allows both for IS and DS)."""
    try:
        number = kind(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _finite(value: int | float) -> int | float | str:
    """JSON has no number for these; PS3.18 F.2.3.1 says to write words."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
