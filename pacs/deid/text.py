"""Text: who is named in it, and what may stay (PS3.15 E.3.5, Clean Descriptors).

`Identity` is what an instance says about people: name components, identifiers, addresses, phone numbers. `scrub` takes echoes
of that and what looks like an address or UID out of any text. `clean` goes further, for free text: it takes dates, phone
numbers and titled names out and then keeps only numbers, units and words of a fixed vocabulary (`vocabulary.txt`: anatomy,
modality and protocol words of PS3.16 and of scanners). A third person whose name is such a word ("Dr Long" without the title)
gets through; that is the price of leaving "LONG AXIS" legible.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise

SHORTEST_NAME = 3
"""Letters of the shortest Latin name component that is searched for; "Li" or "Wu" would be found everywhere."""
SHORTEST_CODE = 4
_SHORTEST_NUMBER = 6

NOT_NAMES = frozenset(
    "removed anonymous anonymized anonymised anonymize anon unknown patient name none null nobody deidentified".split()
)
"""What stands where a name was taken out before; it names nobody."""

# Anchored at the start of a word: without that, megabytes without a space would take quadratic time.
_EMAIL = r"(?<![^\s@,;])[^\s@,;]+@[^\s@,;]+"
_URL = r"\b(?:https?|ftp)://\S+|\bwww\.\S+"
_UID = r"(?<![\d.])[0-2](?:\.\d+){5,}(?![\d.]*\d)"
_MONTH = r"(?:jan|feb|mar|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-z]*"
_DATES = (
    r"(?<!\d)(?:19|20)\d\d(?:[-./ _]?)(?:0[1-9]|1[0-2])(?:[-./ _]?)(?:0[1-9]|[12]\d|3[01])(?!\d)",
    r"(?<!\d)(?:0?[1-9]|[12]\d|3[01])[-./ ](?:0?[1-9]|1[0-2])[-./ ](?:(?:19|20)\d\d|\d\d)(?!\d)",
    r"(?<!\d)(?:0?[1-9]|1[0-2])[-./](?:0?[1-9]|[12]\d|3[01])[-./](?:(?:19|20)\d\d|\d\d)(?!\d)",
    rf"(?<!\d)\d{{1,2}}(?:st|nd|rd|th)?[ .,-]*\b{_MONTH}\b[ .,'-]*(?:(?:19|20)?\d\d\b)?",
    rf"\b{_MONTH}\b[ .]*\d{{1,2}}(?:st|nd|rd|th)?\b(?:[ ,.]*(?:19|20)\d\d)?",
    rf"\b{_MONTH}\b[ .,'-]*(?:19|20)\d\d",
    r"(?<!\d)(?:19|20)\d\d\s*年\s*\d{1,2}\s*月(?:\s*\d{1,2}\s*日)?",
    r"(?<!\d)(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])(?:19|20)\d\d(?!\d)",
)
_PHONES = (
    r"\+\d[\d ()/.-]{6,}\d",
    r"(?<!\d)\(?0\d{1,4}\)?[ /-]\d[\d -]{4,}\d",
    r"(?<!\d)\(?\d{3}\)?[-. ]\d{3,4}[-. ]\d{4}(?!\d)",
)
_TITLES = r"\b(?:dr|prof|professor|doctor|mrs|miss|herr|frau|mme|mlle|monsieur|madame|señora?|mr\.|ms\.)\.?\s+\w[\w'’.-]*"
_SPACED = r"(?<![^\W_])(?:[^\W\d_][\s._-]{1,2}){3,}[^\W\d_](?![^\W_])"
_LONG_NUMBER = r"\d{5,}"

_ANYWHERE = re.compile("|".join((_EMAIL, _URL, _UID)), re.IGNORECASE)
_IN_DESCRIPTORS = re.compile("|".join((_TITLES, *_DATES, *_PHONES, _SPACED, _LONG_NUMBER)), re.IGNORECASE)
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_CODE_LIKE = re.compile(r"[a-z]{1,3}[0-9]{1,3}[a-z]{0,2}\Z")
_QUANTITY = re.compile(r"([0-9]{1,4})([a-zµ%°]+)\Z")
_UNITS = frozenset(
    "mm cm m um µm ms s sec secs min h hr hz khz mhz kv kvp kev mev ma mas mg ml cc gy mgy cgy bq mbq kbq mci t deg d x th st "
    "nd rd i f w fps hu mmol kg g l pct ph y yr yrs wk wks mo mth bit bits ch sl fr b".split()
)
_IDEOGRAPHS = re.compile("[\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f]+")
"""Han, Kana and Hangul: one sign can be a family name."""
_ORPHANS = re.compile(r"(?: ?[,;:=^/_|&+()\[\]{}<>-] ?){2,}")


@dataclass(frozen=True)
class Identity:
    """What would tell who somebody is. Made by `identity`; compared and hashed by its content.

    `words` and `codes` are folded (lower case, no accents); `spellings` are name components with the accents they came with.
    """

    words: frozenset[str] = field(repr=False)
    codes: frozenset[str] = field(repr=False)
    spellings: frozenset[str] = field(default=frozenset(), repr=False)

    def echoes(self, text: str) -> list[tuple[int, int]]:
        """Return where `text` repeats a name or an identifier, whatever its case, accents and separators."""
        pattern = _echo_pattern(self)
        return [match.span() for match in pattern.finditer(fold(text))] if pattern is not None else []


def identity(names: Iterable[str], codes: Iterable[str], dates: Iterable[str] = ()) -> Identity:
    """Return the identity set.

    Parameters
    ----------
    names : iterable of str
        Person names (PN, all component groups).
    codes : iterable of str
        Identifiers, addresses, anything that is looked for as it stands.
    dates : iterable of str
        Days, YYYYMMDD, that are looked for in the ways in which people write them.
    """
    words: set[str] = set()
    spellings: set[str] = set()
    for name in names:
        for group in re.split(r"[=\\]", name.lower()):
            _add_name(group, words, spellings)
    found: set[str] = set()
    for code in codes:
        bare = "".join(char for char in fold(code) if char.isalnum())
        if len(bare) >= SHORTEST_CODE and len(set(bare)) > 1 and bare not in NOT_NAMES:
            found.add(bare)
            # "MRN-7734921" is written "773-4921" as well.
            found.update(re.findall(rf"[0-9]{{{_SHORTEST_NUMBER},}}", bare))
    for day in dates:
        found |= _written(day)
    return Identity(frozenset(words), frozenset(found), frozenset(spellings))


def _add_name(group: str, words: set[str], spellings: set[str]) -> None:
    """Add the components of one group of a name, their parts, and what is written together: "DOEJOHN", "jdoe", "Li J"."""
    whole = []
    for spelled in re.split(r"[\^\s,.]+", group):
        spelled = spelled.strip("-'’()[]\"")
        parts = [part for part in re.split(r"[-'’]+", spelled) if part]
        component = "".join(map(fold, parts))
        if component in NOT_NAMES or not any(char.isalpha() for char in component):
            continue
        whole.append(component)
        for bare, form in ((component, spelled), *((fold(part), part) for part in parts)):
            shortest = SHORTEST_NAME if bare.isascii() else 1 if _IDEOGRAPHS.search(bare) else 2
            if len(bare) >= shortest and bare not in NOT_NAMES:
                words.add(bare)
                if form != bare:
                    spellings.add(form)
    for first, second in pairwise(whole):
        # "DOEJOHN" and "JohnDoe" have no separator to find the parts by; a short name is found with the other one only.
        words.update(both for both in (first + second, second + first) if len(both) >= SHORTEST_NAME)
    family, given = (whole[0], whole[1:]) if whole else ("", [])
    if len(family) > 1:
        for number in range(1, len(given) + 1):
            initials = "".join(one[0] for one in given[:number])
            words.update(both for both in (initials + family, family + initials) if len(both) >= SHORTEST_NAME)


_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()


def _written(day: str) -> set[str]:
    """Return how a day is written, without separators: 20240229, 29022024, 02292024, 29feb2024, feb292024."""
    if not re.fullmatch(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9]", day):
        return set()
    year, month, number = day[:4], day[4:6], day[6:]
    name = _MONTHS[int(month) - 1]
    return {day, number + month + year, month + number + year, number + name + year, name + number + year}


@lru_cache(maxsize=512)
def _echo_pattern(identity: Identity) -> re.Pattern[str] | None:
    gap, small_gap, parts = r"[\W_]*", r"[\W_]{0,2}", []
    for word in sorted(identity.words, key=lambda word: (-len(word), word)):
        spaced = gap.join(map(re.escape, word))
        # Between ideographs there are no spaces: a name of two or more is found within a sentence.
        inside = len(word) > 1 and _IDEOGRAPHS.fullmatch(word)
        parts.append(spaced if inside else rf"(?<![^\W\d_]){spaced}(?![^\W\d_])")
    for code in sorted(identity.codes, key=lambda code: (-len(code), code)):
        parts.append(rf"(?<![^\W_]){small_gap.join(map(re.escape, code))}(?![^\W_])")
    return re.compile("|".join(parts)) if parts else None


def fold(text: str) -> str:
    """Return `text` in lower case and without accents, each character in its place."""
    return text.lower() if text.isascii() else "".join(map(_fold_character, text))


@lru_cache(maxsize=8192)
def _fold_character(character: str) -> str:
    return (unicodedata.normalize("NFKD", character)[0].lower() or character)[0]


def scrub(text: str, identity: Identity) -> str:
    """Return `text` without echoes of `identity`, e-mail addresses, URLs and UIDs; the same string where there are none."""
    plain = _plain(text)
    spans = identity.echoes(plain)
    if "@" in plain or "." in plain or "/" in plain:
        spans += [match.span() for match in _ANYWHERE.finditer(plain)]
    return _without(plain, spans) if spans else text


def clean(text: str, identity: Identity, words: frozenset[str] = frozenset()) -> str:
    """Return what may stay of free text; "" if nothing does, the same string where all of it may.

    `words`, folded, may stay beside those of the vocabulary.

    >>> clean("DOE, John: follow-up", identity(["Doe^John"], []))
    'follow-up'
    >>> clean("AX LUNG 5mm", identity(["Doe^John"], []))
    'AX LUNG 5mm'
    """
    text = scrub(text, identity)
    spans = [match.span() for match in _IN_DESCRIPTORS.finditer(text)]
    kept = _without(text, spans) if spans else text
    dropped = [match.span() for match in _TOKEN.finditer(kept) if not (_allowed(match[0]) or fold(match[0]) in words)]
    dropped += (
        [(place, place + 1) for place, char in enumerate(kept) if not char.isascii() and not char.isalnum()]
        if not kept.isascii()
        else []
    )
    if dropped:
        kept = _without(kept, sorted(dropped))
    if kept != text and not any(char.isalnum() for char in kept):
        return ""
    return kept


def in_vocabulary(text: str, words: frozenset[str] = frozenset()) -> bool:
    """Say whether every word of `text` is in the vocabulary or in `words` (a name that is one cannot be told from it)."""
    return all(word in vocabulary() or word in words for word in words_of(text))


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text, folded, as `clean` takes them apart."""
    return frozenset(fold(token) for token in _TOKEN.findall(text) if not token.isdigit())


@cache
def vocabulary() -> frozenset[str]:
    """The words that descriptors may hold."""
    return frozenset(resources.files(__package__).joinpath("vocabulary.txt").read_text(encoding="ascii").split())


@lru_cache(maxsize=16384)
def _allowed(token: str) -> bool:
    lowered = fold(token)
    if not lowered.isascii():
        return False
    if lowered in vocabulary():
        return True
    if not token.isascii() or len(token) == 1:
        return token.isascii()
    if lowered.isdigit():
        return len(lowered) <= 4
    quantity = _QUANTITY.match(lowered)
    if quantity is not None and (quantity[2] in _UNITS or quantity[2] in vocabulary()):
        return True
    if _CODE_LIKE.match(lowered):
        return True
    parts = _PARTS.findall(token)
    return "".join(parts) == token and len(parts) > 1 and all(_part_allowed(part) for part in parts)


def _part_allowed(part: str) -> bool:
    return (part.isdigit() and len(part) <= 4) or (len(part) > 1 and part.lower() in vocabulary())


def _plain(text: str) -> str:
    """Undo what hides letters: compatibility forms, and format characters of no width."""
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFKC", text)
    return "".join(char for char in normal if unicodedata.category(char) != "Cf")


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """Cut spans out of `text` and tidy the separators that are left over."""
    pieces, position = [], 0
    for start, end in sorted(spans):
        if end > position:
            pieces.append(text[position : max(start, position)])
            position = end
    pieces.append(text[position:])
    joined = re.sub(r"[ \t]+", " ", " ".join(pieces))
    joined = _ORPHANS.sub(" ", joined)
    return joined.strip(" \t\r\n,;:=^/_|&+-.'\"")
