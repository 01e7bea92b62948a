"""Code streams without what is not image: comments, application segments, boxes, extra fragments and trailing bytes.

Entropy-coded data is never touched, so that decoded pixels stay what they were and nothing lossy is compressed again. Markers
are followed by ISO/IEC 10918-1 Annex B (JPEG), 14495-1 Annex C (JPEG-LS), 15444-1 Annexes A and I (JPEG 2000, HTJ2K) and PS3.5
Annex G (RLE). What cannot be followed to its end is not passed on.
"""

import re
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise

from pacs.dicom import fragments
from pacs.dicom.elements import find
from pacs.model.bulk import LARGEST_FRAME
from pacs.model.errors import Quarantined
from pacs.model.instance import Buffer, BulkElement, Element

_SYNTAX = "1.2.840.10008.1.2.4."
_JPEG = frozenset(f"{_SYNTAX}{number}" for number in (50, 51, 53, 55, 57, 70))
_JPEG_LS = frozenset(f"{_SYNTAX}{number}" for number in (80, 81))
_JPEG_2000 = frozenset(f"{_SYNTAX}{number}" for number in (90, 91, 92, 93, 201, 202, 203))
_RLE = "1.2.840.10008.1.2.5"
_VIDEO = re.compile(re.escape(_SYNTAX) + r"10[0-9](\.1)?\Z")
_PIXEL_DATA = 0x7FE00010
_FRAMES, _ROWS, _COLUMNS, _EXTENDED_OFFSETS = 0x00280008, 0x00280010, 0x00280011, 0x7FE00001
OFFSET_TABLES = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003})
"""Extended Offset Table, its lengths and the total length: wrong once a code stream has changed."""

_KEPT = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xF7, 0xF8} - {0xC8})
_SOI, _EOI, _SOS, _COM, _TEM = 0xD8, 0xD9, 0xDA, 0xFE, 0x01
# Behind a scan: FF 00 is a stuffed byte, D0 to D7 restart. JPEG-LS stuffs a bit: FF and then less than 80 is data.
_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xff]")
_AFTER_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xff]")
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"

_SOC, _SOT, _SOD, _EOC, _J2K_COM = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9, 0xFF64
_MAIN = frozenset({0xFF50, 0xFF51, 0xFF52, 0xFF53, 0xFF55, 0xFF56, 0xFF57, 0xFF58, 0xFF59, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F})
_MAIN_TOO = frozenset({0xFF60, 0xFF61, 0xFF63, 0xFF74, 0xFF75, 0xFF76, 0xFF77, 0xFF78, 0xFF79})


class Unfollowed(Exception):
    """A code stream whose markers cannot be followed to its end."""


def stripped(pixel_data: Element, elements: Sequence[Element], transfer_syntax_uid: str) -> Element:
    """Return encapsulated Pixel Data with nothing but image in its code streams; the very same element where all was image.

    Raises `Quarantined` where code streams cannot be told apart or followed, or their family is not known here. Video, which no
    policy that cleans pixels lets in, passes as it is.
    """
    if not pixel_data.undefined_length or _VIDEO.match(transfer_syntax_uid):
        return pixel_data
    strip = _stripper(transfer_syntax_uid, elements)
    if strip is None:
        raise Quarantined("the code streams of this transfer syntax are not known here, so nothing can be taken out of them")
    number, one_each = _frames(elements), transfer_syntax_uid == _RLE
    table = find(elements, _EXTENDED_OFFSETS)
    offsets = struct.unpack(f"<{len(table.value) // 8}Q", bytes(table.value)[: len(table.value) // 8 * 8]) if table else ()
    if isinstance(pixel_data, BulkElement):
        return _stripped_bulk(pixel_data, strip, number, one_each, offsets)
    found = fragments.items(pixel_data.value)
    groups = fragments.by_frame(found or (), number, one_each=one_each, extended_offsets=offsets)
    if found is None or groups is None:
        raise Quarantined("the fragments of Pixel Data cannot be told apart by frame")
    changed = len(found[0][1]) not in (0, 4 * number)
    frames: list[Buffer] = []
    for group in groups:
        whole: Buffer = group[0] if len(group) == 1 else b"".join(group)
        left = _followed(strip, whole)
        changed = changed or left is not whole
        frames.append(left)
    if not changed:
        return pixel_data
    stream = fragments.item_stream(frames)
    head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    return Element(_PIXEL_DATA, "OB", stream, head + stream + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), True)


def _followed(strip: Callable[[Buffer], Buffer], stream: Buffer) -> Buffer:
    try:
        return strip(stream)
    except (Unfollowed, IndexError, struct.error):
        raise Quarantined("a code stream cannot be followed to its end") from None


def _stripped_bulk(
    pixel_data: BulkElement, strip: Callable[[Buffer], Buffer], number: int, one_each: bool, offsets: Sequence[int]
) -> BulkElement:
    """Do the same frame by frame: every code stream is followed now, and stripped again whenever it is read."""
    found, _ = fragments.bulk_items(pixel_data.bulk)
    groups = fragments.bulk_by_frame(found, number, one_each=one_each, extended_offsets=offsets)
    if groups is None:
        raise Quarantined("the fragments of Pixel Data cannot be told apart by frame")
    changed = len(found[0][1]) not in (0, 4 * number)
    sizes = []
    for group in groups:
        if sum(map(len, group)) > LARGEST_FRAME:
            raise Quarantined(f"a code stream is longer than {LARGEST_FRAME >> 20} MiB, too long to be searched here")
        stream = fragments.whole(group)
        left = _followed(strip, stream)
        changed = changed or left is not stream
        sizes.append(len(left))
    if not changed:
        return pixel_data
    anew = fragments.ItemStream(sizes, lambda index: strip(fragments.whole(groups[index])))
    return BulkElement(_PIXEL_DATA, "OB", b"", b"", True, bulk=anew)


def strip_jpeg(stream: Buffer, *, jpeg_ls: bool = False) -> Buffer:
    """Return a JPEG or JPEG-LS stream without comments and application segments, up to its end marker.

    What decoders take the colour space from stays, in a canonical form: JFIF, Adobe, and JPEG-LS's colour transform. The same
    object comes back where nothing has to go. Raises `Unfollowed`.
    """
    data = bytes(stream)
    if data[:2] != b"\xff\xd8":
        raise Unfollowed
    kept: list[bytes] = [data[:2]]
    position, ended, scans = 2, False, 0
    while position < len(data) - 1 and not ended:
        if data[position] != 0xFF:
            # Bytes between segments: decoders pass over them.
            position = data.find(b"\xff", position)
            if position < 0:
                break
            continue
        marker = data[position + 1]
        if marker in (0xFF, 0x00, _TEM) or 0xD0 <= marker <= 0xD7:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _EOI:
            ended = True
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if length < 2 or end > len(data):
            raise Unfollowed
        segment = data[position:end]
        if marker in _KEPT:
            kept.append(segment)
        elif marker == _SOS:
            match = (_AFTER_LS_SCAN if jpeg_ls else _AFTER_SCAN).search(data, end)
            end = match.start() if match else len(data)
            kept.append(data[position:end])
            scans += 1
        elif 0xE0 <= marker <= 0xEF:
            kept.append(_application(segment, jpeg_ls))
        elif marker != _COM:
            raise Unfollowed
        position = end
    if not scans:
        raise Unfollowed
    return _same(stream, data, b"".join(kept) + b"\xff\xd9")


def strip_jpeg_2000(stream: Buffer) -> Buffer:
    """Return a JPEG 2000 code stream without boxes around it, comments and anything behind its end.

    Comments in tile-part headers keep their length, which others count on, and lose their content. Raises `Unfollowed`.
    """
    data = bytes(stream)
    if data[:4] == b"\0\0\0\x0c":
        data = _code_stream_box(data)
    if data[:2] != b"\xff\x4f":
        raise Unfollowed
    kept: list[bytes] = [data[:2]]
    position = 2
    while (marker := _word(data, position)) != _SOT:
        end = position + 2 + _word(data, position + 2)
        if end > len(data) or end < position + 4:
            raise Unfollowed
        if marker in _MAIN or marker in _MAIN_TOO:
            kept.append(data[position:end])
        elif marker != _J2K_COM:
            raise Unfollowed
        position = end
    while position + 12 <= len(data) and _word(data, position) == _SOT:
        length = int.from_bytes(data[position + 6 : position + 10], "big")
        # ISO/IEC 15444-1 A.4.2: 0 in the last tile-part means up to the end of the code stream.
        end = position + length if length else max(data.rfind(b"\xff\xd9"), position + 12)
        if length and length < 14:
            raise Unfollowed
        part = data[position : min(end, len(data))]
        kept.append(_without_comments(part))
        position = end
    return _same(stream, bytes(stream), b"".join(kept) + b"\xff\xd9")


def strip_rle(stream: Buffer, pixels: int) -> Buffer:
    """Return an RLE frame whose segments end with their last pixel (PS3.5 G.3, G.4, G.5). Raises `Unfollowed`."""
    data = bytes(stream)
    count = int.from_bytes(data[:4], "little")
    if not 1 <= count <= 15 or len(data) < 64 or not pixels:
        raise Unfollowed
    offsets = [*struct.unpack_from(f"<{count}I", data, 4), len(data)]
    if offsets[0] < 64 or sorted(offsets) != offsets:
        raise Unfollowed
    segments = [_run_lengths(data[begin:end], pixels) for begin, end in pairwise(offsets)]
    head, position = [count], 64
    for segment in segments:
        head.append(position)
        position += len(segment)
    return _same(stream, data, struct.pack("<16I", *head, *[0] * (16 - len(head))) + b"".join(segments))


def _stripper(transfer_syntax_uid: str, elements: Sequence[Element]) -> Callable[[Buffer], Buffer] | None:
    if transfer_syntax_uid in _JPEG:
        return strip_jpeg
    if transfer_syntax_uid in _JPEG_LS:
        return lambda stream: strip_jpeg(stream, jpeg_ls=True)
    if transfer_syntax_uid in _JPEG_2000:
        return strip_jpeg_2000
    if transfer_syntax_uid == _RLE:
        pixels = _number(elements, _ROWS) * _number(elements, _COLUMNS)
        return lambda stream: strip_rle(stream, pixels)
    return None


def _same(stream: Buffer, data: bytes, left: bytes) -> Buffer:
    """Return the very stream that came where nothing but its padding is gone."""
    return stream if left in (data, data[:-1] if data[-1:] == b"\0" else data) else left


def _application(segment: bytes, jpeg_ls: bool) -> bytes:
    if segment[1] == 0xE0 and segment[4:9] == b"JFIF\0":
        return _JFIF
    if segment[1] == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16:
        return _ADOBE + segment[15:16]
    if jpeg_ls and segment[1] == 0xE8 and segment[4:8] == b"mrfx" and len(segment) == 9:
        return segment
    return b""


def _code_stream_box(data: bytes) -> bytes:
    """Return the contiguous code stream of a JP2 file (ISO/IEC 15444-1 I.5.4)."""
    position = 0
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        elif length == 0:
            length = len(data) - position
        if length < head:
            break
        if kind == b"jp2c":
            return data[position + head : position + length]
        position += length
    raise Unfollowed


def _without_comments(part: bytes) -> bytes:
    """Blank the comments in a tile-part's header."""
    changed = bytearray(part)
    position = 12
    while (marker := _word(part, position)) != _SOD:
        end = position + 2 + _word(part, position + 2)
        if end > len(part) or end < position + 4 or marker < 0xFF00:
            raise Unfollowed
        if marker == _J2K_COM:
            changed[position + 4 : end] = bytes(end - position - 4)
        position = end
    return bytes(changed)


def _run_lengths(segment: bytes, pixels: int) -> bytes:
    position = made = 0
    tail = b""
    while made < pixels:
        control = segment[position]
        if control < 128:
            wanted = min(control + 1, pixels - made)
            if wanted <= control:
                # The last run says more than there are pixels.
                tail = bytes([wanted - 1]) + segment[position + 1 : position + 1 + wanted]
                break
            position += control + 2
            made += control + 1
        elif control > 128:
            position += 2
            made += 257 - control
        else:
            position += 1
    if position > len(segment):
        raise Unfollowed
    whole = segment[:position] + tail
    return whole + b"\0" * (len(whole) % 2)


def _word(data: bytes, position: int) -> int:
    if position + 2 > len(data):
        raise Unfollowed
    return int.from_bytes(data[position : position + 2], "big")


def _number(elements: Sequence[Element], tag: int) -> int:
    one = find(elements, tag)
    return int.from_bytes(bytes(one.value[:2]), "little") if one is not None and len(one.value) >= 2 else 0


def _frames(elements: Sequence[Element]) -> int:
    one = find(elements, _FRAMES)
    try:
        return max(1, int(bytes(one.value).split(b"\\")[0].strip(b" \0"))) if one is not None else 1
    except ValueError:
        return 1
