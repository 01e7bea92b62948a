"""Sequences as the index keeps them: the items of one as text, keyword -> value, and back.

A row of the index holds texts; so a sequence is the JSON of its items, with what can be matched or answered and nothing else.
"""

from typing import Any, TypeAlias

import orjson

Item: TypeAlias = dict[str, Any]
"""Keyword -> value, several values joined by a backslash; a list of items for a sequence within."""
Items: TypeAlias = list[Item]
LONGEST_BYTES = 16384
"""A longer sequence is not kept: nobody looks for a worklist in it."""
DEEPEST = 2


def as_text(items: Items) -> str:
    """Return items as text; "" for a sequence without any."""
    return orjson.dumps(items).decode() if items else ""


def from_text(text: str) -> Items:
    """Return the items of a text that `as_text` made; none for any other text."""
    try:
        found = orjson.loads(text)
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
