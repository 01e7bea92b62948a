"""Lossless compression that proves itself: a frame counts as compressed only after it was decoded and compared, bit by bit.

Widths are those allocated, not stored, so that bits beyond Bits Stored (old overlays) survive too. Absent on purpose: JPEG XL,
whose encoder aborts the process on 16-bit noise (imagecodecs 2026.3.6).
"""

from collections.abc import Callable

import imagecodecs
import numpy as np

from pacs.codec import image as syntax
from pacs.codec.decode import Array, native_frame
from pacs.codec.image import Image
from pacs.model.errors import NotTranscodable
from pacs.model.instance import Buffer

_GREY = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_COLOURS = frozenset({"RGB", "YBR_FULL"})
_SMALLEST_BASE = 64
_LEAST_LEVELS = 5


def suits(image: Image) -> bool:
    """Say whether native frames of `image` can be compressed without changing anything but Photometric Interpretation."""
    if image.bits_allocated not in (8, 16) or not 0 < image.bits_stored <= image.bits_allocated:
        return False
    if not (0 < image.rows < syntax.LARGEST_SIDE and 0 < image.columns < syntax.LARGEST_SIDE):
        return False
    if image.samples == 1:
        return image.photometric_interpretation in _GREY
    # Colour by plane would have to become colour by pixel: another data set than the one received.
    return image.samples == 3 and image.photometric_interpretation in _COLOURS and image.planar_configuration == 0


def encode_htj2k(frame: Buffer, image: Image) -> bytes:
    """Return a native frame as HTJ2K Lossless RPCL (PS3.5 10.18): RPCL, TLM, base resolution at most 64 a side.

    RGB goes through the reversible component transform and is YBR_RCT then; other colours have none.
    """
    array = aligned(native_frame(frame, image))
    largest = max(image.rows, image.columns)
    levels = max(_LEAST_LEVELS, (max(0, (largest - 1) // _SMALLEST_BASE)).bit_length())
    if image.samples == 1:
        return bytes(imagecodecs.htj2k_encode(array, reversible=True, tlm=True, resolutions=levels))
    if image.photometric_interpretation == "RGB":
        return bytes(imagecodecs.htj2k_encode(array, reversible=True, tlm=True, resolutions=levels, rgb=True))
    planes = np.ascontiguousarray(array.transpose(2, 0, 1))
    return bytes(imagecodecs.htj2k_encode(planes, reversible=True, tlm=True, resolutions=levels, rgb=False, planar=True))


def encode_jpeg_ls(frame: Buffer, image: Image) -> bytes:
    """Return a native frame as JPEG-LS Lossless (PS3.5 10.5)."""
    array = aligned(native_frame(frame, image))
    # CharLS knows no sign: the same bits, taken as unsigned.
    return bytes(imagecodecs.jpegls_encode(array.view(f"<u{array.dtype.itemsize}")))


def compressed(
    frame: Buffer,
    image: Image,
    encode: Callable[[Buffer, Image], bytes],
    decode: Callable[[bytes, Image], Array],
    *,
    prove: bool,
    at_any_size: bool = False,
) -> bytes | None:
    """Return `frame` compressed, or None if that fails, is not smaller, or does not decode to the same bits."""
    try:
        stream = encode(frame, image)
        if len(stream) >= memoryview(frame).nbytes and not at_any_size:
            return None
        if prove and not same_bits(decode(stream, image), native_frame(frame, image)):
            return None
    except (NotTranscodable, RuntimeError, ValueError, TypeError):
        # A codec's own errors are RuntimeErrors: the frame stays native, and nothing is lost.
        return None
    return stream


def same_bits(first: Array, second: Array) -> bool:
    """Say whether two arrays hold the same samples, whatever sign their types have."""
    if first.shape != second.shape or first.dtype.itemsize != second.dtype.itemsize:
        return False
    unsigned = f"<u{first.dtype.itemsize}"
    return bool(np.array_equal(np.ascontiguousarray(first).view(unsigned), np.ascontiguousarray(second).view(unsigned)))


def aligned(array: Array) -> Array:
    """Return the array in a form that every codec takes: contiguous, and aligned to its type."""
    return np.require(array, requirements=["C", "A"])
