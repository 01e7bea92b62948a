"""The one writer: turns what processors yield into DICOM objects, the same bytes for the same job every time.

UIDs come from the job's key and dates from the source, never from a clock or a random number, so that running again is
harmless (PS3.5 B.2 for UIDs under 2.25). Patient, study and clinical trial modules and the marks of de-identification are the
source's; provenance follows PS3.3 C.7.6.1.1.3 (derivation), C.7.6.16.2.6 and C.12.1.1.5 (contributing equipment).
Segmentations and reports are made in `derive_objects.py`.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage

from pacs.processing import standard
from pacs.processing.outputs import Images, Measurements, Output, Overlay, Report, Segmentation, Spots
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

_DROPPED = frozenset(
    """
    PixelData FloatPixelData DoubleFloatPixelData IconImageSequence SmallestImagePixelValue LargestImagePixelValue
    SmallestPixelValueInSeries LargestPixelValueInSeries PixelPaddingValue PixelPaddingRangeLimit SliceLocation
    ReferencedImageSequence ReferencedInstanceSequence SourceImageSequence DigitalSignaturesSequence MACParametersSequence
    VOILUTSequence WindowCenterWidthExplanation VOILUTFunction DerivationDescription DerivationCodeSequence
    InstanceCreationDate InstanceCreationTime InstanceCreatorUID ExtendedOffsetTable ExtendedOffsetTableLengths
    OriginalAttributesSequence PixelPaddingRangeLimit ImageComments StorageMediaFileSetUID ColorSpace ICCProfile
    """.split()
)
_DROPPED_WITH_GEOMETRY = frozenset(
    "AcquisitionMatrix ReconstructionDiameter SliceThickness SpacingBetweenSlices GantryDetectorTilt".split()
)
# DX and MG have a SOP Class for processing and one for presentation; PS3.4 B.5.1.1.
_FOR_PRESENTATION = {
    "1.2.840.10008.5.1.4.1.1.1.1.1": "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.2.1": "1.2.840.10008.5.1.4.1.1.1.2",
    "1.2.840.10008.5.1.4.1.1.1.3.1": "1.2.840.10008.5.1.4.1.1.1.3",
}
Put = Callable[[Dataset, str, Any], None]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which job made it: the key that everything deterministic comes from, and what goes into the headers."""

    job_key: str
    processor: str
    version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def uid(self, *parts: str | int) -> str:
        """Return the UID of a part of this job's result: always the same one."""
        digest = bytearray(hashlib.sha256("|".join(map(str, (self.job_key, *parts))).encode()).digest()[:16])
        # PS3.5 B.2: a UID under 2.25 is a UUID; version 8 (RFC 9562 5.8) is for UUIDs that people reckon themselves.
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        return f"2.25.{uuid.UUID(bytes=bytes(digest)).int}"

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


def derive(outputs: Iterable[Output], provenance: Provenance) -> Iterator[Made]:
    """Turn outputs into objects, one after another, as the processor yields them."""
    from pacs.processing import derive_objects

    segmentations: dict[int, tuple[int, Dataset]] = {}
    for index, output in enumerate(outputs):
        if isinstance(output, Images):
            yield from _images(output, provenance, index)
        elif isinstance(output, Overlay):
            yield from _overlay(output, provenance, index)
        elif isinstance(output, Segmentation):
            made = derive_objects.segmentation(output, provenance, index)
            segmentations[id(output)] = (index, made.dataset)
            yield made
        elif isinstance(output, Measurements):
            if id(output.of) not in segmentations:
                raise TypeError("Measurements must follow the Segmentation they are of")
            yield derive_objects.measurements(output, provenance, index, *segmentations[id(output.of)])
        elif isinstance(output, Report):
            yield derive_objects.report(output, provenance, index)
        elif isinstance(output, Spots):
            yield derive_objects.spots(output, provenance, index)
        else:
            raise TypeError(f"a processor cannot yield {type(output).__name__}")


def encode(dataset: Dataset) -> bytes:
    """Return the data set as Explicit VR Little Endian, without File Meta Information."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = False
    buffer.is_little_endian = True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def put(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set an attribute by a new element, so that elements shared with a source are never changed."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    dataset.add_new(tag, dictionary_VR(tag), value)


def code_item(code: Code) -> Dataset:
    """A coded concept as a sequence item; PS3.3 Table 8.8-1."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


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
        item.ReferencedSOPClassUID = source.SOPClassUID
        item.ReferencedSOPInstanceUID = source.SOPInstanceUID
        purpose = Code("121322", "DCM", "Source Image for Image Processing Operation")
        item.PurposeOfReferenceCodeSequence = DicomSequence([code_item(purpose)])
        item.SpatialLocationsPreserved = "YES" if preserved else "NO"
        items.append(item)
    return DicomSequence(items)


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


def _images(output: Images, provenance: Provenance, index: int) -> Iterator[Made]:
    count = len(output.like)
    made = 0
    for number, pixels in enumerate(output.pixels):
        if number >= count:
            raise TypeError("more pixels than headers (Images.like)")
        made += 1
        yield _image(output, provenance, index, number, np.ascontiguousarray(pixels))
    if made != count:
        raise TypeError("fewer pixels than headers (Images.like)")


def _image(output: Images, provenance: Provenance, index: int, number: int, pixels: NDArray[Any]) -> Made:
    like = output.like[number]
    if pixels.ndim != 2 or pixels.dtype not in (np.int16, np.uint16, np.uint8):
        raise TypeError("Images.pixels are two-dimensional arrays of int16, uint16 or uint8")
    dropped = _DROPPED | _DROPPED_WITH_GEOMETRY if output.geometry else _DROPPED
    dataset = Dataset()
    for element in like:
        group = element.tag.group
        if element.tag.is_private or 0x6000 <= group <= 0x60FF or group == 0x5000 or element.keyword in dropped:
            continue
        dataset[element.tag] = element
    put(dataset, "SeriesInstanceUID", provenance.uid("series", index))
    put(dataset, "SOPInstanceUID", provenance.uid("instance", index, number))
    put(dataset, "SeriesNumber", series_number(like, index))
    put(dataset, "SeriesDescription", series_description(output.description))
    date, time = content_moment(like)
    put(dataset, "ContentDate", date)
    put(dataset, "ContentTime", time)
    kinds = [str(one) for one in (like.get("ImageType") or [])][2:]
    # PS3.3 C.8.9.4.1.1: for PET value 2 is PRIMARY whatever was done.
    second = "PRIMARY" if like.get("Modality") == "PT" else "SECONDARY"
    put(dataset, "ImageType", ["DERIVED", second, *kinds, *([output.image_type] if output.image_type else [])])
    _pixel_module(dataset, output, pixels)
    if output.geometry is not None:
        place(dataset, output.geometry, number)
        put(dataset, "InstanceNumber", number + 1)
    if dataset.get("Modality") == "PT":
        put(dataset, "NumberOfSlices", len(output.like))
        put(dataset, "ImageIndex", number + 1)
        if output.units:
            put(dataset, "Units", output.units)
        if str(dataset.get("SeriesType", [""])[0]) != "DYNAMIC" and "NumberOfTimeSlices" in dataset:
            del dataset["NumberOfTimeSlices"]  # PS3.3 C.8.9.1: dynamic series only
    if output.for_presentation and "PresentationIntentType" in dataset:
        put(dataset, "PresentationIntentType", "FOR PRESENTATION")
        put(dataset, "SOPClassUID", _FOR_PRESENTATION.get(str(like.SOPClassUID), like.SOPClassUID))
    for keyword, value in output.attributes.items():
        put(dataset, keyword, value)
    sources = output.sources[number] if output.sources is not None else [like]
    put(dataset, "SourceImageSequence", references(sources, preserved=output.geometry is None))
    put(dataset, "DerivationDescription", provenance.description)
    put(dataset, "DerivationCodeSequence", DicomSequence([code_item(output.derivation)]))
    _conditional(dataset)
    stamp(dataset, provenance, image=True)
    fill_type_2(dataset)
    return Made(dataset, pixels, like)


def _conditional(dataset: Dataset) -> None:
    """Settle what PS3.3 C.7.3.1 asks for by condition and sources often lack or have too much of."""
    if dataset.get("PatientOrientationCodeSequence"):
        if "PatientPosition" in dataset:
            del dataset["PatientPosition"]  # C.7.3.1.1.2: never both
    elif dataset.get("Modality") in ("CT", "MR", "PT") and "PatientPosition" not in dataset:
        put(dataset, "PatientPosition", None)
    if not dataset.get("BodyPartExamined") and "ImageLaterality" not in dataset and "Laterality" not in dataset:
        put(dataset, "Laterality", None)


def _letters(direction: Sequence[float]) -> str:
    """The letters of Patient Orientation (0020,0020) for a direction; PS3.3 C.7.6.1.1.1."""
    named = sorted(zip(direction, ("LR", "PA", "HF"), strict=True), key=lambda one: -abs(one[0]))
    return "".join(letters[0] if part > 0 else letters[1] for part, letters in named if abs(part) > 0.1)


def _pixel_module(dataset: Dataset, output: Images, pixels: NDArray[Any]) -> None:
    bits = pixels.dtype.itemsize * 8
    stored = output.bits_stored or bits
    put(dataset, "SamplesPerPixel", 1)
    for keyword in ("PlanarConfiguration", "NumberOfFrames"):
        if keyword in dataset:
            del dataset[keyword]
    put(dataset, "Rows", pixels.shape[0])
    put(dataset, "Columns", pixels.shape[1])
    put(dataset, "BitsAllocated", bits)
    put(dataset, "BitsStored", stored)
    put(dataset, "HighBit", stored - 1)
    put(dataset, "PixelRepresentation", 1 if pixels.dtype.kind == "i" else 0)
    for keyword, value in (("RescaleSlope", output.slope), ("RescaleIntercept", output.intercept)):
        if value is not None:
            put(dataset, keyword, decimal(value))
    if output.slope is not None or output.intercept is not None:
        for keyword in ("ModalityLUTSequence",):
            if keyword in dataset:
                del dataset[keyword]
    if output.rescale_type is not None:
        put(dataset, "RescaleType", output.rescale_type)
    if output.window is not None:
        put(dataset, "WindowCenter", decimal(output.window[0]))
        put(dataset, "WindowWidth", decimal(output.window[1]))
    dataset.add_new(0x7FE00010, "OW", _padded(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()))


def _overlay(output: Overlay, provenance: Provenance, index: int) -> Iterator[Made]:
    for number, pixels in enumerate(output.pixels):
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise TypeError("Overlay.pixels are arrays of uint8, (rows, columns, 3)")
        sources = output.sources[number]
        first = sources[0]
        dataset = Dataset()
        copy_shared(dataset, first)
        put(dataset, "SOPClassUID", SecondaryCaptureImageStorage)
        put(dataset, "SOPInstanceUID", provenance.uid("instance", index, number))
        put(dataset, "SeriesInstanceUID", provenance.uid("series", index))
        put(dataset, "Modality", "OT")
        put(dataset, "ConversionType", "WSD")
        put(dataset, "SeriesNumber", series_number(first, index))
        put(dataset, "SeriesDescription", series_description(output.description))
        put(dataset, "Manufacturer", MANUFACTURER)
        put(dataset, "SecondaryCaptureDeviceManufacturer", MANUFACTURER)
        put(dataset, "SecondaryCaptureDeviceManufacturerModelName", provenance.processor)
        put(dataset, "SecondaryCaptureDeviceSoftwareVersions", provenance.version)
        put(dataset, "InstanceNumber", number + 1)
        put(dataset, "ImageType", ["DERIVED", "SECONDARY"])
        date, time = content_moment(first)
        for keyword, value in (("ContentDate", date), ("ContentTime", time)):
            put(dataset, keyword, value)
        for keyword in ("SeriesDate", "SeriesTime", *IMAGE_ATTRIBUTES):
            if keyword in first:
                dataset[keyword] = first[keyword]
        put(dataset, "BurnedInAnnotation", first.get("BurnedInAnnotation") or "NO")
        if output.geometry is not None and first.get("FrameOfReferenceUID"):
            dataset["FrameOfReferenceUID"] = first["FrameOfReferenceUID"]
            put(dataset, "PositionReferenceIndicator", first.get("PositionReferenceIndicator") or None)
            place(dataset, output.geometry, number)
            put(dataset, "PatientOrientation", [_letters(output.geometry.row), _letters(output.geometry.column)])
        else:
            put(dataset, "PatientOrientation", None)
        _conditional(dataset)
        put(dataset, "SamplesPerPixel", 3)
        put(dataset, "PhotometricInterpretation", "RGB")
        put(dataset, "PlanarConfiguration", 0)
        put(dataset, "Rows", pixels.shape[0])
        put(dataset, "Columns", pixels.shape[1])
        put(dataset, "BitsAllocated", 8)
        put(dataset, "BitsStored", 8)
        put(dataset, "HighBit", 7)
        put(dataset, "PixelRepresentation", 0)
        put(dataset, "SourceImageSequence", references(sources, preserved=False))
        put(dataset, "DerivationDescription", provenance.description)
        put(dataset, "DerivationCodeSequence", DicomSequence([code_item(output.derivation)]))
        if any(one.get("LossyImageCompression") == "01" for one in sources):
            put(dataset, "LossyImageCompression", "01")  # PS3.3 C.7.6.1.1.5: once lossy, always lossy
        pixels = np.ascontiguousarray(pixels)
        dataset.add_new(0x7FE00010, "OB", _padded(pixels.tobytes()))
        stamp(dataset, provenance, image=True)
        fill_type_2(dataset)
        yield Made(dataset, pixels)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)
