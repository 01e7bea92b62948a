"""Who may use the web door: sign-in links that work once, sessions, and named API tokens.

Secrets are 256 random bits, so their SHA-256 is enough to keep: nobody can guess back from it, and who reads the database
cannot sign in with what is there.
"""

import hashlib
import secrets

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.errors import ConfigurationError, NotFound
from pacs.model.peer import IDENTITIES
from pacs.model.summary import TokenRow

_SEEN_EVERY_S = 60.0


class Access:
    """Links, sessions and tokens."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def new_link(self, ttl: float) -> str:
        """Return the secret of a sign-in link that works once within `ttl` seconds."""
        secret, now = secrets.token_urlsafe(32), self._connections.clock()
        with self._connections.write() as connection:
            connection.execute(sa.delete(t.link).where(t.link.c.expires_at <= now))
            connection.execute(sa.insert(t.link), {"secret_digest": _digest(secret), "expires_at": now + ttl})
        return secret

    def redeem(self, link: str, session_ttl_s: float = 7 * 86400.0) -> str | None:
        """Trade a link for the secret of a new session; None if it is unknown, used, or too old."""
        secret, now = secrets.token_urlsafe(32), self._connections.clock()
        with self._connections.write() as connection:
            used = sa.delete(t.link).where(t.link.c.secret_digest == _digest(link), t.link.c.expires_at > now)
            if connection.execute(used).rowcount != 1:
                return None
            connection.execute(sa.delete(t.session).where(t.session.c.expires_at <= now))
            connection.execute(sa.insert(t.session), {"secret_digest": _digest(secret), "expires_at": now + session_ttl_s})
        return secret

    def session(self, secret: str) -> bool:
        """Tell whether a session is good."""
        statement = sa.select(t.session.c.expires_at).where(t.session.c.secret_digest == _digest(secret))
        with self._connections.read() as connection:
            expires_at = connection.execute(statement).scalar()
        return expires_at is not None and expires_at > self._connections.clock()

    def end(self, secret: str) -> None:
        """End a session; ending it twice is harmless."""
        with self._connections.write() as connection:
            connection.execute(sa.delete(t.session).where(t.session.c.secret_digest == _digest(secret)))

    def new_token(self, name: str, identity: str = IDENTITIES[0]) -> str:
        """Return the secret of a new API token, which is shown once; `identity` says what its bearer gets to see.

        Raises `ConfigurationError` if the name is taken.
        """
        if not name.strip():
            raise ConfigurationError("an API token needs a name")
        if identity not in IDENTITIES:
            raise ConfigurationError(f"a token's identity is one of {', '.join(IDENTITIES)}")
        secret = secrets.token_urlsafe(32)
        row = {"name": name, "secret_digest": _digest(secret), "created_at": self._connections.clock(), "identity": identity}
        with self._connections.write() as connection:
            if not self._connections.insert_new(connection, t.token, row):
                raise ConfigurationError("an API token of this name exists; revoke it first")
        return secret

    def token(self, secret: str) -> str | None:
        """Return the name of the token with this secret, or None. Its last use is noted, to the minute."""
        digest, now = _digest(secret), self._connections.clock()
        with self._connections.read() as connection:
            row = connection.execute(sa.select(t.token).where(t.token.c.secret_digest == digest)).first()
        if row is None:
            return None
        if row.last_used_at is None or row.last_used_at < now - _SEEN_EVERY_S:
            with self._connections.write() as connection:
                connection.execute(sa.update(t.token).where(t.token.c.secret_digest == digest).values(last_used_at=now))
        return str(row.name)

    def tokens(self) -> list[TokenRow]:
        """Return all API tokens by name."""
        columns = (t.token.c.name, t.token.c.created_at, t.token.c.last_used_at, t.token.c.identity)
        with self._connections.read() as connection:
            rows = connection.execute(sa.select(*columns).order_by(t.token.c.name)).all()
        return [TokenRow(name, made, used, identity or IDENTITIES[0]) for name, made, used, identity in rows]

    def sees_originals(self, name: str) -> bool:
        """Tell whether the bearer of the API token `name` gets original identities."""
        with self._connections.read() as connection:
            return connection.execute(sa.select(t.token.c.identity).where(t.token.c.name == name)).scalar() == "original"

    def revoke(self, name: str) -> None:
        """Revoke an API token at once. Raises `NotFound`."""
        with self._connections.write() as connection:
            if connection.execute(sa.delete(t.token).where(t.token.c.name == name)).rowcount != 1:
                raise NotFound("there is no API token of this name")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
