"""Notifications of availability, made in the transaction in which something became complete, and kept until they were taken."""

import uuid
from collections.abc import Collection

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.performed import Notification

_KEPT_S = 30 * 86400.0
OPTION = "availability"


def announce(connection: sa.Connection, study_instance_uid: str, series_instance_uids: Collection[str], now: float) -> None:
    """Make a notification for every peer that wants them; within the transaction that makes it true."""
    peers = connection.execute(sa.select(t.peer.c.ae_title, t.peer.c.options).where(t.peer.c.options != "")).all()
    rows = [
        {
            "ae_title": peer.ae_title,
            # PS3.5 B.2; made once, so that a repeated notification is known to be one.
            "sop_instance_uid": f"2.25.{uuid.uuid4().int}",
            "study_instance_uid": study_instance_uid,
            "series": "\\".join(sorted(series_instance_uids)),
            "state": "waiting",
            "made_at": now,
            "due_at": now,
            "attempts": 0,
        }
        for peer in peers
        if OPTION in peer.options.split()
    ]
    if rows:
        connection.execute(sa.delete(t.notification).where(t.notification.c.made_at < now - _KEPT_S))
        connection.execute(sa.insert(t.notification), rows)


class Notifications:
    """The notification table."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def due(self, now: float, limit: int = 10) -> list[Notification]:
        """Return notifications that are to be sent now, the longest due first."""
        statement = (
            sa.select(t.notification)
            .where(t.notification.c.state == "waiting", t.notification.c.due_at <= now)
            .order_by(t.notification.c.due_at, t.notification.c.notification_id)
            .limit(limit)
        )
        with self._connections.read() as connection:
            return [Notification(**row._mapping) for row in connection.execute(statement)]

    def claim(self, one: Notification, until: float) -> bool:
        """Keep a due notification from others until then; false if somebody else was first."""
        mine = t.notification.c.notification_id == one.notification_id, t.notification.c.due_at == one.due_at
        statement = sa.update(t.notification).where(*mine, t.notification.c.state == "waiting").values(due_at=until)
        with self._connections.write() as connection:
            return connection.execute(statement).rowcount == 1

    def later(self, one: Notification, due_at: float) -> None:
        """Put a notification off after a try that failed."""
        self._set(one, due_at=due_at, attempts=one.attempts + 1)

    def end(self, one: Notification, state: str) -> None:
        """Say how a notification ended, "sent" or "given up"."""
        self._set(one, state=state, attempts=one.attempts + 1)

    def list(self, limit: int = 100) -> "list[Notification]":
        """Return the newest notifications, newest first."""
        statement = sa.select(t.notification).order_by(t.notification.c.notification_id.desc()).limit(limit)
        with self._connections.read() as connection:
            return [Notification(**row._mapping) for row in connection.execute(statement)]

    def _set(self, one: Notification, **values: object) -> None:
        mine = t.notification.c.notification_id == one.notification_id
        with self._connections.write() as connection:
            connection.execute(sa.update(t.notification).where(mine).values(**values))
