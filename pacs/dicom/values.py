"""Values of encoded elements as text, with the character sets of PS3.5 section 6.1.2 and C.12.1.1.2 of PS3.3.

Decoding never fails: bytes that a character set does not have become U+FFFD, because a query answer with one odd letter is
better than none. What must be exact works on bytes.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache

from pacs.dicom import elements as elements_of
from pacs.dicom import nested
from pacs.dicom.dictionary import keyword_of, tag_of
from pacs.dicom.elements import BINARY_VRS
from pacs.model.errors import NotUnderstood
from pacs.model.instance import Element

SPECIFIC_CHARACTER_SET = 0x00080005
UNSPLIT_VRS = frozenset({"ST", "LT", "UT", "UR"})
"""Text in which a backslash is a letter (PS3.5 6.2)."""
CHARSET_VRS = frozenset({"SH", "LO", "ST", "LT", "UC", "UT", "PN"})
"""VRs that Specific Character Set governs (PS3.5 6.1.2.3)."""

DEFAULT_CHARSETS: tuple[str, ...] = ("iso8859-1",)

INDEXED: tuple[str, ...] = tuple(
    """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID PatientName PatientID IssuerOfPatientID PatientBirthDate
    PatientSex PatientAge PatientWeight PatientSize OtherPatientIDs EthnicGroup StudyDate StudyTime AccessionNumber StudyID
    StudyDescription ReferringPhysicianName TimezoneOffsetFromUTC SeriesDate SeriesTime Modality SeriesNumber
    SeriesDescription BodyPartExamined Laterality ProtocolName Manufacturer ManufacturerModelName StationName
    InstitutionName FrameOfReferenceUID PerformedProcedureStepStartDate PerformedProcedureStepStartTime
    PresentationIntentType InstanceNumber ContentDate ContentTime AcquisitionDate AcquisitionTime AcquisitionNumber ImageType
    NumberOfFrames Rows Columns BitsAllocated BitsStored SamplesPerPixel PhotometricInterpretation PixelRepresentation
    PixelSpacing ImagePositionPatient ImageOrientationPatient SliceThickness SpacingBetweenSlices SliceLocation WindowCenter
    WindowWidth RescaleSlope RescaleIntercept ConvolutionKernel ContrastBolusAgent CorrectedImage Units SpecificCharacterSet
    SeriesType NumberOfSlices ProcedureCodeSequence RequestAttributesSequence ReferencedPerformedProcedureStepSequence
    AnatomicRegionSequence ViewCodeSequence ConceptNameCodeSequence ContentTemplateSequence
    """.split()
)
"""Keywords of what the index keeps: the keys of PS3.4 C.6 and PS3.18 Table 10.6.3-3, and what rules and rendering need."""

_SINGLE_BYTE = {
    "": "iso8859-1", "6": "iso8859-1", "100": "iso8859-1", "101": "iso8859-2", "109": "iso8859-3", "110": "iso8859-4",
    "144": "iso8859-5", "127": "iso8859-6", "126": "iso8859-7", "138": "iso8859-8", "148": "iso8859-9", "203": "iso8859-15",
    "13": "shift_jis", "166": "iso8859-11",
}  # fmt: skip
_ESCAPES: tuple[tuple[bytes, str], ...] = (
    (b"\x1b(B", "iso8859-1"), (b"\x1b(J", "shift_jis"), (b"\x1b)I", "shift_jis"), (b"\x1b-A", "iso8859-1"),
    (b"\x1b-B", "iso8859-2"), (b"\x1b-C", "iso8859-3"), (b"\x1b-D", "iso8859-4"), (b"\x1b-F", "iso8859-7"),
    (b"\x1b-G", "iso8859-6"), (b"\x1b-H", "iso8859-8"), (b"\x1b-L", "iso8859-5"), (b"\x1b-M", "iso8859-9"),
    (b"\x1b-b", "iso8859-15"), (b"\x1b-T", "iso8859-11"), (b"\x1b$B", "iso2022_jp"), (b"\x1b$(D", "iso2022_jp_2"),
    (b"\x1b$)C", "euc_kr"), (b"\x1b$)A", "gb2312"),
)  # fmt: skip
"""Escape sequences of PS3.3 Tables C.12-3 and C.12-4."""

_NUMBERS: dict[str, str] = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_HIDDEN = frozenset({"SQ", "UN", "OB", "OD", "OF", "OL", "OV", "OW"})


def charset(elements: Iterable[Element]) -> tuple[str, ...]:
    """Return the Python codecs of Specific Character Set (0008,0005), the first one for text before any escape."""
    for one in elements:
        if one.tag == SPECIFIC_CHARACTER_SET:
            return charsets_of(bytes(one.value))
        if one.tag > SPECIFIC_CHARACTER_SET:
            break
    return DEFAULT_CHARSETS


@lru_cache(maxsize=256)
def charsets_of(value: bytes) -> tuple[str, ...]:
    """Return the Python codecs of a value of Specific Character Set; an unknown term reads as Latin-1."""
    codecs = []
    for term in value.decode("ascii", "replace").rstrip("\0 ").split("\\"):
        term = term.strip().upper().replace("-", "_")
        if term in ("ISO_IR 192", "ISO IR 192", "UTF_8", "UTF8"):
            codecs.append("utf-8")
        elif term in ("GB18030", "GBK"):
            codecs.append("gb18030")
        else:
            codecs.append(_SINGLE_BYTE.get(term.rpartition(" ")[2], "iso8859-1"))
    return tuple(codecs) or DEFAULT_CHARSETS


def decode(value: bytes, charsets: tuple[str, ...] = DEFAULT_CHARSETS) -> str:
    """Decode bytes; undeclared UTF-8 is recognised, since so many senders leave Specific Character Set out."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if b"\x1b" in value and charsets[0] not in ("utf-8", "gb18030"):
        return _decode_escaped(value, charsets[0])
    if charsets == DEFAULT_CHARSETS:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return value.decode(charsets[0], "replace")


def text(element: Element, charsets: tuple[str, ...] = DEFAULT_CHARSETS) -> list[str]:
    """Return the values of a text element, padding stripped; an empty element has none."""
    raw = bytes(element.value)
    decoded = decode(raw, charsets) if element.vr in CHARSET_VRS else raw.decode("utf-8", "replace")
    stripped = decoded.rstrip("\0 ")
    if not stripped:
        return []
    if element.vr in UNSPLIT_VRS:
        return [stripped]
    return [value.strip("\0 ") for value in stripped.split("\\")]


def numbers(element: Element) -> list[int | float]:
    """Return the values of a binary number element (US, SS, UL, SL, SV, UV, FL, FD)."""
    code = _NUMBERS[element.vr]
    size = struct.calcsize(code)
    count = len(element.value) // size
    return list(struct.unpack_from(f"<{count}{code}", element.value))


def tags(element: Element) -> list[int]:
    """Return the values of an AT element."""
    pairs = struct.unpack_from(f"<{len(element.value) // 4 * 2}H", element.value)
    return [group << 16 | number for group, number in zip(pairs[::2], pairs[1::2], strict=True)]


def strings(element: Element, charsets: tuple[str, ...] = DEFAULT_CHARSETS) -> list[str]:
    """Return the values of any element but SQ, UN and bulk binary as strings."""
    if element.vr in _NUMBERS:
        return [repr(value) for value in numbers(element)]
    if element.vr == "AT":
        return [f"{tag:08X}" for tag in tags(element)]
    return text(element, charsets)


def attributes(elements: Iterable[Element], keywords: Iterable[str] | None = None) -> dict[str, str]:
    """Return keyword -> value of top-level elements, several values joined by a backslash; bulk binary left out.

    Parameters
    ----------
    keywords : iterable of str, optional
        Only these, a sequence as the text of its items (`pacs.dicom.nested`); without it every element that has a keyword and
        is no sequence.
    """
    wanted = None if keywords is None else _wanted(tuple(keywords))
    charsets = DEFAULT_CHARSETS
    found: dict[str, str] = {}
    for one in elements:
        if one.tag == SPECIFIC_CHARACTER_SET:
            charsets = charsets_of(bytes(one.value))
        keyword = keyword_of(one.tag) if wanted is None else wanted.get(one.tag, "")
        if keyword and one.vr not in _HIDDEN:
            found[keyword] = "\\".join(strings(one, charsets))
        elif keyword and one.vr == "SQ" and wanted is not None:
            found[keyword] = nested.as_text(_items(one, charsets, 0))
    return found


def _items(sequence: Element, charsets: tuple[str, ...], depth: int) -> nested.Items:
    """Return the items of a sequence that is small and well-formed, with what is short enough to be looked for."""
    if len(sequence.value) > nested.LONGEST_BYTES or depth > nested.DEEPEST:
        return []
    try:
        items = elements_of.items(sequence.value)
    except NotUnderstood:
        return []
    found: nested.Items = []
    for item in items:
        row: nested.Item = {}
        for one in item:
            keyword = keyword_of(one.tag)
            if keyword and one.vr == "SQ":
                row[keyword] = _items(one, charsets, depth + 1)
            elif keyword and one.vr not in _HIDDEN:
                row[keyword] = "\\".join(strings(one, charsets))
        found.append(row)
    return found


_wanted_cache: dict[tuple[str, ...], dict[int, str]] = {}


def _wanted(keywords: tuple[str, ...]) -> dict[int, str]:
    known = _wanted_cache.get(keywords)
    if known is None:
        known = {tag_of(keyword): keyword for keyword in keywords}
        if len(_wanted_cache) < 64:
            _wanted_cache[keywords] = known
    return known


def _decode_escaped(value: bytes, first: str) -> str:
    """Decode text with code extensions; after a delimiter the first character set is in force again (PS3.5 6.1.2.5.3)."""
    parts: list[str] = []
    codec, escape, run = first, b"", bytearray()

    def flush() -> None:
        if run:
            # The Japanese 94x94 codecs of Python want their escape sequence back, and the way out of it.
            dressed = escape + bytes(run) if codec.startswith("iso2022") else bytes(run)
            parts.append(dressed.decode(codec, "replace"))
            run.clear()

    position = 0
    while position < len(value):
        byte = value[position]
        if byte == 0x1B:
            flush()
            known = next((row for row in _ESCAPES if value.startswith(row[0], position)), None)
            if known is None:
                parts.append("\N{REPLACEMENT CHARACTER}")
                position += 1
                continue
            escape, codec = known
            position += len(escape)
            continue
        # Within the two-byte codes of ISO-IR 87 and 159 a backslash, "^" or "=" is half a letter.
        if byte in b"\r\n\f\t" or (byte in b"\\^=" and not codec.startswith("iso2022")):
            flush()
            parts.append(chr(byte))
            codec = first
        else:
            run.append(byte)
        position += 1
    flush()
    return "".join(parts)


def is_text(element: Element) -> bool:
    """Say whether the element's value is characters."""
    return element.vr not in BINARY_VRS and element.vr != "SQ"
