"""The traps of de-identification that this version covers, by their number in the design notes."""

import struct
from datetime import date

import making
import pytest
from deid.deidentifying import KEY, after, code, content_item, deidentifier, encoded, header, raw, read_back, report
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs.dicom import elements
from pacs.model.errors import DataSetMismatch, Quarantined, SOPClassNotSupported
from pacs.model.instance import Origin, Received

NAME = "Quillfeather"


def leaks(ds: Dataset, *needles: str, policy: str = "research", transfer_syntax_uid: str = ExplicitVRLittleEndian) -> list[str]:
    """Return which of the planted strings survive, whatever their case."""
    result = deidentifier(policy).deidentify(making.received(ds, transfer_syntax_uid))
    low = header(result).lower()
    return [needle for needle in (*making.PLANTED, *needles) if needle.lower().encode() in low]


@pytest.mark.parametrize("policy", ["basic", "research"])
def test_nothing_planted_in_the_phantom_survives(policy: str) -> None:
    """Names, IDs, institution, birth date and UIDs of the plain phantom are gone, under both policies."""
    assert leaks(making.dataset(), policy=policy) == []


@pytest.mark.parametrize("depth", [1, 5, 40])
def test_trap_01_a_name_in_deeply_nested_sequences(depth: int) -> None:
    """A name is found at any depth."""
    inner = Dataset()
    inner.PatientName = making.PATIENT_NAME
    inner.ImageComments = f"for {NAME}"
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedImageSequence = [inner]
        inner = outer

    assert leaks(making.dataset(ReferencedImageSequence=[inner])) == []


def test_trap_01_deeper_than_anybody_nests_is_not_understood() -> None:
    """Sequences nested beyond all reason are refused, and do not exhaust the stack."""
    value = b""
    for _ in range(3000):
        value = raw(0x00081140, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value)
    data = making.encode(making.dataset())
    received = Received(value + data, ExplicitVRLittleEndian, Origin.IMPORT, "x")

    with pytest.raises(Exception) as caught:
        deidentifier().deidentify(received)

    assert type(caught.value).__name__ == "NotUnderstood"


def test_trap_02_a_name_in_a_sequence_that_no_table_names() -> None:
    """A sequence without a row is walked, and a PN in it is emptied."""
    item = Dataset()
    item.DistributionAddress = "x"
    item.PersonName = making.PATIENT_NAME

    assert leaks(making.dataset(RadiopharmaceuticalInformationSequence=[item])) == []


@pytest.mark.parametrize(
    "text",
    [
        "quillfeather lung",
        "Q U I L L F E A T H E R",
        "Q.u.i.l.l.f.e.a.t.h.e.r",
        "zebulon.quillfeather@example.org",
        "QuillfeatherZebulon chest",
        "Qüillfëather chest",
        "Quillfeather, Zebulon: follow-up",
    ],
)
def test_trap_03_and_04_echoes_of_the_name_in_descriptors(text: str) -> None:
    """However the name is written, the descriptor loses it."""
    found = str(after(making.dataset(SeriesDescription=text)).get("SeriesDescription", "")).lower()

    bare = "".join(char for char in found if char.isalpha())
    assert "quill" not in bare and "zebulon" not in bare and "feather" not in bare and "@" not in found


@pytest.mark.parametrize(
    "text", ["AX LUNG 5mm", "T2_tse_tra_p2", "3D T1 MPRAGE sag iso", "Thorax 5.0 B30f", "CT chest", "LONG AXIS"]
)
def test_trap_04_ordinary_descriptors_stay(text: str) -> None:
    """What scanners and people write about the image is not touched."""
    assert after(making.dataset(SeriesDescription=text)).SeriesDescription == text


@pytest.mark.parametrize("text", ["MRN 7734921", "mrn/7734921", "MRN.773-4921 lung", "7734921", "lung 773-4921", "773 4921"])
def test_trap_05_the_patient_id_with_separators(text: str) -> None:
    """The Patient ID is found whatever separates its parts."""
    assert "773" not in str(after(making.dataset(SeriesDescription=text)).get("SeriesDescription", ""))


def test_trap_06_a_name_only_in_code_meaning() -> None:
    """Code Meaning is text too; the code itself stays."""
    ds = making.dataset(ProcedureCodeSequence=[code("24627-2", "LN", f"CT chest of {NAME}")])

    found = after(ds).ProcedureCodeSequence[0]

    assert NAME not in found.CodeMeaning
    assert found.CodeValue == "24627-2"


def test_trap_07_names_in_other_vrs() -> None:
    """CS, SH, AE, UR, UC and UT attributes that no table names are searched as well."""
    ds = making.dataset(ConvolutionKernel=NAME.upper(), FilterType=f"F {NAME}")
    ds.add_new(0x00189004, "CS", NAME.upper())
    ds.StrainDescription = f"{NAME} strain"

    assert leaks(ds) == []


def test_trap_08_a_long_text_with_the_name_at_its_end() -> None:
    """Length hides nothing."""
    assert leaks(making.dataset(TextComments="word " * 400_000 + NAME)) == []


def test_trap_09_ideographic_and_phonetic_names() -> None:
    """All component groups of a name and all its values are looked for."""
    ds = making.dataset(SpecificCharacterSet="ISO_IR 192", patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう")
    ds.SeriesDescription = "山田 太郎 CT chest"
    ds.FilterType = "太郎"

    result = header(deidentifier().deidentify(making.received(ds)))

    assert "山田".encode() not in result and "太郎".encode() not in result and b"yamada" not in result.lower()


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 144", "Люкceмбypг^Иван"),
        ("ISO_IR 126", "Διονυσιος^Κωστας"),
        ("GB18030", "王^小东"),
        ("ISO_IR 192", "Łukasiewicz^Zoë"),
    ],
)
def test_trap_10_names_in_other_character_sets(charset: str, name: str) -> None:
    """The name is found in comments in its own character set, and the character set stays true."""
    surname = name.partition("^")[0]
    ds = making.dataset(SpecificCharacterSet=charset, patient_name=name, FilterType=f"{name.partition('^')[2]} x")
    ds.ImageComments = f"comment on {surname}"

    found = after(ds)

    assert surname not in str(found) and name.partition("^")[2] not in str(found)


def test_trap_11_undeclared_utf_8() -> None:
    """UTF-8 without Specific Character Set is recognised, so that the echo is."""
    ds = making.dataset(
        patient_name="Placeholder", SpecificCharacterSet=None, SeriesDescription="XXXXXXXXX CT", FilterType="YYYYYYYYY"
    )
    data = (
        making.encode(ds)
        .replace(b"Placeholder ", "Żółkiewsk ".encode()[:12].ljust(12))
        .replace(b"XXXXXXXXX", "Żółkiew".encode()[:9])
    )
    received = Received(data, ExplicitVRLittleEndian, Origin.IMPORT, "x")

    result = header(deidentifier().deidentify(received))

    assert "Żółki".encode() not in result


def test_trap_12_and_13_old_claims_and_trial_attributes_are_replaced() -> None:
    """What the sender says about earlier de-identification and trials is not believed and not kept."""
    ds = making.dataset(
        PatientIdentityRemoved="YES", DeidentificationMethod=f"by {NAME}", LongitudinalTemporalInformationModified="REMOVED"
    )
    ds.ClinicalTrialSubjectID = "SUBJ-0042"
    ds.ClinicalTrialSponsorName = NAME

    found = after(ds)

    assert found.PatientIdentityRemoved == "YES"
    assert NAME not in str(found) and "SUBJ" not in str(found)
    assert found.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in found.DeidentificationMethodCodeSequence] == [
        "113100",
        "113105",
        "113107",
        "113108",
    ]


def test_trap_16_attributes_newer_than_the_library() -> None:
    """Elements of 2026c that pydicom does not know have a VR; what nobody knows is removed."""
    ds = making.dataset()
    data = making.encode(ds, ImplicitVRLittleEndian)
    unknown = struct.pack("<HHI", 0x0008, 0x2FFE, len(NAME)) + NAME.encode()
    at = data.index(struct.pack("<HHI", 0x0010, 0x0010, len(making.PATIENT_NAME) + 1 & ~1))
    received = Received(data[:at] + unknown + data[at:], ImplicitVRLittleEndian, Origin.IMPORT, "x")

    assert NAME.encode() not in header(deidentifier().deidentify(received))


def test_trap_17_public_tags_and_sequences_with_vr_un() -> None:
    """UN elements with a known tag are treated by their VR, sequences in them included."""
    item = Dataset()
    item.PatientName = making.PATIENT_NAME
    inner = making.encode(item, ImplicitVRLittleEndian)
    sequence = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    data = making.encode(making.dataset(ReferringPhysicianName=None))
    at = data.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    planted = raw(0x00080090, b"UN", b"Quillfeather^X") + raw(0x00081140, b"UN", sequence)
    received = Received(data[:at] + planted + data[at:], ExplicitVRLittleEndian, Origin.IMPORT, "x")

    result = deidentifier().deidentify(received)

    assert NAME.encode() not in header(result)
    assert read_back(result).ReferencedImageSequence[0].PatientName == read_back(result).PatientName


def test_trap_18_original_attributes_are_removed() -> None:
    """The sequences that keep what an attribute used to be go altogether."""
    old = Dataset()
    old.PatientName = making.PATIENT_NAME
    item = Dataset()
    item.ModifiedAttributesSequence = [old]

    assert leaks(making.dataset(OriginalAttributesSequence=[item])) == []


def test_trap_19_to_24_private_elements() -> None:
    """Only safe private attributes with values of their VR stay, with their creator, in whatever block, at any depth."""
    ds = making.dataset()
    block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0.000427")
    block.add_new(0x09, "DS", "123456789012")
    block.add_new(0x10, "OB", NAME.encode())
    other = ds.private_block(0x7053, f"{NAME} Private", create=True)
    other.add_new(0x00, "DS", "1.5")
    item = Dataset()
    nested = item.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    nested.add_new(0x0C, "IS", "700")
    nested.add_new(0x99, "LO", NAME)
    ds.ReferencedImageSequence = [item]
    ds.add_new(0x00191099, "LO", NAME)
    # pydicom would not write a name into a DS; a sender might.
    data = making.encode(ds).replace(b"123456789012", NAME.encode())

    def cleaned(policy: str) -> Dataset:
        received = Received(data, ExplicitVRLittleEndian, Origin.IMPORT, "x")
        return read_back(deidentifier(policy).deidentify(received))

    found = cleaned("research")

    assert NAME not in str(found)
    assert found[0x70531000].value == 0.000427
    assert found[0x70530010].value == "Philips PET Private Group"
    assert 0x70531009 not in found
    assert 0x70531010 not in found and 0x70531100 not in found
    assert found.ReferencedImageSequence[0][0x0019100C].value == 700
    assert [one.tag for one in cleaned("basic") if one.tag.is_private] == []


def test_trap_25_and_30_dates_of_one_patient_move_together() -> None:
    """One whole number of weeks for all dates of a patient, across studies and leap days; another patient has another."""
    first = after(making.dataset(AcquisitionDateTime="20240229101502.5+0100"))
    second = after(making.dataset(study_uid="1.2.3.4.5", StudyDate="20250301"))
    other = after(making.dataset(patient_id="MRN-1111111"))

    days = [
        (date_of(before) - date_of(now)).days for before, now in (("20240229", first.StudyDate), ("20250301", second.StudyDate))
    ]

    assert days[0] == days[1] > 0 and days[0] % 7 == 0
    assert str(first.AcquisitionDateTime) == f"{first.StudyDate}101502.5+0100"
    assert other.StudyDate != first.StudyDate
    assert first.StudyTime == "101500"


def test_trap_26_dates_that_no_table_names() -> None:
    """DA and DT attributes without a row move too, each of their values."""
    ds = making.dataset()
    ds.add_new(0x00404050, "DT", "20240229101500")
    ds.add_new(0x00189074, "DT", ["20240229101500", "20240307101500"])

    found = after(ds)

    assert "20240229" not in str(found) and "20240307" not in str(found)
    assert found.StudyDate in str(found[0x00189074].value)


@pytest.mark.parametrize(
    "text", ["29.02.2024", "2024-02-29", "29 Feb 2024", "February 29, 2024", "02/29/2024", "20240229", "29/02/24", "Feb 2024"]
)
def test_trap_27_dates_in_text(text: str) -> None:
    """Dates in descriptors are taken out, not moved."""
    found = str(after(making.dataset(SeriesDescription=f"CT chest {text}")).get("SeriesDescription"))

    assert found == "CT chest"


@pytest.mark.parametrize(("value", "expected"), [("00000000", ""), ("2024022", ""), ("Feb 2024", "")])
def test_trap_28_what_is_no_date_is_given_up(value: str, expected: str) -> None:
    """A value that cannot be moved does not stay."""
    data = making.encode(making.dataset(StudyDate="20240229")).replace(b"20240229", value.encode().ljust(8))
    received = Received(data, ExplicitVRLittleEndian, Origin.IMPORT, "x")

    found = read_back(deidentifier().deidentify(received))

    assert str(found.StudyDate) == expected


def test_trap_31_device_dates_do_not_tell_the_offset() -> None:
    """Calibration dates are removed or a fixed dummy, never moved."""
    found = after(
        making.dataset(DateOfLastCalibration="20240101", DateOfManufacture="20190101", DateOfLastDetectorCalibration="20240101")
    )

    assert "DateOfLastCalibration" not in found and "DateOfManufacture" not in found
    assert found.get("DateOfLastDetectorCalibration", "19000101") == "19000101"


def test_trap_32_to_34_uids() -> None:
    """Instance UIDs are replaced wherever they stand, in text too; DICOM's own stay."""
    ds = making.dataset(study_uid="1.2.826.20240229.101500.77")
    ds.SeriesDescription = "CT from 1.2.826.20240229.101500.77"
    ds.SourceImageSequence = [Dataset()]
    ds.SourceImageSequence[0].ReferencedSOPClassUID = ds.SOPClassUID
    ds.SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1001.1.77"
    ds.FrameOfReferenceUID = "1.2.840.10008.1.4.1.1"

    found = after(ds)

    assert "20240229" not in str(found)
    assert found.SourceImageSequence[0].ReferencedSOPClassUID == ds.SOPClassUID
    assert found.SourceImageSequence[0].ReferencedSOPInstanceUID.startswith("2.25.")
    assert found.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1"


def test_trap_35_and_36_references_across_objects_point_to_the_new_uids() -> None:
    """A report that arrives by itself refers to the image by the UID that the image has here."""
    image = making.dataset()
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    tracking = content_item("UIDREF", code("112040", "DCM", "Tracking Unique Identifier"), UID=image.FrameOfReferenceUID)
    picture = content_item("IMAGE", code("121112", "DCM", "Source of Measurement"), ReferencedSOPSequence=[reference])

    new_image = after(image)
    new_report = after(report(tracking, picture, SOPInstanceUID="1.2.3.4.5.6.7"))

    assert new_report.ContentSequence[1].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == new_image.SOPInstanceUID
    assert new_image.FrameOfReferenceUID == new_report.ContentSequence[0].UID


def test_trap_37_and_38_reports_lose_people_and_keep_numbers() -> None:
    """Observers, organisations and free text go, in deeper containers too; measurements, codes and coordinates stay."""
    measured = Dataset()
    measured.NumericValue = "12.5"
    measured.MeasurementUnitsCodeSequence = [code("mm", "UCUM", "mm")]
    inner = content_item("PNAME", code("121008", "DCM", "Person Observer Name"), PersonName="Featherstonehaugh^Ada")
    ds = report(
        content_item("PNAME", code("121029", "DCM", "Subject Name"), PersonName=making.PATIENT_NAME),
        content_item("TEXT", code("121106", "DCM", "Comment"), TextValue=f"Nodule in {NAME}, seen by Dr Marple on 29.02.2024"),
        content_item("NUM", code("410668003", "SCT", "Length"), MeasuredValueSequence=[measured]),
        content_item("SCOORD", code("111030", "DCM", "Image Region"), GraphicType="POINT", GraphicData=[1.5, 2.5]),
        content_item("CONTAINER", code("111028", "DCM", "Image Library"), ContentSequence=[inner]),
        content_item("DATE", code("111060", "DCM", "Study Date"), Date="20240229"),
    )
    ds.VerifyingObserverSequence = [Dataset()]
    ds.VerifyingObserverSequence[0].VerifyingObserverName = "Featherstonehaugh^Ada"
    ds.VerifyingObserverSequence[0].VerifyingOrganization = "St Wilfrid Infirmary"

    found = after(ds)

    assert not any(planted in str(found) for planted in making.PLANTED) and "Marple" not in str(found)
    assert (
        found.ContentSequence[1].TextValue == "Nodule in seen by on" or "nodule" in found.ContentSequence[1].TextValue.lower()
    )
    assert found.ContentSequence[2].MeasuredValueSequence[0].NumericValue == 12.5
    assert list(found.ContentSequence[3].GraphicData) == [1.5, 2.5]
    assert found.ContentSequence[5].Date == found.StudyDate


def test_trap_38_a_name_made_of_dicom_words_does_not_break_the_report() -> None:
    """A patient called "Text^Container" keeps value types, relationships and coding schemes."""
    item = content_item("TEXT", code("121106", "DCM", "Comment"), TextValue="no text")

    found = after(report(item, patient_name="Text^Container"))

    assert found.ContentSequence[0].ValueType == "TEXT" and found.ValueType == "CONTAINER"
    assert found.ContentSequence[0].RelationshipType == "CONTAINS"
    assert found.ContentSequence[0].ConceptNameCodeSequence[0].CodingSchemeDesignator == "DCM"


CAPTURE, ULTRASOUND = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.6.1"


def test_trap_44_without_cleaning_captures_and_classes_at_risk_are_quarantined() -> None:
    """Ultrasound and secondary captures pass only if declared free of text; a declared text or capture never does."""
    assert after(making.dataset(SOPClassUID=CAPTURE, BurnedInAnnotation="NO"), "basic").SOPClassUID == CAPTURE
    for overrides in (
        {"SOPClassUID": CAPTURE},
        {"SOPClassUID": ULTRASOUND},
        {"BurnedInAnnotation": "YES"},
        {"SOPClassUID": CAPTURE, "BurnedInAnnotation": "NO", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    ):
        with pytest.raises(Quarantined):
            after(making.dataset(**overrides), "basic")


def test_trap_44_where_pixels_are_cleaned_no_declaration_is_believed() -> None:
    """What may show text is held to be searched, whatever Burned In Annotation says; a plain CT slice is not."""
    for overrides in (
        {"SOPClassUID": CAPTURE, "BurnedInAnnotation": "NO"},
        {"SOPClassUID": ULTRASOUND},
        {"BurnedInAnnotation": "YES"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"},
    ):
        result = deidentifier().deidentify(making.received(making.dataset(**overrides)))
        assert result.pending == ("pixels",)
        assert "113101" not in result.methods

    assert deidentifier().deidentify(making.received(making.dataset())).pending == ()


def test_trap_45_to_48_overlays_curves_and_icons_are_dropped() -> None:
    """Overlay groups, curves and icon images are gone with their labels; embedded planes are cleared from the pixels."""
    icon = Dataset()
    icon.add_new(0x7FE00010, "OB", NAME.encode())
    ds = making.dataset(IconImageSequence=[icon], BitsStored=12, HighBit=11, PixelRepresentation=0)
    ds.PixelData = struct.pack("<H", 0x8123) * (64 * 64)
    ds.add_new(0x60020010, "US", 64)
    ds.add_new(0x60020011, "US", 64)
    ds.add_new(0x60020102, "US", 15)
    ds.add_new(0x60021500, "LO", NAME)
    ds.add_new(0x60000022, "LO", NAME)
    ds.add_new(0x60003000, "OW", b"\1\0")
    ds.add_new(0x50002600, "LO", NAME)

    found = after(ds)

    assert not [one.tag for one in found if one.tag.group in (0x6000, 0x6002, 0x5000, 0x0088)]
    assert found.PixelData == struct.pack("<H", 0x0123) * (64 * 64)


def test_trap_50_bytes_behind_the_last_pixel_and_padding_are_dropped() -> None:
    """What follows the last pixel is not kept, nor is Data Set Trailing Padding."""
    ds = making.dataset()
    pixels = ds.PixelData
    ds.PixelData = pixels + NAME.encode() * 2
    ds.add_new(0xFFFCFFFC, "OB", NAME.encode())

    result = deidentifier().deidentify(making.received(ds))

    assert read_back(result).PixelData == pixels
    assert NAME.encode() not in encoded(result)


def test_trap_50_the_byte_that_makes_the_length_even_says_nothing() -> None:
    """It is zero, whatever a writer left there (highdicom 0.28 leaves "0")."""
    ds = making.dataset(NumberOfFrames=3, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0, Rows=5, Columns=5)
    ds.add_new(0x7FE00010, "OB", bytes(range(75)) + b"0")

    assert read_back(deidentifier().deidentify(making.received(ds))).PixelData == bytes(range(75)) + b"\0"


def test_trap_50_frames_that_the_header_forgot_are_quarantined() -> None:
    """A whole frame too many is neither shown nor silently lost."""
    ds = making.dataset()
    ds.PixelData = ds.PixelData * 2

    with pytest.raises(Quarantined):
        after(ds)


def test_voice_recordings_are_quarantined() -> None:
    """People say names."""
    with pytest.raises(Quarantined):
        after(making.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.9.4.1"))


def test_trap_52_clean_pixels_stay_bit_identical() -> None:
    """Nothing else touches the pixels: the very same bytes come out."""
    ds = making.dataset()

    assert after(ds).PixelData == ds.PixelData


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_trap_55_every_uncompressed_syntax_comes_out_alike(syntax: str) -> None:
    """Implicit, big endian and deflated data sets become the same Explicit VR Little Endian bytes."""
    ds = making.dataset(ProcedureCodeSequence=[code("24627-2", "LN", "CT chest")])

    plain = deidentifier().deidentify(making.received(ds))
    other = deidentifier().deidentify(making.received(ds, syntax))

    assert encoded(other) == encoded(plain)
    assert other.transfer_syntax_uid == ExplicitVRLittleEndian


def test_trap_56_encapsulated_documents_are_quarantined() -> None:
    """A PDF cannot be looked into."""
    with pytest.raises(Quarantined):
        after(making.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", BurnedInAnnotation="NO"))


def test_trap_57_directories_are_not_instances() -> None:
    """A DICOMDIR, by its class or its content, is refused; group 0004 in an image is dropped."""
    ds = making.dataset(FileSetID="SET1")
    assert "FileSetID" not in after(ds)
    with pytest.raises(SOPClassNotSupported):
        after(making.dataset(SOPClassUID="1.2.840.10008.1.3.10"))
    with pytest.raises(SOPClassNotSupported):
        after(making.dataset(DirectoryRecordSequence=[]))


def test_trap_58_signatures_are_removed() -> None:
    """A signature names the signer and no longer holds."""
    signature = Dataset()
    signature.CertificateOfSigner = NAME.encode()

    assert leaks(making.dataset(DigitalSignaturesSequence=[signature], MACParametersSequence=[Dataset()])) == []


def test_trap_60_empty_items_and_undefined_lengths() -> None:
    """Empty sequences, empty items and undefined lengths are understood and cleaned."""
    item = Dataset()
    item.PatientName = making.PATIENT_NAME
    item.is_undefined_length_sequence_item = True
    ds = making.dataset(ReferencedImageSequence=[item, Dataset()], ProcedureCodeSequence=[])
    ds["ReferencedImageSequence"].is_undefined_length = True

    found = after(ds)

    assert NAME not in str(found)
    assert len(found.ReferencedImageSequence) == 2 and len(found.ProcedureCodeSequence) == 0


def test_trap_61_one_patient_one_pseudonym_and_strangers_never_merge() -> None:
    """The same ID gives the same pseudonym; two issuers are two patients; without an ID each study is its own."""
    one = deidentifier()

    def patient(**overrides: object) -> str:
        return str(read_back(one.deidentify(making.received(making.dataset(**overrides)))).PatientID)

    assert patient() == patient(study_uid="1.2.3.4.5.9")
    assert patient() == one.pseudonymous_patient_id(making.PATIENT_ID, "")
    assert patient() != patient(IssuerOfPatientID="OTHER")
    assert patient(patient_id="") == patient(patient_id="")
    assert patient(patient_id="") != patient(patient_id="", study_uid="1.2.3.4.5.9")
    without = making.dataset(PatientID=None)
    assert str(read_back(one.deidentify(making.received(without))).PatientID) == patient(patient_id="")


def test_trap_61_one_patients_memory_never_answers_for_another() -> None:
    """A value that is harmless for one patient is cleaned for the one whose name it holds."""
    one = deidentifier()
    first = making.dataset(patient_name="Chest^Lung", patient_id="A-1000", FilterType="Quillfeather")
    second = making.dataset(patient_id="A-2000", FilterType="Quillfeather")

    kept = read_back(one.deidentify(making.received(first)))
    cleaned = read_back(one.deidentify(making.received(second)))

    assert kept.FilterType == "Quillfeather"
    assert cleaned.FilterType == "REMOVED"


def test_trap_62_and_63_uids_hang_on_the_key_alone() -> None:
    """Another process with the same key gives the same UIDs, another key unrelated ones, all of them valid."""
    uid = "1.2.826.0.1.3680043.8.498.1001"

    assert deidentifier().pseudonymous_uid(uid) == deidentifier().pseudonymous_uid(uid + "\0")
    assert deidentifier().pseudonymous_uid(uid) != deidentifier(key=KEY[::-1]).pseudonymous_uid(uid)
    assert deidentifier().pseudonymous_uid(uid).startswith("2.25.") and len(deidentifier().pseudonymous_uid(uid)) <= 44


def test_trap_64_errors_say_nothing_of_the_patient() -> None:
    """Messages name reasons, never values."""
    for overrides in (
        {"BurnedInAnnotation": "YES"},
        {"StudyInstanceUID": ""},
        {"SOPClassUID": f"1.2.3.{making.PATIENT_ID[4:]}"},
    ):
        with pytest.raises((Quarantined, DataSetMismatch, SOPClassNotSupported)) as caught:
            after(making.dataset(**overrides), "basic")
        assert not any(planted in str(caught.value) for planted in making.PLANTED)


def test_trap_66_the_same_object_again_gives_the_same_bytes() -> None:
    """A resend is byte for byte the same, from a fresh process and from one that has seen a lot in between."""
    seen = deidentifier()
    first = encoded(seen.deidentify(making.received(making.dataset())))
    for number in range(5):
        seen.deidentify(
            making.received(making.dataset(instance=number, patient_id=f"P-{number}000", patient_name=f"Other{number}^X"))
        )

    assert encoded(seen.deidentify(making.received(making.dataset()))) == first
    assert encoded(deidentifier().deidentify(making.received(making.dataset()))) == first


def test_the_result_is_in_tag_order_and_even() -> None:
    """Elements come out as PS3.5 7.1 asks for."""
    result = deidentifier().deidentify(making.received(making.dataset()))

    tags = [one.tag for one in result.elements]
    assert tags == sorted(set(tags))
    assert all(len(one.encoded) % 2 == 0 for one in result.elements)
    assert elements.walk(encoded(result)) == elements.walk(bytearray(encoded(result)))


def date_of(value: str) -> date:
    """Return a DA value as a date."""
    return date(int(value[:4]), int(value[4:6]), int(value[6:8]))
