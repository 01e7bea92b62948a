"""The conformance statement says what is configured, and what is really negotiated."""

from dataclasses import replace
from pathlib import Path

from dimse.door import Door
from pynetdicom import AE
from pynetdicom.presentation import build_context

from pacs.dimse import contexts
from pacs.dimse.statement import statement
from pacs.settings import Settings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


def test_the_document_is_the_statement_of_the_defaults() -> None:
    """Write it anew with `pacs conformance --defaults`."""
    assert DOCUMENT.read_text(encoding="utf-8") == statement(Settings(home=Path()))


def test_nothing_is_left_to_fill_in() -> None:
    """Every name of the template has its value."""
    assert "{{" not in statement(Settings(home=Path()))


def test_the_statement_follows_the_configuration(tmp_path: Path) -> None:
    """AE title, ports, TLS, limits and policy of this home."""
    settings = Settings(home=tmp_path)
    dicom = replace(settings.dicom, ae_title="RESEARCH", port=104, tls_port=2762, maximum_answers=50, maximum_associations=7)
    told = statement(replace(settings, dicom=dicom, deid=replace(settings.deid, policy="basic")))

    for row in ("AE title | RESEARCH", "plain on port 104, TLS on port 2762", "at most 50", "policy | basic"):
        assert row in told
    assert "`dicom.maximum_associations` (7)" in told


def test_what_is_stated_is_accepted(shared_door: Door) -> None:
    """Every class and transfer syntax of the statement is negotiated, 128 at a time; one that is not there is refused."""
    told = statement(shared_door.archive.settings)
    proposed = [build_context(uid, list(contexts.UNCOMPRESSED)) for uid in sorted(contexts.STORAGE_CLASSES) if uid in told]
    proposed += [build_context(contexts.VERIFICATION), build_context("1.2.3.4.5")]
    assert len(proposed) > len(contexts.STORAGE_CLASSES)
    refused: list[str] = []
    for start in range(0, len(proposed), 128):
        association = AE().associate("127.0.0.1", shared_door.port, contexts=proposed[start : start + 128], ae_title="MINIPACS")
        refused += [str(one.abstract_syntax) for one in association.rejected_contexts]
        association.release()

    assert refused == ["1.2.3.4.5"]
