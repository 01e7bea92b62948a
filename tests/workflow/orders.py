"""Orders and worklist items that tests schedule; the people in them are made up."""

from typing import Any

ORM = (
    "MSH|^~\\&|RIS|SITE|PACS|SITE|20261122080000||ORM^O01^ORM_O01|1|P|2.3.1||||||8859/1\r"
    "PID|||PID-77^^^HOSP||Oberhuber^Zita^Maria^III^Dr||19610704|F\r"
    "PV1||I|WARD^7^B|||||42^Quillfeather^Otto^^^Prof|||||||||||V-9\r"
    "ORC|NW|PO-1|FO-1||SC||^^^202611221030^^S\r"
    "OBR|1|PO-1|FO-1|CTCH^CT chest^L^CTCH1^Thin slices^L"
    "||||||||ALLER^Latex||||77^Asker^Ann||ACC-9|RP-9|SPS-9|CT1|||CT|||^^^202611221030^^S\r"
    "ZDS|1.2.840.77.1^RIS^Application^DICOM\r"
)
OMI = (
    "MSH|^~\\&|RIS|SITE|PACS|SITE|20261122080000||OMI^O23^OMI_O23|2|P|2.5.1||||||UNICODE UTF-8\r"
    "PID|||PID-78^^^HOSP||Žižka\\T\\Co^Jan||1990|M\r"
    "ORC|NW|PO-2|FO-2\r"
    "TQ1|1||||||20261123140000\r"
    "OBR|1|PO-2|FO-2|MRH^MR head^L\r"
    "IPC|ACC-10|RP-10|1.2.840.78.1|SPS-10|MR|MRH1^Head protocol^L|ROOM2|EAST|MR1\r"
)


def item(**overrides: Any) -> dict[str, Any]:
    """Return one scheduled procedure step as a short JSON object; `overrides` by keyword, None deletes."""
    given: dict[str, Any] = {
        "PatientName": "Oberhuber^Zita",
        "PatientID": "PID-1",
        "PatientBirthDate": "19610704",
        "PatientSex": "F",
        "AccessionNumber": "ACC-1",
        "Modality": "CT",
        "ScheduledStationAETitle": "CT1",
        "ScheduledProcedureStepStartDate": "20991122",
        "ScheduledProcedureStepStartTime": "1030",
        "ScheduledPerformingPhysicianName": "Quillfeather^Otto",
        "ScheduledProcedureStepDescription": "CT chest",
        **overrides,
    }
    return {keyword: value for keyword, value in given.items() if value is not None}
