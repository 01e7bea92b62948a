"""ICC profiles (0028,2000): the numbers stay, the words go.

A profile carries descriptions, copyright lines and device names that a site can fill as it likes, and a date. What is needed to
show colours are its curves and matrices. Text tags are blanked in place, so that no offset moves; a profile that holds anything
else is given up, and colours are then shown as sRGB. Source: ICC.1:2022, sections 7.2, 7.3 and 10.
"""

import struct

_HEAD_BYTES = 128
_NUMBERS = frozenset(
    {b"XYZ ", b"curv", b"para", b"mft1", b"mft2", b"mAB ", b"mBA ", b"sf32", b"uf32", b"view", b"meas", b"chrm", b"sig "}
)
_TEXTS = frozenset({b"text", b"desc", b"mluc"})
_MOST_TAGS = 256
_DATE, _DEVICE, _CREATOR, _DIGEST = slice(24, 36), slice(48, 64), slice(80, 84), slice(84, 100)


def blanked(profile: bytes) -> bytes:
    """Return the profile without words, or b"" where it is not understood."""
    if len(profile) < _HEAD_BYTES + 4 or profile[36:40] != b"acsp":
        return b""
    size, count = struct.unpack_from(">I", profile)[0], struct.unpack_from(">I", profile, _HEAD_BYTES)[0]
    if not _HEAD_BYTES + 4 + 12 * count <= size <= len(profile) or count > _MOST_TAGS:
        return b""
    clean = bytearray(size)
    clean[: _HEAD_BYTES + 4 + 12 * count] = profile[: _HEAD_BYTES + 4 + 12 * count]
    for part in (_DATE, _DEVICE, _CREATOR, _DIGEST, slice(100, _HEAD_BYTES)):
        clean[part] = bytes(part.stop - part.start)
    # Only what a tag refers to is copied: bytes between the tags are nobody's.
    for number in range(count):
        _, offset, length = struct.unpack_from(">4sII", profile, _HEAD_BYTES + 4 + 12 * number)
        if offset < _HEAD_BYTES or offset + length > size or length < 8:
            return b""
        kind, data = profile[offset : offset + 4], profile[offset : offset + length]
        if kind in _NUMBERS:
            clean[offset : offset + length] = data
        elif kind in _TEXTS:
            clean[offset : offset + length] = _wordless(kind, length)
        else:
            return b""
    return bytes(clean)


def _wordless(kind: bytes, length: int) -> bytes:
    """Return an empty text of this type and length."""
    head = kind + bytes(4)
    if kind == b"desc":
        # A description of one NUL; the Unicode and ScriptCode ones are of no length.
        head += struct.pack(">I", 1)
    elif kind == b"mluc":
        head += struct.pack(">II", 0, 12)
    return (head + bytes(length))[:length]
