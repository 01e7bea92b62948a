"""The change feed: events, written in the same transaction as what they tell of."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.event import Event


def entry(
    at: float,
    kind: str,
    *,
    study_instance_uid: str = "",
    series_instance_uid: str = "",
    sop_instance_uid: str = "",
    **detail: Any,
) -> dict[str, Any]:
    """Return one event's row. `detail` takes facts of ours (versions, states, reasons), never a value of a data set."""
    return {
        "at": at,
        "kind": kind,
        "study_instance_uid": study_instance_uid,
        "series_instance_uid": series_instance_uid,
        "sop_instance_uid": sop_instance_uid,
        "detail": detail,
    }


def record(connections: Connections, connection: sa.Connection, entries: Sequence[dict[str, Any]]) -> None:
    """Write events. Call it last in a transaction: it makes others that write events wait until this one has ended."""
    if entries:
        connections.lock_feed(connection)
        connection.execute(sa.insert(t.event), list(entries))


def after(connections: Connections, event_id: int, limit: int) -> list[Event]:
    """Return at most `limit` events with an id above `event_id`, oldest first."""
    statement = sa.select(t.event).where(t.event.c.event_id > event_id).order_by(t.event.c.event_id).limit(limit)
    with connections.read() as connection:
        return [Event(**row._mapping) for row in connection.execute(statement)]
