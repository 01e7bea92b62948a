"""Which attribute belongs to which level, and how its values are made comparable. Pure functions.

The level of an attribute follows the information entity of its module (PS3.3 A.1.2 and the module tables of Annex C): Patient;
General Study and Patient Study; General Series, Equipment, Frame of Reference and the modality's Series module; all else
belongs to the instance. Comparison follows PS3.4 C.2.2.2.1: spaces around a value do not count, a Patient's Name ignores case.
"""

import unicodedata
from collections.abc import Mapping

from pacs.model.query import Level

LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)

PATIENT = {
    "PatientID": "LO",
    "IssuerOfPatientID": "LO",
    "PatientName": "PN",
    "PatientBirthDate": "DA",
    "PatientBirthTime": "TM",
    "PatientSex": "CS",
    "OtherPatientIDs": "LO",
    "EthnicGroup": "SH",
    "PatientComments": "LT",
}
STUDY = {
    "StudyInstanceUID": "UI",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "AccessionNumber": "SH",
    "StudyID": "SH",
    "StudyDescription": "LO",
    "ReferringPhysicianName": "PN",
    "PatientAge": "AS",
    "PatientWeight": "DS",
    "PatientSize": "DS",
    "ProcedureCodeSequence": "SQ",
}
SERIES = {
    "SeriesInstanceUID": "UI",
    "Modality": "CS",
    "SeriesNumber": "IS",
    "SeriesDate": "DA",
    "SeriesTime": "TM",
    "SeriesDescription": "LO",
    "BodyPartExamined": "CS",
    "Laterality": "CS",
    "ProtocolName": "LO",
    "PatientPosition": "CS",
    "Manufacturer": "LO",
    "ManufacturerModelName": "LO",
    "StationName": "SH",
    "InstitutionName": "LO",
    "FrameOfReferenceUID": "UI",
    "PerformedProcedureStepStartDate": "DA",
    "PerformedProcedureStepStartTime": "TM",
    "PresentationIntentType": "CS",
    "SeriesType": "CS",
    "Units": "CS",
    "CorrectedImage": "CS",
    "NumberOfSlices": "US",
    "RequestAttributesSequence": "SQ",
    "ReferencedPerformedProcedureStepSequence": "SQ",
}
IMAGE = {
    "SOPInstanceUID": "UI",
    "SOPClassUID": "UI",
    "SpecificCharacterSet": "CS",
    "TimezoneOffsetFromUTC": "SH",
    "InstanceNumber": "IS",
    "ContentDate": "DA",
    "ContentTime": "TM",
    "AcquisitionDate": "DA",
    "AcquisitionTime": "TM",
    "AcquisitionDateTime": "DT",
    "AcquisitionNumber": "IS",
    "ImageType": "CS",
    "ImageComments": "LT",
    "NumberOfFrames": "IS",
    "Rows": "US",
    "Columns": "US",
    "BitsAllocated": "US",
    "BitsStored": "US",
    "SamplesPerPixel": "US",
    "PhotometricInterpretation": "CS",
    "PixelRepresentation": "US",
    "PixelSpacing": "DS",
    "ImagePositionPatient": "DS",
    "ImageOrientationPatient": "DS",
    "SliceThickness": "DS",
    "SpacingBetweenSlices": "DS",
    "SliceLocation": "DS",
    "WindowCenter": "DS",
    "WindowWidth": "DS",
    "RescaleSlope": "DS",
    "RescaleIntercept": "DS",
    "RescaleType": "LO",
    "ConvolutionKernel": "SH",
    "ContrastBolusAgent": "LO",
    "ContentLabel": "CS",
    "ContentDescription": "LO",
    "CompletionFlag": "CS",
    "VerificationFlag": "CS",
    "AnatomicRegionSequence": "SQ",
    "ViewCodeSequence": "SQ",
    "ConceptNameCodeSequence": "SQ",
    "ContentTemplateSequence": "SQ",
}
VR = {**PATIENT, **STUDY, **SERIES, **IMAGE}
_LEVEL = {keyword: level for level, table in zip(LEVELS, (PATIENT, STUDY, SERIES, IMAGE), strict=True) for keyword in table}

SEVERAL = frozenset(
    """
    OtherPatientIDs SpecificCharacterSet ImageType SeriesType CorrectedImage NumberOfSlices PixelSpacing ImagePositionPatient
    ImageOrientationPatient WindowCenter WindowWidth ConvolutionKernel
    """.split()
)
"""Attributes that may have several values: one that matches is enough (PS3.4 C.2.2.2.1)."""

COMPUTED = {
    "NumberOfPatientRelatedStudies": Level.PATIENT,
    "NumberOfPatientRelatedSeries": Level.PATIENT,
    "NumberOfPatientRelatedInstances": Level.PATIENT,
    "ModalitiesInStudy": Level.STUDY,
    "SOPClassesInStudy": Level.STUDY,
    "NumberOfStudyRelatedSeries": Level.STUDY,
    "NumberOfStudyRelatedInstances": Level.STUDY,
    "NumberOfSeriesRelatedInstances": Level.SERIES,
}
"""Keys that are counted or gathered, not stored (PS3.4 C.6.1.1)."""

LONGEST = 256
"""Characters of a value that count when it is compared: more than any VR in a column allows, and less than an index refuses."""
NO_TIME = "000000.000000"
LAST_TIME = "235959.999999"


def level_of(keyword: str) -> Level | None:
    """Return the level a key belongs to, or None for one that the index cannot match or return by itself."""
    return _LEVEL.get(keyword) or COMPUTED.get(keyword)


def split(attributes: Mapping[str, str]) -> dict[Level, dict[str, str]]:
    """Sort the non-empty attributes of an instance into their levels; what is not named above belongs to the instance."""
    levels: dict[Level, dict[str, str]] = {level: {} for level in LEVELS}
    for keyword, value in attributes.items():
        cleaned = clean(value)
        if cleaned:
            levels[_LEVEL.get(keyword, Level.IMAGE)][keyword] = cleaned
            if keyword == "TimezoneOffsetFromUTC":
                # It says how the dates and times of the levels above were written, too (PS3.3 C.12.1).
                levels[Level.STUDY][keyword] = levels[Level.SERIES][keyword] = cleaned
    return levels


def clean(value: str) -> str:
    """Take away what no database stores: NUL, lone surrogates, and spaces around the value."""
    if not value.isascii():
        value = value.encode("utf-8", "replace").decode("utf-8")
    return value.replace("\0", "").strip(" ")


def text_key(value: str) -> str:
    """Return a text value as it is compared: NFC, without spaces around it."""
    return unicodedata.normalize("NFC", value).strip(" \0")[:LONGEST]


def folded(value: str) -> str:
    """Return `text_key` without regard to case.

    >>> folded("Müller ") == folded("MU\u0308LLER")
    True
    """
    return unicodedata.normalize("NFC", text_key(value).casefold())[:LONGEST]


def name_keys(value: str) -> tuple[str, str, str]:
    """Return the alphabetic, ideographic and phonetic group of a PN as they are compared (PS3.5 6.2.1).

    >>> name_keys("Doe^John^^=")
    ('doe^john', '', '')
    """
    groups = [
        "^".join(component.strip(" ") for component in group.split("^")).rstrip("^ ") for group in folded(value).split("=")[:3]
    ]
    first, second, third = (*groups, "", "", "")[:3]
    return first, second, third


def name_words(value: str) -> str:
    """Return the words of a PN without case and accents, each after a space, for fuzzy matching.

    >>> name_words("Dvořák-Smith^Anna")
    ' dvorak smith anna'
    """
    bare = "".join(one for one in unicodedata.normalize("NFKD", value.casefold()) if not unicodedata.combining(one))
    for separator in "^=,-\\":
        bare = bare.replace(separator, " ")
    return "".join(f" {word}" for word in bare.split())


def date_key(value: str) -> str:
    """Return a DA as YYYYMMDD; "1993.08.22" was once allowed (PS3.5 Table 6.2-1)."""
    return value.strip(" \0").replace(".", "")[:LONGEST]


def time_key(value: str) -> str:
    """Return a TM at full precision, HHMMSS.FFFFFF; what is not said is zero.

    >>> time_key("1030")
    '103000.000000'
    """
    value = value.strip(" \0").replace(":", "")[:LONGEST]
    return value + NO_TIME[len(value) :] if value else ""


def number_key(value: str) -> int | None:
    """Return an IS as a number, or None where it is none that PS3.5 Table 6.2-1 allows."""
    try:
        number = int(value.split("\\")[0])
    except ValueError:
        return None
    return number if -(2**31) <= number < 2**31 else None


def columns_of(level: Level, attributes: Mapping[str, str]) -> dict[str, str | int | None]:
    """Return the comparable columns of a level's table for these attributes."""
    get = attributes.get
    if level is Level.PATIENT:
        first, second, third = name_keys(get("PatientName", ""))
        return {
            "patient_id_folded": folded(get("PatientID", "")),
            "name_key": first,
            "name_key2": second,
            "name_key3": third,
            "name_words": name_words(get("PatientName", "")),
            "birth_date": date_key(get("PatientBirthDate", "")),
            "sex": text_key(get("PatientSex", "")),
        }
    if level is Level.STUDY:
        first, second, third = name_keys(get("ReferringPhysicianName", ""))
        return {
            "study_date": date_key(get("StudyDate", "")),
            "study_time": time_key(get("StudyTime", "")),
            "accession_number": text_key(get("AccessionNumber", "")),
            "study_id": text_key(get("StudyID", "")),
            "description": text_key(get("StudyDescription", "")),
            "description_folded": folded(get("StudyDescription", "")),
            "referring_key": first,
            "referring_key2": second,
            "referring_key3": third,
            "referring_words": name_words(get("ReferringPhysicianName", "")),
        }
    if level is Level.SERIES:
        return {
            "modality": text_key(get("Modality", "")),
            "series_number": number_key(get("SeriesNumber", "")),
            "series_date": date_key(get("SeriesDate", "")),
            "series_time": time_key(get("SeriesTime", "")),
            "description": text_key(get("SeriesDescription", "")),
            "body_part": text_key(get("BodyPartExamined", "")),
        }
    return {"instance_number": number_key(get("InstanceNumber", ""))}
