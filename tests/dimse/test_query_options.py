"""C-FIND beyond the baseline: what has to be negotiated, limits, sequences, and names in every form."""

import struct
from collections.abc import Iterator
from dataclasses import replace

import making
import pausing
import pytest
from dimse.door import Door, ask, opened, read, stored
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from pacs.dimse import contexts, messages, scu
from pacs.dimse.messages import Command

FIND = contexts.STUDY_ROOT_FIND
ROOT = "1.2.840.70"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Four studies: CT, MR and PT, and a CT whose series has no description and whose study has none either."""
    with making.archive(tmp_path_factory.mktemp("home"), dicom__port=0) as archive, opened(archive) as door:
        for number, modality in enumerate(("CT", "MR", "PT")):
            assert stored(door, image(number, Modality=modality, StudyDescription=f"{modality} of something")) == [0]
        assert stored(door, image(3, SeriesDescription="", BodyPartExamined="", SeriesNumber=None)) == [0]
        yield door


def image(number: int, **overrides: object) -> Dataset:
    """Return an image of a study of its own."""
    uid = f"{ROOT}.{number}"
    ds = making.dataset(study_uid=uid, series_uid=f"{uid}.1", frame=making.pixels(16, 16))
    for keyword, value in overrides.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def find(door: Door, keys: Dataset, options: bytes = b"") -> tuple[list[int], list[Dataset]]:
    """Query with pynetdicom and these bytes of extended negotiation; returns statuses and identifiers."""
    ae = AE(ae_title="FINDER")
    ae.add_requested_context(FIND)
    items = []
    if options:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = FIND, options
        items.append(item)
    association = pausing.associate(ae, "127.0.0.1", door.port, ae_title="MINIPACS", ext_neg=items)
    found = list(association.send_c_find(keys, FIND))
    association.release()
    return [status.Status for status, _ in found], [ds for _, ds in found if ds is not None]


def keys(level: str = "SERIES", **values: object) -> Dataset:
    """Return an identifier."""
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


RELATIONAL_EMPTY_SEVERAL = b"\1\0\0\0\0\1\1"


@pytest.mark.parametrize("keyword", ["SeriesDescription", "BodyPartExamined", "SeriesNumber"])
def test_f13_empty_value_matching_when_negotiated(filled: Door, keyword: str) -> None:
    """`""` finds what has no value there, and nothing else (PS3.4 C.2.2.2.7); without negotiation it is a value like others."""
    asked = keys(Modality="", SeriesInstanceUID="")
    asked.add_new(keyword, "LO", '""')

    statuses, found = find(filled, asked, RELATIONAL_EMPTY_SEVERAL)

    assert statuses == [0xFF00, 0]
    assert not found[0].get(keyword)
    plain, _ = find(filled, asked, b"\1")
    assert plain == [0]


def test_f13_several_values_when_negotiated(filled: Door) -> None:
    """`CT of something\\MR of something` of a text is a list only where it was negotiated (PS3.4 C.2.2.2.8)."""
    asked = keys("STUDY", StudyInstanceUID="", StudyDescription=["CT of something", "MR of something"])
    unchanged = [str(one.StudyDescription) for one in find(filled, keys("STUDY", StudyDescription=""))[1]]

    with_list, _ = find(filled, asked, RELATIONAL_EMPTY_SEVERAL)
    without, _ = find(filled, asked)

    assert without == [0xA900]
    assert with_list[-1] == 0 and len(with_list) - 1 == sum(one in asked.StudyDescription for one in unchanged)


def test_f13_modalities_in_study_may_be_a_list_without_negotiation(filled: Door) -> None:
    """As everybody sends it."""
    statuses, found = find(filled, keys("STUDY", ModalitiesInStudy=["MR", "PT"], StudyInstanceUID=""))

    assert statuses == [0xFF00, 0xFF00, 0]
    assert {str(one.ModalitiesInStudy) for one in found} == {"MR", "PT"}


def item(**values: object) -> Dataset:
    """Return an item of a sequence."""
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


CHEST = {"CodeValue": "T-D3000", "CodingSchemeDesignator": "SRT", "CodeMeaning": "Chest"}
HEAD = {"CodeValue": "T-D1100", "CodingSchemeDesignator": "SRT", "CodeMeaning": "Head"}


@pytest.fixture(scope="module")
def requested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Two studies: one for two requests (a chest, then a head elsewhere coded), one for a head."""
    both = [
        item(ScheduledProcedureStepDescription="CT chest", ScheduledProtocolCodeSequence=Sequence([item(**CHEST)])),
        item(ScheduledProcedureStepDescription="CT head", ScheduledProtocolCodeSequence=Sequence([item(**HEAD)])),
    ]
    head = [item(ScheduledProcedureStepDescription="CT chest", ScheduledProtocolCodeSequence=Sequence([item(**HEAD)]))]
    with making.archive(tmp_path_factory.mktemp("home"), dicom__port=0) as archive, opened(archive) as door:
        chest = {"ProcedureCodeSequence": Sequence([item(**CHEST)])}
        assert stored(door, image(0, RequestAttributesSequence=Sequence(both), **chest)) == [0]
        assert stored(door, image(1, RequestAttributesSequence=Sequence(head))) == [0]
        yield door


def test_f12_all_keys_of_an_item_are_met_by_one_item(requested: Door) -> None:
    """ "one" and a head are in one item of the second study only, though the first has both, each in another."""
    head = Sequence([item(CodeValue="T-D1100")])
    key = item(ScheduledProcedureStepDescription="CT ch*", ScheduledProtocolCodeSequence=head)

    statuses, (found,) = find(requested, keys(SeriesInstanceUID="", RequestAttributesSequence=Sequence([key])), b"\1")

    assert statuses == [0xFF00, 0]
    (step,) = found.RequestAttributesSequence
    assert (step.ScheduledProcedureStepDescription, step.ScheduledProtocolCodeSequence[0].CodeValue) == ("CT chest", "T-D1100")
    assert "CodeMeaning" not in step.ScheduledProtocolCodeSequence[0]


def test_f12_the_whole_sequence_comes_back_with_the_keys_asked_for(requested: Door) -> None:
    """A match by one item brings all of them, and an attribute that an item lacks is empty."""
    key = item(ScheduledProcedureStepDescription="CT head", ScheduledProcedureStepLocation="")

    _, (found,) = find(requested, keys(SeriesInstanceUID="", RequestAttributesSequence=Sequence([key])), b"\1")

    assert [one.ScheduledProcedureStepDescription for one in found.RequestAttributesSequence] == ["CT chest", "CT head"]
    assert {one.ScheduledProcedureStepLocation for one in found.RequestAttributesSequence} == {""}


def test_f12_an_empty_sequence_key_matches_all_and_is_answered_whole(requested: Door) -> None:
    """Zero length, and an item without attributes: universal (PS3.4 C.2.2.2.3)."""
    for empty in (Sequence([]), Sequence([Dataset()])):
        statuses, found = find(requested, keys("STUDY", StudyInstanceUID="", ProcedureCodeSequence=empty))

        assert statuses == [0xFF00, 0xFF00, 0]
        assert sorted(len(one.ProcedureCodeSequence) for one in found) == [0, 1]
        assert {one.ProcedureCodeSequence[0].CodeMeaning for one in found if one.ProcedureCodeSequence} == {"Chest"}


def test_f12_a_sequence_key_has_one_item(requested: Door) -> None:
    """Two items are no key: A900."""
    two = Sequence([item(CodeValue="1"), item(CodeValue="2")])

    assert find(requested, keys("STUDY", StudyInstanceUID="", ProcedureCodeSequence=two))[0] == [0xA900]


def test_f12_a_sequence_that_is_not_kept_is_told_by_ff01(filled: Door) -> None:
    """It filters nothing and comes back empty; so does one of a level below."""
    key = Sequence([item(ReferencedSOPInstanceUID="1.2")])
    for unknown in ({"ReferencedImageSequence": key}, {"RequestAttributesSequence": Sequence([item(AccessionNumber="1")])}):
        statuses, found = find(filled, keys("STUDY", StudyInstanceUID="", **unknown))

        assert statuses == [0xFF01] * 4 + [0]
        assert all(len(one[next(iter(unknown))].value) == 0 for one in found)


@pytest.fixture(scope="module")
def zoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Studies of one day at 23:30 in Tokyo, 23:30 in Lisbon, and 00:30 of the day after in Lisbon, dates kept."""
    home = tmp_path_factory.mktemp("home")
    (home / "pacs.toml").write_text('[policies.dated]\noptions = ["clean_descriptors", "retain_long_full_dates"]\n')
    with making.archive(home, dicom__port=0, deid__policy="dated") as archive, opened(archive) as door:
        for number, (date, time, zone) in enumerate(MOMENTS):
            moment = {"StudyDate": date, "StudyTime": time, "TimezoneOffsetFromUTC": zone}
            assert stored(door, image(number, **moment)) == [0]
        yield door


MOMENTS = (("20240310", "233000", "+0900"), ("20240310", "2330", "+0000"), ("20240311", "003000.5", "+0000"))


def moments_found(door: Door, options: bytes, **values: object) -> list[tuple[str, str]]:
    """Return date and time of the studies found."""
    _, found = find(door, keys("STUDY", **{"StudyInstanceUID": "", "StudyDate": "", "StudyTime": "", **values}), options)
    return sorted((str(one.StudyDate), str(one.StudyTime)) for one in found)


def test_f14_a_timezone_moves_matching_and_answers_when_negotiated(zoned: Door) -> None:
    """23:30 in Tokyo is 14:30 in Lisbon; half past midnight in Lisbon is 23:30 of the day before in the Azores."""
    lisbon = moments_found(zoned, b"\0\0\0\1", TimezoneOffsetFromUTC="+0000")
    azores = moments_found(zoned, b"\0\0\0\1", TimezoneOffsetFromUTC="-0100", StudyDate="20240310", StudyTime="2200-2359")

    assert lisbon == [("20240310", "143000"), ("20240310", "2330"), ("20240311", "003000.5")]
    assert azores == [("20240310", "2230"), ("20240310", "233000.5")]
    _, (one, *_) = find(zoned, keys("STUDY", StudyInstanceUID="", TimezoneOffsetFromUTC="-0100"), b"\0\0\0\1")
    assert one.TimezoneOffsetFromUTC == "-0100"


def test_f14_a_timezone_that_is_not_negotiated_changes_nothing(zoned: Door) -> None:
    """Dates and times are compared and answered as they were written; said in docs/conformance.md."""
    assert moments_found(zoned, b"\1", TimezoneOffsetFromUTC="-1200") == sorted((date, time) for date, time, _ in MOMENTS)


def test_f14_an_offset_that_is_none_is_refused(zoned: Door) -> None:
    """A900 instead of a guess."""
    assert find(zoned, keys("STUDY", StudyInstanceUID="", TimezoneOffsetFromUTC="CEST"), b"\0\0\0\1")[0] == [0xA900]


def test_f10_a_range_of_dates_and_times_is_one_when_negotiated(zoned: Door) -> None:
    """From the 10th at 23:30 to the 11th at 00:30 is one hour; without negotiation no time is after 23:30 and before 00:30."""
    ranges = {"StudyDate": "20240310-20240311", "StudyTime": "2330-0030"}

    assert moments_found(zoned, b"\0\1", **ranges) == sorted((date, time) for date, time, _ in MOMENTS)
    assert moments_found(zoned, b"\0\1", StudyDate="20240310-20240311", StudyTime="2331-0030") == [("20240311", "003000.5")]
    assert find(zoned, keys("STUDY", StudyInstanceUID="", **ranges))[0] == [0xA900]


def test_f17_too_many_answers_end_with_a700_and_a_comment(filled: Door) -> None:
    """`dicom.maximum_answers`: those that fit, then A700; exactly as many as fit is success."""
    dicom = replace(filled.archive.settings.dicom, maximum_answers=3)
    limited = replace(filled.archive, settings=replace(filled.archive.settings, dicom=dicom))
    proposals = [(FIND, (contexts.EXPLICIT_LITTLE_ENDIAN,))]
    with opened(limited) as door, scu._open("127.0.0.1", door.port, "MINIPACS", "T", proposals, 20) as found:
        ask(found, Command.C_FIND_RQ, FIND, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""})
        many = [found.dimse.receive(10) for _ in range(4)]
        asked = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "ModalitiesInStudy": "CT"}
        ask(found, Command.C_FIND_RQ, FIND, asked, message_id=2)
        few = [found.dimse.receive(10) for _ in range(3)]

    assert [one.status for one in many] == [0xFF00, 0xFF00, 0xFF00, 0xA700]
    assert "3 matches" in many[-1].text(messages.ERROR_COMMENT)
    assert [one.status for one in few] == [0xFF00, 0xFF00, 0]


def test_f16_cancel_after_the_first_answer_is_fe00(filled: Door) -> None:
    """No more than what was on its way, then FE00; the association goes on."""
    with scu._open("127.0.0.1", filled.port, "MINIPACS", "T", [(FIND, (contexts.EXPLICIT_LITTLE_ENDIAN,))], 20) as found:
        cancel = messages.encode(Command.C_CANCEL_RQ, {messages.MESSAGE_ID_RESPONDED_TO: 7})
        found.dimse.send(1, cancel)
        ask(found, Command.C_FIND_RQ, FIND, {"QueryRetrieveLevel": "STUDY"}, message_id=7)
        answers = [found.dimse.receive(10)]
        while answers[-1].status >> 8 == 0xFF:
            answers.append(found.dimse.receive(10))
        ask(found, Command.C_FIND_RQ, FIND, {"QueryRetrieveLevel": "STUDY"}, message_id=8)
        assert found.dimse.receive(10).status == 0xFF00

    assert answers[-1].status == 0xFE00


@pytest.mark.parametrize("separator", ["=", "^", " "])
def test_f9_names_are_matched_without_case_and_trailing_delimiters(filled: Door, separator: str) -> None:
    """The archive's own names, in lower case, with carets and empty groups behind them (PS3.5 6.2.1)."""
    (name, *_) = {str(one.PatientName) for one in find(filled, keys("STUDY", PatientName=""))[1]}

    statuses, found = find(filled, keys("STUDY", PatientName=name.lower() + separator))
    wild, _ = find(filled, keys("STUDY", PatientName=name[:3].upper() + "*"))

    assert statuses == [0xFF00] * 4 + [0] and {str(one.PatientName) for one in found} == {name}
    assert wild == statuses


def test_f3_an_answer_is_the_same_in_both_transfer_syntaxes(filled: Door) -> None:
    """Implicit and explicit carry the same values."""
    answers = []
    for syntax in contexts.MESSAGE_SYNTAXES:
        with scu._open("127.0.0.1", filled.port, "MINIPACS", "T", [(FIND, (syntax,))], 20) as found:
            ask(found, Command.C_FIND_RQ, FIND, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""})
            answers.append(found.dimse.receive(10))
            while found.dimse.receive(10).status:
                pass
    explicit, implicit = answers
    uid = read(explicit)["StudyInstanceUID"]
    tag = struct.pack("<HHI", 0x0020, 0x000D, len(uid) + len(uid) % 2)
    assert tag + uid.encode() in bytes(implicit.data_set or b"")
