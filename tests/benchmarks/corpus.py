"""The planted corpus: data sets made by code, each hiding the same person in another place, for tests and the peers' table.

Every object is named after what it hides. A string counts as surviving if it stands in the output in any case, in UTF-8 or
UTF-16, as it is or in a zlib stream.
"""

import re
import zlib

import making
from pydicom.dataset import Dataset

SURNAME, GIVEN, PATIENT_ID = "Quillfeather", "Zebulon", "MRN-7734921"
NEEDLES = ("Quillfeather", "Zebulon", "7734921", "773-4921", "Featherstonehaugh", "19580317", "Wilfrid", making.STUDY_UID)
"""What may not survive: surname, given name, the patient's number, the physician, birth date, institution, study UID."""


def item(**values: object) -> Dataset:
    """Return a data set with these attributes."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a coded entry."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def corpus() -> dict[str, Dataset]:
    """Return the objects by what they hide."""
    made = {"plain header": making.dataset()}

    def add(name: str, **values: object) -> Dataset:
        ds = made[name] = making.dataset(**values)
        return ds

    add("name in Series Description", SeriesDescription=f"{SURNAME}, Z: follow-up")
    add("e-mail address in Study Description", StudyDescription="ask zebulon.quillfeather@example.org")
    add("patient ID with separators in Protocol Name", ProtocolName="chest 773-4921")
    add("name in Image Comments", ImageComments=f"seen with Mrs {SURNAME}")
    add("name in Requested Procedure Description", RequestedProcedureDescription=f"CT {SURNAME}")
    add("name in Code Meaning", ProcedureCodeSequence=[code("24627-2", "LN", f"CT chest {SURNAME}")])
    deep = item(PatientName=making.PATIENT_NAME, PatientID=PATIENT_ID, ImageComments=f"of {SURNAME}")
    for _ in range(5):
        deep = item(ReferencedImageSequence=[deep])
    add("names five sequences deep", ReferencedImageSequence=[deep])
    add(
        "Original Attributes Sequence",
        OriginalAttributesSequence=[item(ModifiedAttributesSequence=[item(PatientName=SURNAME)])],
    )
    add("request attributes", RequestAttributesSequence=[item(RequestedProcedureID=PATIENT_ID, RequestingPhysician=SURNAME)])
    hospital = item(InstitutionName="St Wilfrid Infirmary")
    add("physicians of record, nested", PhysiciansOfRecordIdentificationSequence=[hospital])
    person = item(PersonName=making.PATIENT_NAME, InstitutionName="St Wilfrid Infirmary")
    add("names in a sequence of no table", RadiopharmaceuticalInformationSequence=[person])
    ds = add("private text")
    ds.private_block(0x0099, "SOMEBODY", create=True).add_new(1, "LO", f"{SURNAME}^{GIVEN}")
    ds = add("private bulk, UTF-16")
    ds.private_block(0x0099, "SOMEBODY", create=True).add_new(1, "OB", SURNAME.encode("utf-16-le"))
    ds = add("private bulk, zlib")
    ds.private_block(0x0099, "SOMEBODY", create=True).add_new(1, "OB", padded(zlib.compress(SURNAME.encode() * 4)))
    ds = add("private creator is the name")
    ds.private_block(0x0099, SURNAME, create=True).add_new(1, "IS", "1")
    ds = add("private element in a public sequence")
    inner = item()
    inner.private_block(0x0099, "SOMEBODY", create=True).add_new(1, "LO", SURNAME)
    ds.ReferencedImageSequence = [inner]
    ds = add("overlay label and comments")
    ds.add_new(0x60000022, "LO", SURNAME)
    ds.add_new(0x60004000, "LT", SURNAME)
    ds = add("curve label")
    ds.add_new(0x50002600, "LO", SURNAME)
    icon = item(Rows=1, Columns=12)
    icon.add_new(0x7FE00010, "OB", SURNAME.encode())
    add("icon", IconImageSequence=[icon])
    ds = add("bytes behind the last pixel")
    ds.PixelData = ds.PixelData + SURNAME.encode()
    ds = add("Data Set Trailing Padding")
    ds.add_new(0xFFFCFFFC, "OB", SURNAME.encode())
    add("device texts", SoftwareVersions=f"v1 {SURNAME}", DeviceSerialNumber=f"SN{PATIENT_ID}", FilterType=SURNAME)
    add("code strings", ConvolutionKernel=SURNAME.upper(), ScanOptions=SURNAME.upper())
    add("dates in text", SeriesDescription="born 19580317", StudyDescription="CT of 17 Mar 1958 19580317")
    add("UID in text", SeriesDescription=f"from {making.STUDY_UID}")
    add("references", SourceImageSequence=[item(ReferencedSOPInstanceUID=f"{making.STUDY_UID}.7")])
    add("LUT explanation", WindowCenterWidthExplanation=SURNAME)
    add("clinical trial", ClinicalTrialSubjectID=PATIENT_ID, ClinicalTrialSponsorName=SURNAME)
    add(
        "contributing equipment",
        ContributingEquipmentSequence=[item(Manufacturer="X", OperatorsName=SURNAME, StationName=SURNAME)],
    )
    add("maker note and places", GPSDateStamp="19580317").add_new(0x0016002B, "OB", SURNAME.encode())
    add("patient comments and history", PatientComments=SURNAME, AdditionalPatientHistory=SURNAME, PatientAddress=SURNAME)
    report = add("report: text, names, UIDs", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22", Modality="SR", ValueType="CONTAINER")
    for tag in [one.tag for one in report if one.tag.group in (0x0028, 0x7FE0)]:
        del report[tag]
    report.ConceptNameCodeSequence = [code("126000", "DCM", "Imaging Measurement Report")]
    report.ContentSequence = [
        content("TEXT", code("121106", "DCM", "Comment"), TextValue=f"Nodule in {SURNAME}, {GIVEN}"),
        content("PNAME", code("121008", "DCM", "Person Observer Name"), PersonName=SURNAME),
        content("CONTAINER", code("111028", "DCM", "Image Library"), ContentSequence=[
            content("UIDREF", code("112040", "DCM", "Tracking Unique Identifier"), UID=f"{making.STUDY_UID}.5")]),
    ]  # fmt: skip
    return made


def content(value_type: str, concept: Dataset, **values: object) -> Dataset:
    """Return a content item."""
    return item(RelationshipType="CONTAINS", ValueType=value_type, ConceptNameCodeSequence=[concept], **values)


def surviving(data: bytes) -> list[str]:
    """Return which needles are left in the bytes of a data set or file."""
    streams = [data, data.replace(b"\0", b""), *inflated(data)]
    return [needle for needle in NEEDLES if any(needle.lower().encode() in stream.lower() for stream in streams)]


def inflated(data: bytes) -> list[bytes]:
    """Return what the zlib streams in `data` hold."""
    found = []
    for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data):
        try:
            found.append(zlib.decompressobj().decompress(data[match.start() :], 1 << 20))
        except zlib.error:
            continue
    return found


def padded(data: bytes) -> bytes:
    """Return `data` of even length."""
    return data + b"\0" * (len(data) % 2)
