"""Data sets without pixels in the DICOM JSON Model (PS3.18 Annex F): made from keywords, read, and checked; pure.

The worklist, performed procedure steps and workitems are such data sets: nested, of any attribute, and never large. The model
serves them as it stands: it is what is sealed, what DICOMweb speaks, and what the DIMSE door encodes.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pacs.dicom.dictionary import is_known, keyword_of, tag_of, vr_of
from pacs.model.errors import NotUnderstood

Attributes = dict[str, Any]
"""A data set: eight hexadecimal digits -> {"vr": ..., "Value": [...]}."""
NUMBERS = frozenset({"US", "SS", "UL", "SL", "SV", "UV", "FL", "FD"})
_DEEPEST = 16
_PN_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_FORMS = {
    "DA": re.compile(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"),
    "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
    "UI": re.compile(r"(?=.{1,64}$)\d+(\.\d+)*"),
    "AE": re.compile(r"[ -\[\]-~]{1,16}"),
    "CS": re.compile(r"[A-Z0-9 _]{1,16}"),
}
_LONGEST = {"SH": 16, "LO": 64, "PN": 324, "ST": 1024, "LT": 10240}


def key(keyword: str) -> str:
    """Return the name of an attribute in the model, by its keyword."""
    return f"{tag_of(keyword):08X}"


def make(values: Mapping[str, Any]) -> Attributes:
    """Return a data set from keyword -> text, number, list of them, or list of such mappings (a sequence).

    Raises `NotUnderstood` for a keyword that PS3.6 does not have, or a value that its VR does not allow.
    """
    made: Attributes = {}
    for keyword, value in values.items():
        try:
            tag = tag_of(keyword)
        except KeyError:
            raise NotUnderstood(f"there is no attribute of the keyword {keyword[:64]!a} in PS3.6") from None
        vr = vr_of(tag)
        said = value if isinstance(value, list | tuple) else [] if value in (None, "") else [value]
        if vr == "SQ":
            if not all(isinstance(one, Mapping) for one in said):
                raise NotUnderstood(f"{keyword} is a sequence: give a list of objects")
            found: list[Any] = [make(one) for one in said]
        else:
            found = [_value(keyword, vr, one) for one in said]
        made[f"{tag:08X}"] = {"vr": vr, "Value": found} if found else {"vr": vr}
    return dict(sorted(made.items()))


def parse(value: Any, depth: int = 0) -> Attributes:
    """Return a data set that somebody else wrote in the DICOM JSON Model. Raises `NotUnderstood`."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        raise NotUnderstood("this is not a data set in the DICOM JSON Model (PS3.18 Annex F)")
    made: Attributes = {}
    for name, element in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[0-9A-Fa-f]{8}", name) or not isinstance(element, Mapping):
            raise NotUnderstood("a name in the data set is not a tag of eight hexadecimal digits")
        tag = int(name, 16)
        if not is_known(tag) or tag == 0x00080005:
            continue
        vr = vr_of(tag)
        said = element.get("Value", [])
        if not isinstance(said, list):
            raise NotUnderstood(f"{keyword_of(tag)} has no list of values")
        if vr == "SQ":
            found: list[Any] = [parse(one, depth + 1) for one in said]
        else:
            found = [_value(keyword_of(tag), vr, one) for one in said if one is not None]
        made[name.upper()] = {"vr": vr, "Value": found} if found else {"vr": vr}
    return dict(sorted(made.items()))


def values(data_set: Mapping[str, Any], keyword: str) -> list[Any]:
    """Return the values of an attribute; none where it is absent or empty."""
    return list(data_set.get(key(keyword), {}).get("Value", ()))


def text(data_set: Mapping[str, Any], keyword: str) -> str:
    """Return the first value of an attribute as text, "" where there is none."""
    found = values(data_set, keyword)
    return as_text(found[0]) if found else ""


def items(data_set: Mapping[str, Any], keyword: str) -> list[Attributes]:
    """Return the items of a sequence."""
    return [one for one in values(data_set, keyword) if isinstance(one, dict)]


def as_text(value: Any) -> str:
    """Return one value of the model as it is written in a data set."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "=".join(str(value.get(group, "")) for group in _PN_GROUPS).rstrip("=")
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def with_values(data_set: Mapping[str, Any], given: Mapping[str, Any]) -> Attributes:
    """Return a data set with these attributes (as `make` takes them) in place of its own."""
    return dict(sorted({**data_set, **make(given)}.items()))


def without(data_set: Mapping[str, Any], keywords: Iterable[str]) -> Attributes:
    """Return a data set without these attributes."""
    gone = {key(keyword) for keyword in keywords}
    return {name: element for name, element in data_set.items() if name not in gone}


def _value(keyword: str, vr: str, value: Any) -> Any:
    if vr == "PN":
        said = as_text(value)
        groups = dict(zip(_PN_GROUPS, (one.strip() for one in said.split("=")), strict=False))
        _check(keyword, vr, said)
        return {name: group for name, group in groups.items() if group}
    if vr in NUMBERS or vr in ("IS", "DS"):
        try:
            return float(value) if vr in ("FL", "FD", "DS") else int(value)
        except (TypeError, ValueError):
            raise NotUnderstood(f"{keyword} is not a number") from None
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise NotUnderstood(f"{keyword} is not a text")
    said = as_text(value).strip(" \0")
    _check(keyword, vr, said)
    return said


def _check(keyword: str, vr: str, said: str) -> None:
    form = _FORMS.get(vr)
    multiline = vr in ("ST", "LT", "UT")
    odd = any(ord(one) < 32 and not (multiline and one in "\r\n\f\t") for one in said) or ("\\" in said and not multiline)
    if said and (odd or (form is not None and not form.fullmatch(said)) or len(said) > _LONGEST.get(vr, len(said))):
        raise NotUnderstood(f"{keyword} does not hold a valid {vr} (PS3.5 6.2)")
