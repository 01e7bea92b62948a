"""Attribute matching of PS3.4 C.2.2.2 as SQL conditions.

A value that is missing or empty matches nothing but universal matching, so conditions compare with values that are not empty.
Wild cards become GLOB on SQLite and LIKE on PostgreSQL, which are both case-sensitive; all but "*" and "?" is literal.
Range matching compares strings (DA as YYYYMMDD, TM at full precision), which is the order of the values.
"""

import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index.attributes import (
    LAST_TIME,
    NO_TIME,
    date_key,
    folded,
    name_keys,
    name_words,
    number_key,
    text_key,
)
from pacs.index.connections import Connections
from pacs.model.errors import InvalidQuery
from pacs.model.query import AnyOf, Between, Match, Single, Valued, Wildcard

Condition = sa.ColumnElement[bool]
Text = sa.ColumnElement[str]
# PS3.4 C.2.2.2.4: wild cards have a meaning in these only; elsewhere they are literal.
WILD = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})


def is_universal(match: Match) -> bool:
    """Tell whether a match restricts nothing: no value at all, or only "*" (PS3.4 C.2.2.2.3, C.2.2.2.4)."""
    if isinstance(match, Single):
        return match.value.strip(" \0") == ""
    if isinstance(match, Wildcard):
        return match.pattern.strip(" \0").strip("*") == "" and match.pattern.strip(" ") != ""
    if isinstance(match, Between):
        return not match.low and not match.high
    return False


def value_condition(connections: Connections, keyword: str, vr: str, column: Text, match: Valued) -> Condition:
    """Match a column that holds one value made comparable (`pacs.index.attributes.columns_of`)."""
    if isinstance(match, AnyOf):
        if vr in ("DA", "TM", "DT"):
            return _any(value_condition(connections, keyword, vr, column, Single(value)) for value in match.values)
        wanted = [value for value in (text_key(value) for value in match.values) if value]
        return connections.one_of(column, wanted) if wanted else sa.false()
    if vr in ("DA", "TM", "DT"):
        return _temporal(keyword, vr, column, match)
    if isinstance(match, Between):
        raise InvalidQuery(f"{keyword}: range matching is for dates and times only")
    if isinstance(match, Wildcard):
        if vr in WILD:
            return beginning_like(connections, column, text_key(match.pattern))
        return column == text_key(match.pattern)
    return column == text_key(match.value)


def number_condition(keyword: str, column: sa.ColumnElement[Any], match: Valued) -> Condition:
    """Match a column that holds an IS as a number: "007" is 7."""
    if isinstance(match, Between):
        raise InvalidQuery(f"{keyword}: range matching is for dates and times only")
    if isinstance(match, Wildcard):
        return sa.false()
    values = match.values if isinstance(match, AnyOf) else (match.value,)
    return column.in_([number for number in (number_key(value) for value in values) if number is not None])


def several_condition(keyword: str, vr: str, column: Text, match: Valued) -> Condition:
    """Match text that holds several values joined by a backslash: one that matches is enough (PS3.4 C.2.2.2.1)."""
    if isinstance(match, Between):
        raise InvalidQuery(f"{keyword}: range matching needs an attribute with one date or time")
    if isinstance(match, Wildcard):
        patterns = [_regexp(text_key(match.pattern), wild=vr in WILD)]
    else:
        values = match.values if isinstance(match, AnyOf) else (match.value,)
        patterns = [_regexp(text_key(value), wild=False) for value in values if text_key(value)]
    if not patterns:
        return sa.false()
    return column.regexp_match(rf"(\A|\\) *({'|'.join(patterns)}) *(\\|\Z)")


def stored_condition(connections: Connections, keyword: str, vr: str, stored: Text, match: Valued) -> Condition:
    """Match a value as it came (from the `attributes` of a row) that may have only one value."""
    if vr == "PN":
        raise InvalidQuery(f"{keyword} cannot be matched")
    if vr == "DA":
        return value_condition(connections, keyword, vr, sa.func.replace(stored, ".", ""), match)
    if vr == "TM":
        plain = sa.func.replace(stored, ":", "")
        padded = plain.concat(sa.func.substr(NO_TIME, sa.func.length(plain) + 1))
        return value_condition(connections, keyword, vr, padded, match)
    return value_condition(connections, keyword, vr, stored, match)


def name_condition(
    connections: Connections, keyword: str, columns: Sequence[Text], words: Text, match: Valued, *, fuzzy: bool
) -> Condition:
    """Match a Patient's Name or another PN, without regard to case (PS3.4 C.2.2.2.1).

    `columns` are its alphabetic, ideographic and phonetic group. A key without "=" may match any of them; in a key with "="
    every group that is not empty must match its own. Fuzzy: every word of the key begins a word of the name, in any order and
    without accents (C.2.2.2.1.1 leaves the way to us).
    """
    if isinstance(match, Between):
        raise InvalidQuery(f"{keyword}: range matching is for dates and times only")
    if isinstance(match, AnyOf):
        singles = [Single(value) for value in match.values if text_key(value)]
        return _any(name_condition(connections, keyword, columns, words, one, fuzzy=fuzzy) for one in singles)
    value = match.pattern if isinstance(match, Wildcard) else match.value
    wild = isinstance(match, Wildcard)
    if fuzzy:
        wanted = [word.rstrip("*") for word in name_words(value).split()]
        parts = [like(connections, words, f"* {word}*", wild=wild) for word in wanted if word]
        return sa.and_(words != "", *parts)

    def one(column: Text, group: str) -> Condition:
        return beginning_like(connections, column, group) if wild else column == group

    groups = _name_pattern(value) if wild else name_keys(value)
    if "=" not in value:
        return _any(one(column, groups[0]) for column in columns)
    restricting = [(column, group) for column, group in zip(columns, groups, strict=True) if group.strip("*")]
    return sa.and_(sa.true(), *(one(column, group) for column, group in restricting))


def beginning_like(connections: Connections, column: Text, pattern: str) -> Condition:
    """Like `like`, for values that are not empty, and with the range of what begins as the pattern does, for an index."""
    beginning = re.split(r"[*?]", pattern, maxsplit=1)[0]
    if not beginning:
        return sa.and_(column != "", like(connections, column, pattern))
    return sa.and_(column >= beginning, column <= beginning + "\U0010ffff", like(connections, column, pattern))


def like(connections: Connections, column: Text, pattern: str, *, wild: bool = True) -> Condition:
    """Return a comparison in which "*" is any characters or none and "?" is one; everything else stands for itself.

    With `wild` false "?" stands for itself too.
    """
    while "**" in pattern:
        pattern = pattern.replace("**", "*")
    if connections.is_sqlite:
        pattern = pattern.replace("[", "[[]")
        if not wild:
            pattern = pattern.replace("?", "[?]")
        return column.op("GLOB", is_comparison=True)(pattern)
    # PS3.4 C.2.2.2.4: "%" and "_" are ordinary characters in a Patient's Name.
    for special in ("\\", "%", "_"):
        pattern = pattern.replace(special, "\\" + special)
    pattern = pattern.replace("*", "%")
    return column.like(pattern.replace("?", "_") if wild else pattern, escape="\\")


def contains(connections: Connections, column: Text, text: str) -> Condition:
    """Return whether a folded column contains `text`, in which every character stands for itself."""
    if connections.is_sqlite:
        return sa.func.instr(column, folded(text)) > 0
    return sa.func.strpos(column, folded(text)) > 0


def _temporal(keyword: str, vr: str, column: Text, match: Single | Wildcard | Between) -> Condition:
    if isinstance(match, Wildcard):
        return column == match.pattern
    low, high = (match.low, match.high) if isinstance(match, Between) else (match.value, match.value)
    low, high = (value.strip(" \0").replace(":" if vr != "DA" else ".", "") for value in (low, high))
    if vr == "DA":
        low, high = date_key(low), date_key(high)
    elif vr == "TM":
        # PS3.4 C.2.2.2.5: "10" is the whole hour, 10:00:00 to 10:59:59.999999.
        low, high = low and low + NO_TIME[len(low) :], high and high + _last(high)
    else:
        high = high and high + "~"
    if low and high and low > high:
        raise InvalidQuery(f"{keyword}: the range ends before it begins")
    conditions = [column != ""]
    if low:
        conditions.append(column >= low)
    if high:
        conditions.append(column <= high)
    return sa.and_(*conditions)


def _last(value: str) -> str:
    """Return what fills a TM up to the last moment it includes."""
    return LAST_TIME[len(value) :] if len(value) <= 6 else "9" * (len(LAST_TIME) - len(value))


def _name_pattern(value: str) -> tuple[str, str, str]:
    groups = [group.rstrip("^ ") for group in folded(value).split("=")[:3]]
    first, second, third = (*groups, "", "", "")[:3]
    return first, second, third


def _regexp(pattern: str, *, wild: bool) -> str:
    """Return a regular expression that both re and PostgreSQL read alike."""
    out = []
    for one in pattern:
        if wild and one == "*":
            out.append(r"[^\\]*")
        elif wild and one == "?":
            out.append(r"[^\\]")
        else:
            out.append("\\" + one if one.isascii() and not one.isalnum() and one != "_" else one)
    return "".join(out)


def _any(conditions: Any) -> Condition:
    return sa.or_(sa.false(), *conditions)
