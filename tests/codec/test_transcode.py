"""What comes in goes out again with the same pixels, in whatever syntax the receiver takes."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import sealing
from hypothesis import given, settings
from hypothesis import strategies as some
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array

from pacs.codec import decode, image, lossless
from pacs.codec.transcode import Codec
from pacs.dicom import elements, part10
from pacs.model.errors import ArchiveError, NotTranscodable, NotUnderstood
from pacs.model.instance import Encoded

RPCL = image.HTJ2K_LOSSLESS_RPCL
UNCOMPRESSED = image.UNCOMPRESSED


@pytest.fixture(scope="module")
def codec() -> Codec:
    """A codec that proves every frame."""
    return Codec()


def _encode(codec: Codec, ds: Dataset) -> Encoded:
    received = sealing.deidentified(sealing.explicit(ds))
    return codec.encode(received, codec.digest(received))


def _out(codec: Codec, one: Encoded, accepted: list[str] | None = None) -> Dataset:
    return sealing.read(codec.data_set(one.header, sealing.stored_frames(one), one.transfer_syntax_uid, accepted))


def _smooth(dtype: str, frames: int = 1, rows: int = 61, columns: int = 47, samples: int = 1) -> np.ndarray:
    """Return smooth frames with noise, of odd size, over much of the range of `dtype`."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    shape = (frames, rows, columns, samples) if samples > 1 else (frames, rows, columns)
    slope = np.linspace(0, 0.9, rows).reshape(1, rows, 1, *([1] * (samples > 1)))
    noise = rng.integers(0, 5, shape)
    return (info.min + slope * (int(info.max) - int(info.min)) + noise).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("frames", [1, 3])
def test_grey_images_are_kept_smaller_and_come_back_exact(codec: Codec, dtype: str, frames: int) -> None:
    """8 and 16 bits, signed or not, odd sizes, one frame or several: HTJ2K, and the same data set in every syntax."""
    pixels = _smooth(dtype, frames)
    ds = sealing.image(pixels)

    one = _encode(codec, ds)

    assert one.transfer_syntax_uid == RPCL
    assert sum(len(frame) for frame in one.frames) < pixels.nbytes * 0.8
    for accepted in (None, [image.HTJ2K_LOSSLESS], [image.HTJ2K], *([uid] for uid in (*UNCOMPRESSED, image.JPEG_LS_LOSSLESS))):
        out = _out(codec, one, accepted)
        assert np.array_equal(out.pixel_array.reshape(pixels.shape), pixels)
        assert accepted is None or out.file_meta.TransferSyntaxUID == accepted[0]
    assert sealing.explicit(_out(codec, one, [image.EXPLICIT_LITTLE_ENDIAN])) == sealing.explicit(ds)
    for number, frame in enumerate(one.frames):
        assert np.array_equal(codec.pixels(one.header, frame, one.transfer_syntax_uid), pixels[number])


def test_rgb_is_ybr_rct_while_compressed_and_rgb_again_outside(codec: Codec) -> None:
    """RGB uses the reversible transform and says so; decoded it is the data set that came in."""
    pixels = _smooth("uint8", 2, samples=3)
    ds = sealing.image(pixels, samples=3)

    one = _encode(codec, ds)

    assert (one.transfer_syntax_uid, one.attributes["PhotometricInterpretation"]) == (RPCL, "YBR_RCT")
    assert _out(codec, one).PhotometricInterpretation == "YBR_RCT"
    assert sealing.explicit(_out(codec, one, [image.EXPLICIT_LITTLE_ENDIAN])) == sealing.explicit(ds)
    assert np.array_equal(_out(codec, one, [image.JPEG_LS_LOSSLESS]).pixel_array, pixels)
    assert np.array_equal(codec.pixels(one.header, one.frames[1], RPCL), pixels[1])


def test_ybr_full_keeps_its_components(codec: Codec) -> None:
    """YBR_FULL is compressed without any transform and comes back exact."""
    pixels = _smooth("uint8", samples=3)
    ds = sealing.image(pixels, samples=3, PhotometricInterpretation="YBR_FULL")

    one = _encode(codec, ds)

    assert one.transfer_syntax_uid == RPCL
    assert one.attributes["PhotometricInterpretation"] == "YBR_FULL"
    assert sealing.explicit(_out(codec, one, [image.EXPLICIT_LITTLE_ENDIAN])) == sealing.explicit(ds)
    assert np.array_equal(codec.pixels(one.header, one.frames[0], RPCL), pixels[0])


def test_bits_beyond_bits_stored_survive(codec: Codec) -> None:
    """An overlay in the unused bits comes back, and is not taken for pixel values."""
    values = _smooth("uint16") >> 4
    with_overlay = values | np.where(np.indices(values.shape)[2] % 7 == 0, 0x8000, 0).astype(np.uint16)
    ds = sealing.image(with_overlay, BitsStored=12, HighBit=11)

    one = _encode(codec, ds)

    assert one.transfer_syntax_uid == RPCL
    assert sealing.explicit(_out(codec, one, [image.EXPLICIT_LITTLE_ENDIAN])) == sealing.explicit(ds)
    assert np.array_equal(codec.pixels(one.header, one.frames[0], RPCL), values[0])


def test_signed_values_are_extended_from_bits_stored(codec: Codec) -> None:
    """Twelve signed bits in sixteen are negative where their twelfth bit is set, even if those above are not."""
    values = np.arange(-64, 64, dtype=np.int16).reshape(1, 8, 16)
    ds = sealing.image(values & 0x0FFF, BitsStored=12, HighBit=11)

    one = _encode(codec, ds)

    assert np.array_equal(codec.pixels(one.header, one.frames[0], one.transfer_syntax_uid), values[0])


@pytest.mark.parametrize(
    "overrides",
    [
        {"PlanarConfiguration": 1},
        {"PhotometricInterpretation": "YBR_FULL_422", "SamplesPerPixel": 3},
        {"PhotometricInterpretation": "HSV"},
    ],
)
def test_colour_that_would_have_to_change_stays_native(codec: Codec, overrides: dict[str, object]) -> None:
    """Colour by plane, subsampled, or in a space that HTJ2K does not name goes in and out as it is."""
    pixels = _smooth("uint8", 2, 60, 48, samples=3)
    ds = sealing.image(pixels, samples=3, **overrides)
    if overrides.get("PhotometricInterpretation") == "YBR_FULL_422":
        ds.PixelData = ds.PixelData[: pixels.size * 2 // 3]

    one = _encode(codec, ds)

    assert one.transfer_syntax_uid == image.EXPLICIT_LITTLE_ENDIAN
    assert len(one.frames) == 2
    assert sealing.explicit(_out(codec, one)) == sealing.explicit(ds)
    assert codec.pixels(one.header, one.frames[0], one.transfer_syntax_uid).shape == (60, 48, 3)


def test_colour_by_plane_is_shown_by_pixel(codec: Codec) -> None:
    """The samples of one pixel stand together, whatever Planar Configuration says."""
    pixels = _smooth("uint8", samples=3)
    ds = sealing.image(np.ascontiguousarray(pixels), samples=3, PlanarConfiguration=1)
    ds.PixelData = pixels.transpose(0, 3, 1, 2).tobytes() + b"\0" * (pixels.size % 2)

    one = _encode(codec, ds)

    assert np.array_equal(codec.pixels(one.header, one.frames[0], one.transfer_syntax_uid), pixels[0])


def test_one_bit_frames_go_out_as_they_came(codec: Codec) -> None:
    """A segmentation whose frames share bytes is kept in one piece."""
    bits = np.random.default_rng(2).integers(0, 2, 3 * 7 * 5)
    ds = sealing.image(np.zeros((3, 7, 5), np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.PixelData = np.packbits(bits, bitorder="little").tobytes()

    one = _encode(codec, ds)

    assert (one.packed, one.frame_bits, one.number_of_frames) == (True, 35, 3)
    for accepted in (None, [image.IMPLICIT_LITTLE_ENDIAN], [image.DEFLATED]):
        assert np.array_equal(_out(codec, one, accepted).pixel_array, bits.reshape(3, 7, 5))
    aligned = np.packbits(bits[35:70], bitorder="little").tobytes()
    assert np.array_equal(codec.pixels(one.header, aligned, one.transfer_syntax_uid), bits[35:70].reshape(7, 5))


@pytest.mark.parametrize("dtype", ["uint32", "int32"])
def test_32_bit_pixels_stay_native(codec: Codec, dtype: str) -> None:
    """Dose grids go in and out as they are, and can be shown."""
    pixels = _smooth(dtype, 2)
    ds = sealing.image(pixels)

    one = _encode(codec, ds)

    assert one.transfer_syntax_uid == image.EXPLICIT_LITTLE_ENDIAN
    assert sealing.explicit(_out(codec, one)) == sealing.explicit(ds)
    assert np.array_equal(codec.pixels(one.header, one.frames[1], one.transfer_syntax_uid), pixels[1])


def test_float_pixels_and_reports_have_no_frames(codec: Codec) -> None:
    """What has no Pixel Data (7FE0,0010) is all header, and goes out as it came."""
    ds = sealing.image(_smooth("uint8"))
    del ds.PixelData
    for float_pixels in (False, True):
        if float_pixels:
            ds.FloatPixelData = np.arange(20, dtype="<f4").tobytes()
        one = _encode(codec, ds)
        assert (one.frames, one.number_of_frames) == ((), 0)
        for uid in UNCOMPRESSED:
            parts = codec.data_set(one.header, sealing.stored_frames(one), one.transfer_syntax_uid, [uid])
            data = b"".join(bytes(buffer) for buffer in parts.buffers)
            assert elements.normalise(data, uid) == sealing.explicit(ds)


def test_elements_behind_pixel_data_stay_behind_it(codec: Codec) -> None:
    """Data Set Trailing Padding comes after Pixel Data again."""
    ds = sealing.image(_smooth("uint16"))
    ds.add_new(0xFFFCFFFC, "OB", b"\0" * 10)

    one = _encode(codec, ds)

    assert sealing.explicit(_out(codec, one, [image.EXPLICIT_LITTLE_ENDIAN])) == sealing.explicit(ds)
    assert sealing.explicit(_out(codec, one, [image.IMPLICIT_LITTLE_ENDIAN])) == sealing.explicit(ds)


@settings(max_examples=80, deadline=None)
@given(
    some.fixed_dictionaries(
        {
            "Rows": some.integers(0, 9),
            "Columns": some.integers(0, 9),
            "SamplesPerPixel": some.integers(0, 4),
            "BitsAllocated": some.sampled_from([0, 1, 8, 12, 16, 24, 32, 64]),
            "BitsStored": some.integers(0, 17),
            "HighBit": some.integers(0, 17),
            "PixelRepresentation": some.integers(0, 2),
            "NumberOfFrames": some.integers(0, 5),
            "PhotometricInterpretation": some.sampled_from(["MONOCHROME2", "RGB", "YBR_FULL_422", "PALETTE COLOR", "", "XYZ"]),
        }
    ),
    some.binary(max_size=300),
)
def test_nothing_is_lost_whatever_the_attributes_say(attributes: dict[str, object], value: bytes) -> None:
    """Attributes that contradict each other or Pixel Data never make encoding fail, and the value comes back as received."""
    ds = sealing.image(_smooth("uint8"), **attributes)
    ds["PixelData"].VR = "OW"
    ds.PixelData = value + b"\0" * (len(value) % 2)
    codec = _SHARED

    one = _encode(codec, ds)

    parts = codec.data_set(one.header, sealing.stored_frames(one), one.transfer_syntax_uid, [image.EXPLICIT_LITTLE_ENDIAN])
    assert b"".join(bytes(buffer) for buffer in parts.buffers) == sealing.explicit(ds)
    for frame in one.frames:
        with contextlib.suppress(NotTranscodable):
            codec.pixels(one.header, frame, one.transfer_syntax_uid)


_SHARED = Codec()


@pytest.mark.parametrize("text", ["99999999999", "-3", "many", ""])
def test_an_absurd_number_of_frames_is_kept_and_not_believed(codec: Codec, text: str) -> None:
    """Number of Frames beyond what IS can hold, or no number at all, harms nothing: the data set goes out as it came."""
    ds = sealing.image(_smooth("uint8", 1, 8, 8))
    data = sealing.explicit(ds)
    value = text.encode() + b" " * (len(text) % 2)
    element = bytes.fromhex("280008004953")
    at = data.index(element)
    data = data[:at] + element + len(value).to_bytes(2, "little") + value + data[at + 10 :]

    one = codec.encode(sealing.deidentified(data), b"")

    assert 1 <= one.number_of_frames < 1 << 31
    parts = codec.data_set(one.header, sealing.stored_frames(one), one.transfer_syntax_uid, [image.EXPLICIT_LITTLE_ENDIAN])
    assert b"".join(bytes(buffer) for buffer in parts.buffers) == data


def test_noise_is_kept_as_it_is(codec: Codec) -> None:
    """Pixels that would grow stay native."""
    ds = sealing.image(np.random.default_rng(3).integers(0, 1 << 16, (1, 64, 64)).astype(np.uint16))

    assert _encode(codec, ds).transfer_syntax_uid == image.EXPLICIT_LITTLE_ENDIAN


def test_a_codec_that_is_not_exact_is_not_believed(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one sample of one frame decodes differently, the whole object stays native."""
    ds = sealing.image(_smooth("int16", 3))
    genuine = lossless.encode_htj2k

    def off_by_one(frame: bytes, about: image.Image) -> bytes:
        pixels = np.array(decode.native_frame(frame, about))
        if pixels[0, 0] == _smooth("int16", 3)[2, 0, 0]:
            pixels[30, 20] += 1
        return genuine(pixels.tobytes(), about)

    monkeypatch.setattr(lossless, "encode_htj2k", off_by_one)

    one = _encode(codec, ds)

    assert one.transfer_syntax_uid == image.EXPLICIT_LITTLE_ENDIAN
    assert sealing.explicit(_out(codec, one)) == sealing.explicit(ds)


def test_compression_can_be_switched_off() -> None:
    """With archive_codec none, native stays native."""
    assert _encode(Codec("none"), sealing.image(_smooth("int16"))).transfer_syntax_uid == image.EXPLICIT_LITTLE_ENDIAN


def test_htj2k_is_rpcl_with_markers_and_a_thumbnail(codec: Codec) -> None:
    """What is labelled RPCL is RPCL: progression order 2, TLM present, base resolution at most 64 a side (PS3.5 10.18)."""
    one = _encode(codec, sealing.image(_smooth("uint8", 1, 70, 5000)))
    stream = bytes(one.frames[0])
    cod = stream.index(b"\xff\x52")

    assert one.transfer_syntax_uid == RPCL
    assert stream[cod + 5] == 2
    assert 5000 / 2 ** stream[cod + 9] <= 64
    assert b"\xff\x55" in stream[: stream.index(b"\xff\x90")]


def test_digest_is_of_content_not_of_encoding(codec: Codec) -> None:
    """The same data set has the same digest from every syntax and with either kind of lengths; another value has another."""
    ds = sealing.image(_smooth("int16"))
    item = Dataset()
    item.CodeValue = "T-D4000"
    ds.AnatomicRegionSequence = [item]
    explicit = sealing.explicit(ds)
    ds["AnatomicRegionSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True
    undefined = sealing.explicit(ds)
    one = _encode(codec, ds)
    stored = sealing.stored_frames(one)

    digests = {codec.digest(sealing.deidentified(data)) for data in (explicit, undefined)}
    for uid in UNCOMPRESSED:
        parts = codec.data_set(one.header, stored, one.transfer_syntax_uid, [uid])
        digests.add(codec.digest(sealing.deidentified(b"".join(bytes(buffer) for buffer in parts.buffers), uid)))
    item.CodeValue = "T-D4001"

    assert undefined != explicit
    assert len(digests) == 1
    assert codec.digest(sealing.deidentified(sealing.explicit(ds))) not in digests


def test_frames_are_transcoded_alone(codec: Codec) -> None:
    """One frame goes out as stored, under a wider name, decoded, or compressed anew; never in a syntax nobody accepts."""
    pixels = _smooth("uint16", 2)
    one = _encode(codec, sealing.image(pixels))
    frame = bytes(one.frames[1])

    assert codec.transcode_frame(one.header, frame, RPCL, [RPCL]) == (frame, RPCL)
    assert codec.transcode_frame(one.header, frame, RPCL, [image.HTJ2K_LOSSLESS]) == (frame, image.HTJ2K_LOSSLESS)
    native = codec.transcode_frame(one.header, frame, RPCL, [image.EXPLICIT_LITTLE_ENDIAN])
    assert native == (pixels[1].tobytes(), image.EXPLICIT_LITTLE_ENDIAN)
    stream, syntax = codec.transcode_frame(one.header, native[0], image.EXPLICIT_LITTLE_ENDIAN, [image.JPEG_LS_LOSSLESS])
    assert np.array_equal(codec.pixels(one.header, stream, syntax), pixels[1])
    with pytest.raises(NotTranscodable):
        codec.transcode_frame(one.header, frame, RPCL, ["1.2.840.10008.1.2.4.102"])


def test_a_code_stream_of_another_size_is_refused(codec: Codec) -> None:
    """A stream whose size is not the data set's, or which is garbage, is refused before a decoder allocates for it."""
    small, large = _encode(codec, sealing.image(_smooth("uint16"))), _encode(codec, sealing.image(_smooth("uint16", 1, 90, 90)))

    for stream in (bytes(large.frames[0]), b"", b"garbage", bytes(small.frames[0])[:60]):
        with pytest.raises(NotTranscodable):
            codec.pixels(small.header, stream, RPCL)


def test_compressed_pixels_stay_as_they_came(codec: Codec) -> None:
    """A compressed object keeps its code streams; a video can go out only as it is."""
    ds = sealing.image(_smooth("uint16", 2))
    streams = [bytes(frame) for frame in _encode(codec, ds).frames]
    for syntax, fragments, packed in (
        (image.HTJ2K, streams, False),
        ("1.2.840.10008.1.2.4.102", [b"one stream for all"], True),
    ):
        ds.PixelData = encapsulate(fragments)
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        received = sealing.deidentified(sealing.explicit(ds), syntax)

        one = codec.encode(received, codec.digest(received))

        assert (one.transfer_syntax_uid, one.packed) == (syntax, packed)
        assert packed or [bytes(frame) for frame in one.frames] == streams
        parts = codec.data_set(one.header, sealing.stored_frames(one), syntax, None)
        assert b"".join(bytes(buffer) for buffer in parts.buffers) == sealing.explicit(ds)
        if packed:
            with pytest.raises(NotTranscodable):
                codec.data_set(one.header, sealing.stored_frames(one), syntax, list(UNCOMPRESSED))


def test_what_is_promised_can_be_reached(codec: Codec) -> None:
    """Every syntax that `reachable` names for a stored syntax can be made from it."""
    pixels = _smooth("uint8")
    one = _encode(codec, sealing.image(pixels))

    for stored_syntax in (RPCL, image.EXPLICIT_LITTLE_ENDIAN):
        parts = codec.data_set(one.header, sealing.stored_frames(one), RPCL, [stored_syntax])
        received = sealing.deidentified(b"".join(bytes(buffer) for buffer in parts.buffers), stored_syntax)
        again = Codec("none").encode(received, b"")
        for uid in codec.reachable(stored_syntax):
            assert np.array_equal(_out(codec, again, [uid]).pixel_array, pixels[0])


def test_real_files_keep_their_pixels(codec: Codec, shared_data: Path) -> None:
    """Every file of every transfer syntax goes in, comes out as stored and uncompressed, and pydicom sees the same pixels.

    Lossy JPEG is decoded by two libraries here, whose rounding and chroma interpolation may differ.
    """
    seen = set()
    for path in sorted((shared_data / "transfer_syntaxes").rglob("*")):
        if not path.is_file():
            continue
        try:
            parts = part10.split(path.read_bytes())
            received = sealing.deidentified(bytes(parts.data_set), parts.transfer_syntax_uid)
        except NotUnderstood:
            continue
        one = codec.encode(received, b"")
        original = dcmread(path, force=True)
        if "TransferSyntaxUID" not in original.file_meta:
            original.file_meta.TransferSyntaxUID = parts.transfer_syntax_uid
        try:
            expected = pixel_array(original)
        except (RuntimeError, NotImplementedError):
            # pydicom has no decoder for it: all we ask is that it is kept.
            assert elements.find(received.elements, image.PIXEL_DATA) is not None
            expected = None
        tolerance = 12 if parts.transfer_syntax_uid in image.LOSSY_JPEG else 0
        for accepted in (None, [image.EXPLICIT_LITTLE_ENDIAN], [image.IMPLICIT_LITTLE_ENDIAN]):
            if expected is not None:
                out = pixel_array(_out(codec, one, accepted))
                difference = np.abs(out.astype(np.int64) - expected.astype(np.int64)).max()
                assert difference <= tolerance, path.name
        seen.add(parts.transfer_syntax_uid)

    assert len(seen) >= 16


def test_refusals_are_errors_of_ours(codec: Codec, shared_data: Path) -> None:
    """Odd files are either encoded whole or refused with an error of the archive; nothing else is ever raised."""
    for path in sorted((shared_data / "odd_files").rglob("*")):
        if not path.is_file():
            continue
        try:
            parts = part10.split(path.read_bytes())
            received = sealing.deidentified(bytes(parts.data_set), parts.transfer_syntax_uid)
            one = codec.encode(received, codec.digest(received))
            codec.data_set(one.header, sealing.stored_frames(one), one.transfer_syntax_uid, [image.EXPLICIT_LITTLE_ENDIAN])
        except ArchiveError:
            continue
