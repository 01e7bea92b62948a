"""Where the faces of a study lie, sealed before they come here; kept while the study is (PS3.15 E.3.2)."""

from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa

from pacs.index import tables as t
from pacs.index.connections import Connections
from pacs.model.instance import SealedRegion


class FaceRegions:
    """The table of regions, as its readers see it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def of(self, study_instance_uid: str) -> list[SealedRegion]:
        """Return what the series of a study told, in a fixed order."""
        statement = (
            sa.select(t.face_region)
            .where(t.face_region.c.study_instance_uid == study_instance_uid)
            .order_by(t.face_region.c.place)
        )
        with self._connections.read() as connection:
            return [SealedRegion(**row._mapping) for row in connection.execute(statement)]


def put(connections: Connections, connection: sa.Connection, regions: Sequence[SealedRegion]) -> None:
    """Keep what series told, in the place of what they told before, within the transaction of `connection`."""
    for one in regions:
        statement = connections.insert(t.face_region).values(**asdict(one))
        changed = {"key_id": statement.excluded.key_id, "sealed": statement.excluded.sealed}
        connection.execute(statement.on_conflict_do_update(index_elements=["place"], set_=changed))
