"""Attribute matching of PS3.4 C.2.2.2 in memory, for what is no column: restored identities, items of sequences."""

import re

from pacs.dicom import nested
from pacs.dicom.dictionary import tag_of, vr_of
from pacs.index import attributes as keys
from pacs.model.query import AnyOf, Between, Empty, Match, Single, Wildcard, Within


def matches(keyword: str, value: str, match: Match) -> bool:
    """Say whether a value matches: several are joined by a backslash, a sequence is the text of its items."""
    if isinstance(match, Within):
        return _within(nested.from_text(value), match)
    if isinstance(match, Empty):
        return not value.strip()
    parts = value.split("\\") if keyword in keys.SEVERAL or keyword not in keys.VR else [value]
    return any(_one_matches(keyword, part.strip(), match) for part in parts)


def _within(items: nested.Items, match: Within) -> bool:
    """Say whether one item meets all keys (PS3.4 C.2.2.2.6)."""
    return any(all(_of_item(item, keyword, one) for keyword, one in match.keys.items()) for item in items)


def _of_item(item: nested.Item, keyword: str, match: Match) -> bool:
    value = item.get(keyword, "")
    if isinstance(match, Within):
        return isinstance(value, list) and _within(value, match)
    return isinstance(value, str) and matches(keyword, value, match)


def _one_matches(keyword: str, value: str, match: Match) -> bool:
    vr = keys.VR.get(keyword) or vr_of(tag_of(keyword))
    fold = keys.folded if vr == "PN" else keys.text_key
    comparable = {"DA": keys.date_key, "TM": keys.time_key}.get(vr, fold)
    if isinstance(match, Single):
        return _named(comparable(value), vr) == _named(comparable(match.value), vr)
    if isinstance(match, AnyOf):
        return not match.values or comparable(value) in {comparable(one) for one in match.values}
    if isinstance(match, Wildcard):
        pattern = "".join(".*" if one == "*" else "." if one == "?" else re.escape(one) for one in fold(match.pattern))
        return re.fullmatch(pattern, fold(value), re.DOTALL) is not None
    assert isinstance(match, Between)
    here = comparable(value)
    low, high = (comparable(end) if end else "" for end in (match.low, match.high))
    if vr == "TM" and match.high:
        high = match.high + keys.LAST_TIME[len(match.high) :]
    return bool(here) and (not low or here >= low) and (not high or here <= high)


def _named(value: str, vr: str) -> str:
    return value.split("=")[0].rstrip("^ ") if vr == "PN" else value
