"""Identifiers of queries and retrievals."""

from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from pacs.dicom.dictionary import tag_of, vr_of
from pacs.dimse import encoding, identifier
from pacs.dimse.contexts import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from pacs.dimse.identifier import Asked, Wanted
from pacs.model.errors import InvalidQuery, NotUnderstood
from pacs.model.query import AnyOf, Between, Level, Match, Single, Wildcard


def made(charset: str = "", codec: str = "utf-8", **keys: str) -> bytes:
    """Return an explicit identifier of keyword -> value."""
    rows = [(tag_of(keyword), vr_of(tag_of(keyword)), value.encode(codec)) for keyword, value in keys.items()]
    if charset:
        rows.append((0x00080005, "CS", charset.encode()))
    return encoding.encode(sorted(rows), explicit=True)


def ask(*, patient_root: bool = False, relational: bool = False, charset: str = "", codec: str = "utf-8", **keys: str) -> Asked:
    keys.setdefault("QueryRetrieveLevel", "STUDY")
    parsed = identifier.parse(made(charset, codec, **keys), EXPLICIT_LITTLE_ENDIAN)
    return identifier.asked(parsed, patient_root=patient_root, relational=relational, fuzzy=False)


def want(*, patient_root: bool = False, relational: bool = False, **keys: str) -> Wanted:
    parsed = identifier.parse(made(**keys), EXPLICIT_LITTLE_ENDIAN)
    return identifier.wanted(parsed, patient_root=patient_root, relational=relational)


@pytest.mark.parametrize("level", ["", "FRAME", "study", "STUDY\\SERIES", "PATIENT"])
def test_f1_level_missing_unknown_or_not_in_the_model_is_refused(level: str) -> None:
    """A900; PATIENT is not in the Study Root model."""
    with pytest.raises(InvalidQuery):
        ask(QueryRetrieveLevel=level)


def test_f1_level_patient_is_in_the_patient_root_model() -> None:
    """And needs no key above it."""
    assert ask(patient_root=True, QueryRetrieveLevel="PATIENT", PatientName="").query.level is Level.PATIENT


@pytest.mark.parametrize("study", ["", "*", "1.2\\1.3"])
def test_f2_below_the_top_the_unique_key_above_must_be_one_value(study: str) -> None:
    """Hierarchical search (PS3.4 C.4.1.2.1); a universal, wildcard or list key above is refused."""
    with pytest.raises(InvalidQuery):
        ask(QueryRetrieveLevel="SERIES", StudyInstanceUID=study)


def test_f2_relational_queries_need_no_keys_above() -> None:
    """When negotiated, a series may be asked for by its own attributes only."""
    asked = ask(relational=True, QueryRetrieveLevel="SERIES", Modality="CT")

    assert asked.query.matches == {"Modality": Single("CT")}


@pytest.mark.parametrize(
    ("keyword", "value", "match"),
    [
        ("PatientName", "DOE^J*", Wildcard("DOE^J*")),
        ("PatientName", "Doe^John", Single("Doe^John")),
        ("PatientName", "*", None),
        ("PatientName", "", None),
        ("StudyDescription", "100%_a?", Wildcard("100%_a?")),
        ("StudyInstanceUID", "1.2.3", Single("1.2.3")),
        ("StudyInstanceUID", "1.2\\1.3\\1.4", AnyOf(("1.2", "1.3", "1.4"))),
        ("ModalitiesInStudy", "CT\\MR", AnyOf(("CT", "MR"))),
        ("AccessionNumber", " A1 ", Single("A1")),
    ],
)
def test_f6_f7_f8_f11_values_become_the_right_kind_of_match(keyword: str, value: str, match: Match | None) -> None:
    """Single value, universal, wild card and list of UID matching (PS3.4 C.2.2.2)."""
    matches = ask(**{keyword: value}).query.matches

    assert matches.get(keyword) == match


def test_f8_wildcards_are_literal_where_they_have_no_meaning() -> None:
    """An IS or a date holds no wild cards: the number is compared as it stands, the date is refused."""
    keys = {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2", "SeriesNumber": "1*"}
    assert ask(**keys).query.matches["SeriesNumber"] == Single("1*")
    with pytest.raises(InvalidQuery):
        ask(StudyDate="2024*")


def test_f11_a_thousand_uids_are_one_match() -> None:
    """List of UID matching has no limit of its own."""
    uids = [f"1.2.{number}" for number in range(1000)]

    match = ask(QueryRetrieveLevel="STUDY", StudyInstanceUID="\\".join(uids)).query.matches["StudyInstanceUID"]

    assert isinstance(match, AnyOf) and len(match.values) == 1000


@pytest.mark.parametrize(
    ("keyword", "value", "match"),
    [
        ("StudyDate", "20240101-20241231", Between("20240101", "20241231")),
        ("StudyDate", "20240101-", Between("20240101", "")),
        ("StudyDate", "-20240101", Between("", "20240101")),
        ("StudyDate", "2024.02.29", Single("20240229")),
        ("StudyTime", "10", Between("10", "10")),
        ("StudyTime", "10-12", Between("10", "12")),
        ("StudyTime", "1015-101530.5", Between("1015", "101530.5")),
    ],
)
def test_f10_ranges(keyword: str, value: str, match: Match) -> None:
    """Range matching, both ends included, either of them open (PS3.4 C.2.2.2.5)."""
    assert ask(**{keyword: value}).query.matches[keyword] == match


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyDate", "20241231-20240101"),
        ("StudyDate", "2024"),
        ("StudyDate", "20241301"),
        ("StudyDate", "yesterday"),
        ("StudyDate", "-"),
        ("StudyTime", "22-04"),
        ("StudyTime", "25"),
        ("StudyTime", "10-11-12"),
    ],
)
def test_f10_reversed_or_malformed_ranges_are_refused(keyword: str, value: str) -> None:
    """An error, not an empty success; a time range does not cross midnight."""
    with pytest.raises(InvalidQuery):
        ask(**{keyword: value})


def test_f4_keys_we_cannot_answer_come_back_empty_and_are_told() -> None:
    """Unknown keys and keys of a lower level do not filter; the answer says FF01 and carries them without value."""
    asked = ask(StudyInstanceUID="", InstanceNumber="1", RequestingPhysician="X", NumberOfStudyRelatedInstances="3")

    assert asked.unsupported
    assert asked.query.matches == {}
    answer = dcmread(BytesIO(identifier.answer(asked, {"StudyInstanceUID": "1.2"}, "US", explicit=True)), force=True)
    assert {"InstanceNumber", "RequestingPhysician"} <= set(answer.dir())
    assert answer["RequestingPhysician"].is_empty


def test_f3_an_answer_has_the_asked_and_the_unique_keys_and_where_to_get_it() -> None:
    """Requested keys, unique keys, Query/Retrieve Level and Retrieve AE Title; nothing else."""
    asked = ask(QueryRetrieveLevel="SERIES", StudyInstanceUID="1.2", Modality="")

    found = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "Modality": "CT", "PatientName": "Not^Asked"}
    answer = dcmread(BytesIO(identifier.answer(asked, found, "MINIPACS", explicit=True)), force=True)

    assert {one.keyword for one in answer} == {
        "QueryRetrieveLevel",
        "RetrieveAETitle",
        "Modality",
        "StudyInstanceUID",
        "SeriesInstanceUID",
    }
    assert (answer.Modality, answer.SeriesInstanceUID, answer.RetrieveAETitle) == ("CT", "1.2.3", "MINIPACS")


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN])
def test_an_answer_is_encoded_as_negotiated(syntax: str) -> None:
    """Numbers are binary, texts padded, in both transfer syntaxes."""
    keys = {
        "QueryRetrieveLevel": "IMAGE",
        "StudyInstanceUID": "1",
        "SeriesInstanceUID": "1.1",
        "Rows": "",
        "InstanceNumber": "",
    }
    found = {
        "StudyInstanceUID": "1",
        "SeriesInstanceUID": "1.1",
        "SOPInstanceUID": "1.1.1",
        "Rows": "512",
        "InstanceNumber": "7",
    }

    encoded = identifier.answer(ask(**keys), found, "A", explicit=syntax == EXPLICIT_LITTLE_ENDIAN)
    read = {one.tag: bytes(one.value) for one in identifier.parse(encoded, syntax)}

    assert read[0x00280010] == b"\0\2"
    assert read[0x00200013] == b"7 "
    assert read[0x0020000D] == b"1\0"


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("ISO_IR 100", "latin-1"),
        ("ISO_IR 192", "utf-8"),
        ("ISO_IR 144", "iso8859-5"),
        ("GB18030", "gb18030"),
        ("ISO 2022 IR 6\\ISO 2022 IR 87", "iso2022_jp"),
    ],
)
def test_f15_a_key_is_read_in_its_own_character_set(charset: str, codec: str) -> None:
    """The same name is found whatever set the request is written in."""
    name = {"latin-1": "Müller^Jörg", "iso8859-5": "Люкceмбypг"}.get(codec, "山田^太郎")

    match = ask(charset=charset, codec=codec, PatientName=name).query.matches["PatientName"]

    assert match == Single(name)


def test_f15_an_unknown_character_set_is_refused() -> None:
    """Guessing would match the wrong names."""
    with pytest.raises(NotUnderstood):
        ask(charset="KLINGON", PatientName="X")


@pytest.mark.parametrize(
    ("charset", "name", "said"),
    [
        ("", "Doe^John", None),
        ("", "Müller^Jörg", "ISO_IR 192"),
        ("ISO_IR 100", "Müller^Jörg", "ISO_IR 100"),
        ("ISO_IR 100", "山田^太郎", "ISO_IR 192"),
    ],
)
def test_f15_an_answer_names_its_character_set_when_it_needs_one(charset: str, name: str, said: str | None) -> None:
    """The asked set if the values fit into it, else UTF-8; none for ASCII."""
    asked = ask(charset=charset, PatientName="")

    answer = dcmread(BytesIO(identifier.answer(asked, {"PatientName": name}, "A", explicit=True)), force=True)

    assert answer.get("SpecificCharacterSet") == said
    assert str(answer.PatientName) == name


@pytest.mark.parametrize(
    "keys",
    [
        {"QueryRetrieveLevel": "STUDY"},
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""},
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "*"},
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.?"},
        {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2"},
        {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1\\2", "SeriesInstanceUID": "1.2"},
    ],
)
def test_m3_missing_empty_wildcard_or_misplaced_unique_keys_are_refused(keys: dict[str, str]) -> None:
    """A list stands at the requested level only; above it every key has one value (PS3.4 C.4.2.2.1)."""
    with pytest.raises(InvalidQuery):
        want(**keys)


def test_m3_a_list_at_the_level_and_other_keys_ignored() -> None:
    """Other attributes of the identifier do not narrow a retrieval."""
    wanted = want(QueryRetrieveLevel="SERIES", StudyInstanceUID="1", SeriesInstanceUID="1.1\\1.2", Modality="MR", PatientID="P")

    assert wanted.keys == {"StudyInstanceUID": ("1",), "SeriesInstanceUID": ("1.1", "1.2")}


def test_m3_the_patient_root_needs_the_patient() -> None:
    """PatientID is the unique key of the level above STUDY; relational negotiation spares it."""
    with pytest.raises(InvalidQuery):
        want(patient_root=True, QueryRetrieveLevel="STUDY", StudyInstanceUID="1")

    wanted = want(patient_root=True, relational=True, QueryRetrieveLevel="STUDY", StudyInstanceUID="1")

    assert wanted.keys == {"StudyInstanceUID": ("1",)}


def test_m9_a_long_failed_list_fits() -> None:
    """More than 64 KiB of UIDs travel as UN in explicit VR (PS3.5 6.2.2) and as ever in implicit."""
    uids = [f"1.2.826.0.1.3680043.8.498.{number:030}" for number in range(2000)]

    explicit = identifier.parse(identifier.failed_list(uids, explicit=True), EXPLICIT_LITTLE_ENDIAN)
    implicit = identifier.parse(identifier.failed_list(uids, explicit=False), IMPLICIT_LITTLE_ENDIAN)

    assert bytes(explicit[0].value).rstrip(b"\0") == bytes(implicit[0].value).rstrip(b"\0") == "\\".join(uids).encode()


@given(st.binary(max_size=200))
def test_a13_any_bytes_are_an_identifier_or_an_error_of_ours(noise: bytes) -> None:
    """Garbage never raises anything that the door does not know."""
    for syntax in (IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN):
        with suppress(InvalidQuery, NotUnderstood):
            parsed = identifier.parse(noise, syntax)
            identifier.asked(parsed, patient_root=True, relational=True, fuzzy=False)
