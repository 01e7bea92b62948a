"""The last search: after the work, no value may still repeat what identified somebody. A hit keeps the object out.

Independent of the engine: it looks at the encoded values that would be written, not at how they came about. Searched are all
characters outside Pixel Data (bytes, ASCII case folded) for name components and identifiers as whole words, and everything
but bulk for the original UIDs. Not searched are numbers (DS, IS and binary: their VR is checked instead), dates and times
(moved by rule, and a child's moved date may by chance be its day of birth), and code strings made of vocabulary words (a
Mr Chest has CHEST examined, and a patient called "Enter text" content items of type TEXT). Names of fewer than three Latin
letters (two of other scripts) and identifiers of fewer than four signs are not searched for: they would be found everywhere.
"""

from collections.abc import Iterable, Sequence

from pacs.deid.actions import CODING_SCHEME_DESIGNATOR
from pacs.deid.text import Identity, in_vocabulary
from pacs.dicom.elements import items
from pacs.model.errors import Quarantined
from pacs.model.instance import Element

_SEARCHED = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
_MOST_REMEMBERED = 4096


class Needles:
    """What to look for, made once for an identity set."""

    def __init__(self, identity: Identity) -> None:
        self._words = tuple({form for word in identity.words | identity.spellings for form in _forms(word)})
        self._codes = tuple({form for code in identity.codes for form in _forms(code)})

    def found_in(self, value: bytes) -> bool:
        """Say whether `value` holds one of the needles as a whole word."""
        low = value.lower()
        return any(word in low and _whole(low, word, digits=False) for word in self._words) or any(
            code in low and _whole(low, code, digits=True) for code in self._codes
        )


def search(elements: Sequence[Element], needles: Needles, harmless: set[bytes], uids: Iterable[str]) -> None:
    """Search de-identified elements; `harmless` remembers values that were searched for the same needles before.

    Raises
    ------
    Quarantined
        A value still repeats a name, an identifier or an original UID.
    """
    _search_text(elements, needles, harmless)
    header = b"\0".join([one.value for one in elements if one.vr not in _BULK])
    for uid in uids:
        if uid.encode() in header:
            raise Quarantined("an original UID was left after de-identification")


def _search_text(elements: Iterable[Element], needles: Needles, harmless: set[bytes]) -> None:
    for one in elements:
        vr = one.vr
        if vr in _SEARCHED:
            value = one.value if isinstance(one.value, bytes) else bytes(one.value)
            if value not in harmless:
                coded = vr == "CS" or one.tag == CODING_SCHEME_DESIGNATOR
                if needles.found_in(value) and not (coded and not _doubtful(value, needles)):
                    raise Quarantined(
                        f"({one.tag >> 16:04X},{one.tag & 0xFFFF:04X}) still repeats an identifier after de-identification"
                    )
                _remember(harmless, value)
        elif vr == "SQ":
            value = one.value if isinstance(one.value, bytes) else bytes(one.value)
            if value not in harmless:
                for item in items(value):
                    _search_text(item, needles, harmless)
                _remember(harmless, value)


def _doubtful(code_strings: bytes, needles: Needles) -> bool:
    """Say whether a hit in code strings is more than a word of the vocabulary."""
    return any(needles.found_in(part) and not in_vocabulary(part.decode("latin-1")) for part in code_strings.split(b"\\"))


def _remember(harmless: set[bytes], value: bytes) -> None:
    if len(value) <= 1 << 11:
        if len(harmless) >= _MOST_REMEMBERED:
            harmless.clear()
        harmless.add(value)


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
    return forms


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
