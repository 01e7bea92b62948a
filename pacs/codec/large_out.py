"""Data sets too large for memory, on their way out: in another transfer syntax, or read through to see that they are whole.

Each frame is made when it is its turn (`large.Window`); what is small enough goes through `transcode`.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256

from pacs.codec import decode, frames, large, lossless, syntaxes
from pacs.codec import image as syntax
from pacs.codec.image import EXPLICIT_LITTLE_ENDIAN, PIXEL_DATA, Image, describe
from pacs.codec.outgoing import ENCODERS, NO_SYNTAX, DataSetParts, encoded
from pacs.codec.splicing import EMPTY_TABLE, around_pixel_data, colour, feed, named, parsed, replaced, vr, with_colour
from pacs.dicom import elements as dicom
from pacs.model.bulk import LazyFrames
from pacs.model.errors import IntegrityError, NotTranscodable
from pacs.model.instance import Buffer, Element, StoredFrames


def native_frames(
    window: large.Window, before: list[Element], stored: StoredFrames, image: Image, transfer_syntax_uid: str
) -> tuple[list[Element], large.Native, str]:
    """Return the elements before Pixel Data, the frames of a large object and their VR, all uncompressed."""
    found = stored.frames
    if not isinstance(found, LazyFrames):
        held = found
        found = LazyFrames(len(held), held.__getitem__, lambda index: len(held[index]))
    if transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN:
        return before, large.Native(found, image, window), stored.pixel_vr
    if stored.packed:
        raise NotTranscodable("the frames of this instance cannot be told apart, so they cannot be decoded")
    native = large.decoded(found, image, window, lambda frame, image: decode.decoded(frame, image, transfer_syntax_uid))
    keeps_vr = transfer_syntax_uid in syntax.HTJ2K_FAMILY and stored.pixel_vr == "OW"
    return with_colour(before, native.image), native, stored.pixel_vr if keeps_vr else vr(native.image)


def data_set(
    window: large.Window,
    before: list[Element],
    after: list[Element],
    stored: StoredFrames,
    image: Image,
    transfer_syntax_uid: str,
    accepted: Sequence[str],
) -> DataSetParts:
    """Return a large data set in the best of `accepted`, each frame made when it is its turn."""
    fits = image.frame_bits * stored.number_of_frames // 8 <= frames.LARGEST_VALUE
    possible = (*(syntax.UNCOMPRESSED[:2] if fits else ()), *ENCODERS)
    target = next((uid for uid in possible if uid in accepted), None)
    if target is None:
        raise NotTranscodable(NO_SYNTAX if fits else "uncompressed, this instance is longer than the 4 GiB of an element")
    before, native, pixel_vr = native_frames(window, before, stored, image, transfer_syntax_uid)
    if target not in ENCODERS:
        (head, padding), length = large.native_element(native.frames, pixel_vr)
        opening = syntaxes.rewritten(before, [head], after, pixel_vr, target)
        place = next(index for index, one in enumerate(opening) if bytes(one[:4]) == b"\xe0\x7f\x10\0") + 1

        def begin() -> Iterator[Buffer]:
            yield from opening[:place]
            yield from native
            yield padding
            yield from opening[place:]

        return DataSetParts(large.Stream(begin, sum(map(len, opening)) + length + len(padding)), target)
    if stored.packed or not lossless.suits(native.image):
        raise NotTranscodable("these pixels cannot be compressed without loss")
    if native.image.samples == 3 and native.image.photometric_interpretation == "RGB" and target != syntax.JPEG_LS_LOSSLESS:
        before = replaced(before, colour("YBR_RCT"))

    def one(index: int) -> bytes:
        return encoded(native.frames[index], native.image, target)

    def begin_encoded() -> Iterator[Buffer]:
        yield from dicom.join(before)
        # How long the code streams will be nobody knows yet: the offset table is empty (PS3.5 A.4).
        yield frames.encapsulated_head() + EMPTY_TABLE
        size = native.frames.size_of(0)
        yield from large.fragments_of(window.each(one, len(native.frames), size, large.WAY_OUT_BYTES))
        yield from dicom.join(after)

    return DataSetParts(large.Stream(begin_encoded, None), target)


def check(window: large.Window, header: Buffer, stored: StoredFrames, transfer_syntax_uid: str, digest: bytes | None) -> None:
    """Decode every frame; with a digest, compute that of the content anew. Raises `IntegrityError` where it is another."""
    before, after = around_pixel_data(parsed(header))
    image = describe({one.tag: one for one in before})
    if digest is None:
        if not stored.packed and transfer_syntax_uid in syntax.DECODABLE:
            for _ in native_frames(window, before, stored, image, transfer_syntax_uid)[1]:
                pass
        return
    before, native, pixel_vr = native_frames(window, before, stored, image, transfer_syntax_uid)
    computed = sha256(EXPLICIT_LITTLE_ENDIAN.encode("ascii"))
    feed(computed.update, before, 0)
    length = native.frames.size_bytes
    computed.update(named(PIXEL_DATA, pixel_vr, length + length % 2))
    for frame in native:
        computed.update(frame)
    computed.update(bytes(length % 2))
    feed(computed.update, after, 0)
    if computed.digest() != digest:
        raise IntegrityError("the content is not the one that its digest was computed of")
