"""What all derived objects have in common: UIDs, dates, references, provenance, and what is taken over from the source.

UIDs come from the job's key and dates from the source, never from a clock or a random number, so that running again is
harmless (PS3.5 B.2 for UIDs under 2.25). Patient, study and clinical trial modules and the marks of de-identification are the
source's; provenance follows PS3.3 C.7.6.1.1.3 (derivation), C.7.6.16.2.6 and C.12.1.1.5 (contributing equipment).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import highdicom as hd
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from pacs.deid.actions import REMOVED
from pacs.dicom.uids import uid_of
from pacs.processing import standard
from pacs.processing.concepts import Code
from pacs.processing.enhanced import Frame, stored_as
from pacs.processing.series import Geometry

MANUFACTURER = "mini-pacs"
NOTICE = "Research use, not for diagnosis"
UNKNOWN_DATE = "19000101"
"""Stands where Content Date is required and de-identification has removed every date of the source."""

SHARED_MODULES = ("patient", "clinical-trial-subject", "general-study", "patient-study", "clinical-trial-study")
SHARED_ATTRIBUTES = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)
IMAGE_ATTRIBUTES = ("BodyPartExamined", "Laterality", "ImageLaterality", "PatientPosition", "BurnedInAnnotation")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which job made it: the key that everything deterministic comes from, and what goes into the headers."""

    job_key: str
    processor: str
    version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def uid(self, *parts: str | int) -> str:
        """Return the UID of a part of this job's result: always the same one."""
        return uid_of(hashlib.sha256("|".join(map(str, (self.job_key, *parts))).encode()).digest())

    @property
    def parameters_json(self) -> str:
        """The parameters, canonical."""
        return json.dumps(dict(self.parameters), sort_keys=True, separators=(",", ":"))

    @property
    def description(self) -> str:
        """Derivation Description (0008,2111)."""
        return f"{self.processor} {self.version} {self.parameters_json}"[:1000]


@dataclass(frozen=True, slots=True)
class Made:
    """An object ready to be validated: what was meant to be in its pixels, and the header it grew from."""

    dataset: Dataset
    pixels: NDArray[Any] | None = None
    source: Dataset | None = None


def put(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set an attribute by a new element, so that elements shared with a source are never changed."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    dataset.add_new(tag, dictionary_VR(tag), value)


def code_item(code: Code) -> hd.sr.CodedConcept:
    """A coded concept as a sequence item, which is also what highdicom takes; PS3.3 Table 8.8-1."""
    return hd.sr.CodedConcept(*code)


def copy_shared(target: Dataset, source: Dataset) -> None:
    """Copy what all objects of a study have in common: patient, study, trial, de-identification marks."""
    keywords = {keyword for module in SHARED_MODULES for keyword in standard.top_level(module)} | set(SHARED_ATTRIBUTES)
    for keyword in keywords:
        if keyword in source:
            target[keyword] = source[keyword]
        elif keyword in target:
            del target[keyword]


def content_moment(source: Dataset) -> tuple[str, str]:
    """Content Date and Time of a result: the source's own, which de-identification has shifted already; never now."""
    date = next((str(source.get(f"{kind}Date") or "") for kind in ("Content", "Acquisition", "Series", "Study")
                 if source.get(f"{kind}Date")), UNKNOWN_DATE)  # fmt: skip
    time = next((str(source.get(f"{kind}Time") or "") for kind in ("Content", "Acquisition", "Series", "Study")
                 if source.get(f"{kind}Time")), "000000")  # fmt: skip
    return date, time


def series_number(source: Dataset, index: int) -> int:
    """A number near the source's: series 3 gives 350, 351 …"""
    number = int(source.get("SeriesNumber") or 0)
    return (number if 0 <= number < 10_000_000 else 0) * 100 + 50 + index


def series_description(text: str) -> str:
    """Series Description, at most 64 characters, that says what it is for."""
    return f"{text[:47].rstrip()} (research use)"


def stamp(dataset: Dataset, provenance: Provenance, *, image: bool) -> None:
    """Say which algorithm, version and parameters made this, and what it is not for."""
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = DicomSequence([code_item(Code("109102", "DCM", "Processing Equipment"))])
    equipment.Manufacturer = MANUFACTURER
    equipment.ManufacturerModelName = provenance.processor
    equipment.SoftwareVersions = provenance.version
    equipment.ContributionDescription = provenance.parameters_json[:1000]
    before = list(dataset.get("ContributingEquipmentSequence") or [])
    put(dataset, "ContributingEquipmentSequence", DicomSequence([*before, equipment]))
    if image:
        put(dataset, "ImageComments", f"{NOTICE}. {provenance.processor} {provenance.version}")


def fill_type_2(dataset: Dataset) -> None:
    """Add what must be present but may be empty; PS3.5 7.4.3."""
    for module in standard.mandatory_modules(str(dataset.SOPClassUID)) or ():
        for keyword, kind, path in standard.attributes(module):
            if kind == "2" and not path and keyword not in dataset:
                put(dataset, keyword, DicomSequence() if dictionary_VR(keyword) == "SQ" else None)


def references(sources: Sequence[Dataset], *, preserved: bool) -> DicomSequence:
    """Source Image Sequence (0008,2112); PS3.3 Table C.7-9 and CID 7202."""
    items = []
    for source in sources:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = stored_as(source)
        if isinstance(source, Frame):
            item.ReferencedFrameNumber = source.number
        purpose = Code("121322", "DCM", "Source Image for Image Processing Operation")
        item.PurposeOfReferenceCodeSequence = DicomSequence([code_item(purpose)])
        item.SpatialLocationsPreserved = "YES" if preserved else "NO"
        items.append(item)
    return DicomSequence(items)


def whole_of(dataset: Dataset) -> Dataset:
    """The object that is in the archive: the data set itself, or the multi-frame object that a frame is of."""
    return dataset.whole if isinstance(dataset, Frame) else dataset


def voi(center: float, width: float, of: type[Any] = hd.VOILUTTransformation) -> Any:
    """A window as highdicom wants it; below a width of 1 only LINEAR_EXACT is allowed (PS3.3 C.11.2.1.2.1)."""
    return of(window_center=center, window_width=width, voi_lut_function="LINEAR_EXACT" if width < 1 else "LINEAR")


def decimal(value: float) -> str:
    """A number as DS: at most 16 characters (PS3.5 6.2)."""
    for digits in range(12, 5, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    return f"{value:.5g}"


def place(dataset: Dataset, geometry: Geometry, frame: int) -> None:
    """Write Image Plane attributes; PS3.3 C.7.6.2."""
    put(dataset, "ImagePositionPatient", [decimal(v) for v in geometry.position(frame)])
    put(dataset, "ImageOrientationPatient", [decimal(v) for v in (*geometry.row, *geometry.column)])
    put(dataset, "PixelSpacing", [decimal(v) for v in geometry.spacing_mm[1:]])
    put(dataset, "SliceThickness", decimal(geometry.spacing_mm[0]))
    put(dataset, "SpacingBetweenSlices", decimal(geometry.spacing_mm[0]))


def conditional(dataset: Dataset) -> None:
    """Settle what PS3.3 C.7.3.1 asks for by condition and sources often lack or have too much of."""
    if "PatientOrientationCodeSequence" in dataset:
        if "PatientPosition" in dataset:
            del dataset["PatientPosition"]  # C.7.3.1.1.2: never both
    elif dataset.get("Modality") in ("CT", "MR", "PT") and "PatientPosition" not in dataset:
        put(dataset, "PatientPosition", None)
    if not dataset.get("BodyPartExamined") and "ImageLaterality" not in dataset and "Laterality" not in dataset:
        put(dataset, "Laterality", None)


def complete(first: Dataset) -> Dataset:
    """The source with what highdicom reads of it and incomplete objects lack: patient and study attributes, empty."""
    whole = Dataset()
    whole.update({element.tag: element for element in first if element.keyword != "PixelData"})
    for module in ("patient", "general-study"):
        for keyword, kind, path in standard.attributes(module):
            if kind == "2" and not path and keyword not in whole:
                put(whole, keyword, None)
    # An empty or misspelt term is common, and highdicom refuses it; the text is decoded by now and goes out as UTF-8.
    terms = whole.get("SpecificCharacterSet") or [""]
    known = {term.value for term in hd.SpecificCharacterSetValues}
    if not {str(term) for term in ([terms] if isinstance(terms, str) else terms)} <= known:
        put(whole, "SpecificCharacterSet", "ISO_IR 192")
    return whole


def finish(dataset: Dataset, source: Dataset, provenance: Provenance) -> None:
    """Settle what highdicom has stamped with now and left out: shared attributes, dates of the source, provenance, type 2."""
    charset = dataset.get("SpecificCharacterSet")
    copy_shared(dataset, source)
    if charset:
        put(dataset, "SpecificCharacterSet", charset)
    date, time = content_moment(source)
    for keyword, value in (
        ("ContentDate", date),
        ("ContentTime", time),
        ("SeriesDate", source.get("SeriesDate")),
        ("SeriesTime", source.get("SeriesTime")),
    ):
        if value or keyword.startswith("Content"):
            put(dataset, keyword, value)
        elif keyword in dataset:
            del dataset[keyword]
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID", "ContributingEquipmentSequence"):
        if keyword in dataset:
            del dataset[keyword]
    is_image = any(keyword in dataset for keyword in ("PixelData", "FloatPixelData"))
    stamp(dataset, provenance, image=is_image)
    fill_type_2(dataset)


def copy_image_attributes(dataset: Dataset, source: Dataset) -> None:
    """Copy what says which part of the body it is; highdicom leaves it out, and SR documents have no place for it."""
    for keyword in IMAGE_ATTRIBUTES:
        if keyword in source and keyword != "PatientPosition":
            dataset[keyword] = source[keyword]


def settle_dimensions(dataset: Dataset, provenance: Provenance, index: int) -> None:
    """Replace the random Dimension Organization UID of highdicom by the job's own."""
    organization = provenance.uid("dimensions", index)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization


def equipment(provenance: Provenance, index: int, source: Dataset, description: str) -> dict[str, Any]:
    """The keyword arguments that every constructor of highdicom asks for."""
    return {
        "series_instance_uid": provenance.uid("series", index),
        "series_number": series_number(source, index),
        "sop_instance_uid": provenance.uid("instance", index, 0),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": provenance.processor,
        "software_versions": provenance.version,
        "device_serial_number": REMOVED,
        "series_description": series_description(description),
    }
