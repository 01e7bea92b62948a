"""HL7 v2 orders as worklist items."""

import pytest
from workflow.orders import OMI, ORM

from pacs.model.errors import NotUnderstood
from pacs.workflow import hl7


def test_an_orm_is_mapped_as_ihe_rad_4_says() -> None:
    """Names turn their suffix and prefix round, the borrowed fields of OBR give order and step, ZDS the study."""
    (order,) = hl7.orders(ORM.encode("latin-1"))

    found = order.attributes
    assert not order.withdrawn
    assert found["PatientName"] == "Oberhuber^Zita^Maria^Dr^III"
    assert (found["PatientID"], found["IssuerOfPatientID"], found["PatientSex"]) == ("PID-77", "HOSP", "F")
    assert found["ReferringPhysicianName"] == "Quillfeather^Otto^^Prof"
    assert (found["AccessionNumber"], found["RequestedProcedureID"], found["ScheduledProcedureStepID"]) == (
        "ACC-9",
        "RP-9",
        "SPS-9",
    )
    assert (found["ScheduledProcedureStepStartDate"], found["ScheduledProcedureStepStartTime"]) == ("20261122", "1030")
    assert (found["Modality"], found["ScheduledStationAETitle"], found["StudyInstanceUID"]) == ("CT", "CT1", "1.2.840.77.1")
    assert found["RequestedProcedurePriority"] == "STAT"
    assert found["ScheduledProtocolCodeSequence"] == [
        {"CodeValue": "CTCH1", "CodingSchemeDesignator": "L", "CodeMeaning": "Thin slices"}
    ]


def test_an_omi_says_it_in_segments_of_its_own() -> None:
    """IPC and TQ1; UTF-8 by MSH-18, escapes undone."""
    (order,) = hl7.orders(OMI.encode())

    found = order.attributes
    assert found["PatientName"] == "Žižka&Co^Jan"
    assert (found["ScheduledProcedureStepStartDate"], found["ScheduledProcedureStepStartTime"]) == ("20261123", "140000")
    assert (found["Modality"], found["ScheduledStationAETitle"], found["ScheduledProcedureStepID"]) == ("MR", "MR1", "SPS-10")
    assert (found["AccessionNumber"], found["StudyInstanceUID"]) == ("ACC-10", "1.2.840.78.1")


def test_several_messages_lie_in_one_file() -> None:
    """With the frame of MLLP around them or not, and any kind of line ends."""
    framed = b"\x0b" + ORM.encode() + b"\x1c\r\x0b" + OMI.replace("\r", "\r\n").encode() + b"\x1c\r"

    assert [order.attributes["AccessionNumber"] for order in hl7.orders(framed)] == ["ACC-9", "ACC-10"]


def test_an_order_that_is_cancelled_says_so() -> None:
    """ORC-1 CA."""
    (order,) = hl7.orders(ORM.replace("ORC|NW", "ORC|CA").encode())

    assert order.withdrawn and order.attributes["AccessionNumber"] == "ACC-9"


@pytest.mark.parametrize(
    "content", [b"", b"MSH", b"MSH|^~\\&|||||||ADT^A01\rPID|1\r", b"MSH|^~\\&|||||||ORM^O01\rORC|NW\rOBR|1\r"]
)
def test_what_is_no_order_is_refused(content: bytes) -> None:
    """Another message, or one that lacks the patient."""
    with pytest.raises(NotUnderstood):
        hl7.orders(content)
