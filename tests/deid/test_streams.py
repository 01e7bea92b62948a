"""Code streams lose what is not image, and not a pixel changes: traps 49, 50 and 51."""

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import making
import numpy as np
import pytest
from deid.deidentifying import deidentifier, encoded
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import EncodeRunner
from pydicom.pixels.encoders.native import _encode_frame  # type: ignore[attr-defined]
from pydicom.uid import RLELossless

from pacs.codec import decode, frames
from pacs.codec.image import describe
from pacs.deid import streams
from pacs.dicom import fragments, part10
from pacs.dicom.elements import read
from pacs.model.errors import ArchiveError, Quarantined
from pacs.model.instance import Deidentified, Element

NAME = b"QUILLFEATHER^ZEBULON"
JPEG, JPEG_LOSSLESS, JPEG_LS, J2K, HTJ2K = (f"1.2.840.10008.1.2.4.{number}" for number in (50, 70, 80, 90, 201))


def image(bits: int = 16) -> np.ndarray:
    """A frame with structure in it, 64 x 64, unsigned."""
    frame = making.pixels().astype(np.int32) + 2000
    return (frame >> 4).clip(0, 255).astype(np.uint8) if bits == 8 else frame.astype(np.uint16)


def rle(frame: np.ndarray) -> bytes:
    """An RLE frame as pydicom makes it."""
    ds = dataset(frame, b"")
    runner = EncodeRunner(RLELossless)
    runner.set_source(ds)
    runner.set_option("byteorder", "<")
    return bytes(_encode_frame(frame.tobytes(), runner))


ENCODED: dict[str, Callable[[], tuple[np.ndarray, bytes]]] = {
    JPEG: lambda: (image(8), imagecodecs.jpeg8_encode(image(8), level=90)),
    JPEG_LOSSLESS: lambda: (image(16), imagecodecs.ljpeg_encode(image(16))),
    JPEG_LS: lambda: (image(16), imagecodecs.jpegls_encode(image(16))),
    J2K: lambda: (image(16), imagecodecs.jpeg2k_encode(image(16), codecformat="j2k", level=0)),
    HTJ2K: lambda: (image(16), imagecodecs.htj2k_encode(image(16))),
    RLELossless: lambda: (image(16), rle(image(16))),
}


def dataset(frame: np.ndarray, pixel_data: bytes) -> Dataset:
    """A CT slice with these pixels."""
    bits = frame.dtype.itemsize * 8
    ds = making.dataset(frame=frame, BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=0)
    ds.add_new(0x7FE00010, "OB", pixel_data)
    ds["PixelData"].is_undefined_length = True
    return ds


def deidentified(syntax: str, frame: np.ndarray, pixel_data: bytes, **overrides: Any) -> Deidentified:
    """The slice after de-identification."""
    ds = dataset(frame, pixel_data)
    ds.update({})
    for keyword, value in overrides.items():
        setattr(ds, keyword, value)
    return deidentifier().deidentify(making.received(ds, syntax))


def pixels_of(elements: list[Element] | tuple[Element, ...], syntax: str) -> list[np.ndarray]:
    """The decoded frames."""
    by_tag = {one.tag: one for one in elements}
    about = describe(by_tag)
    split = frames.split_encapsulated(by_tag[0x7FE00010].value, about.number_of_frames, syntax)
    assert not split.packed
    return [decode.decoded(frame, about, syntax)[0] for frame in split.frames]


def with_comment(syntax: str, stream: bytes) -> bytes:
    """The stream with the name in every place that its family has for such things."""
    if syntax in (J2K, HTJ2K):
        comment = b"\xff\x64" + struct.pack(">HH", 4 + len(NAME), 1) + NAME
        size = 4 + int.from_bytes(stream[4:6], "big")
        return stream[:size] + comment + stream[size:]
    application = b"\xff\xe1" + struct.pack(">H", 8 + len(NAME)) + b"Exif\0\0" + NAME
    return stream[:2] + application + b"\xff\xfe" + struct.pack(">H", 2 + len(NAME)) + NAME + stream[2:]


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LOSSLESS, JPEG_LS, J2K, HTJ2K])
def test_trap_49_comments_and_application_segments_leave_the_code_stream(syntax: str) -> None:
    """COM, APP1, J2K COM: the name is gone, and every family decodes to the very same pixels."""
    frame, stream = ENCODED[syntax]()
    planted = with_comment(syntax, stream)

    result = deidentified(syntax, frame, encapsulate([planted]))

    assert NAME in planted and NAME not in encoded(result)
    assert np.array_equal(pixels_of(result.elements, syntax)[0], pixels_of(read_elements(frame, stream), syntax)[0])
    assert result.transfer_syntax_uid == syntax, "nothing was compressed again"


def read_elements(frame: np.ndarray, stream: bytes) -> list[Element]:
    """The elements of a slice with this one stream."""
    return read(making.encode(dataset(frame, encapsulate([stream]))), "1.2.840.10008.1.2.1")


def test_trap_49_boxes_around_a_jpeg_2000_stream_go_with_their_xml() -> None:
    """A JP2 file in a fragment, with XML and UUID boxes, becomes its code stream."""
    frame = image(16)
    file = imagecodecs.jpeg2k_encode(frame, codecformat="jp2", level=0)
    xml = struct.pack(">I4s", 8 + len(NAME), b"xml ") + NAME
    uuid = struct.pack(">I4s", 24 + len(NAME), b"uuid") + bytes(16) + NAME
    planted = file + xml + uuid

    result = deidentified(J2K, frame, encapsulate([planted]))

    assert NAME not in encoded(result)
    assert np.array_equal(pixels_of(result.elements, J2K)[0], frame)


def test_trap_49_a_comment_within_a_tile_part_is_blanked_in_place() -> None:
    """Tile-part lengths count on every byte of their header: the comment stays, its content does not."""
    stream = imagecodecs.jpeg2k_encode(image(16), codecformat="j2k", level=0)
    at = stream.index(b"\xff\x90")
    comment = b"\xff\x64" + struct.pack(">HH", 4 + len(NAME), 1) + NAME
    length = int.from_bytes(stream[at + 6 : at + 10], "big")
    part = stream[at : at + 6] + struct.pack(">I", length + len(comment)) + stream[at + 10 : at + 12] + comment
    planted = stream[:at] + part + stream[at + 12 :]

    result = deidentified(J2K, image(16), encapsulate([planted]))

    assert NAME not in encoded(result)
    assert np.array_equal(pixels_of(result.elements, J2K)[0], image(16))


def test_trap_49_what_colour_is_decoded_by_stays() -> None:
    """JFIF and Adobe markers say what the samples are: they stay in a canonical form, their thumbnails and texts do not."""
    colour = np.stack([image(8), image(8)[::-1], image(8).T], axis=-1)
    stream = imagecodecs.jpeg8_encode(colour, level=90, colorspace="RGB", outcolorspace="YCBCR")
    jfif = b"\xff\xe0" + struct.pack(">H", 16 + 9) + b"JFIF\0\1\2\1\0\x48\0\x48\1\3" + NAME[:9]
    adobe = b"\xff\xee" + struct.pack(">H", 14 + len(NAME)) + b"Adobe\0\x64ab12\x01" + NAME
    start = 2 if stream[2:4] != b"\xff\xe0" else 4 + int.from_bytes(stream[4:6], "big")

    left = bytes(streams.strip_jpeg(b"\xff\xd8" + jfif + adobe + stream[start:]))

    assert b"JFIF\0\1\1\0\0\1\0\1\0\0" in left and b"Adobe\0\x64\0\0\0\0\x01" in left
    assert NAME[:9] not in left
    assert np.array_equal(imagecodecs.jpeg8_decode(left), imagecodecs.jpeg8_decode(stream))


@pytest.mark.parametrize("syntax", list(ENCODED))
def test_trap_50_bytes_behind_the_end_of_a_code_stream_go(syntax: str) -> None:
    """What follows the end marker, or the last pixel, is not image."""
    frame, stream = ENCODED[syntax]()

    result = deidentified(syntax, frame, encapsulate([stream + NAME]))

    assert NAME not in encoded(result)
    assert np.array_equal(pixels_of(result.elements, syntax)[0], pixels_of(read_elements(frame, stream), syntax)[0])


@pytest.mark.parametrize("syntax", list(ENCODED))
def test_trap_51_an_extra_fragment_goes(syntax: str) -> None:
    """A fragment behind the frame's own, with text in it, is not handed on."""
    frame, stream = ENCODED[syntax]()

    result = deidentified(syntax, frame, encapsulate([stream, NAME * 3]))

    assert NAME not in encoded(result)
    assert np.array_equal(pixels_of(result.elements, syntax)[0], pixels_of(read_elements(frame, stream), syntax)[0])


def test_trap_51_the_tail_of_every_rle_segment_goes() -> None:
    """Behind its last pixel a segment may hold anything; and so may the unused half of the header."""
    stream = rle(image(16))
    first, second = struct.unpack_from("<2I", stream, 4)
    tail = NAME + b"\0" * (len(NAME) % 2)
    head = struct.pack("<3I", 2, first, second + len(tail)) + NAME + bytes(52 - len(NAME))
    planted = head + stream[first:second] + tail + stream[second:] + tail

    result = deidentified(RLELossless, image(16), encapsulate([planted]))

    assert NAME not in encoded(result)
    assert np.array_equal(pixels_of(result.elements, RLELossless)[0], image(16))


def test_trap_51_fragments_that_belong_to_no_frame_are_quarantined() -> None:
    """Three RLE fragments for two frames: whose is the third?"""
    stream = rle(image(16))

    with pytest.raises(Quarantined):
        deidentified(RLELossless, image(16), encapsulate([stream, stream, NAME]), NumberOfFrames=2)


def test_trap_51_an_offset_table_that_holds_something_else_is_made_anew() -> None:
    """A Basic Offset Table of the wrong length says something, but not where frames begin."""
    frame, stream = ENCODED[JPEG]()
    items = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(NAME)) + NAME + encapsulate([stream], has_bot=False)[8:]

    result = deidentified(JPEG, frame, items)

    assert NAME not in encoded(result)


@pytest.mark.parametrize("syntax", list(ENCODED))
def test_trap_52_a_stream_with_nothing_but_image_is_not_touched(syntax: str) -> None:
    """Once stripped, a stream comes back as the very same object: the fast path copies nothing."""
    frame, stream = ENCODED[syntax]()
    clean = deidentified(syntax, frame, encapsulate([stream]))
    (once,) = (one for one in clean.elements if one.tag == 0x7FE00010)

    assert streams.stripped(once, clean.elements, syntax) is once


@pytest.mark.parametrize("damage", [slice(0, 1), slice(0, 20), slice(2, None), slice(0, 0)])
@pytest.mark.parametrize("syntax", list(ENCODED))
def test_what_cannot_be_followed_is_quarantined(syntax: str, damage: slice) -> None:
    """A stream without its head, or cut short in it, is not passed on."""
    frame, stream = ENCODED[syntax]()

    with pytest.raises(Quarantined):
        deidentified(syntax, frame, encapsulate([stream[damage] or b"\0\0"]))


def test_a_family_that_is_not_known_is_quarantined() -> None:
    """JPEG XL has boxes of its own; nobody here can take them out."""
    with pytest.raises(Quarantined):
        deidentified("1.2.840.10008.1.2.4.110", image(16), encapsulate([b"\xff\x0a" + NAME]))


@given(st.sampled_from(sorted(ENCODED)), st.binary(max_size=64), st.integers(0, 2000))
def test_random_damage_never_raises_anything_but_quarantine(syntax: str, noise: bytes, at: int) -> None:
    """Whatever the bytes are, the walk ends, and ends well or in quarantine."""
    _, stream = ENCODED[syntax]()
    broken = stream[:at] + noise + stream[at + len(noise) :]
    elements = read_elements(image(16), broken or b"\0\0")
    (pixel_data,) = (one for one in elements if one.tag == 0x7FE00010)

    with contextlib.suppress(Quarantined):
        streams.stripped(pixel_data, elements, syntax)


def test_real_streams_decode_to_the_same_pixels(shared_data: Path, long_run: bool) -> None:
    """Every compressed file that is here: stripped, and compared frame by frame."""
    compared = 0
    for folder in sorted({path.parent for path in shared_data.rglob("*") if path.is_file()}):
        files = sorted(path for path in folder.iterdir() if path.is_file())
        for path in files if long_run else files[:3] if len(files) > 40 else files:
            try:
                parts = part10.split(path.read_bytes())
                elements = read(parts.data_set, parts.transfer_syntax_uid)
            except ArchiveError:
                continue
            pixel_data = {one.tag: one for one in elements}.get(0x7FE00010)
            if pixel_data is None or not pixel_data.undefined_length:
                continue
            left = streams.stripped(pixel_data, elements, parts.transfer_syntax_uid)
            if left is pixel_data:
                continue
            compared += _compare(elements, pixel_data, left, parts.transfer_syntax_uid)

    assert compared > 20


def _compare(elements: list[Element], before: Element, after: Element, syntax: str) -> int:
    about = describe({one.tag: one for one in elements})
    split = [frames.split_encapsulated(one.value, about.number_of_frames, syntax) for one in (before, after)]
    for one, other in list(zip(*(s.frames for s in split), strict=True))[:3]:
        try:
            expected = decode.decoded(one, about, syntax)[0]
        except ArchiveError:
            return 0
        assert np.array_equal(decode.decoded(other, about, syntax)[0], expected)
    return 1


def test_offsets_in_a_new_table_are_right() -> None:
    """Frames of odd and even length, found again by their table."""
    stream = fragments.item_stream([b"\xff\xd8\xff\x01", b"\xff\xd8\xff\x01\x02", b"\xff\xd8\xff"])
    found = fragments.items(stream)

    assert found is not None
    offsets = struct.unpack(f"<{len(found[0][1]) // 4}I", found[0][1])
    assert [found[1][0] + offset for offset in offsets] == [position for position, _ in found[1:]]
