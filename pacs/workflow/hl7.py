"""Orders as HL7 v2 messages in files: ORM^O01 (2.3 to 2.5) and OMI^O23 (2.5), as IHE RAD-4 maps them to the worklist; pure.

IHE Radiology Technical Framework vol. 2, 4.4.4.1 and its Appendix B (HL7 order mapping). Only what a worklist item holds is
read. Not here: a network listener (MLLP); an interface engine writes files, or calls `pacs worklist import`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pacs.model.errors import NotUnderstood

NEW_OR_CHANGED = frozenset({"NW", "XO", "SC", "PA", "RO", "RP", "XX", "SN", "OK", ""})
WITHDRAWN = frozenset({"CA", "DC", "OC", "OD", "CR", "DR"})
"""Order Control (HL7 table 0119)."""
_TYPES = (("ORM", "O01"), ("OMI", "O23"))
_CODECS = {"UNICODE UTF-8": "utf-8", "UTF-8": "utf-8", "ASCII": "latin-1", "GB 18030-2000": "gb18030", "UNICODE": "utf-16"}
_SEXES = {"M": "M", "F": "F", "O": "O", "A": "O"}
_PRIORITIES = {"S": "STAT", "A": "HIGH", "T": "HIGH", "R": "ROUTINE", "P": "MEDIUM"}


@dataclass(frozen=True, slots=True)
class Order:
    """One order: what is to be done with it (`HL7 table 0119`), and its attributes by keyword, the step's flat."""

    control: str
    attributes: dict[str, Any]

    @property
    def withdrawn(self) -> bool:
        """Whether the order takes back what was scheduled."""
        return self.control in WITHDRAWN


@dataclass(frozen=True, slots=True)
class _Delimiters:
    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str


class _Segment:
    """One segment; fields and components count from 1, as HL7 does."""

    def __init__(self, line: str, delimiters: _Delimiters) -> None:
        self._fields = line.split(delimiters.field)
        self._by = delimiters
        self.name = self._fields[0]

    def get(self, field: int, component: int = 1) -> str:
        """Return a component of the first repetition of a field, unescaped; "" where it is not there."""
        # In MSH the field separator itself counts as field 1 (HL7 2.5, 2.15.9.1).
        place = field - 1 if self.name == "MSH" else field
        said = self._fields[place].split(self._by.repetition)[0] if place < len(self._fields) else ""
        parts = said.split(self._by.component)
        bare = parts[component - 1].split(self._by.subcomponent)[0] if component <= len(parts) else ""
        bare = "" if bare == '""' else bare
        return self._unescaped(bare).strip()

    def _unescaped(self, text: str) -> str:
        by, escape = self._by, re.escape(self._by.escape)
        known = {"F": by.field, "S": by.component, "T": by.subcomponent, "R": by.repetition, "E": by.escape, ".br": " "}
        return re.sub(f"{escape}([^{escape}]*){escape}", lambda found: known.get(found[1], ""), text)


def orders(content: bytes) -> list[Order]:
    """Return the orders of a file of one or more messages. Raises `NotUnderstood` for anything but ORM^O01 and OMI^O23."""
    found = [order for message in _messages(content) for order in _orders(message)]
    if not found:
        raise NotUnderstood("the file holds no HL7 order (ORM^O01 or OMI^O23)")
    return found


def _messages(content: bytes) -> Iterator[list[_Segment]]:
    # MLLP's frame (vertical tab, file separator) is left in files by some engines.
    content = content.replace(b"\x0b", b"").replace(b"\x1c", b"").removeprefix(b"\xef\xbb\xbf")
    for part in re.split(rb"[\r\n]+(?=MSH)", content.strip()):
        start = part.find(b"MSH")
        if start < 0 or len(part) < start + 9:
            continue
        text = _decoded(part[start:])
        by = _Delimiters(
            text[3], text[4], text[5], text[6] if text[6] != text[3] else "\\", text[7] if text[7] != text[3] else "&"
        )
        yield [_Segment(line, by) for line in re.split(r"[\r\n]+", text) if line]


def _decoded(message: bytes) -> str:
    """Decode a message by its MSH-18; without it UTF-8 if it is that, else Latin-1."""
    head = re.split(rb"[\r\n]", message, maxsplit=1)[0].decode("latin-1")
    said = _Segment(head, _Delimiters(head[3], head[4], head[5], head[6], head[7])).get(18).upper()
    western = re.fullmatch(r"8859/(\d{1,2})", said)
    codec = f"iso8859-{western[1]}" if western else _CODECS.get(said, "")
    for one in (codec, "utf-8", "latin-1"):
        try:
            return message.decode(one) if one else message.decode("utf-8")
        except (UnicodeDecodeError, LookupError):
            continue
    raise AssertionError("Latin-1 decodes every byte")


def _orders(message: list[_Segment]) -> Iterator[Order]:
    head = message[0]
    if (head.get(9, 1), head.get(9, 2)) not in _TYPES:
        raise NotUnderstood(f"an HL7 message of type {head.get(9, 1)[:3]}^{head.get(9, 2)[:3]} is no order for the worklist")
    patient = _patient(message)
    groups: list[list[_Segment]] = []
    for segment in message:
        if segment.name == "ORC":
            groups.append([])
        if groups:
            groups[-1].append(segment)
    for group in groups:
        yield from _of_group(group, patient, _all(message, "ZDS"))


def _of_group(group: list[_Segment], patient: dict[str, Any], study: list[_Segment]) -> Iterator[Order]:
    order, requests = group[0], _all(group, "OBR")
    steps: list[_Segment | None] = [*_all(group, "IPC")] or [None]
    timing = next(iter(_all(group, "TQ1")), None)
    for request in requests:
        for step in steps:
            found = {**patient, **_requested(order, request), **_step(order, request, timing)}
            if step is not None:
                found |= {keyword: said for keyword, said in _imaging(step).items() if said}
            elif study:
                found["StudyInstanceUID"] = study[0].get(1)
            yield Order(order.get(1), {keyword: said for keyword, said in found.items() if said})


def _patient(message: list[_Segment]) -> dict[str, Any]:
    pid = next(iter(_all(message, "PID")), None)
    if pid is None:
        raise NotUnderstood("an HL7 order without a PID segment")
    found: dict[str, Any] = {
        "PatientID": pid.get(3),
        "IssuerOfPatientID": pid.get(3, 4),
        "PatientName": _name(pid, 5, 1),
        "PatientBirthDate": pid.get(7)[:8] if re.match(r"\d{8}", pid.get(7)) else "",
        "PatientSex": _SEXES.get(pid.get(8).upper(), ""),
    }
    for visit in _all(message, "PV1"):
        found |= {
            "CurrentPatientLocation": " ".join(part for part in (visit.get(3, one) for one in (1, 2, 3)) if part),
            "ReferringPhysicianName": _name(visit, 8, 2),
            "AdmissionID": visit.get(19),
        }
    allergies = [one.get(3, 2) or one.get(3) for one in _all(message, "AL1")]
    found["Allergies"] = ", ".join(one for one in allergies if one)[:64]
    return found


def _requested(order: _Segment, request: _Segment) -> dict[str, Any]:
    described = request.get(44, 2) or request.get(4, 2) or request.get(4, 1)
    found: dict[str, Any] = {
        "AccessionNumber": request.get(18) or order.get(3) or request.get(3),
        "RequestedProcedureID": request.get(19) or order.get(2) or request.get(2),
        "RequestedProcedureDescription": described,
        "RequestingPhysician": _name(request, 16, 2) or _name(order, 12, 2),
        "PlacerOrderNumberImagingServiceRequest": order.get(2) or request.get(2),
        "FillerOrderNumberImagingServiceRequest": order.get(3) or request.get(3),
        "MedicalAlerts": request.get(12, 2)[:64],
        "ReasonForTheRequestedProcedure": request.get(31, 2) or request.get(31),
        "RequestedProcedurePriority": _PRIORITIES.get(
            (order.get(7, 6) or request.get(27, 6) or request.get(5)).upper()[:1], ""
        ),
        "PatientTransportArrangements": request.get(30),
    }
    code = next((place for place in (44, 4) if request.get(place, 1) and request.get(place, 3)), 0)
    if code:
        found["RequestedProcedureCodeSequence"] = [_code(request, code, 1)]
    return found


def _step(order: _Segment, request: _Segment, timing: _Segment | None) -> dict[str, Any]:
    starts = (timing.get(7) if timing else "", order.get(7, 4), request.get(27, 4), request.get(36), request.get(6))
    start = next((re.sub(r"[+-]\d{4}$", "", one) for one in starts if one), "")
    found: dict[str, Any] = {
        "ScheduledProcedureStepStartDate": start[:8],
        "ScheduledProcedureStepStartTime": start[8:14],
        "Modality": request.get(24) if re.fullmatch(r"[A-Z]{2,16}", request.get(24)) else "",
        "ScheduledProcedureStepID": request.get(20),
        "ScheduledProcedureStepDescription": request.get(4, 5) or request.get(4, 2),
        "ScheduledStationAETitle": request.get(21) if re.fullmatch(r"[!-\[\]-~]{1,16}", request.get(21)) else "",
        "ScheduledPerformingPhysicianName": _name(request, 34, 2),
    }
    if request.get(4, 4) and request.get(4, 6):
        found["ScheduledProtocolCodeSequence"] = [_code(request, 4, 4)]
    return found


def _imaging(step: _Segment) -> dict[str, Any]:
    """Read IPC, which OMI has in place of the fields that ORM borrows (HL7 2.5.1, 4.5.6)."""
    found: dict[str, Any] = {
        "AccessionNumber": step.get(1),
        "RequestedProcedureID": step.get(2),
        "StudyInstanceUID": step.get(3),
        "ScheduledProcedureStepID": step.get(4),
        "Modality": step.get(5),
        "ScheduledProcedureStepDescription": step.get(6, 2),
        "ScheduledStationName": step.get(7),
        "ScheduledProcedureStepLocation": step.get(8),
        "ScheduledStationAETitle": step.get(9),
    }
    if step.get(6, 1) and step.get(6, 3):
        found["ScheduledProtocolCodeSequence"] = [_code(step, 6, 1)]
    return found


def _code(segment: _Segment, field: int, first: int) -> dict[str, str]:
    value, meaning, scheme = (segment.get(field, first + place) for place in range(3))
    return {
        "CodeValue" if len(value) <= 16 else "LongCodeValue": value,
        "CodingSchemeDesignator": scheme[:16],
        "CodeMeaning": (meaning or value)[:64],
    }


def _name(segment: _Segment, field: int, first: int) -> str:
    """Return XPN or XCN as PN: HL7 says suffix before prefix, DICOM after it (PS3.5 6.2.1)."""
    family, given, middle, suffix, prefix = (segment.get(field, first + place) for place in range(5))
    return "^".join((family, given, middle, prefix, suffix)).rstrip("^").replace("=", " ")


def _all(segments: list[_Segment], name: str) -> list[_Segment]:
    return [one for one in segments if one.name == name]
