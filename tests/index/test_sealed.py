"""Sealed rows: none is out of sight of whoever seals them anew."""

from pacs.index import tables as t
from pacs.index.sealed import _PLACES
from pacs.model.sealed import Kind


def test_every_table_with_a_sealed_column_is_known() -> None:
    """A table that names a key would keep rows under the old one if a rotation did not know it; each kind has its place."""
    named = {table.name for table in t.metadata.tables.values() if "key_id" in table.c}

    assert {row_id.table.name for row_id, *_ in _PLACES.values()} == named
    assert _PLACES.keys() == set(Kind)
