"""Large data sets are read by range, and say the same as if they had been in memory."""

import struct
import zlib
from dataclasses import dataclass

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.dicom import elements, fragments, large
from pacs.model.bulk import Buffer, blocks
from pacs.model.errors import NotUnderstood
from pacs.model.instance import BulkElement

EXPLICIT, IMPLICIT, BIG, JPEG_LS = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.80",
)


@dataclass
class Held:
    """A bulk in memory that notes how much was read at once."""

    content: bytes
    most: int = 0

    def __len__(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> Buffer:
        """Return bytes."""
        assert 0 <= offset <= offset + length <= len(self.content)
        self.most = max(self.most, length)
        return self.content[offset : offset + length]


def encapsulated(*frames: bytes, table: bytes = b"") -> bytes:
    """Return encapsulated Pixel Data with its delimiter."""
    items = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(one)) + one for one in (table, *frames))
    return struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def header() -> bytes:
    """Return a data set without Pixel Data."""
    ds = making.dataset()
    del ds.PixelData
    return making.encode(ds)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("padding", [False, True])
def test_the_same_elements_as_in_memory(syntax: str, padding: bool) -> None:
    """Element for element, also behind Pixel Data; Pixel Data itself is read where it lies."""
    ds = making.dataset()
    if padding:
        ds.DataSetTrailingPadding = bytes(10)
    content = making.encode(ds, syntax)

    found, expected = large.read(Held(content), syntax), elements.read(content, syntax)

    assert [(one.tag, one.vr) for one in found] == [(one.tag, one.vr) for one in expected]
    for one, other in zip(found, expected, strict=True):
        if one.tag == elements.PIXEL_DATA:
            assert isinstance(one, BulkElement) and not len(one.value)
            assert b"".join(bytes(block) for block in blocks(one.bulk, 1000)) == bytes(other.value)
        else:
            assert bytes(one.encoded) == bytes(other.encoded)


def test_encapsulated_pixel_data_is_found_to_its_delimiter() -> None:
    """The item stream, without its delimiter, and what follows it."""
    content = header() + encapsulated(b"first!", b"second") + making.encode(making.dataset())[:0]

    found, expected = large.read(Held(content), JPEG_LS)[-1], elements.read(content, JPEG_LS)[-1]

    assert isinstance(found, BulkElement) and found.undefined_length
    assert bytes(found.bulk.read(0, len(found.bulk))) == bytes(expected.value)


@pytest.mark.parametrize("cut", [1, 5, 9, 2000])
@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG_LS])
def test_what_is_cut_off_is_not_understood(cut: int, syntax: str) -> None:
    """A value that reaches past the end is refused, native or encapsulated."""
    content = header() + encapsulated(bytes(3000)) if syntax == JPEG_LS else making.encode(making.dataset())

    with pytest.raises(NotUnderstood):
        large.read(Held(content[:-cut]), syntax)


def test_only_pixel_data_may_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A private element of more than the bound before Pixel Data is refused, and never read as a whole."""
    size = large.LARGEST_HEADER + 2
    private = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, size) + bytes(size)
    held = Held(private + making.encode(making.dataset()))

    with pytest.raises(NotUnderstood, match="only Pixel Data may be larger"):
        large.read(held, EXPLICIT)

    assert held.most <= large.LARGEST_HEADER


def test_a_header_of_more_than_one_window_is_read() -> None:
    """Functional groups of some megabytes, of undefined length, come before Pixel Data."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 8 + 1000) + struct.pack("<HH2sH", 0x0020, 0x4000, b"LT", 1000) + b"x" * 1000
    groups = struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, 0xFFFFFFFF) + item * 3000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 6) + b"pixels"

    found = large.read(Held(header() + groups + pixels), EXPLICIT)

    assert [one.tag for one in found[-2:]] == [0x52009230, 0x7FE00010]
    assert len(found[-2].value) == len(item) * 3000


def test_a_file_is_taken_apart() -> None:
    """File Meta Information says what it is; the data set stays where it lies."""
    ds = making.dataset()
    file = large.split(Held(making.part10(ds)))

    assert (file.transfer_syntax_uid, file.sop_instance_uid) == (EXPLICIT, ds.SOPInstanceUID)
    assert b"".join(bytes(block) for block in blocks(file.data_set)) == making.encode(ds)


def test_inflating_goes_piece_by_piece() -> None:
    """A few kilobytes that are gigabytes once inflated come in pieces that can be counted."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    small = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(40)) + deflate.flush()

    pieces = [len(piece) for piece in large.inflated(small)]

    assert sum(pieces) == 40 << 20 and max(pieces) <= 1 << 20
    with pytest.raises(NotUnderstood):
        list(large.inflated(small[:-10]))


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=9), st.data())
def test_an_item_stream_is_made_while_it_is_read(frames: list[bytes], data: st.DataObject) -> None:
    """Every range of it is the same as in the one that is made in memory."""
    expected = fragments.item_stream(frames)
    stream = fragments.ItemStream([len(one) for one in frames], frames.__getitem__)
    begin = data.draw(st.integers(0, len(expected)))
    end = data.draw(st.integers(begin, len(expected)))

    assert len(stream) == len(expected)
    assert bytes(stream.read(begin, end - begin)) == expected[begin:end]
