"""Code streams and native frames into arrays. Sizes are checked against the data set before a decoder sees a byte.

imagecodecs does most of the work: OpenJPH, OpenJPEG, CharLS and libjpeg-turbo, which release the GIL.
"""

from dataclasses import replace

import imagecodecs
import numpy as np
import openjpeg
from numpy.typing import NDArray

from pacs.codec import image as syntax
from pacs.codec.image import Image
from pacs.model.errors import NotTranscodable
from pacs.model.instance import Buffer

Array = NDArray[np.generic]
_YBR = frozenset({"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422"})
_TRANSFORMED = frozenset({"YBR_RCT", "YBR_ICT"})
_SOF = frozenset({*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7})


def container(image: Image) -> np.dtype[np.generic]:
    """Return the type of one sample as allocated, little endian. Raises `NotTranscodable` for sizes that no array has."""
    size = {8: 1, 16: 2, 32: 4, 64: 8}.get(image.bits_allocated)
    if size is None:
        raise NotTranscodable(f"Bits Allocated is {image.bits_allocated}")
    return np.dtype(f"<{'i' if image.signed else 'u'}{size}")


def native_frame(data: Buffer, image: Image) -> Array:
    """Return a native frame as allocated, shape (rows, columns) or (rows, columns, samples).

    1-bit pixels come as bytes of 0 and 1; YBR_FULL_422 comes with every pixel's own three samples (PS3.3 C.7.6.3.1.2).
    """
    if len(data) * 8 < image.frame_bits or image.frame_bits == 0:
        raise NotTranscodable("the frame is shorter than its attributes promise")
    if image.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[: image.rows * image.columns].reshape(image.rows, image.columns)
    values = np.frombuffer(data, container(image), count=image.frame_bits // image.bits_allocated)
    if image.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        if image.columns % 2:
            raise NotTranscodable("an odd number of columns cannot share its chroma samples")
        pairs = values.reshape(image.rows, image.columns // 2, 4)
        full = np.empty((image.rows, image.columns // 2, 2, 3), values.dtype)
        full[..., 0] = pairs[..., :2]
        full[..., 1:] = pairs[..., None, 2:]
        return full.reshape(image.rows, image.columns, 3)
    if image.samples == 1:
        return values.reshape(image.rows, image.columns)
    if image.planar_configuration == 1:
        return values.reshape(image.samples, image.rows, image.columns).transpose(1, 2, 0)
    return values.reshape(image.rows, image.columns, image.samples)


def decoded(data: Buffer, image: Image, transfer_syntax_uid: str, *, as_described: bool = False) -> tuple[Array, Image]:
    """Return a compressed frame as it would be allocated natively, and the attributes that describe it then.

    Colour comes by pixel. Where the stored colours are an artefact of compression (YBR_RCT, YBR_ICT, and YBR in lossy JPEG)
    they come as RGB; what was stored without loss stays in its colour space. With `as_described`, YBR_FULL and YBR_FULL_422
    come as YBR_FULL even from lossy JPEG.

    Raises `NotTranscodable` if there is no decoder, the code stream is damaged, or it contradicts the data set.
    """
    if transfer_syntax_uid not in syntax.DECODABLE:
        raise NotTranscodable(f"no decoder for transfer syntax {transfer_syntax_uid}")
    if not (image.rows and image.columns) or image.samples not in (1, 3) or image.bits_allocated not in (8, 16, 32):
        raise NotTranscodable("the image attributes are missing or not of an image that can be decoded")
    stream = bytes(data)
    try:
        if transfer_syntax_uid == syntax.RLE:
            return _decode_rle(stream, image), replace(image, planar_configuration=0)
        precision, signed = _check_size(stream, image)
        array, coded = _decode(stream, image, transfer_syntax_uid, as_described)
    except NotTranscodable:
        raise
    except Exception as error:
        # Each library has errors of its own; none of them may quote what it read.
        raise NotTranscodable(f"a code stream cannot be decoded ({type(error).__name__})") from None
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    expected = (image.rows, image.columns) if image.samples == 1 else (image.rows, image.columns, image.samples)
    if array.shape != expected:
        raise NotTranscodable("a code stream holds an image of another size than its attributes say")
    colour = image.photometric_interpretation
    if image.samples == 3:
        colour = "RGB" if colour in _TRANSFORMED else "YBR_FULL" if colour in _YBR else colour
        if colour == "YBR_FULL" and coded == "RGB":
            if as_described and array.dtype == np.uint8:
                array = _to_ybr(array)
            else:
                colour = "RGB"
    if image.signed and not signed and precision < image.bits_allocated:
        array = _sign_extended(array, precision)
    return _as_allocated(array, image), replace(image, photometric_interpretation=colour, planar_configuration=0)


def stored_values(array: Array, image: Image) -> Array:
    """Take the stored values out of samples as allocated: Bits Stored up to High Bit, sign-extended (PS3.5 8.1.1)."""
    if image.bits_allocated == 1 or not 0 < image.bits_stored < image.bits_allocated:
        return array
    if not image.bits_stored - 1 <= image.high_bit < image.bits_allocated:
        return array
    dtype = array.dtype
    up, down = image.bits_allocated - 1 - image.high_bit, image.bits_allocated - image.bits_stored
    shifted = np.left_shift(array, dtype.type(up), dtype=dtype)
    result: Array = np.right_shift(shifted, dtype.type(down), dtype=dtype)  # arithmetic where the type is signed
    return result


def _to_ybr(rgb: Array) -> Array:
    """Turn RGB of 8 bits into YBR_FULL (PS3.3 C.7.6.3.1.2)."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
    ybr = rgb.astype(np.float32) @ matrix.T + np.array([0, 128, 128], np.float32)
    result: Array = np.clip(np.rint(ybr), 0, 255).astype(np.uint8)
    return result


def _decode(stream: bytes, image: Image, transfer_syntax_uid: str, as_described: bool) -> tuple[Array, str]:
    """Return the samples, and the colour space a JPEG came out in ("" for the other families, which keep theirs)."""
    array: Array
    if transfer_syntax_uid == syntax.HTJ2K:
        # Where this syntax is lossy, imagecodecs 2026.3.6 lets samples wrap (255 becomes 0); OpenJPEG clips them.
        return openjpeg.decode(stream), ""
    if transfer_syntax_uid in syntax.HTJ2K_FAMILY:
        array = imagecodecs.htj2k_decode(stream)
        # Components that were coded without a transform come one after another.
        return array.transpose(1, 2, 0) if _is_planar(array, image) else array, ""
    if transfer_syntax_uid in syntax.JPEG_2000_FAMILY:
        array = imagecodecs.jpeg2k_decode(stream)
        return array.transpose(1, 2, 0) if _is_planar(array, image) else array, ""
    if transfer_syntax_uid in syntax.JPEG_LS_FAMILY:
        array = imagecodecs.jpegls_decode(stream)
        return array.transpose(1, 2, 0) if _is_planar(array, image) else array, ""
    if image.samples == 1:
        return imagecodecs.jpeg8_decode(stream), ""
    coded = "YCBCR" if _is_ycbcr(stream, image) else "RGB"
    wanted = "RGB" if transfer_syntax_uid in syntax.LOSSY_JPEG and not as_described else coded
    return imagecodecs.jpeg8_decode(stream, colorspace=coded, outcolorspace=wanted), wanted


def _is_planar(array: Array, image: Image) -> bool:
    return array.ndim == 3 and array.shape == (image.samples, image.rows, image.columns)


def _is_ycbcr(stream: bytes, image: Image) -> bool:
    """Say whether a JPEG's components are YCbCr: an Adobe marker knows best, then Photometric Interpretation."""
    at = stream.find(b"\xff\xee\x00\x0eAdobe", 0, 4096)
    if at >= 0 and at + 16 <= len(stream):
        return stream[at + 15] == 1
    return image.photometric_interpretation != "RGB"


def _decode_rle(stream: bytes, image: Image) -> Array:
    """Decode an RLE frame (PS3.5 Annex G): one segment a byte plane, most significant byte first, sample after sample."""
    count = int.from_bytes(stream[:4], "little")
    size = container(image).itemsize
    if count != image.samples * size or count > 15:
        raise NotTranscodable("an RLE frame has another number of segments than its attributes ask for")
    pixels = image.rows * image.columns
    offsets = [int.from_bytes(stream[4 + 4 * n : 8 + 4 * n], "little") for n in range(count)] + [len(stream)]
    planes = np.empty((image.samples, pixels, size), np.uint8)
    for segment in range(count):
        plane = imagecodecs.packbits_decode(stream[offsets[segment] : offsets[segment + 1]])
        if len(plane) < pixels:
            raise NotTranscodable("an RLE segment is too short")
        sample, byte = divmod(segment, size)
        planes[sample, :, size - 1 - byte] = np.frombuffer(plane, np.uint8, count=pixels)
    values = planes.reshape(-1).view(container(image)).reshape(image.samples, image.rows, image.columns)
    return values[0] if image.samples == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))


def _check_size(stream: bytes, image: Image) -> tuple[int, bool]:
    """Return precision and sign of a code stream; refuse one whose size is not the image's before anything is allocated."""
    columns, rows, components, precision, signed = _size_of(stream)
    if (columns, rows, components) != (image.columns, image.rows, image.samples) or precision > image.bits_allocated:
        raise NotTranscodable("a code stream holds an image of another size than its attributes say")
    return precision, signed


def _size_of(stream: bytes) -> tuple[int, int, int, int, bool]:
    """Return columns, rows, components, precision and sign from SIZ (ISO/IEC 15444-1 A.5.1) or SOF (ISO/IEC 10918-1 B.2.2)."""
    if stream[:4] == b"\0\0\0\x0c" or stream[:2] == b"\xff\x4f":
        at = stream.find(b"\xff\x4f\xff\x51")
        if at < 0:
            raise NotTranscodable("a JPEG 2000 code stream has no size")
        words = [int.from_bytes(stream[at + 8 + 4 * n : at + 12 + 4 * n], "big") for n in range(4)]
        depth = stream[at + 42]
        return (
            words[0] - words[2],
            words[1] - words[3],
            int.from_bytes(stream[at + 40 : at + 42], "big"),
            (depth & 127) + 1,
            depth > 127,
        )
    position = 2
    while position + 9 < len(stream) and stream[:2] == b"\xff\xd8":
        if stream[position] != 0xFF:
            break
        marker = stream[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _SOF:
            rows, columns = (int.from_bytes(stream[position + at : position + at + 2], "big") for at in (5, 7))
            return columns, rows, stream[position + 9], stream[position + 4], False
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    raise NotTranscodable("a JPEG code stream has no size")


def _sign_extended(array: Array, precision: int) -> Array:
    wide = array.astype(np.int64)
    result: Array = np.where(wide >= 1 << (precision - 1), wide - (1 << precision), wide)
    return result


def _as_allocated(array: Array, image: Image) -> Array:
    dtype = container(image)
    if array.dtype == dtype:
        return array
    if array.dtype.itemsize == dtype.itemsize:
        # The same bits under the other sign: what counts is Pixel Representation.
        return array.view(dtype)
    return array.astype(dtype)
