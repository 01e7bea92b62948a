"""The tables of the standard load, and are complete."""

from pacs.standard import tables


def test_the_profile_has_all_its_rows() -> None:
    """PS3.15 Table E.1-1, 2026d: 657 rows, every action one of the table's codes."""
    rows = tables.profile_rows()

    assert len(rows) == 657
    assert {row.basic for row in rows} == {"D", "Z", "X", "U", "Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*"}
    assert {option for row in rows for option in row.options} == set(tables.OPTIONS)


def test_other_tables_load() -> None:
    """Content items, safe private attributes, methods, IODs."""
    assert len(tables.content_rows()) == 214
    assert len(tables.safe_private_rows()) == 479
    assert tables.deidentification_methods()["113100"] == "Basic Application Confidentiality Profile"
    assert tables.iod_of("1.2.840.10008.5.1.4.1.1.2") == "ct-image"
    assert tables.iod_of("1.2.3") == "" and not tables.types_of("")
    assert tables.types_of("ct-image")["00100010"].startswith("2")
