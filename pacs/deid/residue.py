"""The last search: after the work, no value may still repeat what identified somebody. A hit keeps the object out.

Independent of the engine: it looks at the encoded values that would be written, not at how they came about. Searched is all
text (in UTF-8, the declared character sets and UTF-16; as it stands, in base64, and with NULs taken out), and all bulk but
pixels and numbers, zlib and deflate streams in it inflated, for name components, initials with surname, identifiers and days
as people write them; everything but bulk for original UIDs; and UID elements for UIDs that are neither DICOM's nor ours.

Not searched are numbers (DS, IS and binary: their VR is checked instead), dates and times (moved by rule, and a child's moved
date may by chance be its day of birth), and code strings made of vocabulary words (a Mr Chest has CHEST examined, and a
patient called "Enter text" content items of type TEXT). Names of fewer than three Latin letters and identifiers of fewer than
four signs are not searched for by themselves: they would be found everywhere.
"""

import binascii
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

from pacs.deid.actions import CODING_SCHEME_DESIGNATOR
from pacs.deid.policy import CLASS_UIDS
from pacs.deid.pseudonym import is_registered
from pacs.deid.text import Identity, in_vocabulary
from pacs.dicom.elements import items
from pacs.model.errors import Quarantined
from pacs.model.instance import Element

_SEARCHED = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
_OPAQUE = frozenset({"OB", "OW", "UN"})
"""Bulk in which text could lie; the others are floating point and long numbers."""
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010, 0x54001010})
_OUR_MARKS = frozenset({0x00120063})
_MOST_REMEMBERED = 4096
_LARGEST_REMEMBERED = 1 << 11
_LARGEST_INFLATED = 1 << 24
_STREAMS = 64
_SHORTEST_HIDDEN = 12
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}={0,2}")
_ZLIB = re.compile(rb"[\x08-\x78][\x01\x5e\x9c\xda]")
_WIDE = ("utf-16-le", "utf-16-be")


class Needles:
    """What to look for, made once for an identity set and the character sets of an object."""

    def __init__(self, identity: Identity, charsets: tuple[str, ...] = ()) -> None:
        words = identity.words | identity.spellings
        self._words = tuple({form for word in words for form in _forms(word)})
        self._codes = tuple({form for code in identity.codes for form in _forms(code)})
        # In a code of several bytes a letter's neighbour cannot be told by its byte: these are looked for anywhere.
        self._anywhere = tuple({form for word in words for form in _coded(word, charsets)})
        self._wide = tuple({word.encode(codec) for word in words | identity.codes for codec in _WIDE if not word.isascii()})
        self._separated = _separated(identity.codes)

    def found_in(self, value: bytes) -> bool:
        """Say whether `value` holds one of the needles as a whole word."""
        low = value.lower()
        for word in self._words:
            if word in low and _whole(low, word, digits=False):
                return True
        for code in self._codes:
            if code in low and _whole(low, code, digits=True):
                return True
        for form in self._anywhere:
            if form in low:
                return True
        return self._separated is not None and self._separated.search(low) is not None

    def hidden_in(self, value: bytes) -> bool:
        """Say whether `value` holds a needle in UTF-16, in base64, or in a stream that can be inflated."""
        return any(self._shown(layer) for layer in _layers(value))

    def _shown(self, value: bytes) -> bool:
        if self.found_in(value):
            return True
        if b"\0" not in value:
            return False
        low = value.lower()
        return self.found_in(value.replace(b"\0", b"")) or any(form.lower() in low for form in self._wide)


def search(
    elements: Sequence[Element], needles: Needles, harmless: set[bytes], uids: Iterable[str], *, foreign_uids: bool = False
) -> None:
    """Search de-identified elements; `harmless` remembers values that were searched for the same needles before.

    Parameters
    ----------
    uids : iterable of str
        Original UIDs, which may stand nowhere.
    foreign_uids : bool
        UIDs were to be kept: those that are not ours are no sign of a fault.

    Raises
    ------
    Quarantined
        A value still repeats a name, an identifier, a date or an original UID.
    """
    _search(elements, needles, harmless, foreign_uids)
    header = b"\0".join([one.value for one in elements if one.vr not in _BULK])
    for uid in uids:
        if uid.encode() in header:
            raise Quarantined("an original UID was left after de-identification")


def _search(elements: Iterable[Element], needles: Needles, harmless: set[bytes], foreign_uids: bool) -> None:
    for one in elements:
        vr = one.vr
        if vr in _SEARCHED:
            value = one.value if isinstance(one.value, bytes) else bytes(one.value)
            if value not in harmless:
                _search_text(one, value, needles)
                _remember(harmless, value)
        elif vr == "UI":
            value = one.value if isinstance(one.value, bytes) else bytes(one.value)
            if not value.startswith(b"2.25.") and value not in harmless:
                if not foreign_uids and one.tag not in CLASS_UIDS and not _known(value):
                    raise Quarantined(f"{_place(one)} holds a UID that is not of this archive after de-identification")
                _remember(harmless, value)
        elif vr == "SQ":
            value = one.value if isinstance(one.value, bytes) else bytes(one.value)
            if value not in harmless:
                for item in items(value):
                    _search(item, needles, harmless, foreign_uids)
                _remember(harmless, value)
        elif vr in _OPAQUE and one.tag not in _PIXELS:
            value = bytes(one.value)
            if value not in harmless:
                if needles.hidden_in(value):
                    raise Quarantined(f"{_place(one)} still holds an identifier after de-identification")
                _remember(harmless, value)


def _search_text(one: Element, value: bytes, needles: Needles) -> None:
    if one.vr == "CS" or one.tag == CODING_SCHEME_DESIGNATOR:
        found = needles.found_in(value) and _doubtful(value, needles)
    else:
        found = needles.found_in(value) or (
            len(value) > _SHORTEST_HIDDEN and one.tag not in _OUR_MARKS and needles.hidden_in(value.rstrip(b"\0 "))
        )
    if found:
        raise Quarantined(f"{_place(one)} still repeats an identifier after de-identification")


def _place(one: Element) -> str:
    return f"({one.tag >> 16:04X},{one.tag & 0xFFFF:04X})"


def _known(value: bytes) -> bool:
    """Say whether every UID of a value is DICOM's own or of this archive."""
    parts = (part.strip("\0 ") for part in value.decode("latin-1").split("\\"))
    return all(not part or part.startswith("2.25.") or is_registered(part) for part in parts)


def _doubtful(code_strings: bytes, needles: Needles) -> bool:
    """Say whether a hit in code strings is more than a word of the vocabulary."""
    return any(needles.found_in(part) and not in_vocabulary(part.decode("latin-1")) for part in code_strings.split(b"\\"))


def _remember(harmless: set[bytes], value: bytes) -> None:
    if len(value) <= _LARGEST_REMEMBERED:
        if len(harmless) >= _MOST_REMEMBERED:
            harmless.clear()
        harmless.add(value)


def _layers(value: bytes) -> Iterator[bytes]:
    """Yield a value, and what lies in it once decoded from base64 or inflated, one deep."""
    yield value
    for packed in (value, *_unbased(value)):
        if packed is not value:
            yield packed
        yield from _inflated(packed)


def _unbased(value: bytes) -> Iterator[bytes]:
    for match in _BASE64.finditer(value):
        run = match[0].translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        # A run may begin before the code does: try each of the four ways in which it can be aligned.
        for start in range(4):
            part = run[start : start + (len(run) - start) // 4 * 4] if start else run + b"=" * (-len(run) % 4)
            try:
                yield binascii.a2b_base64(part)
            except binascii.Error:
                continue


def _inflated(value: bytes) -> Iterator[bytes]:
    """Yield the streams in a value: gzip and zlib wherever their heads stand, raw deflate from its beginning."""
    starts = [(0, -zlib.MAX_WBITS)]
    starts += [(match.start(), zlib.MAX_WBITS) for match in _ZLIB.finditer(value[: 1 << 16])][:_STREAMS]
    at = value.find(b"\x1f\x8b\x08")
    if at >= 0:
        starts.append((at, zlib.MAX_WBITS | 16))
    for start, bits in starts:
        try:
            inflated = zlib.decompressobj(bits).decompress(value[start:], _LARGEST_INFLATED)
        except zlib.error:
            continue
        if inflated:
            yield inflated


def _forms(word: str) -> set[bytes]:
    """Return the bytes by which a word can stand in a value: UTF-8, and Latin-1 where it fits, in both cases."""
    forms = set()
    for form in (word, word.upper(), word.capitalize()):
        forms.add(form.encode("utf-8", "ignore").lower())
        if not form.isascii():
            try:
                forms.add(form.encode("latin-1").lower())
            except UnicodeEncodeError:
                continue
    return forms - {b""}


def _coded(word: str, charsets: tuple[str, ...]) -> set[bytes]:
    """Return the bytes of a word that is not ASCII in the character sets of an object, escape sequences left out."""
    if word.isascii() or len(word) < 2:
        return set()
    found = set()
    for codec in {*charsets, "iso2022_jp", "euc_kr", "gb18030"}:
        for form in (word, word.upper(), word.capitalize()):
            try:
                coded = re.sub(rb"\x1b[$(][()]?[@-Z]", b"", form.encode(codec))
            except UnicodeEncodeError:
                continue
            if len(coded) > 3:
                found.add(coded.lower())
    return found


def _separated(codes: Iterable[str]) -> re.Pattern[bytes] | None:
    """Return the pattern of identifiers that hold a digit with separators between their signs: "2024-02-29", "MRN 77 34"."""
    gap = rb"[\s./_:,-]{0,2}"
    parts = [
        gap.join(re.escape(sign.encode()) for sign in code)
        for code in sorted(codes, key=lambda code: (-len(code), code))
        if code.isascii() and len(code) > 5 and any(map(str.isdigit, code))
    ]
    return re.compile(rb"(?<![0-9a-z])(?:" + b"|".join(parts) + rb")(?![0-9a-z])") if parts else None


def _whole(haystack: bytes, needle: bytes, *, digits: bool) -> bool:
    """Say whether `needle` occurs with no letter (nor digit, for codes) on either side."""
    start = haystack.find(needle)
    while start >= 0:
        end = start + len(needle)
        before, after = haystack[start - 1 : start] if start else b"", haystack[end : end + 1]
        joined = (before.isalnum() or after.isalnum()) if digits else (before.isalpha() or after.isalpha())
        if not joined:
            return True
        start = haystack.find(needle, start + 1)
    return False
