"""What the tests of this room share: de-identify a pydicom data set and read the result back."""

import io
import struct
from typing import Any

import making
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.deid.profile import Deidentifier
from pacs.dicom import elements, part10
from pacs.model.instance import Deidentified

KEY = b"a key for tests only, 32 bytes.."


def deidentifier(policy: str = "research", key: bytes = KEY, **more: Any) -> Deidentifier:
    """Return a fresh de-identifier with no memory."""
    return Deidentifier(policy, key, **more)


def encoded(result: Deidentified) -> bytes:
    """Return the whole data set as bytes."""
    return b"".join(elements.join(result.elements))


def header(result: Deidentified) -> bytes:
    """Return everything but Pixel Data as bytes."""
    return b"".join(bytes(one.encoded) for one in result.elements if one.tag != elements.PIXEL_DATA)


def read_back(result: Deidentified) -> Dataset:
    """Return the result as pydicom reads it."""
    meta = part10.file_meta(result.sop_class_uid, result.key.sop_instance_uid, result.transfer_syntax_uid)
    return pydicom.dcmread(io.BytesIO(meta + encoded(result)))


def after(ds: Dataset, policy: str = "research", transfer_syntax_uid: str = ExplicitVRLittleEndian) -> Dataset:
    """Return `ds` as it is after de-identification."""
    return read_back(deidentifier(policy).deidentify(making.received(ds, transfer_syntax_uid)))


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a coded entry."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def content_item(value_type: str, concept: Dataset, **values: object) -> Dataset:
    """Return a content item of a structured report."""
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [concept]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def report(*content: Dataset, **overrides: object) -> Dataset:
    """Return an Enhanced SR with these content items."""
    ds = making.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22", Modality="SR", **overrides)
    for tag in [one.tag for one in ds if one.tag.group in (0x0028, 0x7FE0)]:
        del ds[tag]
    ds.ValueType = "CONTAINER"
    ds.ConceptNameCodeSequence = [code("126000", "DCM", "Imaging Measurement Report")]
    ds.ContentSequence = list(content)
    return ds


def raw(tag: int, vr: bytes, value: bytes) -> bytes:
    """Return one element encoded by hand, as senders do that pydicom would not let through."""
    if vr in (b"UN", b"OB", b"SQ"):
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
