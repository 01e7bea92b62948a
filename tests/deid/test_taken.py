"""What was taken, put back: the data set that came, element by element, but for what is not kept."""

from collections.abc import Sequence
from pathlib import Path

import making
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs.deid.profile import Deidentifier
from pacs.deid.restore import restored
from pacs.deid.taken import LARGEST_BYTES
from pacs.dicom import elements, part10
from pacs.model.errors import ArchiveError
from pacs.model.identity import Taken
from pacs.model.instance import Element, Origin, Received

ENGINES = {name: Deidentifier(name, b"k" * 32, collect_taken=True) for name in ("basic", "research")}


def whole(taken: Taken | None) -> dict[int, bytes]:
    """Return everything that was taken, without levels."""
    assert taken is not None
    return {tag: value for level in taken.levels.values() for tag, value in level.items()}


def comparable(found: Sequence[Element]) -> dict[int, bytes]:
    """Return what restoring promises: no private elements, group lengths, pixels, and groups that no data set has."""
    return {
        one.tag: bytes(one.value)
        for one in found
        if not one.tag >> 16 & 1
        and one.tag & 0xFFFF
        and one.tag != elements.PIXEL_DATA
        and one.tag >> 16 not in (0, 2, 4, 0xFFFC)
    }


@pytest.mark.parametrize("policy", sorted(ENGINES))
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_what_was_taken_put_back_is_what_came(policy: str, syntax: str) -> None:
    """Under each policy, nested sequences and overlays too; elements that de-identification added are gone."""
    ds = making.dataset(
        PatientComments="Call Mrs Quillfeather",
        RequestAttributesSequence=[making.dataset().group_dataset(0x0010)],
    )
    ds.add_new(0x60003000, "OW", bytes(64))
    received = making.received(ds, syntax)
    made = ENGINES[policy].deidentify(received)

    back = restored(made.elements, whole(made.taken))

    assert comparable(back) == comparable(elements.read(received.data_set, syntax))
    assert [one.tag for one in back] == sorted({one.tag for one in back})


def test_a_patient_without_a_name_gets_no_name() -> None:
    """An element that the sender left out, and we added, is not there afterwards."""
    ds = making.dataset(PatientName=None, PatientID=None)
    made = ENGINES["research"].deidentify(making.received(ds))

    tags = {one.tag for one in restored(made.elements, whole(made.taken))}

    assert not tags & {0x00100010, 0x00100020, 0x00120062, 0x00120063, 0x00120064, 0x0018A001}


@pytest.mark.filterwarnings("ignore:The value")
def test_private_and_large_elements_are_counted_not_kept() -> None:
    """They cannot be restored, and the vault does not grow by them."""
    ds = making.dataset(PatientComments="x" * (LARGEST_BYTES + 2))
    ds.private_block(0x0099, "MAKER", create=True).add_new(0x01, "LO", "Quillfeather")
    taken = ENGINES["research"].deidentify(making.received(ds)).taken

    assert taken is not None and taken.left_out == 3
    assert 0x00104000 not in whole(taken)
    assert not any(tag >> 16 & 1 for tag in whole(taken))


def test_what_one_may_be_looked_for_by_is_named() -> None:
    """ID with issuer, name, accession number and UIDs, and other IDs of the patient."""
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "OTHER-1", "CLINIC"
    ds = making.dataset(IssuerOfPatientID="HOSPITAL", OtherPatientIDsSequence=[other])
    taken = ENGINES["research"].deidentify(making.received(ds)).taken

    assert taken is not None
    named = {(kind, value) for _, kind, value in taken.names}
    assert named >= {
        ("patient", f"{making.PATIENT_ID}\\HOSPITAL"),
        ("patient", "OTHER-1\\CLINIC"),
        ("id", making.PATIENT_ID),
        ("name", making.PATIENT_NAME),
        ("accession", "ACC-5561907"),
        ("uid", making.STUDY_UID),
        ("uid", f"{making.SERIES_UID}.1"),
    }


def test_shared_files_come_back_as_they_were(shared_data: Path) -> None:
    """Real files of all kinds."""
    compared = 0
    for path in sorted(shared_data.rglob("*"))[::19]:
        if not path.is_file() or path.stat().st_size > 4_000_000:
            continue
        try:
            parts = part10.split(path.read_bytes())
            made = ENGINES["research"].deidentify(Received(parts.data_set, parts.transfer_syntax_uid, Origin.IMPORT, "test"))
        except ArchiveError:
            continue
        sent = comparable(elements.read(parts.data_set, parts.transfer_syntax_uid))
        assert comparable(restored(made.elements, whole(made.taken))) == sent, path.name
        compared += 1
    assert compared > 20
