"""Values as text, with their character sets."""

import struct
import warnings
from pathlib import Path

import making
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

from pacs.dicom import elements, part10, values


def test_attributes_are_what_pydicom_reads() -> None:
    """Text, numbers and several values come out as strings; sequences and pixels do not."""
    ds = making.dataset(ProcedureCodeSequence=[pydicom.Dataset()], FrameIncrementPointer=0x00181063)

    found = values.attributes(elements.walk(making.encode(ds)))

    assert found["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert found["Rows"] == "64" and found["PatientWeight"] == "80" and found["PixelRepresentation"] == "1"
    assert found["PatientName"] == making.PATIENT_NAME
    assert found["FrameIncrementPointer"] == "00181063"
    assert "PixelData" not in found and "ProcedureCodeSequence" not in found


def test_attributes_can_be_chosen() -> None:
    """Only the keywords asked for, and only what is there; an empty element is an empty string."""
    data = elements.walk(making.encode(making.dataset(PatientSex="")))

    assert values.attributes(data, ["Modality", "PatientSex", "EthnicGroup"]) == {"Modality": "CT", "PatientSex": ""}


def test_the_index_asks_for_known_keywords_once() -> None:
    """Every indexed keyword is in the dictionary."""
    assert len(set(values.INDEXED)) == len(values.INDEXED)
    values.attributes([], values.INDEXED)


def test_a_backslash_in_long_text_is_a_letter() -> None:
    """ST, LT, UT and UR are not split (PS3.5 6.2)."""
    assert values.text(elements.element(0x00204000, "LT", rb"a\b ")) == [r"a\b"]
    assert values.text(elements.element(0x00081030, "LO", rb"a \ b ")) == ["a", "b"]
    assert values.text(elements.element(0x00081030, "LO", b"")) == []


def test_undeclared_utf_8_is_recognised() -> None:
    """Without Specific Character Set, valid UTF-8 is read as such, anything else as Latin-1."""
    assert values.decode("Zoë".encode()) == "Zoë"
    assert values.decode("Zoë".encode("latin-1")) == "Zoë"


def test_binary_numbers_keep_their_sign() -> None:
    """SS, SL and FD decode as written."""
    assert values.numbers(elements.element(0x00189087, "FD", struct.pack("<2d", 1.5, -2.0))) == [1.5, -2.0]
    assert values.numbers(elements.element(0x00280106, "SS", struct.pack("<h", -5))) == [-5]


def test_names_of_all_character_sets_read_as_pydicom_reads_them(shared_data: Path) -> None:
    """Japanese, Korean, Chinese, Greek, Arabic, Hebrew, Russian names, with and without code extensions."""
    compared = 0
    for path in sorted((shared_data / "charsets").glob("*.dcm")):
        if path.name == "chrGB2312.dcm":
            continue  # pydicom leaves the escape sequences of ISO-IR 58 in; see the next test.
        parts = part10.split(path.read_bytes())
        found = values.attributes(elements.read(parts.data_set, parts.transfer_syntax_uid), ["PatientName"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = str(pydicom.dcmread(path, force=True).get("PatientName", ""))
        assert found.get("PatientName", "").rstrip("=^") == expected.rstrip("=^"), path.name
        compared += 1

    assert compared > 10


def test_chinese_code_extensions_are_decoded() -> None:
    """ISO-IR 58 after its escape sequence, in force again after each delimiter (PS3.5 K.3)."""
    value = b"Zhang^XiaoDong=\x1b$)A" + "张".encode("gb2312") + b"^\x1b$)A" + "小东".encode("gb2312")

    assert values.decode(value, values.charsets_of(b"\\ISO 2022 IR 58")) == "Zhang^XiaoDong=张^小东"


def test_big_data_sets_are_read_like_pydicom(shared_data: Path) -> None:
    """Attributes of the real files agree with pydicom's."""
    for path in sorted((shared_data / "odd_series").glob("*.dcm")):
        parts = part10.split(path.read_bytes())
        assert parts.transfer_syntax_uid == ExplicitVRLittleEndian
        found = values.attributes(elements.read(parts.data_set, parts.transfer_syntax_uid), values.INDEXED)
        ds = pydicom.dcmread(path)
        assert found["SOPInstanceUID"] == ds.SOPInstanceUID
        assert found["Rows"] == str(ds.Rows)
        assert found["ImagePositionPatient"] == "\\".join(str(value) for value in ds.ImagePositionPatient)
