"""The bytes of the identity vault: what a row holds before it is sealed, and an entry of a log (docs/format.md, section 5).

Pure: no key, no file. A row holds what was taken from one entity beyond what its parents say; an entry is a transaction's rows.
"""

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence

NAME_BYTES = 24
Elements = Mapping[int, bytes]
"""Tag -> original element as it was encoded."""
Row = tuple[bytes, int, bytes, bytes]
"""Name, level (0 the patient), name of the parent, sealed content."""

_ITEM = struct.Struct("<II")
_NOTHING = 0xFFFFFFFF
"""Length that says: this one had nothing taken here, whatever the parent says."""
_SQUEEZED_BYTES = 256


class _Absent(bytes):
    """Marks that nothing was taken where a parent says that something was."""


_ABSENT = _Absent()


def difference(inherited: Elements, whole: Elements) -> dict[int, bytes]:
    """Return what makes `whole` of `inherited`."""
    own = {tag: value for tag, value in whole.items() if inherited.get(tag) != value}
    own.update((tag, _ABSENT) for tag in inherited if tag not in whole)
    return own


def merged(inherited: Elements, own: Elements) -> dict[int, bytes]:
    """Return what holds where `own` goes beyond what was inherited."""
    whole = {**inherited, **own}
    return {tag: value for tag, value in whole.items() if value is not _ABSENT}


def plain_row(pseudonym: str, own: Elements) -> bytes:
    """Return what a row holds, to be sealed."""
    body = b"".join(_ITEM.pack(tag, _NOTHING if value is _ABSENT else len(value)) + value for tag, value in sorted(own.items()))
    plain = bytes((len(pseudonym),)) + pseudonym.encode("ascii") + body
    squeezed = zlib.compress(plain, 1) if len(plain) > _SQUEEZED_BYTES else plain
    return b"\1" + squeezed if len(squeezed) < len(plain) else b"\0" + plain


def read_row(plain: bytes) -> tuple[str, dict[int, bytes]]:
    """Return pseudonym and elements of a row that was opened."""
    plain = zlib.decompress(plain[1:]) if plain[0] else plain[1:]
    position = 1 + plain[0]
    pseudonym = plain[1:position].decode("ascii")
    own: dict[int, bytes] = {}
    while position < len(plain):
        tag, length = _ITEM.unpack_from(plain, position)
        position += _ITEM.size
        if length == _NOTHING:
            own[tag] = _ABSENT
        else:
            own[tag] = plain[position : position + length]
            position += length
    return pseudonym, own


def packed(rows: Sequence[Row], digests: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the payload of an entry: rows, and (digest, name) of what they can be found by."""
    parts = [struct.pack("<I", len(rows))]
    for name, level, parent, sealed in rows:
        parts += (struct.pack("<BBI", level, len(parent), len(sealed)), name, parent, sealed)
    parts += (digest + name for digest, name in digests)
    return b"".join(parts)


def unpacked(payload: bytes) -> tuple[list[Row], list[tuple[bytes, bytes]]]:
    """Return rows and digests of a payload."""
    (count,) = struct.unpack_from("<I", payload)
    position, rows = 4, []
    for _ in range(count):
        level, parent_bytes, sealed_bytes = struct.unpack_from("<BBI", payload, position)
        position += 6
        name, position = payload[position : position + NAME_BYTES], position + NAME_BYTES
        parent, position = payload[position : position + parent_bytes], position + parent_bytes
        sealed, position = payload[position : position + sealed_bytes], position + sealed_bytes
        rows.append((name, level, parent, sealed))
    step = 2 * NAME_BYTES
    digests = [
        (payload[at : at + NAME_BYTES], payload[at + NAME_BYTES : at + step]) for at in range(position, len(payload), step)
    ]
    return rows, digests
