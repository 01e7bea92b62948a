"""Walking, splicing and converting encoded data sets."""

import struct
from pathlib import Path

import making
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs.dicom import elements, part10
from pacs.model.errors import NotUnderstood

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def nested() -> Dataset:
    """A data set with sequences, empty items and every kind of number."""
    inner = Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "T-1", "SRT", "Thing"
    middle = Dataset()
    middle.PurposeOfReferenceCodeSequence = [inner, Dataset()]
    ds = making.dataset(ReferencedImageSequence=[middle], ProcedureCodeSequence=[])
    ds.FrameIncrementPointer = [0x00181063, 0x00181065]
    ds.DiffusionBValue = 1000.5
    ds.SmallestImagePixelValue = -3
    ds.add_new(0x00282000, "OB", b"\1\2\3\4")
    return ds


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_uncompressed_syntax_becomes_the_same_explicit_bytes(syntax: str) -> None:
    """Normalising any encoding of a data set gives the bytes of its Explicit VR Little Endian encoding."""
    ds = nested()

    assert bytes(elements.normalise(making.encode(ds, syntax), syntax)) == making.encode(ds)


def test_normalise_is_the_identity_for_explicit_little_endian() -> None:
    """Nothing is copied that need not be."""
    data = making.encode(making.dataset())

    assert elements.normalise(data, ExplicitVRLittleEndian) is data
    assert elements.normalise(data, "1.2.840.10008.1.2.4.80") is data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_join_undoes_walk(kind: type) -> None:
    """Walking and joining gives the same bytes, from any buffer."""
    data = making.encode(nested())

    assert b"".join(elements.join(elements.walk(kind(data)))) == data


def test_walk_gives_tags_vrs_and_values() -> None:
    """Elements carry what pydicom would read."""
    ds = nested()

    found = elements.walk(making.encode(ds))

    assert [one.tag for one in found] == [int(tag) for tag in sorted(ds.keys())]
    rows = elements.find(found, 0x00280010)
    assert rows is not None and rows.vr == "US" and bytes(rows.value) == struct.pack("<H", 64)
    assert elements.find(found, 0x00280011 + 0x10000000) is None


def test_items_and_sequence_undo_each_other() -> None:
    """A sequence taken apart and put together again is the same, and items nest."""
    one = elements.find(elements.walk(making.encode(nested())), 0x00081140)
    assert one is not None

    again = elements.sequence(one.tag, elements.items(one.value))

    assert bytes(again.encoded) == bytes(one.encoded)
    inner = elements.items(elements.items(one.value)[0][0].value)
    assert [len(item) for item in inner] == [3, 0]


def test_undefined_lengths_are_walked_over() -> None:
    """Sequences and items of undefined length end at their delimiters."""
    item = Dataset()
    item.CodeMeaning = "Thing"
    item.is_undefined_length_sequence_item = True
    ds = making.dataset(ProcedureCodeSequence=[item, item])
    ds["ProcedureCodeSequence"].is_undefined_length = True
    data = making.encode(ds)

    one = elements.find(elements.walk(data), 0x00081032)

    assert one is not None and one.undefined_length
    assert [bytes(inner.value) for found in elements.items(one.value) for inner in found] == [b"Thing ", b"Thing "]
    assert b"".join(elements.join(elements.walk(data))) == data


def test_encapsulated_pixel_data_keeps_its_item_stream() -> None:
    """The value is offset table and fragments, without the sequence delimiter."""
    stream = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd"
    data = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + stream + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)

    (one,) = elements.walk(data)

    assert one.undefined_length and bytes(one.value) == stream and bytes(one.encoded) == data


@pytest.mark.parametrize(
    ("vr", "value", "padded"),
    [("LO", b"abc", b"abc "), ("UI", b"1.2", b"1.2\0"), ("OB", b"\1", b"\1\0"), ("LO", b"ab", b"ab"), ("UN", b"x", b"x\0")],
)
def test_elements_are_padded_to_even(vr: str, value: bytes, padded: bytes) -> None:
    """UI and binary with a zero byte, text with a space (PS3.5 6.2)."""
    one = elements.element(0x00091010, vr, value)

    assert bytes(one.value) == padded and len(one.encoded) % 2 == 0


def test_a_value_too_long_for_its_vr_becomes_un() -> None:
    """Two bytes of length cannot hold 64 KiB; PS3.5 6.2.2 says UN."""
    one = elements.element(0x00204000, "LT", b"x" * 70_000)

    assert one.vr == "UN" and elements.walk(bytes(one.encoded))[0].tag == 0x00204000


def test_odd_lengths_come_back_even() -> None:
    """Some senders forget the padding."""
    data = struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 3) + b"CTX" + struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 2) + b"ab"

    assert [bytes(one.value) for one in elements.walk(data)] == [b"CTX ", b"ab"]


def test_unordered_elements_are_ordered_and_twins_refused() -> None:
    """PS3.5 7.1: ascending tags, each once."""
    first, second = elements.element(0x00100020, "LO", b"a"), elements.element(0x00080060, "CS", b"CT")

    assert [one.tag for one in elements.walk(bytes(first.encoded) + bytes(second.encoded))] == [0x00080060, 0x00100020]
    with pytest.raises(NotUnderstood):
        elements.walk(bytes(first.encoded) * 2)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 200) + b"CT",
        struct.pack("<HH2sH", 0x0008, 0x0060, b"QQ", 2) + b"CT",
        struct.pack("<HH2sHI", 0x0008, 0x1032, b"SQ", 0, 0xFFFFFFFF),
        struct.pack("<HH2sHI", 0x0008, 0x0060, b"UT", 0, 0xFFFFFFFF),
        b"\x08\0\x60\0C",
    ],
)
def test_malformed_data_sets_are_not_understood(data: bytes) -> None:
    """Lengths past the end, unknown VRs, missing delimiters."""
    with pytest.raises(NotUnderstood):
        elements.walk(data)


@settings(max_examples=300, deadline=None)
@given(some.binary(max_size=400), some.sampled_from([*SYNTAXES, "1.2.3"]))
def test_noise_is_never_more_than_not_understood(noise: bytes, syntax: str) -> None:
    """Bytes of any kind give elements or `NotUnderstood`, nothing else."""
    try:
        for one in elements.read(noise, syntax):
            if one.vr == "SQ":
                elements.items(one.value)
    except NotUnderstood:
        return


def test_un_with_a_known_tag_gets_its_vr() -> None:
    """PS3.5 6.2.2: what a sender did not know, we may."""
    item = Dataset()
    item.CodeMeaning = "Thing"
    inner = making.encode(item, ImplicitVRLittleEndian)
    value = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    data = elements.element(0x00080060, "UN", b"CT").encoded + elements.element(0x00081032, "UN", value).encoded

    modality, codes = elements.walk(bytes(data))

    assert modality.vr == "CS" and codes.vr == "SQ"
    assert bytes(elements.items(codes.value)[0][0].value) == b"Thing "


def test_ambiguous_vrs_follow_pixel_representation() -> None:
    """In Implicit VR "US or SS" is decided by Pixel Representation, Pixel Data is OW (PS3.5 A.1)."""
    found = elements.read(making.encode(nested(), ImplicitVRLittleEndian), ImplicitVRLittleEndian)

    smallest, pixels = elements.find(found, 0x00280106), elements.find(found, elements.PIXEL_DATA)
    assert smallest is not None and smallest.vr == "SS" and bytes(smallest.value) == struct.pack("<h", -3)
    assert pixels is not None and pixels.vr == "OW"


def test_pixel_cells_of_32_bits_are_turned_as_one_number() -> None:
    """Big endian pixels turn by Bits Allocated, not by the 16-bit words of OW: a dose grid has 32 bits a cell (PS3.5 8.1.1)."""
    cells = np.arange(12, dtype="<u4") * 70_001
    ds = making.dataset(BitsAllocated=32, BitsStored=32, HighBit=31)
    ds.add_new(0x7FE00010, "OW", cells.tobytes())
    swapped = making.encode(ds, ExplicitVRBigEndian).replace(
        cells.view("<u2").byteswap().tobytes(), cells.astype(">u4").tobytes()
    )

    found = elements.find(elements.read(swapped, ExplicitVRBigEndian), elements.PIXEL_DATA)

    assert found is not None and bytes(found.value) == cells.tobytes()


def test_a_real_big_endian_dose_grid_reads_as_its_little_endian_twin(shared_data: Path) -> None:
    """The same file in both byte orders has the same pixels."""
    folder = shared_data / "objects" / "rt"
    big, little = (part10.split((folder / name).read_bytes()) for name in ("rtdose_expb.dcm", "rtdose.dcm"))

    pixels = [
        elements.find(elements.read(parts.data_set, parts.transfer_syntax_uid), elements.PIXEL_DATA) for parts in (big, little)
    ]

    assert bytes(pixels[0].value) == bytes(pixels[1].value)  # type: ignore[union-attr]  # both have pixels


def test_a_deflated_data_set_that_ends_early_is_not_understood() -> None:
    """Half a stream is no data set."""
    data = making.encode(making.dataset(), DeflatedExplicitVRLittleEndian)

    with pytest.raises(NotUnderstood):
        elements.normalise(data[: len(data) // 2], DeflatedExplicitVRLittleEndian)
