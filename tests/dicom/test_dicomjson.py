"""The DICOM JSON Model."""

import json

import making
import pydicom
from pydicom.dataset import Dataset

from pacs.dicom import dicomjson, elements


def test_pydicom_reads_our_json_as_the_same_data_set() -> None:
    """A data set with nested sequences, names and numbers comes back equal."""
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "T-1", "Ärmel"
    ds = making.dataset(SpecificCharacterSet="ISO_IR 192", ProcedureCodeSequence=[item], patient_name="Yamada^Tarou=山田^太郎")
    ds.FrameIncrementPointer = 0x00181063
    ds.DiffusionBValue = 2.5
    pixels = ds.pop("PixelData")

    found = dicomjson.to_json(elements.walk(making.encode(ds)), bulk_data_uri=None)

    assert Dataset.from_json(json.loads(json.dumps(found, allow_nan=False))) == ds
    assert pixels is not None


def test_pixels_and_large_values_are_referred_to() -> None:
    """Pixel Data never stands in the answer; small binary values do."""
    item = Dataset()
    item.add_new(0x00091099, "OB", bytes(5000))
    ds = making.dataset(ProcedureCodeSequence=[item])
    ds.add_new(0x00282000, "OB", b"\1\2")

    found = dicomjson.to_json(elements.walk(making.encode(ds)), bulk_data_uri=lambda path: f"../bulk/{path}")

    assert found["7FE00010"] == {"vr": "OW", "BulkDataURI": "../bulk/7FE00010"}
    assert found["00081032"]["Value"][0]["00091099"]["BulkDataURI"] == "../bulk/00081032/0/00091099"
    assert found["00282000"] == {"vr": "OB", "InlineBinary": "AQI="}
    assert list(found) == sorted(found)


def test_values_of_every_kind() -> None:
    """IS and DS are numbers, an empty value null, PN an object, no value no Value."""
    ds = making.dataset(ImageType=["ORIGINAL", "", "AXIAL"], AccessionNumber="")

    found = dicomjson.to_json(elements.walk(making.encode(ds)), bulk_data_uri=None)

    assert found["00080008"]["Value"] == ["ORIGINAL", None, "AXIAL"]
    assert found["00080050"] == {"vr": "SH"}
    assert found["00200011"]["Value"] == [2] and found["00180050"]["Value"] == [5.0]
    assert found["00100010"]["Value"] == [{"Alphabetic": making.PATIENT_NAME}]
    assert found["00280010"] == {"vr": "US", "Value": [64]}


def test_query_answers_are_written_from_keywords() -> None:
    """Tags ascending, VRs of the dictionary, several values apart."""
    found = dicomjson.attributes_to_json({"PatientName": "MP-1", "Rows": "64", "ModalitiesInStudy": "CT\\PT", "StudyID": ""})

    assert list(found) == ["00080061", "00100010", "00200010", "00280010"]
    assert found["00080061"] == {"vr": "CS", "Value": ["CT", "PT"]}
    assert found["00280010"] == {"vr": "US", "Value": [64]}
    assert found["00200010"] == {"vr": "SH"}
    assert pydicom.Dataset.from_json(found).PatientName == "MP-1"
