"""Attribute matching of PS3.4 C.2.2.2 on data sets in memory, sequences included; pure.

For the worklist and for workitems, whose data sets are nested and few. The archive's own query (`index`) matches in SQL.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pacs.dicom.dictionary import keyword_of
from pacs.index.attributes import name_keys, text_key
from pacs.model.errors import InvalidQuery
from pacs.workflow.attributes import Attributes, as_text, key

_CONTROL = frozenset({"00080005", "00080052", "00080201"})
_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_MOMENTS = {
    "DA": re.compile(r"\d{8}"),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "DT": re.compile(r"\d{4}(\d{2}(\d{2}(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?"),
}
_FIRST = {"DA": "00000101", "TM": "000000.000000", "DT": "00000101000000.000000"}
_LAST = {"DA": "99991231", "TM": "235959.999999", "DT": "99991231235959.999999"}
_START_DATE, _START_TIME = key("ScheduledProcedureStepStartDate"), key("ScheduledProcedureStepStartTime")


def check(keys: Mapping[str, Any]) -> None:
    """Raise `InvalidQuery` for what cannot be matched: several items in a sequence, a malformed or reversed range."""
    together = _date_with_time(keys)
    for name, element in keys.items():
        if name in _CONTROL or (together is not None and name in (_START_DATE, _START_TIME)):
            continue
        if element["vr"] == "SQ":
            nested = element.get("Value", [])
            if len(nested) > 1:
                raise InvalidQuery(f"{keyword_of(int(name, 16))} may have one item in a query (PS3.4 C.2.2.2.6)")
            for one in nested:
                check(one)
        elif element["vr"] in _MOMENTS:
            for said in _said(element):
                _range(int(name, 16), element["vr"], said)


def matches(keys: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Say whether a data set has what every key asks for; `keys` have passed `check`."""
    together = _date_with_time(keys)
    if together is not None and not _within(together, found):
        return False
    for name, element in keys.items():
        if name in _CONTROL or (together is not None and name in (_START_DATE, _START_TIME)):
            continue
        there = found.get(name, {})
        if element["vr"] == "SQ":
            wanted = (element.get("Value") or [{}])[0]
            candidates = _items(there) or [{}]
            if not any(matches(wanted, one) for one in candidates):
                return False
        elif not _matches(int(name, 16), element, there):
            return False
    return True


def answer(keys: Mapping[str, Any], found: Mapping[str, Any]) -> Attributes:
    """Return the requested attributes of a data set, empty where it has none; an empty sequence asks for all of its items."""
    made: Attributes = {}
    for name, element in keys.items():
        if name in _CONTROL:
            continue
        there = found.get(name)
        if there is None:
            made[name] = {"vr": element["vr"]}
        elif element["vr"] == "SQ" and (element.get("Value") or [{}])[0]:
            wanted = element["Value"][0]
            chosen = [answer(wanted, one) for one in _items(there) if matches(wanted, one)]
            made[name] = {"vr": "SQ", "Value": chosen} if chosen else {"vr": "SQ"}
        else:
            made[name] = there
    return dict(sorted(made.items()))


def single(keys: Mapping[str, Any], keyword: str) -> str:
    """Return the value of a key that asks for exactly one, without wild cards; "" for any other key."""
    said = _said(keys.get(key(keyword), {"vr": ""}))
    return said[0] if len(said) == 1 and not any(one in said[0] for one in "*?\\") else ""


def days(keys: Mapping[str, Any], keyword: str, most: int) -> list[str]:
    """Return the days that a key of VR DA asks for; nothing if there are more than `most`, or one end is open."""
    said = _said(keys.get(key(keyword), {"vr": ""}))
    if len(said) != 1:
        return []
    low, high = _range(int(key(keyword), 16), "DA", said[0])
    try:
        first, last = datetime.strptime(low, "%Y%m%d"), datetime.strptime(high, "%Y%m%d")
    except ValueError:
        return []
    count = (last - first).days + 1
    return [f"{first + timedelta(days=day):%Y%m%d}" for day in range(count)] if count <= most else []


def _said(element: Mapping[str, Any]) -> list[str]:
    """Return the values of a key, without those that match everything (PS3.4 C.2.2.2.3)."""
    found = [as_text(one).strip() for one in element.get("Value", ())]
    return [one for one in found if one.strip("*")]


def _items(there: Mapping[str, Any]) -> list[Attributes]:
    """Return the items of a sequence; none of an attribute that is none, whatever the key says it is."""
    return list(there.get("Value", ())) if there.get("vr") == "SQ" else []


def _matches(tag: int, element: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    wanted, vr = _said(element), element["vr"]
    if not wanted:
        return True
    present = [as_text(one).strip() for one in there.get("Value", ())]
    if wanted == ['""']:
        return not any(present)
    return any(_one(tag, vr, one, value) for one in wanted for value in present)


def _one(tag: int, vr: str, wanted: str, value: str) -> bool:
    if vr in _MOMENTS:
        low, high = _range(tag, vr, wanted)
        here = _moment(vr, value, _FIRST)
        return bool(value) and low <= here <= high
    if vr == "PN":
        return _name(wanted, value)
    if vr in _WILDCARD_VRS and ("*" in wanted or "?" in wanted):
        return _wild(text_key(wanted), text_key(value))
    return text_key(wanted) == text_key(value)


def _name(wanted: str, value: str) -> bool:
    """Match a name without regard to case, each group that is asked for; one group alone may match any of them (C.2.2.2.1)."""
    asked, groups = name_keys(wanted), name_keys(value)
    if "=" not in wanted:
        return any(_wild(asked[0], group) for group in groups if group)
    return all(not one or _wild(one, group) for one, group in zip(asked, groups, strict=True))


def _wild(pattern: str, value: str) -> bool:
    said = "".join(".*" if one == "*" else "." if one == "?" else re.escape(one) for one in pattern)
    return re.fullmatch(said, value, re.DOTALL) is not None


def _range(tag: int, vr: str, said: str, *, ordered: bool = True) -> tuple[str, str]:
    """Return both ends, filled up to full precision. Raises `InvalidQuery` for what is no date, time or range of them."""
    said = said.replace(".", "") if vr == "DA" else said.replace(":", "") if vr == "TM" else said
    pattern = _MOMENTS[vr]
    if pattern.fullmatch(said):
        return _moment(vr, said, _FIRST), _moment(vr, said, _LAST)
    for cut in (place for place, letter in enumerate(said) if letter == "-"):
        low, high = said[:cut].strip(), said[cut + 1 :].strip()
        if (low or high) and all(not end or pattern.fullmatch(end) for end in (low, high)):
            ends = (_moment(vr, low, _FIRST) if low else _FIRST[vr], _moment(vr, high, _LAST) if high else _LAST[vr])
            if ordered and ends[0] > ends[1]:
                raise InvalidQuery(f"{keyword_of(tag)}: the range ends before it begins")
            return ends
    raise InvalidQuery(f"{keyword_of(tag)} is not a valid {vr} or range (PS3.4 C.2.2.2.5)")


def _moment(vr: str, value: str, filling: Mapping[str, str]) -> str:
    """Return a date, time or both at full precision; one with an offset is told in UTC, one without is taken as it stands."""
    value = value.replace(":", "") if vr == "TM" else value
    offset = re.search(r"([+-])(\d{2})(\d{2})$", value) if vr == "DT" else None
    bare = value[: offset.start()] if offset else value
    full = bare + filling[vr][len(bare) :]
    if not offset:
        return full
    minutes = int(offset[2]) * 60 + int(offset[3])
    try:
        local = datetime.strptime(full, "%Y%m%d%H%M%S.%f")
        return f"{local - timedelta(minutes=minutes if offset[1] == '+' else -minutes):%Y%m%d%H%M%S.%f}"
    except (ValueError, OverflowError):
        return full


def _date_with_time(keys: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the one range that start date and start time make together where both are ranges (PS3.4 Table K.6-1)."""
    date, time = (_said(keys.get(name, {"vr": ""})) for name in (_START_DATE, _START_TIME))
    if len(date) != 1 or len(time) != 1 or "-" not in date[0] or "-" not in time[0]:
        return None
    dates = _range(int(_START_DATE, 16), "DA", date[0])
    times = _range(int(_START_TIME, 16), "TM", time[0], ordered=False)
    return dates[0] + times[0], dates[1] + times[1]


def _within(ends: tuple[str, str], found: Mapping[str, Any]) -> bool:
    date, time = (as_text((found.get(name, {}).get("Value") or [""])[0]) for name in (_START_DATE, _START_TIME))
    return bool(date) and ends[0] <= date + _moment("TM", time, _FIRST) <= ends[1]
