"""What a data set says of its Pixel Data (PS3.3 C.7.6.3), and what the transfer syntaxes of PS3.5 Annex A are to us."""

from collections.abc import Mapping
from dataclasses import dataclass

from pacs.model.instance import Buffer, Element

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, DEFLATED, EXPLICIT_BIG_ENDIAN)

JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
RLE = "1.2.840.10008.1.2.5"

LOSSY_JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55))
LOSSLESS_JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (57, 70))
JPEG_LS_FAMILY = frozenset({JPEG_LS_LOSSLESS, JPEG_LS_NEAR_LOSSLESS})
JPEG_2000_FAMILY = frozenset({JPEG_2000_LOSSLESS, JPEG_2000})
HTJ2K_FAMILY = frozenset({HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K})
VIDEO = frozenset(f"1.2.840.10008.1.2.4.{n}{fragmentable}" for n in range(100, 109) for fragmentable in ("", ".1"))
DECODABLE = LOSSY_JPEG | LOSSLESS_JPEG | JPEG_LS_FAMILY | JPEG_2000_FAMILY | HTJ2K_FAMILY | {RLE}

ALSO_VALID_AS: Mapping[str, tuple[str, ...]] = {
    # A lossless code stream is one of the wider syntax too (PS3.5 10.3, 10.5, 10.6, 10.18); RPCL is one progression of .201.
    "1.2.840.10008.1.2.4.70": ("1.2.840.10008.1.2.4.57",),
    JPEG_LS_LOSSLESS: (JPEG_LS_NEAR_LOSSLESS,),
    JPEG_2000_LOSSLESS: (JPEG_2000,),
    HTJ2K_LOSSLESS_RPCL: (HTJ2K_LOSSLESS, HTJ2K),
    HTJ2K_LOSSLESS: (HTJ2K,),
}
"""Stored syntax -> syntaxes under which the same code streams may be sent."""

PIXEL_DATA = 0x7FE00010
EXTENDED_OFFSET_TABLE = 0x7FE00001
EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002
ENCAPSULATED_TOTAL_LENGTH = 0x7FE00003
ENCAPSULATION = frozenset({EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS, ENCAPSULATED_TOTAL_LENGTH})
PHOTOMETRIC_INTERPRETATION = 0x00280004
PLANAR_CONFIGURATION = 0x00280006

_SAMPLES, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280008, 0x00280010, 0x00280011
_ALLOCATED, _STORED, _HIGH, _REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103
LARGEST_SIDE = 1 << 16
MOST_FRAMES = (1 << 31) - 1
"""The largest number that IS can hold (PS3.5 6.2), and that every database can."""


@dataclass(frozen=True, slots=True)
class Image:
    """The attributes that say how pixels are laid out; 0 or "" where the data set does not say."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric_interpretation: str
    planar_configuration: int
    number_of_frames: int

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame; 0 if the attributes do not tell.

        Source: PS3.5 8.1.1 and 8.2; PS3.3 C.7.6.3.1.2 for YBR_FULL_422, which has two samples a pixel on average.
        """
        samples = 2 if self.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422") else self.samples
        return self.rows * self.columns * samples * self.bits_allocated


def describe(elements: Mapping[int, Element]) -> Image:
    """Read the image attributes of a data set given as tag -> element; never raises."""
    bits_allocated = _number(elements, _ALLOCATED)
    bits_stored = _number(elements, _STORED, bits_allocated)
    return Image(
        rows=_number(elements, _ROWS),
        columns=_number(elements, _COLUMNS),
        samples=_number(elements, _SAMPLES, 1),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=_number(elements, _HIGH, bits_stored - 1),
        signed=_number(elements, _REPRESENTATION) == 1,
        photometric_interpretation=_text(elements, PHOTOMETRIC_INTERPRETATION),
        planar_configuration=_number(elements, PLANAR_CONFIGURATION),
        number_of_frames=_frames(elements),
    )


def unsigned(value: Buffer, size: int) -> list[int]:
    """Return a value as little endian integers of `size` bytes each."""
    data = bytes(value)
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data) - size + 1, size)]


def _number(elements: Mapping[int, Element], tag: int, otherwise: int = 0) -> int:
    one = elements.get(tag)
    if one is None or one.vr not in ("US", "SS") or len(one.value) < 2:
        return otherwise
    return int.from_bytes(bytes(one.value[:2]), "little")


def _text(elements: Mapping[int, Element], tag: int) -> str:
    one = elements.get(tag)
    return "" if one is None else bytes(one.value).decode("ascii", "replace").strip(" \0")


def _frames(elements: Mapping[int, Element]) -> int:
    text = _text(elements, _FRAMES).partition("\\")[0].strip()
    try:
        return min(max(1, int(text)), MOST_FRAMES)
    except ValueError:
        return 1
