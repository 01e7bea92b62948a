"""Large Pixel Data: the edges that no test can afford to reach with real bytes, and equality with what is done in memory."""

from pathlib import Path

import large_objects
import pytest
import sealing

from pacs.codec import large
from pacs.codec.transcode import Codec
from pacs.dicom import elements
from pacs.model.bulk import LazyFrames
from pacs.model.errors import IntegrityError, NotTranscodable
from pacs.model.instance import Buffer, BulkElement, Deidentified, InstanceKey, StoredFrames
from pacs.store.scratch import Scratch

HTJ2K, JPEG_LS = "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.80"
EXPLICIT = large_objects.EXPLICIT
KEY = InstanceKey("2.25.1", "2.25.2", "2.25.3")


def unread(count: int, size: int) -> LazyFrames:
    """Return frames of which only the sizes are known."""

    def read(index: int) -> Buffer:
        raise AssertionError("nobody should read it")

    return LazyFrames(count, read, lambda _: size)


def instance(frames: int, scratch: Scratch | None) -> tuple[Deidentified, bytes]:
    """Return a de-identified multi-frame instance, its Pixel Data in the scratch or in memory, and its pixels."""
    pixels = b"".join(large_objects.frame(number) for number in range(1, frames + 1))
    head = elements.walk(large_objects.header(frames))
    if scratch is None:
        pixel_data = elements.element(0x7FE00010, "OW", pixels)
    else:
        file = scratch.new()
        file.append(pixels)
        pixel_data = BulkElement(0x7FE00010, "OW", b"", b"", bulk=file)
    return Deidentified(KEY, "1.2", (*head, pixel_data), EXPLICIT, (), "test"), pixels


def test_native_beyond_4_gib_is_told_before_anything_is_sent() -> None:
    """A native value has a 32-bit length: without a compressed syntax there is no way, with one there is."""
    stored = StoredFrames(unread(9000, large_objects.FRAME_BYTES), 9000)
    header = large_objects.header(9000)

    with pytest.raises(NotTranscodable, match="4 GiB"):
        Codec().data_set(header, stored, EXPLICIT, [EXPLICIT, "1.2.840.10008.1.2"])
    with pytest.raises(NotTranscodable, match="4 GiB"):
        Codec().data_set(header, stored, EXPLICIT)
    assert Codec().data_set(header, stored, EXPLICIT, ["1.2.840.10008.1.2", JPEG_LS]).transfer_syntax_uid == JPEG_LS


def test_offsets_beyond_32_bits_go_to_the_extended_table() -> None:
    """The Basic Offset Table stays empty then; the extended one and its lengths stand before Pixel Data (C.7.6.3.1.8)."""
    parts = Codec().data_set(large_objects.header(5), StoredFrames(unread(5, 2_000_000_001), 5), HTJ2K)
    before = b""
    for piece in parts.buffers:
        before += bytes(piece)
        if b"\xe0\x7f\x10\0OB" in before:
            break

    table, lengths = elements.walk(before[: before.index(b"\xe0\x7f\x10\0OB")])[-2:]
    assert (table.tag, lengths.tag, table.vr) == (0x7FE00001, 0x7FE00002, "OV")
    step = 2_000_000_002 + 8
    assert memoryview(bytes(table.value)).cast("Q").tolist() == [number * step for number in range(5)]
    assert memoryview(bytes(lengths.value)).cast("Q").tolist() == [2_000_000_002] * 5
    assert before.endswith(b"\xfe\xff\x00\xe0\0\0\0\0")
    assert parts.size_bytes == len(before) + 5 * step + 8


def test_the_same_as_in_memory(tmp_path: Path) -> None:
    """Digest, header, code streams and attributes of an instance do not depend on where its Pixel Data lies."""
    codec = Codec(scratch=Scratch(tmp_path, floor_bytes=0))
    (small, _), (large_one, _) = instance(6, None), instance(6, Scratch(tmp_path, floor_bytes=0))

    digest = codec.digest(small)
    assert codec.digest(large_one) == digest
    expected, found = codec.encode(small, digest), codec.encode(large_one, digest)

    assert isinstance(found.frames, LazyFrames)
    assert [bytes(one) for one in found.frames] == [bytes(one) for one in expected.frames]
    assert bytes(found.header) == bytes(expected.header) and found.attributes == expected.attributes
    assert (found.transfer_syntax_uid, found.repeatable, found.packed) == (HTJ2K, True, False)
    assert found.transfer_syntax_uid == sealing.HTJ2K


def test_a_check_reads_everything(tmp_path: Path) -> None:
    """The digest of stored lazy frames is computed anew; another content is found."""
    scratch = Scratch(tmp_path, floor_bytes=0)
    codec = Codec(scratch=scratch)
    one, _ = instance(6, scratch)
    digest = codec.digest(one)
    encoded = codec.encode(one, digest)
    stored = StoredFrames(encoded.frames, 6, pixel_vr=encoded.pixel_vr)

    codec.check(encoded.header, stored, HTJ2K, digest, repeatable=True)
    with pytest.raises(IntegrityError):
        codec.check(encoded.header, stored, HTJ2K, bytes(32), repeatable=True)


def test_a_frame_that_is_too_large_stays_in_one_piece(tmp_path: Path) -> None:
    """It would not fit into the window: all of Pixel Data is kept as it came, in pieces, and can be cut again."""
    image = large.Image(8000, 8000, 1, 16, 16, 15, False, "MONOCHROME2", 0, 2)
    file = Scratch(tmp_path, floor_bytes=0).new()
    for _ in range(256):
        file.append(bytes(1_000_000))

    split = large.split_native(file, image)

    assert split.packed and split.frame_bits == 8000 * 8000 * 16
    assert isinstance(split.frames, LazyFrames) and split.frames.size_bytes == 256_000_000
