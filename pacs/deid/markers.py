"""What an instance says about its de-identification (PS3.15 E.1.1; PS3.3 C.7.1.1, C.7.1.3, C.7.1.3.1, C.12.1.1).

The same input gives the same bytes: no date and time of de-identification is written. Clinical Trial modules come from
configuration alone; what a sender wrote there was taken out.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from pacs.deid.policy import Policy, digest
from pacs.dicom import part10
from pacs.dicom.dictionary import tag_of, vr_of
from pacs.dicom.elements import element, sequence
from pacs.model.errors import ConfigurationError
from pacs.model.instance import Element
from pacs.standard import tables

EQUIPMENT = 0x0018A001
_SUBJECT_ID = 0x00120040
TRIAL_KEYWORDS = (
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialCoordinatingCenterName",
)
"""Attributes of the Clinical Trial Subject and Series modules that configuration fills; the first two are of Type 1."""
_LONGEST = 64


@cache
def of(policy: Policy, methods: tuple[str, ...]) -> tuple[Element, ...]:
    """Return the elements that say that and how an instance was de-identified, and by what."""
    tool = f"mini-pacs {part10.IMPLEMENTATION_VERSION_NAME}\\PS3.15 2026d {policy.name} {digest(policy)}"
    equipment = [
        element(0x00080070, "LO", b"mini-pacs"),
        element(0x00081090, "LO", b"mini-pacs"),
        element(0x00181020, "LO", part10.IMPLEMENTATION_VERSION_NAME.encode("ascii")),
        sequence(0x0040A170, [_code("109104", "De-identifying Equipment")]),
    ]
    meanings = tables.deidentification_methods()
    return (
        element(0x00120062, "CS", b"YES"),
        element(0x00120063, "LO", tool.encode("ascii")),
        sequence(0x00120064, [_code(code, meanings[code]) for code in methods]),
        sequence(EQUIPMENT, [equipment]),
        element(0x00280303, "CS", policy.temporal.encode("ascii")),
    )


def merged(added: Sequence[Element], kept: list[Element]) -> list[Element]:
    """Return the elements to add to what was kept; equipment that contributed before stays named, in front of ours."""
    for place, one in enumerate(kept):
        if one.tag == EQUIPMENT:
            del kept[place]
            before = bytes(one.value)
            return [element(EQUIPMENT, "SQ", before + bytes(ours.value)) if ours.tag == EQUIPMENT else ours for ours in added]
        if one.tag > EQUIPMENT:
            break
    return list(added)


def clinical_trial(values: Mapping[str, str]) -> tuple[Element, ...]:
    """Return the elements of the Clinical Trial modules, none where nothing is configured.

    Raises
    ------
    ConfigurationError
        A value does not fit its VR, or sponsor and protocol (Type 1) are not both given.
    """
    given = {keyword: value for keyword, value in values.items() if value}
    if not given:
        return ()
    for keyword, value in given.items():
        if (
            keyword not in TRIAL_KEYWORDS
            or not value.isascii()
            or not value.isprintable()
            or "\\" in value
            or len(value) > _LONGEST
        ):
            raise ConfigurationError(f"deid: {keyword} must be at most {_LONGEST} ASCII characters without a backslash")
    if not all(keyword in given for keyword in TRIAL_KEYWORDS[:2]):
        raise ConfigurationError("deid: a clinical trial needs both a sponsor name and a protocol ID (PS3.3 C.7.1.3)")
    return tuple(element(tag_of(one), vr_of(tag_of(one)), given.get(one, "").encode("ascii")) for one in TRIAL_KEYWORDS)


def of_subject(trial: Sequence[Element], patient_id: str) -> list[Element]:
    """Return the elements of a trial and, as Clinical Trial Subject ID, the patient's pseudonym."""
    return [*trial, element(_SUBJECT_ID, "LO", patient_id.encode("ascii"))] if trial else []


def _code(value: str, meaning: str) -> list[Element]:
    return [
        element(0x00080100, "SH", value.encode("ascii")),
        element(0x00080102, "SH", b"DCM"),
        element(0x00080104, "LO", meaning.encode("ascii")),
    ]
