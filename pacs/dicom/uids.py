"""UIDs that are reckoned instead of registered: the same input always has the same one (PS3.5 B.2)."""

import uuid


def uid_of(digest: bytes) -> str:
    """Return the UID under 2.25 that 16 bytes or more of a digest make: a UUID of version 8 (RFC 9562 5.8)."""
    raw = bytearray(digest[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return f"2.25.{uuid.UUID(bytes=bytes(raw)).int}"
