"""The rest of the traps of de-identification, one test a number; the first half is in `test_traps.py`."""

import io
import logging
import struct
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import making
import pydicom
import pytest
from deid.deidentifying import KEY, after, code, content_item, deidentifier, encoded, raw, read_back, report
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.deid.profile import Deidentifier
from pacs.dicom import part10
from pacs.dicom.elements import element
from pacs.ingest import ingest
from pacs.model.errors import Quarantined
from pacs.model.instance import Origin, Received

NAME = "Quillfeather"


def cleaned(data: bytes, policy: str = "research") -> Dataset:
    """Return what becomes of an encoded data set."""
    return read_back(deidentifier(policy).deidentify(Received(data, ExplicitVRLittleEndian, Origin.IMPORT, "x")))


def private(group: int, creator: str, *values: tuple[int, str, object], **overrides: object) -> Dataset:
    """Return the phantom with one private block."""
    ds = making.dataset(**overrides)
    block = ds.private_block(group, creator, create=True)
    for number, vr, value in values:
        block.add_new(number, vr, value)
    return ds


def test_trap_03_a_name_spelled_in_other_ways() -> None:
    """Lower case, an e-mail address, letters with spaces between."""
    for text in (f"{NAME.lower()} CT", "zebulon.quillfeather@example.org CT", "Q U I L L F E A T H E R CT"):
        assert str(after(making.dataset(SeriesDescription=text)).SeriesDescription) == "CT"


def test_trap_12_earlier_claims_are_not_believed() -> None:
    """An object that says it was de-identified, and by whom, is treated like any other; its claims are not kept."""
    ds = making.dataset(
        PatientIdentityRemoved="YES",
        LongitudinalTemporalInformationModified="REMOVED",
        DeidentificationMethod=f"by {NAME}",
        DeidentificationMethodCodeSequence=[code("113112", "DCM", "Retain Institution Identity Option")],
        BurnedInAnnotation="NO",
    )
    found = after(ds)

    assert found.PatientID.startswith("MP-") and not found.get("InstitutionName")
    assert "113112" not in str(found.DeidentificationMethodCodeSequence) and NAME not in str(found)


def test_trap_14_places_and_maker_notes() -> None:
    """GPS coordinates and Maker Note of a photograph are gone."""
    ds = making.dataset(GPSLatitudeRef="N", GPSLatitude=[47, 22, 10], GPSLongitude=[8, 33, 2], GPSDateStamp="2024:02:29")
    ds.add_new(0x0016002B, "OB", f"serial {NAME}".encode() + b"\0")

    found = after(ds)

    assert not [one.tag for one in found if one.tag.group == 0x0016]


def test_trap_15_specimens_barcodes_and_labels() -> None:
    """Container and specimen identifiers are dummies, barcode and label text go."""
    specimen = Dataset()
    specimen.SpecimenIdentifier = "SP-990011"
    specimen.SpecimenUID = "1.2.3.990011"
    specimen.SpecimenShortDescription = f"biopsy {NAME}"
    ds = making.dataset(ContainerIdentifier="C-990011", BarcodeValue="990011", SpecimenDescriptionSequence=[specimen])
    ds.add_new(0x22000002, "UT", f"slide of {NAME} SP-990011")

    text = str(after(ds))

    assert "990011" not in text and NAME not in text


def test_trap_19_private_bulk_in_any_encoding() -> None:
    """ASCII, UTF-16 and zlib in private OB: unknown bulk is not kept at all."""
    planted = [NAME.encode(), NAME.encode("utf-16-le"), zlib.compress(NAME.encode() * 3)]
    ds = private(0x0099, "SOMEBODY", *((number, "OB", value) for number, value in enumerate(planted)))

    result = encoded(deidentifier().deidentify(making.received(ds)))

    assert not any(value in result for value in planted)
    assert not [one for one in read_back(deidentifier().deidentify(making.received(ds))) if one.tag.is_private]


def test_trap_20_private_sequences() -> None:
    """A private SQ that nobody knows goes; so does one in UN."""
    item = Dataset()
    item.PatientName = making.PATIENT_NAME
    ds = private(0x0099, "SOMEBODY", (0, "SQ", [item]))
    inner = making.encode(item, "1.2.840.10008.1.2")
    value = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    plain = making.encode(making.dataset())
    at = plain.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    unknown = cleaned(plain[:at] + raw(0x000B0010, b"LO", b"SOMEBODY") + raw(0x000B1000, b"UN", value) + plain[at:])

    assert NAME not in str(after(ds)) and NAME not in str(unknown)
    assert not [one for found in (after(ds), unknown) for one in found if one.tag.is_private]


def test_trap_21_a_safe_attribute_in_another_block() -> None:
    """The creator is found in whatever block it reserved; another creator's element of the same offset is not taken for it."""
    ds = making.dataset()
    ds.add_new(0x70530010, "LO", "SOMEBODY ELSE")
    ds.add_new(0x705300E1, "LO", "Philips PET Private Group")
    ds.add_new(0x70531000, "DS", "9.9")
    ds.add_new(0x7053E100, "DS", "0.000427")

    found = after(ds)

    assert found[0x7053E100].value == 0.000427 and found[0x705300E1].value == "Philips PET Private Group"
    assert 0x70531000 not in found and 0x70530010 not in found


@pytest.mark.parametrize("text", [b"Quillfeather", b"7734921 ", b"19580317"])
def test_trap_22_a_safe_number_that_is_none(text: bytes) -> None:
    """Text in a safe DS, the patient's number, or the birth date in it: the element goes."""
    ds = private(0x7053, "Philips PET Private Group", (0, "DS", "1.5"), patient_id="7734921")
    data = making.encode(ds)
    old = struct.pack("<HH2sH", 0x7053, 0x1000, b"DS", 4) + b"1.5 "
    padded = text + b" " * (len(text) % 2)
    assert old in data

    found = cleaned(data.replace(old, struct.pack("<HH2sH", 0x7053, 0x1000, b"DS", len(padded)) + padded))

    assert not found.get(0x70531000) or found[0x70531000].value is None


def test_trap_22_numbers_of_the_second_list() -> None:
    """Numbers that TCIA keeps stay if they are of their VR and no date; text and the VR of others do not."""
    from pacs.standard import tables

    rows = tables.numeric_private_rows()
    group, number, creator, _ = min(
        row for row in rows if row[3] == "DS" and not any(other[:3] == row[:3] and other[3] != "DS" for other in rows)
    )

    def kept(vr: str, value: object) -> bool:
        found = after(private(group, creator, (number, vr, value)))
        return group << 16 | 0x1000 | number in found

    assert kept("DS", "1.5")
    assert not kept("LO", "1.5") and not kept("DS", "20240229") and not kept("UL", 7)


def test_trap_23_creators_that_are_names_and_orphans() -> None:
    """A creator string is kept only if a list has it; elements without a creator, and below 0010, are gone."""
    ds = private(0x0099, NAME, (1, "LO", "x"))
    data = making.encode(ds)
    at = data.index(struct.pack("<HH", 0x0099, 0x0010))
    orphans = raw(0x00970005, b"LO", b"Quillfeather") + raw(0x00971101, b"LO", b"Quillfeather")

    found = cleaned(data[:at] + orphans + data[at:])

    assert not [one.tag for one in found if one.tag.is_private]


def test_trap_24_private_elements_inside_public_sequences() -> None:
    """They are treated by the same list, with the creators of their own item."""
    item = Dataset()
    item.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "700")
    item.private_block(0x0099, NAME, create=True).add_new(1, "LO", NAME)

    found = after(making.dataset(ReferencedImageSequence=[item])).ReferencedImageSequence[0]

    assert found[0x0019100C].value == 700 and NAME not in str(found)


@pytest.mark.parametrize(("action", "stays"), [("X", False), ("Z", True), ("D", True)])
def test_trap_24_what_the_sender_declares_identifying_goes(action: str, stays: bool) -> None:
    """Deidentification Action in (0008,0300) strengthens the list; a block declared SAFE adds nothing to it."""
    asked = Dataset()
    asked.IdentifyingPrivateElements = [0]
    asked.DeidentificationAction = action
    said = Dataset()
    said.PrivateGroupReference, said.PrivateCreatorReference = 0x7053, "Philips PET Private Group"
    said.BlockIdentifyingInformationStatus = "MIXED"
    said.NonidentifyingPrivateElements = [9]
    said.DeidentificationActionSequence = [asked]
    safe = Dataset()
    safe.PrivateGroupReference, safe.PrivateCreatorReference = 0x0099, "SOMEBODY"
    safe.BlockIdentifyingInformationStatus = "SAFE"
    ds = private(0x7053, "Philips PET Private Group", (0, "DS", "0.000427"), (9, "DS", "1.5"))
    ds.private_block(0x0099, "SOMEBODY", create=True).add_new(0, "LO", "chest")
    ds.PrivateDataElementCharacteristicsSequence = [said, safe]

    found = after(ds)

    assert (0x70531000 in found) is stays and "0.000427" not in str(found)
    assert found[0x70531009].value == 1.5
    assert 0x00991000 not in found and "PrivateDataElementCharacteristicsSequence" not in found


def test_trap_25_suv_inputs_move_together() -> None:
    """Injection and acquisition move by the same days, times, dose and weight stay: the SUV stays."""
    dose = Dataset()
    dose.RadiopharmaceuticalStartDateTime = "20240229091500"
    dose.RadiopharmaceuticalStartTime = "091500"
    dose.RadionuclideTotalDose = "370000000"
    dose.RadionuclideHalfLife = "6586.2"
    ds = making.dataset(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.128", Modality="PT", AcquisitionTime="101500",
        RadiopharmaceuticalInformationSequence=[dose],
    )  # fmt: skip

    found = after(ds)
    new = found.RadiopharmaceuticalInformationSequence[0]

    assert str(new.RadiopharmaceuticalStartDateTime) == f"{found.AcquisitionDate}091500"
    assert new.RadionuclideTotalDose == 370000000 and found.PatientWeight == 80 and found.AcquisitionTime == "101500"


def test_trap_29_midnight_stays_between_the_days() -> None:
    """A start before and an end after midnight keep their distance."""
    found = after(making.dataset(AcquisitionDateTime="20240229235950", ContentDate="20240301", ContentTime="000010"))

    from datetime import datetime

    start = datetime.strptime(str(found.AcquisitionDateTime), "%Y%m%d%H%M%S")
    assert (datetime.strptime(found.ContentDate + found.ContentTime, "%Y%m%d%H%M%S") - start).total_seconds() == 20


def test_trap_30_studies_of_years_keep_their_distance() -> None:
    """One offset for a patient, over leap days and years."""
    from datetime import date

    one = deidentifier()
    days = ["20200229", "20240229", "20250301"]
    studies = [making.received(making.dataset(StudyDate=day)) for day in days]
    found = [date.fromisoformat(str(read_back(one.deidentify(study)).StudyDate)) for study in studies]
    before = [date.fromisoformat(day) for day in days]

    assert [b - a for a, b in pairwise(found)] == [b - a for a, b in pairwise(before)]


def test_trap_33_well_known_uids_stay() -> None:
    """Transfer syntaxes, SOP classes, coding schemes and well-known frames of reference are nobody's."""
    one = deidentifier()
    for uid in ("1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.4.1.1", "1.2.840.10008.2.16.4"):
        assert one.pseudonymous_uid(uid) == uid
    assert one.pseudonymous_uid("1.2.840.10008.5.1.4.1.1.2.1234567.20240229").startswith("2.25.")


def test_trap_34_uids_in_free_text() -> None:
    """A UID within text is taken out, whoever's it is."""
    found = after(making.dataset(SeriesDescription="CT 1.2.826.0.1.3680043.8.498.1001 chest"))

    assert found.SeriesDescription == "CT chest"


def test_trap_36_frames_of_reference_and_tracking_uids_are_shared() -> None:
    """A segmentation and a report that arrive apart still speak of the same thing."""
    tracking = "1.2.826.0.1.555"
    segment = Dataset()
    segment.SegmentNumber, segment.TrackingUID, segment.TrackingID = 1, tracking, "Lesion 1"
    image = after(making.dataset(SegmentSequence=[segment]))
    item = content_item("UIDREF", code("112040", "DCM", "Tracking Unique Identifier"), UID=tracking)
    text = after(report(item, SOPInstanceUID="1.2.3.4.5.6.7"))

    assert image.SegmentSequence[0].TrackingUID == text.ContentSequence[0].UID != tracking


def test_trap_39_waveform_annotations() -> None:
    """Labels lose names, samples are unchanged."""
    note = Dataset()
    note.UnformattedTextValue = f"PVC, {NAME}"
    note.AnnotationGroupNumber = 1
    channel = Dataset()
    channel.ChannelLabel = f"{NAME} II"
    group = Dataset()
    group.MultiplexGroupLabel = f"rest of {NAME}"
    group.ChannelDefinitionSequence = [channel]
    group.add_new(0x54001010, "OW", bytes(range(200)))
    group.WaveformBitsAllocated = 16
    ds = making.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.9.1.1", WaveformSequence=[group])
    ds.WaveformAnnotationSequence = [note]

    found = after(ds)

    assert NAME not in str(found)
    assert found.WaveformSequence[0].WaveformData == bytes(range(200))


def test_trap_40_radiotherapy_plans() -> None:
    """Machine names and reviewers go, geometry and dose stay."""
    beam = Dataset()
    beam.TreatmentMachineName, beam.BeamName, beam.SourceAxisDistance = "LINAC-QUILL-7", "AP", "1000"
    ds = making.dataset(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.481.5", Modality="RTPLAN", ReviewerName="Featherstonehaugh^Ada",
        ApprovalStatus="APPROVED", RTPlanLabel=f"{NAME} lung", BeamSequence=[beam], OperatorsName="Featherstonehaugh^Ada",
    )  # fmt: skip

    found = after(ds)

    assert "QUILL" not in str(found).upper().replace("MP-", "") and "Featherstonehaugh" not in str(found)
    assert found.BeamSequence[0].SourceAxisDistance == 1000


def test_trap_41_functional_groups() -> None:
    """Frame comments go, frame dates move, private elements in each frame are treated by the list."""
    content = Dataset()
    content.FrameComments = f"breath hold {NAME}"
    content.FrameAcquisitionDateTime = "20240229101502"
    frame = Dataset()
    frame.FrameContentSequence = [content]
    frame.private_block(0x0099, NAME, create=True).add_new(0, "LO", NAME)
    ds = making.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1", PerFrameFunctionalGroupsSequence=[frame])

    for policy in ("basic", "research"):
        found = after(ds, policy)
        new = found.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0]
        assert NAME not in str(found) and "20240229" not in str(found)
        # Type 1C: a dummy where it cannot stay, never nothing.
        assert str(new.FrameAcquisitionDateTime).startswith("1900" if policy == "basic" else found.StudyDate)


def test_trap_46_overlays_in_unused_bits() -> None:
    """A plane above the high bit is cleared, the image's own bits are not touched."""
    ds = making.dataset(BitsStored=12, HighBit=11, PixelRepresentation=0)
    ds.PixelData = struct.pack("<H", 0xF123) * (64 * 64)
    for tag, value in ((0x60000010, 64), (0x60000011, 64), (0x60000100, 16), (0x60000102, 12)):
        ds.add_new(tag, "US", value)

    assert after(ds).PixelData == struct.pack("<H", 0xE123) * (64 * 64)


def test_trap_47_curves() -> None:
    """Curve data and its labels, in any of the repeating groups, are gone."""
    ds = making.dataset()
    ds.add_new(0x50000022, "LO", NAME)
    ds.add_new(0x501E2600, "LO", NAME)
    ds.add_new(0x501E3000, "OW", NAME.encode())

    assert not [one.tag for one in after(ds) if 0x5000 <= one.tag.group <= 0x50FF]


def test_trap_48_icons() -> None:
    """A thumbnail shows what the image showed before it was cleaned."""
    icon = Dataset()
    icon.add_new(0x7FE00010, "OB", b"\1" * 16)

    assert "IconImageSequence" not in after(making.dataset(IconImageSequence=[icon]))


def test_trap_53_explanations_of_luts_and_windows() -> None:
    """They are free text: words of the vocabulary stay, others do not, under the Basic Profile all goes."""
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTExplanation = [2, 0, 16], f"for Dr Marple and {NAME}"
    lut.add_new(0x00283006, "OW", bytes(4))
    ds = making.dataset(WindowCenterWidthExplanation=["LUNG", "Marpleton"], VOILUTSequence=[lut])

    found = after(ds)

    assert found.WindowCenterWidthExplanation[0] == "LUNG" and "Marple" not in str(found) and NAME not in str(found)
    assert "WindowCenterWidthExplanation" not in after(ds, "basic")


def test_trap_54_preamble_and_file_meta_information(tmp_path: Path) -> None:
    """What surrounds the data set in a file is not kept: preamble, AE titles, private information."""
    data = bytearray(making.part10(making.dataset()))
    data[:128] = NAME.encode().ljust(128, b"\0")
    parts = part10.split(bytes(data))
    meta = part10.file_meta("1.2.840.10008.5.1.4.1.1.2", "2.25.1", ExplicitVRLittleEndian)

    assert bytes(parts.data_set) == making.encode(making.dataset())
    assert meta[:128] == bytes(128)
    written = pydicom.dcmread(io.BytesIO(meta), force=True).file_meta
    assert not [one for one in written if one.VR == "AE" or one.tag.element > 0x13]


def test_trap_59_photo_references_and_icc_profiles() -> None:
    """A patient's photograph is not referred to, and a colour profile keeps its numbers without its words and date."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 0x0233) + bytes(2)
    words = b"text" + bytes(4) + NAME.encode() + b"\0\0\0\0"
    head = bytearray(128)
    head[36:40] = b"acsp"
    head[24:36] = struct.pack(">6H", 2024, 2, 29, 10, 15, 0)
    table = struct.pack(">I", 2) + struct.pack(">4sII", b"rTRC", 156, 16) + struct.pack(">4sII", b"cprt", 172, len(words))
    profile = bytes(head) + table + curve + words
    profile = struct.pack(">I", len(profile)) + profile[4:]
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.3"
    ds = making.dataset(ICCProfile=profile, ReferencedPatientPhotoSequence=[reference])

    found = after(ds)

    assert found.ICCProfile[156:172] == curve and len(found.ICCProfile) == len(profile)
    assert NAME.encode() not in found.ICCProfile and found.ICCProfile[24:36] == bytes(12)
    assert "ReferencedPatientPhotoSequence" not in found
    assert "ICCProfile" not in after(making.dataset(ICCProfile=NAME.encode() * 20))


def test_trap_63_another_key_gives_unrelated_pseudonyms() -> None:
    """After a change of keys nothing of the old pseudonyms can be told from the new ones."""
    results = [Deidentifier("research", key).deidentify(making.received(making.dataset())) for key in (KEY, KEY[::-1])]
    first, second = map(read_back, results)

    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    for keyword in (*uids, "PatientID", "AccessionNumber"):
        assert first[keyword].value != second[keyword].value, keyword


def test_trap_64_no_file_log_or_index_row_holds_a_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Names of files and folders, everything in them, the index and the log are free of what the sender said."""
    with caplog.at_level(logging.DEBUG), making.archive(tmp_path) as archive:
        ingest(archive, making.received(making.dataset()))
        document = making.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", SOPInstanceUID="1.2.9")
        with pytest.raises(Quarantined):
            ingest(archive, making.received(document))
    planted = [one.lower().encode() for one in making.PLANTED]
    for path in tmp_path.rglob("*"):
        assert not any(one in str(path.relative_to(tmp_path)).lower().encode() for one in planted)
        if path.is_file():
            content = path.read_bytes().lower()
            assert not any(one in content for one in planted), path.name
    assert not any(one.decode() in caplog.text.lower() for one in planted)


def test_trap_62_parallel_workers_and_restarts_agree() -> None:
    """Three processes, each fresh, give one answer for UIDs, patient and dates."""
    script = (
        "import sys; sys.path.insert(0, 'tests'); from deid.deidentifying import deidentifier;"
        "one = deidentifier(); print(one.pseudonymous_uid('1.2.3.4'), one.pseudonymous_patient_id('X-1', 'SITE'))"
    )
    running = []
    for seed in ("0", "1", "2"):
        surroundings = {"PYTHONPATH": ".", "PYTHONHASHSEED": seed}
        running.append(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=surroundings))

    assert len({process.communicate(timeout=60)[0] for process in running}) == 1


def test_trap_68_a_crash_between_record_and_index_leaves_nothing_half_identified(tmp_path: Path) -> None:
    """Bytes that were written without a row are replayed from a record that was de-identified before it was made."""
    from pacs.archive import Archive
    from pacs.sweep import recover

    tree = making.settings(tmp_path)
    with making.archive(tmp_path) as archive:
        received = making.received(making.dataset())
        result = archive.deidentifier.deidentify(received)
        codec_digest = archive.codec.digest(result)
        made = archive.codec.encode(result, codec_digest)
        sealed = archive.sealer.seal(made, policy=result.policy, origin=received.origin, report=result.report)
        archive.objects.put([sealed])
    with Archive.opened(tree, writer="after") as archive:
        recover(archive)
        found = archive.index.locate(sop_instance_uids=[result.key.sop_instance_uid])
        stored = found[0]
        text, _ = archive.sealer.open(stored, archive.objects)

    assert len(found) == 1 and not any(one.encode() in text for one in making.PLANTED)
    assert stored.digest == codec_digest


def test_supplementary_free_text_is_cleaned_word_by_word() -> None:
    """ST, LT and UT that no table names keep only words of the vocabulary: a third person's name is none."""
    ds = making.dataset()
    ds.add_new(0x00189810, "ST", "x")
    item = Dataset()
    item.add_new(0x00686345, "ST", "chest for Marpleton")
    ds.ReferencedImageSequence = [item]

    assert "Marpleton" not in str(after(ds))


def test_code_meanings_are_what_the_standard_says() -> None:
    """A meaning of known words stays; anything else becomes that of PS3.16; retired codes have their successor's."""
    meanings = [
        ("24627-2", "LN", "CT chest", "CT chest"),
        ("T-D3000", "SRT", "Thorax of Marpleton", "Thoracic structure"),
        ("51185008", "SCT", "Marpleton", "Thoracic structure"),
        ("121106", "DCM", "Kommentar von Marpleton", "Comment"),
        ("X1", "99LOCAL", "Marpleton chest", "chest"),
        ("X1", "99LOCAL", "Marpleton", "REMOVED"),
    ]
    ds = making.dataset(ProcedureCodeSequence=[code(*row[:3]) for row in meanings])

    assert [item.CodeMeaning for item in after(ds).ProcedureCodeSequence] == [row[3] for row in meanings]


def test_retired_codes_of_content_items_are_the_current_ones() -> None:
    """An observer named by a retired code is removed as by the current one."""
    from pacs.deid import content
    from pacs.deid.policy import POLICIES
    from pacs.dicom.elements import sequence
    from pacs.standard import tables

    codes = tables._codes()["srt_to_sct"]
    row = next(row for row in tables.content_rows() if row.scheme == "SCT" and row.code in codes.values() and row.basic == "X")
    old = next(retired for retired, current in codes.items() if current == row.code)

    def rules(value: str, scheme: str) -> content.Item:
        name = [element(0x00080100, "SH", value.encode()), element(0x00080102, "SH", scheme.encode())]
        item = [element(0x0040A040, "CS", row.value_type.encode()), sequence(0x0040A043, [name])]
        return content.item_rules(item, POLICIES["basic"], False)

    assert rules(old, "SRT") == rules(old, "SNM3") == rules(row.code, "SCT")
    assert rules(old, "SRT").removed


def test_equipment_that_contributed_before_stays_named() -> None:
    """Ours comes behind it, and the name of its operator does not stay."""
    before = Dataset()
    before.Manufacturer, before.InstitutionName = "Phantom Works", "St Wilfrid Infirmary"
    before.OperatorsName = "Featherstonehaugh^Ada"
    before.PurposeOfReferenceCodeSequence = [code("109101", "DCM", "Acquisition Equipment")]

    found = after(making.dataset(ContributingEquipmentSequence=[before])).ContributingEquipmentSequence

    assert [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in found] == ["109101", "109104"]
    assert found[0].Manufacturer == "Phantom Works" and "Wilfrid" not in str(found) and "Featherstone" not in str(found)
