"""All rows that are sealed under the identity key's secret, whatever they are, for whoever seals them anew."""

from collections.abc import Iterator

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.sealed import Kind, SealedRow

_PLACES = {
    Kind.WORKLIST: (t.worklist_item.c.item_id, t.worklist_item.c.item_id, t.worklist_item.c.key_id, t.worklist_item.c.sealed),
    Kind.PERFORMED: (
        t.performed_step.c.step_uid,
        t.performed_step.c.step_uid,
        t.performed_step.c.key_id,
        t.performed_step.c.sealed,
    ),
    Kind.WORKITEM: (t.workitem.c.job_id, t.workitem.c.job_id, t.workitem.c.key_id, t.workitem.c.sealed),
    Kind.COMMITMENT: (t.commitment.c.commitment_id, t.commitment.c.ae_title, t.commitment.c.key_id, t.commitment.c.request),
    Kind.FACE_REGION: (t.face_region.c.place, t.face_region.c.place, t.face_region.c.key_id, t.face_region.c.sealed),
}
"""Kind -> columns: what finds a row, what is bound to it, the key's name, the sealed content (empty where it was forgotten)."""


class SealedRows:
    """The sealed columns of the index."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def sealed_with(self) -> dict[str, int]:
        """Return how many rows each key seals."""
        counts: dict[str, int] = {}
        with self._connections.read() as connection:
            for _, _, key_id, sealed in _PLACES.values():
                statement = sa.select(key_id, sa.func.count()).where(sa.func.length(sealed) > 0).group_by(key_id)
                for name, count in connection.execute(statement):
                    counts[name] = counts.get(name, 0) + count
        return counts

    def under_others(self, key_id: str, batch: int = 200) -> Iterator[list[SealedRow]]:
        """Yield, in batches, the rows that another key than this one seals."""
        for kind, (row_id, bound_to, named, sealed) in _PLACES.items():
            last: str | int | None = None
            while True:
                statement = sa.select(row_id, bound_to, named, sealed).where(named != key_id, sa.func.length(sealed) > 0)
                if last is not None:
                    statement = statement.where(row_id > last)
                with self._connections.read() as connection:
                    rows = [SealedRow(kind, *row) for row in connection.execute(statement.order_by(row_id).limit(batch))]
                if rows:
                    yield rows
                if len(rows) < batch:
                    break
                last = rows[-1].row_id

    def replace(self, before: SealedRow, key_id: str, sealed: bytes) -> bool:
        """Put another seal in the place of the one that was read; false if the row was changed meanwhile, or is gone."""
        row_id, _, named, content = _PLACES[before.kind]
        mine = row_id == before.row_id, named == before.key_id, content == before.sealed
        statement = sa.update(row_id.table).where(*mine).values({named.name: key_id, content.name: sealed})
        with self._connections.write() as connection:
            return connection.execute(statement).rowcount == 1
