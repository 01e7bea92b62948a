"""Property: whatever nested data set a planted string is put into, it does not come out."""

import making
import pydicom
from deid.deidentifying import deidentifier, header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs.model.errors import ArchiveError, Quarantined

PLANTED = "Quillfeather"
TEXT_KEYWORDS = [
    pydicom.datadict.keyword_for_tag(tag)
    for tag, row in sorted(pydicom.datadict.DicomDictionary.items())
    if row[0] in ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "UR", "AE", "CS")
    and row[4]
    and 0x0008 <= tag >> 16 < 0x6000
    and tag != 0x00080005
    and not (tag >> 16 == 0x0028 and tag & 0xFFFF in (0x0301, 0x0004))
    and tag != 0x00080008
    and tag >> 16 != 4
]
SEQUENCE_KEYWORDS = [
    pydicom.datadict.keyword_for_tag(tag)
    for tag, row in sorted(pydicom.datadict.DicomDictionary.items())
    if row[0] == "SQ" and row[4] and 0x0008 <= tag >> 16 < 0x6000 and tag >> 16 != 4
]
texts = some.sampled_from([PLANTED, PLANTED.upper(), f"seen by {PLANTED}", f"{PLANTED}, Z: CT", f"x_{PLANTED}_1"])


@some.composite
def items(draw: some.DrawFn, depth: int = 3) -> Dataset:
    """An item with planted texts and, to some depth, sequences of such items."""
    item = Dataset()
    for keyword in draw(some.lists(some.sampled_from(TEXT_KEYWORDS), max_size=3)):
        text = draw(texts)
        setattr(item, keyword, text[:16] if pydicom.datadict.dictionary_VR(keyword) in ("SH", "AE", "CS") else text)
    if depth:
        for keyword in draw(some.lists(some.sampled_from(SEQUENCE_KEYWORDS), max_size=2)):
            setattr(item, keyword, draw(some.lists(items(depth=depth - 1), max_size=2)))
    return item


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    items(),
    some.sampled_from(["basic", "research"]),
    some.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
    some.sampled_from(["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.481.3"]),
)
def test_a_planted_name_never_comes_out(extra: Dataset, policy: str, syntax: str, sop_class_uid: str) -> None:
    """The object is refused, or the name is gone from every byte of the header."""
    ds = making.dataset(SOPClassUID=sop_class_uid)
    for one in extra:
        if one.keyword not in ("PatientName", "PatientID"):
            ds.add(one)

    try:
        result = deidentifier(policy).deidentify(making.received(ds, syntax))
    except Quarantined:
        return

    assert PLANTED.lower().encode() not in header(result).lower()


@settings(max_examples=120, deadline=None)
@given(some.binary(max_size=2000), some.integers(0, 400), some.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
def test_damaged_bytes_raise_nothing_but_errors_of_the_archive(noise: bytes, at: int, syntax: str) -> None:
    """Whatever a sender's bytes are, the answer is a result or an `ArchiveError`."""
    received = making.received(making.dataset(), syntax)
    data = bytearray(received.data_set)
    data[at : at + len(noise)] = noise

    try:
        deidentifier().deidentify(type(received)(bytes(data), syntax, received.origin, "x"))
    except ArchiveError:
        return
