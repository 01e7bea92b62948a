"""Worklist items, sealed before they come here; found by keyed digests of what modalities ask for."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.errors import NotFound
from pacs.model.worklist import WorklistRow


class WorklistItems:
    """The worklist tables."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def put(self, item_id: str, key_id: str, sealed: bytes, digests: Collection[str]) -> bool:
        """Keep an item, in place of the one of the same id, whose state stays; tells whether it was new."""
        now = self._connections.clock()

        def work(connection: sa.Connection) -> bool:
            values = {"key_id": key_id, "sealed": sealed, "added_at": now}
            updated = connection.execute(
                sa.update(t.worklist_item).where(t.worklist_item.c.item_id == item_id).values(**values)
            ).rowcount
            if not updated:
                connection.execute(sa.insert(t.worklist_item), {"item_id": item_id, "state": "scheduled", **values})
            connection.execute(sa.delete(t.worklist_digest).where(t.worklist_digest.c.item_id == item_id))
            rows = [{"item_id": item_id, "digest": digest} for digest in sorted(set(digests))]
            if rows:
                connection.execute(sa.insert(t.worklist_digest), rows)
            return not updated

        return self._connections.retrying(work)

    def candidates(self, wanted: Sequence[Collection[str]] = (), states: Collection[str] | None = None) -> list[WorklistRow]:
        """Return items that have at least one digest of each group, the longest known first."""
        statement = sa.select(t.worklist_item).order_by(t.worklist_item.c.added_at, t.worklist_item.c.item_id)
        if states is not None:
            statement = statement.where(t.worklist_item.c.state.in_(list(states)))
        for group in wanted:
            found = sa.select(t.worklist_digest.c.item_id).where(
                self._connections.one_of(t.worklist_digest.c.digest, list(group))
            )
            statement = statement.where(t.worklist_item.c.item_id.in_(found))
        with self._connections.read() as connection:
            return [WorklistRow(**row._mapping) for row in connection.execute(statement)]

    def get(self, item_id: str) -> WorklistRow:
        """Return an item. Raises `NotFound`."""
        with self._connections.read() as connection:
            row = connection.execute(sa.select(t.worklist_item).where(t.worklist_item.c.item_id == item_id)).first()
        if row is None:
            raise NotFound("there is no such worklist item")
        return WorklistRow(**row._mapping)

    def mark(self, item_ids: Collection[str], state: str) -> int:
        """Say what has become of items; returns how many there were."""
        if not item_ids:
            return 0
        mine = self._connections.one_of(t.worklist_item.c.item_id, list(item_ids))
        with self._connections.write() as connection:
            return connection.execute(sa.update(t.worklist_item).where(mine).values(state=state)).rowcount

    def remove(self, item_ids: Collection[str]) -> int:
        """Forget items; returns how many there were."""
        if not item_ids:
            return 0
        with self._connections.write() as connection:
            digests = self._connections.one_of(t.worklist_digest.c.item_id, list(item_ids))
            connection.execute(sa.delete(t.worklist_digest).where(digests))
            mine = self._connections.one_of(t.worklist_item.c.item_id, list(item_ids))
            return connection.execute(sa.delete(t.worklist_item).where(mine)).rowcount
