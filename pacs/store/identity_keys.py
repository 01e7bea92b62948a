"""What hangs on the identity key: it wraps two secrets and nothing else, one that names and one that seals (docs/adr/0028).

From *names* all is derived that must stay for years: pseudonyms, date shifts, digests for look-up, the archive's name in
buckets and backups, the key that signs certificates. With *seals* the vault's secret and the rows that name patients are
encrypted. Both lie wrapped beside the key ring (docs/format.md, section 3.3), so that the identity key is changed by wrapping
two secrets anew, in one transaction, and whoever serves goes on with what he holds.
"""

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs.model.errors import ConfigurationError, OutOfResources, Unavailable
from pacs.ports import KeyProvider
from pacs.store.providers import KEY_BYTES, LocalKeys, derive

_CONTEXT = b"mini-pacs identity "
_NAMES, _SEALS = "names", "seals"
_TABLE = "CREATE TABLE IF NOT EXISTS identity (name TEXT PRIMARY KEY, key_id TEXT NOT NULL, wrapped BLOB NOT NULL)"


class IdentityKeys(LocalKeys):
    """The two secrets of one home, opened: a key provider that seals with the one and derives from the other.

    What the other sealed it opens, too: in homes of older releases *names* is the first identity key, which sealed the rows.
    """

    def __init__(self, names: bytes, seals: bytes) -> None:
        """Use these secrets; `fresh` and `open` are the ways in."""
        super().__init__(seals, (names,))
        self._names, self._seals = names, seals

    @classmethod
    def fresh(cls, names: bytes | None = None) -> "IdentityKeys":
        """Return new secrets; `names` is given where names are to be those of an archive before."""
        return cls(names or secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES))

    @classmethod
    def open(cls, ring: Path, provider: KeyProvider) -> "IdentityKeys":
        """Open the secrets beside a key ring. Raises `ConfigurationError` without them, or if `provider` lacks their key."""
        with _opened(ring) as connection:
            rows = {name: (key_id, wrapped) for name, key_id, wrapped in connection.execute("SELECT * FROM identity")}
        if rows.keys() != {_NAMES, _SEALS}:
            raise ConfigurationError(f"{ring} lacks the secrets of the identity key; bring it back from its backup")
        return cls(*(provider.unwrap(*rows[name], _context(name)) for name in (_NAMES, _SEALS)))

    def keep(self, ring: Path, provider: KeyProvider) -> None:
        """Wrap the secrets with the identity key, beside the ring; those that are there already stay."""
        with _opened(ring) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            if connection.execute("SELECT name FROM identity").fetchone() is None:
                for name, secret in self.secrets().items():
                    row = (name, *provider.wrap_named(secret, _context(name)))
                    connection.execute("INSERT INTO identity VALUES (?, ?, ?)", row)
            connection.execute("COMMIT")

    def secrets(self) -> dict[str, bytes]:
        """Return the secrets themselves: to be wrapped or exported, and for nothing else."""
        return {_NAMES: self._names, _SEALS: self._seals}

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes bound to *names* and `purpose`; they stay when the identity key changes."""
        return derive(self._names, b"mini-pacs " + purpose.encode())


def there(ring: Path) -> bool:
    """Tell whether a ring has the secrets beside it; homes of older releases have none. Raises `ConfigurationError`."""
    return bool(wrapped_with(ring))


def wrapped_with(ring: Path) -> dict[str, int]:
    """Return how many secrets each identity key wraps. Raises `ConfigurationError` where there is no ring."""
    with _opened(ring) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'identity'").fetchone() is None:
            return {}
        return dict(connection.execute("SELECT key_id, count(*) FROM identity GROUP BY key_id").fetchall())


def rewrap(ring: Path, provider: KeyProvider, key_id: str) -> int:
    """Wrap both secrets with the key of this name, in one transaction; returns how many were under another.

    `provider` holds that key and the one before. Repeatable after a crash at any point.
    """
    provider.use(key_id)
    with _opened(ring) as connection:
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute("SELECT * FROM identity WHERE key_id != ?", (key_id,)).fetchall()
        for name, before, wrapped in rows:
            secret = provider.unwrap(before, wrapped, _context(name))
            values = (key_id, provider.wrap(secret, _context(name)), name)
            connection.execute("UPDATE identity SET key_id = ?, wrapped = ? WHERE name = ?", values)
        connection.execute("COMMIT")
    return len(rows)


def _context(name: str) -> bytes:
    return _CONTEXT + name.encode("ascii")


@contextmanager
def _opened(ring: Path) -> Iterator[sqlite3.Connection]:
    if not ring.exists():
        raise ConfigurationError(f"the key ring {ring} is missing; bring it back from its backup")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{ring}?mode=rw", uri=True, timeout=10.0, isolation_level=None)) as found:
            for pragma in ("synchronous=EXTRA", "secure_delete=ON"):
                found.execute(f"PRAGMA {pragma}")
            yield found
    except sqlite3.Error as error:
        if error.sqlite_errorname in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC"):
            raise OutOfResources("no room for the key ring") from error
        if error.sqlite_errorname == "SQLITE_NOTADB":
            raise ConfigurationError(f"{ring} is not a key ring; bring it back from its backup") from error
        raise Unavailable(f"the key ring {ring.name} cannot be used now ({error.sqlite_errorname})") from error
