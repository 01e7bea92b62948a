"""The worklist: sealed where it lies, matched as PS3.4 K says, forgotten in time."""

import time
from collections.abc import Iterator
from typing import Any

import making
import pytest
from workflow.orders import item

from pacs.archive import Archive
from pacs.model.errors import InvalidQuery, NotFound, NotUnderstood
from pacs.workflow.attributes import Attributes, items, make, text
from pacs.workflow.worklist import Worklist


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """One archive for all tests here; making one takes a second."""
    with making.archive(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture
def archive(home: Archive) -> Archive:
    """The archive, with nothing on its worklist."""
    home.index.worklist.remove([row.item_id for row in home.index.worklist.candidates()])
    return home


def query(keys: dict[str, Any]) -> Attributes:
    """Return keys that may hold wild cards and ranges, which no data set may."""
    made: Attributes = {}
    for name, element in make({keyword: [{}] if isinstance(value, list) else None for keyword, value in keys.items()}).items():
        made[name] = element
    for keyword, value in keys.items():
        name = next(iter(make({keyword: None})))
        if isinstance(value, list):
            made[name] = {"vr": "SQ", "Value": [query(value[0])]}
        elif value:
            made[name]["Value"] = [{"Alphabetic": value}] if made[name]["vr"] == "PN" else [value]
    return made


def test_an_item_gets_all_that_a_modality_needs(archive: Archive) -> None:
    """Study, procedure and step have their identifiers, Type 2 keys are there if empty; the same order makes the same study."""
    first, again = Worklist(archive).add(item()), Worklist(archive).add(item())

    (one,) = Worklist(archive).items()
    assert first == again == [one.item_id]
    assert text(one.data_set, "StudyInstanceUID").startswith("2.25.")
    assert text(one.data_set, "RequestedProcedureID") == text(one.step, "ScheduledProcedureStepID") == "ACC-1"
    assert text(one.step, "ScheduledProcedureStepStatus") == "SCHEDULED"
    assert "00321032" in one.data_set and "00380300" in one.data_set


def test_nothing_of_it_lies_in_the_clear(archive: Archive) -> None:
    """Neither name nor number nor day nor station is in the database's files; the item's own place is bound to it."""
    (item_id,) = Worklist(archive).add(item(PatientID="PID-553177", AccessionNumber="ACC-553177"))

    files = list(archive.settings.home.glob("index.db*"))
    content = b"".join(path.read_bytes() for path in files)
    assert files and item_id.encode() in content
    assert not any(word in content for word in (b"Oberhuber", b"553177", b"20991122", b"CT1", b"Quillfeather"))


@pytest.mark.parametrize(
    ("keys", "matching"),
    [
        ({}, ["1", "2", "3"]),
        ({"PatientID": "2"}, ["2"]),
        ({"PatientName": "oberhuber^z*"}, ["1", "3"]),
        ({"PatientName": "OBERHUBER^ZITA"}, ["1"]),
        ({"AccessionNumber": "A-3"}, ["3"]),
        ({"ScheduledProcedureStepSequence": [{"ScheduledStationAETitle": "CT1"}]}, ["1", "3"]),
        ({"ScheduledProcedureStepSequence": [{"Modality": "MR"}]}, ["2"]),
        ({"ScheduledProcedureStepSequence": [{"ScheduledStationAETitle": "CT1", "Modality": "MR"}]}, []),
        ({"ScheduledProcedureStepSequence": [{"ScheduledProcedureStepStartDate": "20991122"}]}, ["1", "2"]),
        ({"ScheduledProcedureStepSequence": [{"ScheduledProcedureStepStartDate": "20991122-20991123"}]}, ["1", "2", "3"]),
        ({"ScheduledProcedureStepSequence": [{"ScheduledProcedureStepStartDate": "20991123-"}]}, ["3"]),
        ({"ScheduledProcedureStepSequence": [{"ScheduledProcedureStepStartTime": "1000-1059"}]}, ["1", "3"]),
        ({"ScheduledProcedureStepSequence": [{"ScheduledPerformingPhysicianName": "QUILL*"}]}, ["1", "3"]),
        (
            {
                "ScheduledProcedureStepSequence": [
                    {"ScheduledProcedureStepStartDate": "20991122-20991123", "ScheduledProcedureStepStartTime": "1400-1045"}
                ]
            },
            ["2", "3"],
        ),
    ],
)
def test_keys_match_as_k_2_says(archive: Archive, keys: dict[str, Any], matching: list[str]) -> None:
    """Patient, order, and within the step station, days, times, modality, physician; a date and a time range are one range."""
    worklist = Worklist(archive)
    worklist.add(item(PatientID="1", AccessionNumber="A-1"))
    worklist.add(
        item(
            PatientID="2",
            AccessionNumber="A-2",
            PatientName="Žižka^Jan",
            Modality="MR",
            ScheduledStationAETitle="MR1",
            ScheduledProcedureStepStartTime="1500",
            ScheduledPerformingPhysicianName=None,
        )
    )
    worklist.add(
        item(PatientID="3", AccessionNumber="A-3", PatientName="Oberhuber^Zeno", ScheduledProcedureStepStartDate="20991123")
    )

    answers = worklist.find(query({"PatientID": None, **keys}))

    assert sorted(text(one, "PatientID") for one in answers) == matching


def test_an_answer_has_what_was_asked_and_nothing_else(archive: Archive) -> None:
    """A key without a value comes back empty, an empty sequence whole, another with the keys that it named."""
    Worklist(archive).add(item())

    (whole,) = Worklist(archive).find(query({"ScheduledProcedureStepSequence": [{}], "MedicalAlerts": None}))
    (part,) = Worklist(archive).find(query({"ScheduledProcedureStepSequence": [{"Modality": "CT", "PreMedication": None}]}))

    assert sorted(whole) == ["00102000", "00400100"] and whole["00102000"] == {"vr": "LO"}
    assert len(items(whole, "ScheduledProcedureStepSequence")[0]) > 8
    assert sorted(items(part, "ScheduledProcedureStepSequence")[0]) == ["00080060", "00400012"]


@pytest.mark.parametrize("date", ["20991131-20991122", "yesterday", "2099"])
def test_a_key_that_cannot_be_matched_is_refused(archive: Archive, date: str) -> None:
    """Not an empty success."""
    keys = query({"ScheduledProcedureStepSequence": [{"ScheduledProcedureStepStartDate": date}]})

    with pytest.raises(InvalidQuery):
        list(Worklist(archive).find(keys))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"PatientName": None}, "PatientName"),
        ({"ScheduledStationAETitle": None}, "ScheduledStationAETitle"),
        ({"ScheduledProcedureStepStartDate": "2099-11-22"}, "ScheduledProcedureStepStartDate"),
        ({"PatientNmae": "X"}, "PatientNmae"),
        ({"StudyInstanceUID": "1.2.x"}, "StudyInstanceUID"),
    ],
)
def test_an_item_that_lacks_something_is_refused_by_its_name(archive: Archive, wrong: dict[str, Any], named: str) -> None:
    """The message says which attribute, and no value of it."""
    with pytest.raises(NotUnderstood, match=named) as caught:
        Worklist(archive).add(item(**wrong))

    assert "Oberhuber" not in str(caught.value)


def test_items_are_forgotten_days_after_their_own(archive: Archive) -> None:
    """`dicom.worklist_days` (3) after its day an item is neither shown nor kept."""
    worklist = Worklist(archive)
    worklist.add(item(ScheduledProcedureStepStartDate="20260110"))
    now = [time.mktime((2026, 1, 12, 12, 0, 0, 0, 0, 0))]
    later = Worklist(archive, lambda: now[0])

    kept_then = [len(archive.index.worklist.candidates()), len(list(later.find(query({"PatientID": None}))))]
    now[0] += 5 * 86400
    shown = list(later.find(query({"PatientID": None})))
    later.add(item(AccessionNumber="ACC-2"))

    assert (kept_then, shown) == ([1, 1], [])
    assert len(archive.index.worklist.candidates()) == 1


def test_an_item_can_be_taken_off(archive: Archive) -> None:
    """By its id, or by its order."""
    worklist = Worklist(archive)
    (first,) = worklist.add(item())
    worklist.add(item(AccessionNumber="ACC-2"))

    worklist.remove(first)
    assert worklist.withdraw({"AccessionNumber": "ACC-2"}) == 1

    assert worklist.items() == []
    with pytest.raises(NotFound):
        worklist.remove(first)
