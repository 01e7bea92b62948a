"""Queries: every kind of matching of PS3.4 C.2.2.2, at every level, on both databases."""

import pytest
from arrivals import SEG, a_series, placed

from pacs.index import search
from pacs.index.database import Index
from pacs.model.errors import InvalidQuery
from pacs.model.query import AnyOf, Between, Level, Match, Query, Single, Wildcard


def named(index: Index, **names: str) -> None:
    """Add one study for each name; its UID is the keyword's."""
    index.add(
        [placed(study=uid, series=f"{uid}.1", PatientID=uid, PatientName=name, attributes={}) for uid, name in names.items()]
    )


def studies(index: Index, fuzzy: bool = False, **matches: Match) -> list[str]:
    """Return the Study Instance UIDs that match, sorted."""
    found = index.search(Query(Level.STUDY, matches, fuzzy=fuzzy))
    return sorted(answer["StudyInstanceUID"] for answer in found)


def with_values(index: Index, keyword: str, **values: str) -> None:
    """Add one study for each value of an attribute."""
    index.add(
        [placed(study=uid, series=f"{uid}.1", PatientID=uid, attributes={keyword: value}) for uid, value in values.items()]
    )


def test_single_value_matching_is_exact(index: Index) -> None:
    """PS3.4 C.2.2.2.1: a text other than a name matches with its case and as a whole."""
    with_values(index, "StudyDescription", a="CT Chest", b="CT CHEST", c="CT Chest low dose")

    assert studies(index, StudyDescription=Single("CT Chest")) == ["a"]


def test_spaces_around_a_value_do_not_count(index: Index) -> None:
    """PS3.4 C.2.2.2.1: neither those stored nor those asked for."""
    with_values(index, "AccessionNumber", a=" A1 ", b="A1", c="A 1")

    assert studies(index, AccessionNumber=Single("A1  ")) == ["a", "b"]


def test_a_name_matches_whatever_its_case(index: Index) -> None:
    """PS3.4 C.2.2.2.1: PN is insensitive to case here, beyond ASCII too, and trailing carets do not count."""
    named(index, a="Doe^John", b="DOE^JOHN^^", c="Doe^Johnny", d="ÅSTRÖM^EVA")

    assert studies(index, PatientName=Single("doe^john")) == ["a", "b"]
    assert studies(index, PatientName=Single("åström^Eva")) == ["d"]


def test_each_group_of_a_name_is_matched(index: Index) -> None:
    """A key without "=" finds any component group; one with "=" finds its own (PS3.5 6.2.1)."""
    named(index, a="Yamada^Tarou=山田^太郎=やまだ^たろう", b="Yamada^Hanako")

    assert studies(index, PatientName=Single("山田^太郎")) == ["a"]
    assert studies(index, PatientName=Wildcard("山?^*")) == ["a"]
    assert studies(index, PatientName=Wildcard("yamada*")) == ["a", "b"]
    assert studies(index, PatientName=Wildcard("Yamada*=山田*")) == ["a"]
    assert studies(index, PatientName=Wildcard("=山田*")) == ["a"]
    assert studies(index, PatientName=Wildcard("山田*=Yamada*")) == []


def test_decomposed_characters_match_composed_ones(index: Index) -> None:
    """The same text in another Unicode form is the same name, and "?" is one character, not one byte."""
    named(index, a="Mu\u0308ller^Jo\u0308rg")

    assert studies(index, PatientName=Single("Müller^Jörg")) == ["a"]
    assert studies(index, PatientName=Wildcard("M?ller*")) == ["a"]


def test_wild_cards(index: Index) -> None:
    """PS3.4 C.2.2.2.4: "*" is any characters or none, "?" exactly one."""
    with_values(index, "StudyDescription", a="CT Chest", b="CT Chst", c="ct chest", d="CT")

    assert studies(index, StudyDescription=Wildcard("CT*")) == ["a", "b", "d"]
    assert studies(index, StudyDescription=Wildcard("CT Ch?st")) == ["a"]
    assert studies(index, StudyDescription=Wildcard("*hest")) == ["a", "c"]


@pytest.mark.parametrize("special", ["%", "_", "\\\\", "[", "]", "^", "'", "[a]"])
def test_what_is_special_in_sql_is_literal(index: Index, special: str) -> None:
    """PS3.4 C.2.2.2.4: only "*" and "?" are wild cards."""
    with_values(index, "StudyDescription", a=f"x{special}y", b="xay", c="xaby")

    assert studies(index, StudyDescription=Wildcard(f"x{special}*")) == ["a"]
    assert studies(index, StudyDescription=Single(f"x{special}y")) == ["a"]


def test_an_asterisk_alone_is_universal(index: Index) -> None:
    """PS3.4 C.2.2.2.3, C.2.2.2.4: it also returns studies whose value is empty."""
    with_values(index, "StudyDescription", a="CT", b="")

    assert studies(index, StudyDescription=Wildcard("*")) == ["a", "b"]


def test_an_empty_value_is_found_by_no_restricting_key(index: Index) -> None:
    """PS3.4 C.2.2.2.3: only universal matching returns what has no value."""
    with_values(index, "StudyDate", a="", b="20240101")
    index.add([placed(study="c", series="c.1", PatientID="c", attributes={"StudyDate": "20240101", "StudyTime": ""})])

    assert studies(index, StudyDate=Between("", "20250101")) == ["b", "c"]
    assert studies(index, StudyTime=Between("", "2359")) == ["a", "b"]
    assert studies(index, StudyDescription=Wildcard("?*")) == []


def test_wild_cards_are_literal_in_a_uid(index: Index) -> None:
    """PS3.4 C.2.2.2.4 names the VRs with wild cards; UI is not one."""
    index.add([placed(study="1.2"), placed(study="1.3", series="1.3.1")])

    assert studies(index, StudyInstanceUID=Wildcard("1.*")) == []


def test_date_ranges_include_both_ends(index: Index) -> None:
    """PS3.4 C.2.2.2.5: "a-b", "a-" and "-b"; the old form with full stops compares alike."""
    with_values(index, "StudyDate", a="20231231", b="2024.01.01", c="20240229", d="20240301")

    assert studies(index, StudyDate=Between("20240101", "20240229")) == ["b", "c"]
    assert studies(index, StudyDate=Between("20240229", "")) == ["c", "d"]
    assert studies(index, StudyDate=Between("", "20240101")) == ["a", "b"]
    assert studies(index, StudyDate=Single("20240101")) == ["b"]


def test_times_mean_all_that_they_do_not_say(index: Index) -> None:
    """PS3.4 C.2.2.2.5: "10" is 10:00:00 to 10:59:59.999999."""
    with_values(index, "StudyTime", a="095959", b="10", c="10:30:00", d="105959.999999", e="110000")

    assert studies(index, StudyTime=Single("10")) == ["b", "c", "d"]
    assert studies(index, StudyTime=Between("10", "10")) == ["b", "c", "d"]
    assert studies(index, StudyTime=Between("1030", "")) == ["c", "d", "e"]
    assert studies(index, StudyTime=Single("105959.9")) == ["d"]


def test_times_kept_as_they_came_match_alike(index: Index) -> None:
    """An attribute without a column of its own follows the same rules."""
    index.add([placed(n, AcquisitionTime=time) for n, time in enumerate(("0959", "10", "10:30", "1100"))])

    found = index.search(Query(Level.IMAGE, {"AcquisitionTime": Between("10", "10")}))

    assert [answer["AcquisitionTime"] for answer in found] == ["10", "10:30"]


def test_a_range_that_ends_before_it_begins_is_refused(index: Index) -> None:
    """Not an empty success: the asker made a mistake, and the message names the key."""
    with pytest.raises(InvalidQuery, match="StudyDate"):
        index.search(Query(Level.STUDY, {"StudyDate": Between("20240301", "20240101")}))


def test_a_list_of_uids_finds_each(index: Index) -> None:
    """PS3.4 C.2.2.2.2, with more than a thousand of them."""
    index.add([placed(study="1.2"), placed(study="1.3", series="1.3.1"), placed(study="1.4", series="1.4.1")])
    many = tuple(f"2.25.{number}" for number in range(1500))

    assert studies(index, StudyInstanceUID=AnyOf((*many, "1.2", "1.4"))) == ["1.2", "1.4"]
    assert [one.key.study_instance_uid for one in index.locate(study_instance_uids=(*many, "1.3"))] == ["1.3"]


def test_one_of_several_values_is_enough(index: Index) -> None:
    """PS3.4 C.2.2.2.1: an attribute with several values matches if one of them does, as a whole."""
    index.add([placed(1, ImageType="ORIGINAL\\PRIMARY\\AXIAL"), placed(2, ImageType="DERIVED\\SECONDARY\\M.P_R")])

    def images(match: Match) -> list[str]:
        return [answer["InstanceNumber"] for answer in index.search(Query(Level.IMAGE, {"ImageType": match}))]

    assert images(Single("AXIAL")) == ["1"]
    assert images(Single("AXI")) == []
    assert images(Wildcard("*ARY")) == ["1", "2"]
    assert images(Wildcard("M.P_?")) == ["2"]
    assert images(Wildcard("ORIG*AXIAL")) == []
    assert images(AnyOf(("X", "DERIVED"))) == ["2"]


def test_numbers_compare_as_numbers(index: Index) -> None:
    """An IS with zeros or spaces is the same number."""
    index.add(a_series(12))

    found = index.search(Query(Level.IMAGE, {"InstanceNumber": Single(" 007")}))

    assert [answer["InstanceNumber"] for answer in found] == ["7"]


@pytest.mark.parametrize("few_rows", [0, 5000])
def test_modalities_in_study_finds_and_names_them_all(index: Index, few_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """PS3.4 C.6.2.1: a study matches if one series does; the answer gathers every modality and SOP class.

    Whichever way the search goes: from the series of a rare modality, or through the studies for a common one.
    """
    monkeypatch.setattr(search, "_FEW_ROWS", few_rows)
    index.add([placed(study="a", series="a.1", Modality="CT"), placed(study="a", series="a.2", Modality="PT")])
    index.add([placed(study="b", series="b.1", Modality="MR", sop_class_uid=SEG)])

    (answer,) = index.search(Query(Level.STUDY, {"ModalitiesInStudy": Single("PT")}))

    assert answer["ModalitiesInStudy"] == "CT\\PT"
    assert answer["NumberOfStudyRelatedSeries"] == "2"
    assert studies(index, ModalitiesInStudy=AnyOf(("MR", "PT"))) == ["a", "b"]
    assert studies(index, ModalitiesInStudy=Wildcard("?R")) == ["b"]
    assert studies(index, SOPClassesInStudy=Single(SEG)) == ["b"]


def test_keys_of_lower_levels_hold_for_one_and_the_same_entity(index: Index) -> None:
    """Relational queries: series keys asked at study level must all be true of one series."""
    index.add(
        [
            placed(study="a", series="a.1", Modality="CT", SeriesDescription="lung"),
            placed(study="a", series="a.2", Modality="PT", SeriesDescription="body"),
        ]
    )

    assert studies(index, Modality=Single("CT"), SeriesDescription=Single("lung")) == ["a"]
    assert studies(index, Modality=Single("CT"), SeriesDescription=Single("body")) == []
    assert studies(index, SOPInstanceUID=Single("a.2.1")) == ["a"]
    assert studies(index, Modality=Single("CT"), SOPInstanceUID=Single("a.2.1")) == []
    patients = index.search(Query(Level.PATIENT, {"SOPInstanceUID": Single("a.2.1")}))
    assert [answer["PatientID"] for answer in patients] == ["P1"]


def test_keys_of_higher_levels_restrict_lower_ones(index: Index) -> None:
    """A patient's name finds images."""
    named(index, a="Doe^John", b="Roe^Jane")

    found = index.search(Query(Level.IMAGE, {"PatientName": Wildcard("doe*"), "StudyInstanceUID": Single("a")}))

    assert [answer["SOPInstanceUID"] for answer in found] == ["a.1.1"]


def test_an_unknown_key_is_refused_by_name(index: Index) -> None:
    """Never a filter left out in silence (PS3.4 C.4.1.1.4)."""
    with pytest.raises(InvalidQuery, match="PregnancyStatus"):
        index.search(Query(Level.STUDY, {"PregnancyStatus": Single("1")}))


def test_a_range_over_a_text_is_refused(index: Index) -> None:
    """Ranges are for dates and times only (PS3.4 C.2.2.2.5)."""
    with pytest.raises(InvalidQuery, match="PatientName"):
        index.search(Query(Level.STUDY, {"PatientName": Between("A", "B")}))


def test_fuzzy_words_begin_words_of_the_name(index: Index) -> None:
    """In any order, without accents, and only whole beginnings."""
    named(index, a="Dvořák^Anna Marie", b="Smith-Dvorak^Jo", c="Vorak^Anna")

    assert studies(index, fuzzy=True, PatientName=Single("dvorak")) == ["a", "b"]
    assert studies(index, fuzzy=True, PatientName=Wildcard("MAR* dvo")) == ["a"]
    assert studies(index, fuzzy=True, PatientName=Single("rak")) == []


def test_answers_come_newest_first_and_page_without_gaps(index: Index) -> None:
    """Limit and offset walk through the same order, so that every study is seen once."""
    dates = ("20240101", "20240301", "20240201", "20240301", "")
    with_values(index, "StudyDate", **dict(zip("abcde", dates, strict=True)))

    paged = [
        answer["StudyInstanceUID"]
        for offset in range(0, 6, 2)
        for answer in index.search(Query(Level.STUDY, limit=2, offset=offset))
    ]

    assert paged == ["b", "d", "c", "a", "e"]
    assert [one["StudyInstanceUID"] for one in index.search(Query(Level.STUDY, offset=3))] == ["a", "e"]
    assert index.count(Query(Level.STUDY, {"StudyDate": Between("20240201", "")}, limit=1)) == 3


def test_series_and_images_come_by_number(index: Index) -> None:
    """As numbers, not as text; those without a number last."""
    index.add([placed(1, series=f"1.1.{number}", SeriesNumber=number) for number in ("10", "9", "")])
    index.add([placed(number, series="1.1.9") for number in (11, 2)])

    series = index.search(Query(Level.SERIES, {"StudyInstanceUID": Single("1.1")}))
    images = index.search(Query(Level.IMAGE, {"SeriesInstanceUID": Single("1.1.9")}))

    assert [answer["SeriesInstanceUID"] for answer in series] == ["1.1.9", "1.1.10", "1.1."]
    assert [answer["InstanceNumber"] for answer in images] == ["1", "2", "11"]


def test_counts_come_only_where_they_are_asked_for(index: Index) -> None:
    """Counting costs; a key that was not asked for is left out."""
    index.add(a_series(3))

    (plain,) = index.search(Query(Level.STUDY, return_keys=("StudyDate",)))
    (counted,) = index.search(Query(Level.SERIES, return_keys=("NumberOfStudyRelatedInstances",)))
    (patient,) = index.search(Query(Level.PATIENT))

    assert "NumberOfStudyRelatedInstances" not in plain
    assert counted["NumberOfStudyRelatedInstances"] == "3"
    assert patient["NumberOfPatientRelatedStudies"] == "1"
    assert patient["NumberOfPatientRelatedInstances"] == "3"


def test_what_is_held_is_not_there(index: Index) -> None:
    """A held instance is durable and answers no query until it is released."""
    index.add(a_series(2))

    assert index.hold(["1.1.1.1", "1.1.1.2"]) == 2
    assert studies(index) == []
    assert list(index.search(Query(Level.IMAGE))) == []
    assert index.locate(study_instance_uids=["1.1"]) == []
    assert len(list(index.search(Query(Level.IMAGE), include_held=True))) == 2
    assert len(index.locate(study_instance_uids=["1.1"], include_held=True)) == 2

    assert index.release(["1.1.1.2"]) == 1
    (series,) = index.search(Query(Level.SERIES))
    assert series["NumberOfSeriesRelatedInstances"] == "1"


def test_a_search_may_be_left_early(index: Index) -> None:
    """Closing the iterator gives its connection back: a hundred such searches leave the index usable."""
    index.add(a_series(5))

    for _ in range(100):
        answers = index.search(Query(Level.IMAGE))
        next(answers)
        answers.close()  # type: ignore[attr-defined]  # a generator

    assert index.count(Query(Level.IMAGE)) == 5
