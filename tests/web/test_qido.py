"""QIDO-RS (PS3.18 10.6): what is asked is what is found, and the answer says what the tables require."""

import re
from typing import Any

import making
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from serving import OTHER_STUDY, Served

from pacs.model.errors import InvalidQuery
from pacs.model.query import AnyOf, Between, Level, Single, Wildcard
from pacs.web.qido import matcher, parse


def found(served: Served, path: str, **parameters: str) -> list[dict[str, Any]]:
    """Search, and return the answers."""
    answer = served.client.get(f"/dicom-web{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    result: list[dict[str, Any]] = answer.json()
    return result


def value(answer: dict[str, Any], tag: str) -> Any:
    """Return the first value of an attribute."""
    return answer[tag]["Value"][0]


def test_w4_study_answers_have_the_required_attributes(filled: Served) -> None:
    """Every attribute of Table 10.6.3-3 is there, computed ones included, and Retrieve URL leads to the study."""
    answers = found(filled, "/studies")

    required = (
        "00080020 00080030 00080050 00080061 00080090 00081190 00100010 "
        "00100020 00100030 00100040 0020000D 00200010 00201206 00201208"
    )
    assert len(answers) == 2
    for answer in answers:
        assert set(required.split()) <= set(answer)
        assert list(answer) == sorted(answer)
        assert filled.client.get(value(answer, "00081190") + "/metadata").status_code == 200
    # Which is the newer one is chance: dates are shifted by the key of the home.
    dates = [value(one, "00080020") for one in answers]
    assert dates == sorted(dates, reverse=True)
    larger = max(answers, key=lambda one: value(one, "00201206"))
    assert sorted(larger["00080061"]["Value"]) == ["CT", "OT"]
    assert (value(larger, "00201206"), value(larger, "00201208")) == (3, 7)


def test_w4_series_and_instance_answers_have_the_required_attributes(filled: Served) -> None:
    """Tables 10.6.3-4 and 10.6.3-5; attributes of levels above come along where the path does not fix them."""
    series = found(filled, "/series", Modality="CT")
    instances = found(filled, "/instances", SeriesDescription="AX LUNG 5mm")

    assert {"00080060", "0008103E", "0020000E", "00200011", "00201209", "00081190", "00100020", "0020000D"} <= set(series[0])
    assert {"00080016", "00080018", "00200013", "00280010", "00280011", "00081190", "0020000E", "00080060"} <= set(instances[0])


def test_w1_nested_resources_search_within(filled: Served) -> None:
    """`/studies/S/series` and `/studies/S/series/E/instances` stay within what the path names."""
    study = value(found(filled, "/studies", ModalitiesInStudy="OT")[0], "0020000D")
    series = found(filled, f"/studies/{study}/series", Modality="CT")
    instances = found(filled, f"/studies/{study}/series/{value(series[0], '0020000E')}/instances")

    assert [value(one, "00200013") for one in instances] == [1, 2, 3, 4, 5]
    assert len(found(filled, f"/studies/{study}/instances")) == 7


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        ({"ModalitiesInStudy": "OT"}, 1),
        ({"00080061": "OT"}, 1),
        ({"ModalitiesInStudy": "MR,OT"}, 1),
        ({"ModalitiesInStudy": "MR\\OT"}, 1),
        ({"ModalitiesInStudy": "MR"}, 0),
        ({"StudyDescription": "CT*"}, 2),
        ({"StudyDescription": "C? ch*"}, 2),
        ({"StudyDescription": "C_ ch*"}, 0),
        ({"StudyDescription": ""}, 2),
        ({"limit": "1"}, 1),
        ({"offset": "1"}, 1),
        ({"offset": "9"}, 0),
    ],
)
def test_w1_matching(filled: Served, parameters: dict[str, str], count: int) -> None:
    """Keyword or tag, lists, wildcards, universal matching, paging; what is no wildcard is literal."""
    assert len(found(filled, "/studies", **parameters)) == count


def test_w1_date_ranges_are_open_at_both_ends(filled: Served) -> None:
    """A range has both ends, or one."""
    dates = sorted(value(one, "00080020") for one in found(filled, "/studies"))

    assert len(found(filled, "/studies", StudyDate=f"{dates[0]}-{dates[0]}")) == 1
    assert len(found(filled, "/studies", StudyDate=f"-{dates[0]}")) == 1
    assert len(found(filled, "/studies", StudyDate=f"{dates[1]}-")) == 1
    assert len(found(filled, "/studies", StudyDate="19000101-20991231")) == 2


@pytest.mark.parametrize("separator", [",", "\\"])
def test_w4_lists_of_uids_by_comma_and_backslash(filled: Served, separator: str) -> None:
    """PS3.18 8.3.4.1 says comma, OHIF says backslash; both are lists."""
    uids = [value(one, "0020000D") for one in found(filled, "/studies")]

    assert len(found(filled, "/studies", StudyInstanceUID=separator.join(uids))) == 2
    assert len(found(filled, "/studies", StudyInstanceUID=uids[0])) == 1


def test_w2_none_found_is_an_empty_list(filled: Served) -> None:
    """200 with `[]`; a sent UID does not find its pseudonymous study."""
    answer = filled.client.get("/dicom-web/studies", params={"StudyInstanceUID": OTHER_STUDY})

    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize(
    "query",
    [
        "NoSuchAttribute=1",
        "99999999=1",
        "limit=-1",
        "limit=x",
        "offset=1.5",
        "StudyDate=2024",
        "StudyDate=yesterday",
        "StudyDate=20240101-x",
        "StudyInstanceUID=1.2.x",
        "StudyInstanceUID=" + "1." * 40,
        "fuzzymatching=maybe",
        "includefield=Nonsense",
    ],
)
def test_w2_malformed_is_400_without_repeating_the_value(filled: Served, query: str) -> None:
    """Bad attribute, UID, date or number: 400, and the answer does not echo what was sent."""
    answer = filled.client.get(f"/dicom-web/studies?{query}")

    assert answer.status_code == 400
    assert query.partition("=")[2] not in answer.json()["error"] or len(query.partition("=")[2]) < 4


def test_w1_what_is_not_supported_is_told_by_a_warning(filled: Served) -> None:
    """An attribute that cannot be matched is left out of the search, with Warning 299 (8.3.4)."""
    answer = filled.client.get("/dicom-web/studies", params={"StudyComments": "x", "emptyvaluematching": "true"})

    assert answer.status_code == 200
    assert len(answer.json()) == 2
    assert answer.headers["warning"].count("299") == 2


def test_w1_includefield_adds_attributes(filled: Served) -> None:
    """One, several, or all."""
    assert "00081030" not in found(filled, "/studies")[0]
    assert "00081030" in found(filled, "/studies", includefield="StudyDescription")[0]
    assert "00081030" in found(filled, "/studies", includefield="00100030,00081030")[0]
    assert "00081030" in found(filled, "/studies", includefield="all")[0]


def test_w3_total_by_header_and_pages_do_not_overlap(filled: Served) -> None:
    """The header counts all matches; pages are disjoint; a warning says that there is more."""
    pages = [filled.client.get("/dicom-web/instances", params={"limit": "3", "offset": str(at)}) for at in (0, 3, 6)]

    uids = [value(one, "00080018") for page in pages for one in page.json()]
    assert len(uids) == len(set(uids)) == 8
    assert {page.headers["x-total-count"] for page in pages} == {"8"}
    assert "additional results" in pages[0].headers["warning"]
    assert "warning" not in pages[2].headers


def test_unacceptable_is_406(filled: Served) -> None:
    """XML is not made here."""
    answer = filled.client.get("/dicom-web/studies", headers={"Accept": 'multipart/related; type="application/dicom+xml"'})

    assert answer.status_code == 406


def test_a_real_client_can_search(filled: Served) -> None:
    """dicomweb-client finds studies, series and instances."""
    client = DICOMwebClient(filled.dicomweb)
    studies = client.search_for_studies(fields=["StudyDescription"], search_filters={"StudyDescription": "CT*"}, limit=5)
    assert len(studies) == 2
    (larger,) = client.search_for_studies(search_filters={"ModalitiesInStudy": "OT"})
    study = value(larger, "0020000D")

    assert len(client.search_for_series(study)) == 3
    assert len(client.search_for_instances(study)) == 7
    assert len(client.search_for_instances(get_remaining=True, limit=3)) == 8


def test_parse_keeps_the_path_above_the_query() -> None:
    """A query that contradicts the path matches nothing; one that agrees changes nothing."""
    assert parse(Level.SERIES, [("StudyInstanceUID", "1.3")], {"study": "1.2"}).query.matches["StudyInstanceUID"] == AnyOf(())
    assert parse(Level.SERIES, [("StudyInstanceUID", "1.2,1.4")], {"study": "1.2"}).query.matches == {
        "StudyInstanceUID": Single("1.2")
    }


def test_values_become_matches_by_their_vr() -> None:
    """PS3.4 C.2.2.2: wildcards only where the VR has them, ranges of dates and times, a DT's zone is no range."""
    assert matcher("PatientName", "PN", "Do*") == Wildcard("Do*")
    assert matcher("StudyTime", "TM", "10-1130") == Between("10", "1130")
    assert matcher("X", "DT", "20240101120000-0500") == Single("20240101120000-0500")
    assert matcher("X", "DT", "2024-20250101") == Between("2024", "20250101")
    assert matcher("SeriesNumber", "IS", "7") == Single("7")
    with pytest.raises(InvalidQuery):
        matcher("SeriesNumber", "IS", "7*")


def test_answers_name_their_own_host(filled: Served) -> None:
    """Retrieve URL is absolute and under the address the caller used."""
    for answer in found(filled, "/instances"):
        assert re.match(
            re.escape(filled.dicomweb) + r"/studies/[\d.]+/series/[\d.]+/instances/[\d.]+$", value(answer, "00081190")
        )


def test_w1_a_key_within_a_sequence_is_matched(served: Served) -> None:
    """All keys of one sequence by one item; at a level above the sequence's own it is told by a warning."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-D3000", "SRT", "Chest"
    study = f"{OTHER_STUDY}.77"
    sent = making.dataset(study_uid=study, series_uid=f"{study}.1", ProcedureCodeSequence=Sequence([code]))
    assert served.stow(sent).status_code == 200

    def found(**keys: str) -> int:
        return len(served.client.get("/dicom-web/studies", params=keys).json())

    assert found(**{"ProcedureCodeSequence.CodeValue": "T-D3000", "ProcedureCodeSequence.CodingSchemeDesignator": "SRT"}) == 1
    assert found(**{"ProcedureCodeSequence.CodeValue": "T-D3000", "00081032.CodingSchemeDesignator": "DCM"}) == 0
    (one,) = served.client.get(
        "/dicom-web/studies", params={"ProcedureCodeSequence.CodeMeaning": "Ch*", "includefield": "all"}
    ).json()
    assert one["00081032"]["Value"][0]["00080100"] == {"vr": "SH", "Value": ["T-D3000"]}
    warned = served.client.get("/dicom-web/studies", params={"RequestAttributesSequence.AccessionNumber": "1"})
    assert "RequestAttributesSequence" in warned.headers["warning"]
