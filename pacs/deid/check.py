"""How much identity a file may still hold: any file, wherever it was de-identified, judged by the tables of a policy.

What the policy would still take away or change is a finding. What cannot be judged from outside is not: UIDs and dates of a
file that says it was de-identified (0012,0062), because new ones look like old ones; and pseudonyms and dummies of this
archive. Pixels at risk of burned-in text are looked at where `look` can; only of those whose header says both that they were
cleaned (113101 in (0012,0064)) and that they show no text (0028,0301) the word is taken. Findings name kinds and elements,
never values.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pacs.deid.explain import ADDED, KEPT, REMOVED, Explanation, Line, explain
from pacs.deid.policy import METHODS
from pacs.deid.profile import Deidentifier
from pacs.deid.pseudonym import is_registered
from pacs.dicom import part10
from pacs.dicom.elements import find, items, read
from pacs.dicom.values import text
from pacs.model.instance import Buffer, Element, Origin, Received

_PSEUDONYM = re.compile(r"(MP-[A-Z2-9]{13}|A[A-Z2-9]{13}|REMOVED)?\Z")
_MARKERS = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280301, 0x00280302, 0x00280303})
_NAMES = frozenset({"PN"})
_TEXT = frozenset({"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
_PATIENT = frozenset({"PatientID", "PatientName", "AccessionNumber"})
_DATES = frozenset({"DA", "DT", "TM"})
_TELLING = (
    (0x0016, "source AE title"), (0x0017, "sending AE title"), (0x0018, "receiving AE title"), (0x0102, "private information"),
)  # fmt: skip
"""Elements of File Meta Information that tell where a file has been."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One doubt: its kind, and where it lies ("" for the file as a whole)."""

    kind: str
    where: str
    why: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be said of one file."""

    findings: tuple[Finding, ...] = field(default=())

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind."""
        found: dict[str, int] = {}
        for one in self.findings:
            found[one.kind] = found.get(one.kind, 0) + 1
        return found


Look = Callable[[Sequence[Element], str], str]
"""Given the elements and the transfer syntax, says what speaks against the pixels; "" where no text was found in them."""


def check(deidentifier: Deidentifier, file: Buffer, *, look: Look | None = None, believe: bool = True) -> Judgement:
    """Judge one Part 10 file. Raises `NotUnderstood` if it is no DICOM, or cannot be parsed to its end.

    Parameters
    ----------
    look : callable, optional
        Searches pixels at risk for text; without it they are a finding, unless their header says that they were searched.
    believe : bool
        Take such a header's word; else its pixels are searched, too.
    """
    parts = part10.split(file)
    received = Received(parts.data_set, parts.transfer_syntax_uid, Origin.IMPORT, "check")
    found = explain(deidentifier, received)
    by_tag = {line.tag: line for line in found.lines if not line.path}
    marked = by_tag.get(0x00120062, _NOTHING).before.strip() == "YES"
    findings = list(_container(bytes(file[:132]), bytes(file[132:4096])))
    if not marked:
        findings.append(Finding("not marked", "(0012,0062)", "Patient Identity Removed is not YES"))
    findings += _whole(found, read(parts.data_set, parts.transfer_syntax_uid), parts.transfer_syntax_uid, look, believe)
    for line in found.lines:
        kind = _kind(line, marked)
        if kind:
            findings.append(Finding(kind, f"{line.path}{line.name} {line.keyword}".rstrip(), line.why))
    return Judgement(tuple(findings))


_NOTHING = Line("", 0, "", "", "", "", "")


def _kind(line: Line, marked: bool) -> str:
    """Return what kind of finding a line is, "" for none."""
    if line.fate in (KEPT, ADDED) or (not line.before and line.vr != "SQ"):
        return ""
    if marked and (line.tag in _MARKERS or line.tag >> 16 == 0x0012):
        return ""
    if line.tag & 0xFFFF == 0:
        return ""
    if line.tag >> 16 & 1:
        return "private"
    if line.keyword in _PATIENT or line.vr in _NAMES:
        return "" if _PSEUDONYM.match(line.before.rstrip("^ ")) else "identity"
    if line.fate == REMOVED:
        return "element"
    if line.vr == "UI":
        replaced = any(uid and not is_registered(uid) for uid in line.before.split("\\"))
        return "uid" if replaced and not marked else ""
    if line.vr in _DATES:
        return "date" if not marked or line.keyword == "PatientBirthDate" else ""
    return "text" if line.vr in _TEXT else "element"


def _whole(
    found: Explanation, elements: Sequence[Element], transfer_syntax_uid: str, look: Look | None, believe: bool
) -> list[Finding]:
    """Return what speaks against the object as a whole: what the engine would not let in, and pixels that show text."""
    if found.outcome == "quarantined":
        return [Finding("object", "", found.reason)]
    if "pixels" not in found.pending or (believe and _says_searched(elements)):
        return []
    reason = "they may show text, and nothing says that they do not" if look is None else look(elements, transfer_syntax_uid)
    return [Finding("pixels", "(7FE0,0010) PixelData", reason)] if reason else []


def _says_searched(elements: Sequence[Element]) -> bool:
    """Tell whether the header claims Clean Pixel Data, and that no text is left (PS3.15 E.3.1)."""
    burned_in, methods = find(elements, 0x00280301), find(elements, 0x00120064)
    if burned_in is None or text(burned_in) != ["NO"] or methods is None or methods.vr != "SQ":
        return False
    codes = (find(item, 0x00080100) for item in items(methods.value))
    return any(code is not None and text(code) == [METHODS["clean_pixel_data"]] for code in codes)


def _container(preamble: bytes, meta: bytes) -> list[Finding]:
    found = []
    if preamble[128:132] == b"DICM":
        if any(preamble[:128]):
            found.append(Finding("container", "preamble", "the 128 bytes before DICM are not zero"))
        for number, name in _TELLING:
            if b"\x02\x00" + number.to_bytes(2, "little") in meta[:1024]:
                found.append(Finding("container", f"(0002,{number:04X})", f"File Meta Information has a {name}"))
    return found
