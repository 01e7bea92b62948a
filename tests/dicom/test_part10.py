"""Part 10 files."""

import io

import making
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs.dicom import part10
from pacs.model.errors import NotUnderstood


def test_our_file_meta_is_read_by_others() -> None:
    """Zero preamble, prefix, and only what PS3.10 Table 7.1-1 requires."""
    ds = making.dataset()
    meta = part10.file_meta(ds.SOPClassUID, ds.SOPInstanceUID, ExplicitVRLittleEndian)

    found = pydicom.dcmread(io.BytesIO(meta + making.encode(ds)))

    assert meta[:128] == bytes(128)
    assert found.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert found.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert found.file_meta.ImplementationClassUID == part10.IMPLEMENTATION_CLASS_UID
    assert [one.tag.element for one in found.file_meta] == [0, 1, 2, 3, 0x10, 0x12, 0x13]
    assert found == ds


def test_split_takes_a_file_apart() -> None:
    """The data set is what follows group 0002."""
    ds = making.dataset()

    parts = part10.split(making.part10(ds))

    assert parts.transfer_syntax_uid == ExplicitVRLittleEndian
    assert parts.sop_class_uid == ds.SOPClassUID and parts.sop_instance_uid == ds.SOPInstanceUID
    assert bytes(parts.data_set) == making.encode(ds)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_files_without_meta_information_are_read(syntax: str) -> None:
    """The encoding is told from the first element."""
    data = making.encode(making.dataset(), syntax)

    parts = part10.split(data)

    assert parts.transfer_syntax_uid == syntax
    assert parts.sop_instance_uid == "" and bytes(parts.data_set) == data


@pytest.mark.parametrize("data", [b"", b"# README\n" * 40, b"\x89PNG\r\n\x1a\n" + bytes(200), b"{}" * 100, bytes(500)])
def test_what_is_no_dicom_is_not_understood(data: bytes) -> None:
    """Other files are refused, not guessed at."""
    with pytest.raises(NotUnderstood):
        part10.split(data)
