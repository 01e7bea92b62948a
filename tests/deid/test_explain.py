"""Explaining and judging: what is told is what happens, by which row, and never a value that nobody asked for."""

from pathlib import Path

import making
import pytest
from deid.deidentifying import KEY, code, content_item, deidentifier, raw, report
from deid.lettering import shoulders, written
from processing.held_images import ultrasound
from pydicom.dataset import Dataset

from pacs.cli import burned_in
from pacs.deid.check import check
from pacs.deid.explain import CHANGED, EMPTIED, KEPT, REMOVED, Explanation, explain
from pacs.deid.profile import Deidentifier
from pacs.deid.statement import section
from pacs.dicom import elements, part10
from pacs.model.errors import ArchiveError
from pacs.model.instance import Origin, Received
from pacs.processing.registry import discover
from pacs.processing.words import words


def explained(ds: Dataset, policy: str = "research") -> Explanation:
    """Explain a data set under a policy."""
    return explain(deidentifier(policy), making.received(ds))


def fates(found: Explanation) -> dict[str, str]:
    """Return keyword -> fate of the top-level elements."""
    return {line.keyword: line.fate for line in found.lines if not line.path}


@pytest.mark.parametrize("policy", ["basic", "research"])
def test_what_is_told_is_what_happens(policy: str) -> None:
    """For every element: removed is gone, kept is the same, changed is other; the values shown are those before and after."""
    ds = making.dataset(PatientComments="Call Mrs Quillfeather", OperatorsName="Okonkwo^B", DeviceSerialNumber="SN-1")
    sent = {one.tag: one for one in elements.walk(making.encode(ds))}
    found = explained(ds, policy)
    result = {one.tag: one for one in deidentifier(policy).deidentify(making.received(ds)).elements}

    assert len(found.lines) == len(ds)
    for line in found.lines:
        made = result.get(line.tag)
        assert (made is None) == (line.fate == REMOVED), line.keyword
        if made is not None and line.fate == KEPT:
            assert bytes(made.value) == bytes(sent[line.tag].value)
        if line.fate == EMPTIED:
            assert made is not None and not made.value


def test_the_row_and_the_option_are_named() -> None:
    """Table E.1-1 with its code, the Type that resolves it, and the option that overrides it."""
    lines = {line.keyword: line for line in explained(making.dataset()).lines}

    assert lines["StudyDescription"].why == "Table E.1-1: X; clean_descriptors: C"
    assert lines["PatientID"].why == "Table E.1-1: Z/D (Type 2)"
    assert lines["Rows"].why == "in no table: by its VR"
    assert (lines["StudyInstanceUID"].fate, lines["StudyInstanceUID"].action) == (CHANGED, "new UID")


def test_items_are_explained_where_they_stand() -> None:
    """A name within a content item, and an item that a table row takes out whole."""
    concept = code("121008", "DCM", "Person Observer Name")
    ds = report(
        content_item("PNAME", concept, PersonName="Okonkwo^Bartholomew"),
        content_item("TEXT", code("121071", "DCM", "Finding"), TextValue="Okonkwo saw it"),
    )
    found = explained(ds)

    paths = {line.path for line in found.lines}
    assert any("ContentSequence[1] > " in path for path in paths)
    assert not any(line.fate == KEPT and "Okonkwo" in line.before for line in found.lines)


def test_private_elements_are_named_with_their_table() -> None:
    """Which is safe is told by Table E.3.10-1."""
    ds = making.dataset()
    block = ds.private_block(0x0099, "SECRET MAKER", create=True)
    block.add_new(0x01, "LO", "Quillfeather")
    lines = [line for line in explained(ds).lines if line.tag >> 16 == 0x0099]

    assert {line.fate for line in lines} == {REMOVED}
    assert all("E.3.10-1" in line.why for line in lines)


def test_a_refusal_is_explained_with_its_elements() -> None:
    """An object that would go to quarantine still shows what would become of its elements."""
    found = explained(making.dataset(BurnedInAnnotation="YES"), "basic")

    assert found.outcome == "quarantined"
    assert found.reason
    assert fates(found)["PatientBirthDate"] == EMPTIED


def test_values_are_not_in_the_repr() -> None:
    """Whoever logs an explanation logs no patient."""
    said = repr(explained(making.dataset()))

    assert not any(word in said for word in making.PLANTED)


def test_what_we_deidentified_is_without_findings() -> None:
    """Under each policy, with names in unusual places: a second look finds nothing to take away."""
    ds = making.dataset(PatientComments="Call Mrs Quillfeather", OperatorsName="Okonkwo^B", InstitutionAddress="17 Lark Lane")
    for policy in ("basic", "research"):
        engine = deidentifier(policy)
        made = engine.deidentify(making.received(ds))
        file = part10.file_meta(made.sop_class_uid, made.key.sop_instance_uid, made.transfer_syntax_uid)
        judgement = check(engine, file + b"".join(elements.join(made.elements)))

        assert judgement.findings == ()


def test_what_nobody_deidentified_is_full_of_findings() -> None:
    """Identity, UIDs, dates, text, the missing marker; kinds and places, no values."""
    judgement = check(deidentifier(), making.part10(making.dataset(PatientComments="Call Mrs Quillfeather")))

    assert judgement.counts.keys() >= {"identity", "uid", "date", "text", "not marked"}
    assert not any(word in repr(judgement) for word in making.PLANTED)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"PatientName": "Quillfeather^Zebulon"}, "identity"),
        ({"PatientBirthDate": "19580317"}, "date"),
        ({"OperatorsName": "Okonkwo^B"}, "identity"),
        ({"InstitutionName": "St Wilfrid Infirmary"}, "element"),
        ({"SeriesDescription": "Quillfeather follow-up"}, "text"),
        ({"BurnedInAnnotation": "YES"}, "pixels"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1", "BurnedInAnnotation": ""}, "pixels"),
        ({"PatientIdentityRemoved": "NO"}, "not marked"),
    ],
)
def test_one_slip_in_a_clean_file_is_found(change: dict[str, str], kind: str) -> None:
    """A file that is clean but for one thing has findings of that kind."""
    engine = deidentifier()
    made = engine.deidentify(making.received(making.dataset()))
    ds = Dataset()
    ds.update(_read(b"".join(elements.join(made.elements))))
    for keyword, value in change.items():
        setattr(ds, keyword, value)

    judgement = check(engine, making.part10(ds))

    assert kind in judgement.counts


def test_a_private_element_and_a_told_route_are_found() -> None:
    """Private elements that no table has; File Meta Information that tells where the file has been; a preamble."""
    engine = deidentifier()
    made = engine.deidentify(making.received(making.dataset()))
    meta = part10.file_meta(made.sop_class_uid, made.key.sop_instance_uid, made.transfer_syntax_uid)
    private = raw(0x00990010, b"LO", b"MAKER ") + raw(0x00991001, b"LO", b"secret")
    body = b"".join(bytes(one.encoded) for one in made.elements if one.tag < 0x00990000) + private
    body += b"".join(bytes(one.encoded) for one in made.elements if one.tag > 0x00990000)
    judgement = check(engine, b"II*\0" + meta[4:] + body)

    assert judgement.counts == {"container": 1, "private": 2}


def test_retrieved_shared_files_have_no_findings(shared_data: Path) -> None:
    """Real files, de-identified and judged again: nothing is found in any of them."""
    engine, judged = deidentifier(), 0
    for path in sorted(shared_data.rglob("*"))[::23]:
        if not path.is_file() or path.stat().st_size > 2_000_000:
            continue
        try:
            parts = part10.split(path.read_bytes())
            made = engine.deidentify(Received(parts.data_set, parts.transfer_syntax_uid, Origin.IMPORT, "test"))
        except ArchiveError:
            continue
        if made.pending:
            continue
        file = part10.file_meta(made.sop_class_uid, made.key.sop_instance_uid, made.transfer_syntax_uid)
        judgement = check(engine, file + b"".join(elements.join(made.elements)))
        assert judgement.findings == (), path.name
        judged += 1
    assert judged > 10


def _read(data: bytes) -> Dataset:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import read_dataset

    return read_dataset(DicomBytesIO(data), False, True)


def test_the_conformance_statement_is_what_the_tables_say() -> None:
    """docs/conformance.md holds what `pacs deid statement` writes."""
    document = (Path(__file__).resolve().parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")

    assert section() in document


class TestPixels:
    """Pixels at risk of burned-in text: what the header claims, and what a look says."""

    @staticmethod
    def judged(look: str | None, *, believe: bool = True, **change: object) -> dict[str, int]:
        """Judge a clean ultrasound image with these changes, and a look that answers so."""
        engine = deidentifier()
        made = engine.deidentify(making.received(making.dataset()))
        ds = Dataset()
        ds.update(_read(b"".join(elements.join(made.elements))))
        ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.6.1", "US"
        for keyword, value in change.items():
            setattr(ds, keyword, value)
        answer = None if look is None else lambda *_: look
        return check(engine, making.part10(ds), look=answer, believe=believe).counts

    @staticmethod
    def claims() -> dict[str, object]:
        """Clean Pixel Data, and no text left."""
        return {"DeidentificationMethodCodeSequence": [code("113101", "DCM", "x")], "BurnedInAnnotation": "NO"}

    def test_a_look_decides_where_nothing_is_claimed(self) -> None:
        """Without a look it is a finding; with one, only text is; NO alone is no claim (trap 44)."""
        assert self.judged(None) == self.judged("they show text") == {"pixels": 1}
        assert self.judged(None, BurnedInAnnotation="NO") == {"pixels": 1}
        assert self.judged("") == {}

    def test_a_claim_is_taken_unless_told_otherwise(self) -> None:
        """Both marks together say that pixels were searched; who does not believe it has them searched again."""
        assert self.judged("they show text", **self.claims()) == {}
        assert self.judged("they show text", believe=False, **self.claims()) == {"pixels": 1}
        assert self.judged("they show text", **self.claims() | {"BurnedInAnnotation": ""}) == {"pixels": 1}


@pytest.mark.parametrize(("text", "found"), [("", {}), ("Quillfeather 1958", {"pixels": 1})])
def test_a_name_in_a_colour_picture_is_found_and_anatomy_is_not(text: str, found: dict[str, int]) -> None:
    """A capture that claims nothing, really looked at: shoulders in which letters are read, without and with a name."""
    engine = deidentifier()
    picture = written(shoulders(14), text, at=(8, 4), size=12, value=(255, 255, 255)) if text else shoulders(14)
    made = engine.deidentify(making.received(ultrasound(picture, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")))
    file = part10.file_meta(made.sop_class_uid, made.key.sop_instance_uid, made.transfer_syntax_uid)

    assert "pixels" in made.pending
    assert check(engine, file + b"".join(elements.join(made.elements)), look=burned_in.look).counts == found


def test_words_of_the_installed_processors_are_no_finding() -> None:
    """What a processor writes is in its source; a name beside it still is found."""
    more = words(discover().values())
    engine = Deidentifier("research", KEY, words=more)
    made = engine.deidentify(making.received(making.dataset()))
    ds = Dataset()
    ds.update(_read(b"".join(elements.join(made.elements))))

    for text, found in (("CT lungs (research use)", {}), ("CT lungs Quillfeather (research use)", {"text": 1})):
        ds.SeriesDescription = text
        assert check(engine, making.part10(ds)).counts == found
    assert "quillfeather" not in more and "research" in more
