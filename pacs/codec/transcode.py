"""To and from the archive's transfer syntax: Deidentified ▶ Encoded on the way in, stored frames ▶ a data set on the way out.

What comes uncompressed becomes HTJ2K Lossless where that is proven exact and smaller; what comes compressed stays as it came.
On the way in nothing here fails: pixel data that cannot be understood is kept as received. On the way out nothing is
compressed with loss, and a receiver that accepts no reachable syntax gets `NotTranscodable`.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from typing import TypeVar

from pacs.codec import decode, frames, large, large_out, lossless, syntaxes
from pacs.codec import image as syntax
from pacs.codec.image import EXPLICIT_LITTLE_ENDIAN, PIXEL_DATA, Image, describe
from pacs.codec.outgoing import ENCODERS, NO_SYNTAX, DataSetParts, decoder, encoded
from pacs.codec.splicing import (
    PIXEL_TAGS,
    around_pixel_data,
    colour,
    feed,
    parsed,
    pixel_element,
    replaced,
    spliced,
    streamed,
    vr,
    with_colour,
)
from pacs.dicom import elements as dicom
from pacs.dicom.values import INDEXED, attributes
from pacs.model.bulk import Bulk, Joined, LazyFrames
from pacs.model.errors import IntegrityError, NotTranscodable, NotUnderstood
from pacs.model.instance import Buffer, BulkElement, Deidentified, Element, Encoded, InstanceKey, StoredFrames
from pacs.ports import Scratch

_T = TypeVar("_T")
_R = TypeVar("_R")
SUPPORTED: tuple[str, ...] = (
    *syntax.UNCOMPRESSED,
    syntax.HTJ2K_LOSSLESS_RPCL,
    syntax.HTJ2K_LOSSLESS,
    syntax.HTJ2K,
    syntax.JPEG_LS_LOSSLESS,
    syntax.JPEG_LS_NEAR_LOSSLESS,
    syntax.JPEG_2000_LOSSLESS,
    syntax.JPEG_2000,
    syntax.RLE,
    *sorted(syntax.LOSSLESS_JPEG | syntax.LOSSY_JPEG),
    *sorted(syntax.VIDEO),
)
"""Transfer syntaxes in which instances can be kept and sent."""


class Codec:
    """Encodes what comes in, and decodes or re-encodes what goes out; as many frames at once as there are cores."""

    def __init__(self, archive_codec: str = "htj2k", prove_every: int = 1, scratch: Scratch | None = None) -> None:
        """Make a codec.

        Parameters
        ----------
        archive_codec : {"htj2k", "none"}
            What uncompressed pixel data becomes.
        prove_every : int
            Of every object, frame 1, 1 + n, 1 + 2n … are decoded and compared before the original is dropped; 1 proves all.
        scratch : Scratch, optional
            Where the compressed frames of a large object wait; without it they stay uncompressed.
        """
        self._compress = archive_codec == "htj2k"
        self._prove_every = max(1, prove_every)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._cores = threading.BoundedSemaphore(cores)
        self._pool = ThreadPoolExecutor(cores, thread_name_prefix="codec")
        self._window = large.Window(self._pool, self._cores, cores)
        self._scratch = scratch

    def digest(self, deidentified: Deidentified) -> bytes:
        """Return SHA-256 over the content: tags, VRs and values, whatever their lengths and delimiters were encoded as.

        Two data sets with equal digests say the same; compressed Pixel Data counts as it is.
        """
        digest = sha256(deidentified.transfer_syntax_uid.encode("ascii"))
        feed(digest.update, deidentified.elements, 0)
        return digest.digest()

    def encode(self, deidentified: Deidentified, digest: bytes, *, later: bool = False) -> Encoded:
        """Bring a data set into the archive's form. Never fails for what Pixel Data holds.

        With `later`, pixels that could be compressed stay native, and `deferred` says so: see `compress`.
        """
        one = deidentified
        return self._encode(one.key, one.sop_class_uid, one.elements, one.transfer_syntax_uid, digest, later=later)

    def compress(self, key: InstanceKey, sop_class_uid: str, header: Buffer, stored: StoredFrames, digest: bytes) -> Encoded:
        """Return a stored instance whose compression was deferred in the archive's form."""
        element = pixel_element(stored, EXPLICIT_LITTLE_ENDIAN, stored.pixel_vr)
        whole = dicom.walk(b"".join(bytes(buffer) for buffer in spliced(header, element)))
        return self._encode(key, sop_class_uid, whole, EXPLICIT_LITTLE_ENDIAN, digest, later=False)

    def _encode(
        self,
        key: InstanceKey,
        sop_class_uid: str,
        elements: Sequence[Element],
        syntax_uid: str,
        digest: bytes,
        *,
        later: bool,
    ) -> Encoded:
        by_tag = {one.tag: one for one in elements}
        image = describe(by_tag)
        split, deferred = frames.Split(()), False
        pixel = by_tag.get(PIXEL_DATA)
        changed: dict[int, Element] = {}
        native = syntax_uid == EXPLICIT_LITTLE_ENDIAN
        if pixel is None or pixel.undefined_length == native:
            # No Pixel Data, or Pixel Data that contradicts its transfer syntax: then it stays in the header as received.
            left_out: frozenset[int] = frozenset()
        elif native:
            if isinstance(pixel, BulkElement):
                split = large.split_native(pixel.bulk, image)
            else:
                split = frames.split_native(pixel.value, image)
            left_out = PIXEL_TAGS
            deferred = later and self._defers(pixel, split, image)
            compressed = None if deferred else self._compressed(split, image)
            if compressed is not None:
                split, syntax_uid = frames.Split(compressed), syntax.HTJ2K_LOSSLESS_RPCL
                if image.samples == 3 and image.photometric_interpretation == "RGB":
                    # PS3.5 8.2.14: the reversible component transform was used.
                    changed = colour("YBR_RCT")
        else:
            table = by_tag.get(syntax.EXTENDED_OFFSET_TABLE)
            offsets = syntax.unsigned(table.value, 8) if table else ()
            if isinstance(pixel, BulkElement):
                split = large.split_encapsulated(pixel.bulk, image.number_of_frames, syntax_uid, offsets)
            else:
                split = frames.split_encapsulated(pixel.value, image.number_of_frames, syntax_uid, offsets)
            # An item stream that stays whole keeps its offset tables.
            left_out = frozenset({PIXEL_DATA}) if split.packed else PIXEL_TAGS
        # Group lengths would be wrong from here on; they are retired (PS3.5 7.2).
        kept = [changed.get(one.tag, one) for one in elements if one.tag not in left_out and one.tag & 0xFFFF]
        return Encoded(
            key=key,
            sop_class_uid=sop_class_uid,
            header=b"".join([one.encoded for one in kept]),
            frames=split.frames,
            transfer_syntax_uid=syntax_uid,
            attributes=attributes(kept, INDEXED),
            digest=digest,
            number_of_frames=image.number_of_frames if split.frames else 0,
            packed=split.packed,
            pixel_vr=pixel.vr if pixel is not None and pixel.vr in ("OB", "OW") else "OB",
            frame_bits=split.frame_bits,
            repeatable=_repeatable(by_tag, image, native),
            deferred=deferred,
        )

    def _defers(self, pixel: Element, split: frames.Split, image: Image) -> bool:
        """Say whether pixels can wait to be compressed: those of a large object are packed away as they pass."""
        return self._compress and not isinstance(pixel, BulkElement) and not split.packed and lossless.suits(image)

    def check(self, header: Buffer, stored: StoredFrames, transfer_syntax_uid: str, digest: bytes, *, repeatable: bool) -> None:
        """Decode every frame that can be, and where `repeatable` compare the content with its digest.

        Raises `IntegrityError` if a frame cannot be decoded, or the content is another than the one that came.
        """
        native = transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN
        try:
            image = describe({one.tag: one for one in parsed(header)})
            if isinstance(stored.frames, LazyFrames) or image.frame_bits * stored.number_of_frames // 8 > large.LARGE_BYTES:
                large_out.check(self._window, header, stored, transfer_syntax_uid, digest if repeatable else None)
            elif repeatable:
                parts = self.data_set(header, stored, transfer_syntax_uid, (EXPLICIT_LITTLE_ENDIAN,))
                found = sha256(EXPLICIT_LITTLE_ENDIAN.encode("ascii"))
                feed(found.update, dicom.walk(b"".join(bytes(buffer) for buffer in parts.buffers)), 0)
                if found.digest() != digest:
                    raise IntegrityError("the content is not the one that its digest was computed of")
            elif not native and not stored.packed and transfer_syntax_uid in syntax.DECODABLE:
                self._each(lambda frame: decode.decoded(frame, image, transfer_syntax_uid) and None, stored.frames)
        except (NotTranscodable, NotUnderstood) as error:
            raise IntegrityError("a frame cannot be decoded") from error

    def with_header(self, deidentified: Deidentified, stored: StoredFrames, digest: bytes) -> Encoded:
        """Return stored frames, as they are, under another header of theirs: `deidentified` without Pixel Data.

        `digest` is that of the instance before; the new one depends on it and on the header.
        """
        kept = [one for one in deidentified.elements if one.tag & 0xFFFF]
        header = b"".join([one.encoded for one in kept])
        bits = describe({one.tag: one for one in kept}).frame_bits if stored.packed else 0
        native = deidentified.transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN
        return Encoded(
            key=deidentified.key,
            sop_class_uid=deidentified.sop_class_uid,
            header=header,
            frames=stored.frames,
            transfer_syntax_uid=deidentified.transfer_syntax_uid,
            attributes=attributes(kept, INDEXED),
            digest=sha256(digest + header).digest(),
            number_of_frames=stored.number_of_frames,
            packed=stored.packed,
            pixel_vr=stored.pixel_vr,
            frame_bits=bits if native and bits < 1 << 32 else 0,
        )

    def data_set(
        self, header: Buffer, stored: StoredFrames, transfer_syntax_uid: str, accepted: Sequence[str] | None = None
    ) -> DataSetParts:
        """Return the whole data set as stored, or in the best syntax of `accepted`.

        Tried in turn: as stored; under a wider syntax; Explicit VR Little Endian, Implicit VR Little Endian, Deflated, Big
        Endian; compressed without loss. Raises `NotTranscodable` if none of `accepted` can be reached.
        """
        relabelled = _as_stored(transfer_syntax_uid, accepted)
        if relabelled is not None and isinstance(stored.frames, LazyFrames):
            return DataSetParts(streamed(header, stored, stored.frames, transfer_syntax_uid), relabelled)
        if relabelled is not None:
            element = pixel_element(stored, transfer_syntax_uid, stored.pixel_vr)
            return DataSetParts((*spliced(header, element),), relabelled)
        assert accepted is not None
        before, after = around_pixel_data(parsed(header))
        image, pixel_vr = describe({one.tag: one for one in before}), stored.pixel_vr
        native_bytes = image.frame_bits * stored.number_of_frames // 8
        if isinstance(stored.frames, LazyFrames) or (stored.frames and native_bytes > large.LARGE_BYTES):
            return large_out.data_set(self._window, before, after, stored, image, transfer_syntax_uid, accepted)
        target = next((uid for uid in (*syntax.UNCOMPRESSED, *ENCODERS) if uid in accepted), None)
        if target is None:
            raise NotTranscodable(NO_SYNTAX)
        if transfer_syntax_uid != EXPLICIT_LITTLE_ENDIAN:
            if PIXEL_DATA in {one.tag for one in before} or stored.packed:
                raise NotTranscodable("the frames of this instance cannot be told apart, so they cannot be decoded")
            if stored.frames:
                arrays = self._each(lambda frame: decode.decoded(frame, image, transfer_syntax_uid), stored.frames)
                image = arrays[0][1]
                stored = replace(stored, frames=tuple(array.tobytes() for array, _ in arrays))
                pixel_vr = (
                    stored.pixel_vr if transfer_syntax_uid in syntax.HTJ2K_FAMILY and stored.pixel_vr == "OW" else vr(image)
                )
                before = with_colour(before, image)
        if target in ENCODERS:
            return self._recompressed(before, after, replace(stored, pixel_vr=pixel_vr), image, target)
        pixel = pixel_element(stored, EXPLICIT_LITTLE_ENDIAN, pixel_vr)
        if target == syntax.EXPLICIT_BIG_ENDIAN and pixel_vr == "OW" and image.bits_allocated > 16:
            raise NotTranscodable("pixels of more than 16 bits have no agreed form in Explicit VR Big Endian")
        return DataSetParts(syntaxes.rewritten(before, pixel, after, pixel_vr, target), target)

    def native(self, header: Buffer, stored: StoredFrames, transfer_syntax_uid: str) -> Bulk | None:
        """Return the native frames of a large instance, one after another; None if it is small enough for `data_set`.

        Raises `NotTranscodable` if they cannot be decoded.
        """
        before = around_pixel_data(parsed(header))[0]
        image = describe({one.tag: one for one in before})
        if not isinstance(stored.frames, LazyFrames) and image.frame_bits * stored.number_of_frames // 8 <= large.LARGE_BYTES:
            return None
        return Joined(large_out.native_frames(self._window, before, stored, image, transfer_syntax_uid)[1].frames)

    def transcode_frame(
        self, header: Buffer, data: Buffer, transfer_syntax_uid: str, accepted: Sequence[str]
    ) -> tuple[bytes, str]:
        """Return one frame in the best syntax of `accepted`, and that syntax; uncompressed means little endian.

        Raises `NotTranscodable` if none can be reached.
        """
        relabelled = _as_stored(transfer_syntax_uid, accepted)
        if relabelled is not None:
            return bytes(data), relabelled
        image = describe({one.tag: one for one in parsed(header)})
        target = next((uid for uid in (*syntax.UNCOMPRESSED[:2], *ENCODERS) if uid in accepted), None)
        if target is None:
            raise NotTranscodable("none of the accepted transfer syntaxes can be reached for this frame")
        native = bytes(data)
        if transfer_syntax_uid != EXPLICIT_LITTLE_ENDIAN:
            with self._cores:
                array, image = decode.decoded(data, image, transfer_syntax_uid)
            native = array.tobytes()
        if target not in ENCODERS:
            return native, target
        with self._cores:
            stream = encoded(native, image, target)
        return stream, target

    def pixels(self, header: Buffer, data: Buffer, transfer_syntax_uid: str) -> decode.Array:
        """Return the stored values of one frame, shape (rows, columns) or (rows, columns, 3).

        Values are taken out of Bits Stored and sign-extended. Colour comes by pixel, whatever Planar Configuration says, in the
        colour space that the header names: RGB (also for YBR_RCT and YBR_ICT, which are forms of compression only), or
        YBR_FULL (also for YBR_FULL_422). PALETTE COLOR comes as indices.

        Raises `NotTranscodable` if the frame cannot be decoded.
        """
        image = describe({one.tag: one for one in parsed(header)})
        with self._cores:
            if transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN:
                array = decode.native_frame(data, image)
            else:
                array, image = decode.decoded(data, image, transfer_syntax_uid, as_described=True)
            return decode.stored_values(array, image)

    @staticmethod
    def reachable(transfer_syntax_uid: str) -> tuple[str, ...]:
        """Return the syntaxes in which an instance stored so can usually be sent, best first."""
        found = [transfer_syntax_uid, *syntax.ALSO_VALID_AS.get(transfer_syntax_uid, ())]
        if transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN or transfer_syntax_uid in syntax.DECODABLE:
            found += [*syntax.UNCOMPRESSED, *ENCODERS]
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def _compressed(self, split: frames.Split, image: Image) -> Sequence[Buffer] | None:
        """Return all frames as HTJ2K, or None if one of them cannot be, or it does not pay."""
        if not self._compress or split.packed or not lossless.suits(image):
            return None
        if isinstance(split.frames, LazyFrames):
            if self._scratch is None:
                return None
            return large.compressed(
                split.frames,
                image,
                self._window,
                self._scratch,
                lossless.encode_htj2k,
                decoder(syntax.HTJ2K_LOSSLESS),
                self._prove_every,
            )

        def one(numbered: tuple[int, Buffer]) -> bytes | None:
            index, frame = numbered
            return lossless.compressed(
                frame, image, lossless.encode_htj2k, decoder(syntax.HTJ2K_LOSSLESS), prove=index % self._prove_every == 0
            )

        found = self._each(one, list(enumerate(split.frames)))
        streams = tuple(stream for stream in found if stream is not None)
        return streams if len(streams) == len(split.frames) else None

    def _recompressed(
        self, before: list[Element], after: list[Element], stored: StoredFrames, image: Image, target: str
    ) -> DataSetParts:
        if stored.packed or not stored.frames or PIXEL_DATA in {one.tag for one in before}:
            raise NotTranscodable("this instance has no frames that can be compressed")
        streams = self._each(lambda frame: encoded(frame, image, target), stored.frames)
        if image.samples == 3 and image.photometric_interpretation == "RGB" and target != syntax.JPEG_LS_LOSSLESS:
            before = replaced(before, colour("YBR_RCT"))
        element = frames.encapsulated_element(streams)
        return DataSetParts((*dicom.join(before), *element, *dicom.join(after)), target)

    def _each(self, function: Callable[[_T], _R], values: Sequence[_T]) -> list[_R]:
        """Apply `function` to all values, on all cores where there are several."""

        def capped(value: _T) -> _R:
            with self._cores:
                return function(value)

        return [capped(value) for value in values] if len(values) == 1 else list(self._pool.map(capped, values))


def _repeatable(by_tag: Mapping[int, Element], image: Image, native: bool) -> bool:
    """Tell whether the content can be put together again from header and frames exactly as it came."""
    pixel = by_tag.get(PIXEL_DATA)
    if pixel is None:
        return native
    by_pixel = image.samples == 1 or image.planar_configuration == 0
    return native and by_pixel and pixel.vr in ("OB", "OW") and not by_tag.keys() & set(syntax.ENCAPSULATION)


def _as_stored(transfer_syntax_uid: str, accepted: Sequence[str] | None) -> str | None:
    """Return the syntax under which the stored frames may go out as they are."""
    if accepted is None or transfer_syntax_uid in accepted:
        return transfer_syntax_uid
    return next((uid for uid in syntax.ALSO_VALID_AS.get(transfer_syntax_uid, ()) if uid in accepted), None)
