"""Pixel Data is cut into frames only where that is certain, and always put together again as it was."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pacs.codec import frames
from pacs.codec.image import JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS, RLE, Image

IMAGE = Image(3, 5, 1, 8, 8, 7, False, "MONOCHROME2", 0, 1)
STREAM = b"\xff\xd8\xff\xf7"


def _items(*values: bytes) -> bytes:
    return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value for value in values)


def _data(split: frames.Split) -> list[bytes]:
    return [bytes(frame) for frame in split.frames]


def test_native_frames_lose_their_padding() -> None:
    """Three frames of 15 bytes and a pad byte are three frames of 15 bytes."""
    value = bytes(range(45)) + b"\0"

    split = frames.split_native(value, replace(IMAGE, number_of_frames=3))

    assert _data(split) == [value[:15], value[15:30], value[30:45]]
    assert not split.packed


@pytest.mark.parametrize("length", [0, 1, 44, 47, 60, 90])
def test_native_pixel_data_of_another_length_stays_whole(length: int) -> None:
    """Too short, too long: kept as received, in one piece."""
    split = frames.split_native(bytes(length), replace(IMAGE, number_of_frames=3))

    assert split.packed
    assert _data(split) == [bytes(length)]
    assert split.frame_bits == 120


def test_a_pad_byte_that_says_something_is_kept() -> None:
    """A last byte beyond the frames that is not zero is not taken for padding."""
    value = bytes(15) + b"\x01"

    assert _data(frames.split_native(value, IMAGE)) == [value]


def test_one_bit_frames_stay_packed_where_they_share_bytes() -> None:
    """Frames of 15 bits share bytes and stay together; frames of 16 bits do not."""
    shared = replace(IMAGE, bits_allocated=1, bits_stored=1, high_bit=0, number_of_frames=2)

    assert frames.split_native(bytes(4), shared) == frames.Split((bytes(4),), True, 15)
    assert len(frames.split_native(bytes(4), replace(shared, rows=4, columns=4)).frames) == 2


def test_an_image_without_a_size_stays_whole() -> None:
    """Without Rows and Columns there are no frames to cut."""
    assert frames.split_native(b"pixels", replace(IMAGE, rows=0)) == frames.Split((b"pixels",), True, 0)


def test_fragments_of_one_frame_are_joined() -> None:
    """However many fragments: with Number of Frames 1 they are one code stream, without its pad byte."""
    split = frames.split_encapsulated(_items(b"", STREAM, b"ab", b"\xff\xd9\0\0"[:4]), 1, JPEG_LS_LOSSLESS)

    assert _data(split) == [STREAM + b"ab\xff\xd9\0\0"]
    assert _data(frames.split_encapsulated(_items(b"", STREAM + b"a\xff\xd9\0"), 1, JPEG_LS_LOSSLESS)) == [
        STREAM + b"a\xff\xd9"
    ]


def test_a_fragment_a_frame_needs_no_table() -> None:
    """As many fragments as frames: one each, whatever the offset table says."""
    for table in (b"", struct.pack("<2I", 0, 99)):
        split = frames.split_encapsulated(_items(table, b"aa", b"bbbb"), 2, JPEG_2000_LOSSLESS)
        assert _data(split) == [b"aa", b"bbbb"]


def test_offset_tables_tell_frames_apart() -> None:
    """The Basic Offset Table, or the extended one, says which fragments make a frame."""
    pieces = (b"aa", b"bbbb", b"cc", b"dd")
    expected = [b"aabbbb", b"ccdd"]

    assert _data(frames.split_encapsulated(_items(struct.pack("<2I", 0, 22), *pieces), 2, JPEG_2000_LOSSLESS)) == expected
    assert _data(frames.split_encapsulated(_items(b"", *pieces), 2, JPEG_2000_LOSSLESS, (0, 22))) == expected


def test_code_streams_tell_frames_apart_where_tables_do_not() -> None:
    """Without a table, or with a wrong one, a frame begins where a code stream begins."""
    pieces = (STREAM, b"bbbb", STREAM + b"cc", b"dd")
    for table in (b"", struct.pack("<2I", 0, 14), struct.pack("<2I", 22, 0), b"abc"):
        split = frames.split_encapsulated(_items(table, *pieces), 2, JPEG_LS_LOSSLESS)
        assert _data(split) == [STREAM + b"bbbb", STREAM + b"ccdd"]


@pytest.mark.parametrize(
    ("stream", "count", "syntax"),
    [
        (_items(b"", b"aa", b"bb", b"cc"), 2, JPEG_2000_LOSSLESS),
        (_items(b"", STREAM, b"bb", b"cc"), 2, RLE),
        (_items(b"", b"one video stream"), 96, "1.2.840.10008.1.2.4.102"),
        (_items(b"", b"one video stream"), 1, "1.2.840.10008.1.2.4.102"),
        (_items(b""), 1, JPEG_2000_LOSSLESS),
        (b"not items at all", 1, JPEG_2000_LOSSLESS),
        (_items(b"", b"aa")[:-1], 1, JPEG_2000_LOSSLESS),
        (b"", 1, JPEG_2000_LOSSLESS),
    ],
)
def test_what_cannot_be_told_apart_stays_whole(stream: bytes, count: int, syntax: str) -> None:
    """Nothing is guessed: the item stream is kept as it was received."""
    assert frames.split_encapsulated(stream, count, syntax) == frames.Split((stream,), True)


@given(some.lists(some.binary(min_size=1, max_size=40), min_size=1, max_size=6))
def test_encapsulation_undoes_the_cut(pieces: list[bytes]) -> None:
    """Frames that go out as fragments with an offset table come back as the same frames."""
    buffers = frames.encapsulated_element(pieces)
    element = b"".join(bytes(buffer) for buffer in buffers)

    split = frames.split_encapsulated(element[12:-8], len(pieces), JPEG_2000_LOSSLESS)

    assert len(element) % 2 == 0
    assert element[:12] == bytes.fromhex("e07f10004f420000ffffffff")
    for frame, piece in zip(_data(split), pieces, strict=True):
        # A frame that ended FF D9 and a zero lost what can only be padding; others keep theirs.
        assert frame in (piece, piece + b"\0", piece[:-1] if piece.endswith(b"\xff\xd9\0") else piece)


def test_native_frames_are_put_together_even() -> None:
    """An odd length is padded, and the length field says so."""
    assert b"".join(bytes(one) for one in frames.native_element([b"abc", b"defg"], "OB")) == (
        bytes.fromhex("e07f10004f4200000800") + b"\0\0abcdefg\0"
    )
