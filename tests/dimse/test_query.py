"""C-FIND as an asker sees it."""

import dcmtk
import making
import pausing
import pytest
from dimse.door import Door, answers, ask, read, stored
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from pacs.dimse import contexts, messages, scu
from pacs.dimse.messages import Command

STUDY, PATIENT = contexts.STUDY_ROOT_FIND, contexts.PATIENT_ROOT_FIND
SERIES_A, SERIES_B = making.SERIES_UID, making.SERIES_UID + "0"


@pytest.fixture(scope="module")
def filled(shared_door: Door) -> Door:
    """A door whose archive holds two series of one study and a second study."""
    stored(
        shared_door,
        *making.ct_series(3, series_uid=SERIES_A),
        *making.ct_series(2, series_uid=SERIES_B, SeriesNumber=3),
        *making.ct_series(1, study_uid="1.2.840.99.7", series_uid="1.2.840.99.7.1", patient_id="OTHER"),
    )
    return shared_door


def test_f3_one_pending_a_match_then_success_without_identifier(filled: Door) -> None:
    """FF00 for each, then 0000; only what was asked for, the unique keys, level and Retrieve AE Title."""
    found = answers(filled, Command.C_FIND_RQ, STUDY, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "StudyDate": ""})

    assert [one.status for one in found] == [0xFF00, 0xFF00, 0x0000]
    assert found[-1].data_set is None
    for one in found[:-1]:
        assert set(read(one)) == {"QueryRetrieveLevel", "StudyInstanceUID", "StudyDate", "RetrieveAETitle"}
        assert read(one)["RetrieveAETitle"] == "MINIPACS"


def test_f3_no_match_is_only_success(filled: Door) -> None:
    """Zero matches: 0000 and nothing before it."""
    found = answers(filled, Command.C_FIND_RQ, STUDY, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.3.4.5"})

    assert [one.status for one in found] == [0]


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        (STUDY, {"StudyInstanceUID": ""}),
        (STUDY, {"QueryRetrieveLevel": "PATIENT", "PatientID": ""}),
        (STUDY, {"QueryRetrieveLevel": "FRAME"}),
        (STUDY, {"QueryRetrieveLevel": "SERIES", "Modality": "CT"}),
        (PATIENT, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}),
        (STUDY, {"QueryRetrieveLevel": "STUDY", "StudyDate": "20250101-20240101"}),
    ],
)
def test_f1_f2_f10_what_does_not_fit_the_model_is_a900_with_a_comment(filled: Door, model: str, keys: dict[str, str]) -> None:
    """An error at once, never an empty success."""
    (refused,) = answers(filled, Command.C_FIND_RQ, model, keys)

    assert refused.status == 0xA900
    assert 0 < len(refused.text(messages.ERROR_COMMENT)) <= 64


def test_f1_the_hierarchy_can_be_walked_from_patient_to_image(filled: Door) -> None:
    """Each level's unique keys lead to the next (PS3.4 C.6.1)."""
    (patient,) = [
        one
        for one in answers(filled, Command.C_FIND_RQ, PATIENT, {"QueryRetrieveLevel": "PATIENT", "PatientID": ""})[:-1]
        if len(answers(filled, Command.C_FIND_RQ, PATIENT, studies(read(one)["PatientID"]))) == 2
    ][:1]
    keys = studies(read(patient)["PatientID"])
    for level, keyword in (("STUDY", "StudyInstanceUID"), ("SERIES", "SeriesInstanceUID"), ("IMAGE", "SOPInstanceUID")):
        keys = {**keys, "QueryRetrieveLevel": level, keyword: ""}
        found = answers(filled, Command.C_FIND_RQ, PATIENT, keys)
        assert found[-1].status == 0 and len(found) > 1
        keys[keyword] = read(found[0])[keyword]


def studies(patient_id: str) -> dict[str, str]:
    """Return the keys for the studies of a patient."""
    return {"QueryRetrieveLevel": "STUDY", "PatientID": patient_id, "StudyInstanceUID": ""}


def test_f2_relational_queries_when_negotiated(filled: Door) -> None:
    """Series without their study's UID."""
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = STUDY
    item.service_class_application_information = b"\1"
    ae = AE(ae_title="RELATIONAL")
    ae.add_requested_context(STUDY)
    from pydicom.dataset import Dataset

    keys = Dataset()
    keys.QueryRetrieveLevel, keys.Modality, keys.SeriesInstanceUID = "SERIES", "CT", ""

    association = pausing.associate(ae, "127.0.0.1", filled.port, ae_title="MINIPACS", ext_neg=[item])
    found = [status.Status for status, _ in association.send_c_find(keys, STUDY)]
    association.release()

    assert found == [0xFF00, 0xFF00, 0xFF00, 0]


def test_f4_unsupported_keys_are_told_by_ff01(filled: Door) -> None:
    """The key comes back empty, it filters nothing, and the status says so."""
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "RequestingPhysician": "NOBODY"}

    found = answers(filled, Command.C_FIND_RQ, STUDY, keys)

    assert [one.status for one in found] == [0xFF01, 0xFF01, 0]
    assert read(found[0])["RequestingPhysician"] == ""


def test_f5_counts_and_modalities_are_answered(filled: Door) -> None:
    """Optional keys of the Study level."""
    keys = {
        "QueryRetrieveLevel": "STUDY",
        "StudyInstanceUID": "",
        "ModalitiesInStudy": "CT",
        "NumberOfStudyRelatedSeries": "",
        "NumberOfStudyRelatedInstances": "",
    }

    found = [read(one) for one in answers(filled, Command.C_FIND_RQ, STUDY, keys)[:-1]]

    assert sorted((one["NumberOfStudyRelatedSeries"], one["NumberOfStudyRelatedInstances"]) for one in found) == [
        ("1", "1"),
        ("2", "5"),
    ]


def test_f16_cancel_ends_with_fe00_and_the_association_is_usable(door: Door) -> None:
    """After the first answers no more of them; then C-ECHO on the same association."""
    stored(
        door,
        *(making.dataset(instance=1, study_uid=f"1.2.840.77.{n}", series_uid=f"1.2.840.77.{n}.1") for n in range(40)),
    )
    proposals = [(STUDY, ("1.2.840.10008.1.2.1",)), (contexts.VERIFICATION, ("1.2.840.10008.1.2",))]
    with scu._open("127.0.0.1", door.port, "MINIPACS", "T", proposals, 10) as association:
        # The cancel is sent with the request, so that it is there before the first answer.
        cancel = messages.encode(Command.C_CANCEL_RQ, {messages.MESSAGE_ID_RESPONDED_TO: 1})
        association.dimse.send(1, cancel)
        ask(association, Command.C_FIND_RQ, STUDY, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""})
        final = association.dimse.receive(10)
        association.dimse.send(3, messages.encode(Command.C_ECHO_RQ, {0x0002: contexts.VERIFICATION, 0x0110: 2}))
        echoed = association.dimse.receive(10)

    assert (final.status, echoed.status) == (0xFE00, 0)


def test_f18_what_was_stored_is_found_at_once(door: Door) -> None:
    """No delay between 0000 and the first query."""
    for number in range(5):
        ds = making.dataset(study_uid=f"1.2.840.88.{number}", series_uid=f"1.2.840.88.{number}.1")
        assert stored(door, ds) == [0]
        assert len(scu.find("127.0.0.1", door.port, "MINIPACS", {"QueryRetrieveLevel": "STUDY"})) == number + 1


def test_f18_a_data_set_that_is_no_identifier_is_c000(filled: Door) -> None:
    """Unable to process, and the association goes on."""
    with scu._open("127.0.0.1", filled.port, "MINIPACS", "T", [(STUDY, ("1.2.840.10008.1.2.1",))], 10) as association:
        asked = {0x0002: STUDY, 0x0110: 1, 0x0700: 0}
        association.dimse.send(1, messages.encode(Command.C_FIND_RQ, asked, data_set=True), [b"\x08\0\x52\0CS\xff\xff12"])
        refused = association.dimse.receive(10)
        ask(association, Command.C_FIND_RQ, STUDY, {"QueryRetrieveLevel": "STUDY"}, message_id=2)
        assert association.dimse.receive(10).status == 0xFF00

    assert refused.status == 0xC000


def test_f19_the_original_identifiers_find_nothing(filled: Door) -> None:
    """The archive knows no patient by the name, number or UID that came in."""
    for keyword, value in (
        ("PatientID", making.PATIENT_ID),
        ("PatientName", "QUILLFEATHER*"),
        ("AccessionNumber", "ACC-5561907"),
        ("StudyInstanceUID", making.STUDY_UID),
    ):
        found = answers(filled, Command.C_FIND_RQ, STUDY, {"QueryRetrieveLevel": "STUDY", keyword: value})
        assert [one.status for one in found] == [0]


@pytest.mark.parametrize("model", ["-S", "-P"])
def test_dcmtk_finds_studies(filled: Door, model: str) -> None:
    """findscu reads our answers."""
    level, keyword = ("STUDY", "StudyInstanceUID") if model == "-S" else ("PATIENT", "PatientID")

    done = dcmtk.run(
        "findscu", model, "-aec", "MINIPACS", "-k", f"QueryRetrieveLevel={level}", "-k", keyword, "127.0.0.1", filled.port
    )

    assert done.returncode == 0, done.stdout
    assert done.stdout.count("(Pending)") == 2
