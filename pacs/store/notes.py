"""Small records that name patients and lie in the index: sealed under the identity key's secret, found by keyed digests.

The index holds no identity in the clear. What must be kept of it there for a while (a worklist item, a performed
procedure step) is encrypted with AES-256-GCM, bound to its place; whoever reads the database without the key sees how many
there are.
"""

import hmac

from pacs.model.sealed import Kind, SealedRow
from pacs.ports import KeyProvider

_DIGEST_BYTES = 24


class Notes:
    """Seals, opens and digests; safe to share between threads."""

    def __init__(self, provider: KeyProvider) -> None:
        """Use the secrets that `provider` holds."""
        self._provider = provider
        self._digest_key = provider.derive("notes")

    def seal(self, kind: Kind, bound_to: str, content: bytes) -> tuple[str, bytes]:
        """Return the name of the key and the sealed content; its kind and `bound_to`, a row, are bound to it."""
        return self._provider.wrap_named(content, _context(kind, bound_to))

    def open(self, kind: Kind, bound_to: str, key_id: str, sealed: bytes) -> bytes:
        """Return what was sealed for this place. Raises `ConfigurationError` for another place, another key or damage."""
        return self._provider.unwrap(key_id, sealed, _context(kind, bound_to))

    def seal_anew(self, row: SealedRow) -> tuple[str, bytes]:
        """Return a row's content under the key that seals now, with its name. Raises as `open`."""
        return self.seal(row.kind, row.bound_to, self.open(row.kind, row.bound_to, row.key_id, row.sealed))

    def digest(self, kind: str, *values: str) -> str:
        """Return what `values` can be found by without saying them: 48 hexadecimal digits (HMAC-SHA-256, cut)."""
        said = "\0".join((kind, *values)).encode("utf-8", "surrogatepass")
        return hmac.digest(self._digest_key, said, "sha256")[:_DIGEST_BYTES].hex()


def _context(kind: Kind, bound_to: str) -> bytes:
    return f"{kind.value}{bound_to}".encode()
