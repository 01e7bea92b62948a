"""Derived series in the IOD of their source, and pictures as Secondary Capture images (PS3.3 A.3, A.4, A.21, A.26, A.8)."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import SecondaryCaptureImageStorage

from pacs.processing import headers
from pacs.processing.concepts import Code
from pacs.processing.headers import Made, Provenance
from pacs.processing.outputs import Images, Overlay, Unplaced

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


def images(output: Images, provenance: Provenance, index: int) -> Iterator[Made]:
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
    headers.put(dataset, "SeriesInstanceUID", provenance.uid("series", index))
    headers.put(dataset, "SOPInstanceUID", provenance.uid("instance", index, number))
    headers.put(dataset, "SeriesNumber", headers.series_number(like, index))
    headers.put(dataset, "SeriesDescription", headers.series_description(output.description))
    date, time = headers.content_moment(like)
    headers.put(dataset, "ContentDate", date)
    headers.put(dataset, "ContentTime", time)
    kinds = [str(one) for one in (like.get("ImageType") or [])][2:]
    # PS3.3 C.8.9.4.1.1: for PET value 2 is PRIMARY whatever was done.
    second = "PRIMARY" if like.get("Modality") == "PT" else "SECONDARY"
    headers.put(dataset, "ImageType", ["DERIVED", second, *kinds, *([output.image_type] if output.image_type else [])])
    _pixel_module(dataset, output, pixels)
    if output.geometry is not None:
        headers.place(dataset, output.geometry, number)
        headers.put(dataset, "InstanceNumber", number + 1)
    if dataset.get("Modality") == "PT":
        headers.put(dataset, "NumberOfSlices", len(output.like))
        headers.put(dataset, "ImageIndex", number + 1)
        if output.units:
            headers.put(dataset, "Units", output.units)
        if str(dataset.get("SeriesType", [""])[0]) != "DYNAMIC" and "NumberOfTimeSlices" in dataset:
            del dataset["NumberOfTimeSlices"]  # PS3.3 C.8.9.1: dynamic series only
    if output.for_presentation and "PresentationIntentType" in dataset:
        headers.put(dataset, "PresentationIntentType", "FOR PRESENTATION")
        headers.put(dataset, "SOPClassUID", _FOR_PRESENTATION.get(str(like.SOPClassUID), like.SOPClassUID))
    for keyword, value in output.attributes.items():
        headers.put(dataset, keyword, value)
    sources = output.sources[number] if output.sources is not None else [like]
    headers.put(dataset, "SourceImageSequence", headers.references(sources, preserved=output.geometry is None))
    headers.put(dataset, "DerivationDescription", provenance.description)
    headers.put(dataset, "DerivationCodeSequence", DicomSequence([headers.code_item(output.derivation)]))
    headers.conditional(dataset)
    headers.stamp(dataset, provenance, image=True)
    headers.fill_type_2(dataset)
    return Made(dataset, pixels, like)


def _pixel_module(dataset: Dataset, output: Images, pixels: NDArray[Any]) -> None:
    bits = pixels.dtype.itemsize * 8
    stored = output.bits_stored or bits
    headers.put(dataset, "SamplesPerPixel", 1)
    for keyword in ("PlanarConfiguration", "NumberOfFrames"):
        if keyword in dataset:
            del dataset[keyword]
    headers.put(dataset, "Rows", pixels.shape[0])
    headers.put(dataset, "Columns", pixels.shape[1])
    headers.put(dataset, "BitsAllocated", bits)
    headers.put(dataset, "BitsStored", stored)
    headers.put(dataset, "HighBit", stored - 1)
    headers.put(dataset, "PixelRepresentation", 1 if pixels.dtype.kind == "i" else 0)
    if output.slope is not None or output.intercept is not None:
        for keyword in ("ModalityLUTSequence",):
            if keyword in dataset:
                del dataset[keyword]
    _scaled(dataset, output.slope, output.intercept, output.rescale_type, output.window)
    dataset.add_new(0x7FE00010, "OW", _padded(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()))


def _scaled(
    dataset: Dataset,
    slope: float | None,
    intercept: float | None,
    rescale_type: str | None,
    window: tuple[float, float] | None,
) -> None:
    """Write what stored values mean (PS3.3 C.11.1) and how they are shown at first (C.11.2); None stays as it is."""
    for keyword, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept)):
        if value is not None:
            headers.put(dataset, keyword, headers.decimal(value))
    if rescale_type is not None:
        headers.put(dataset, "RescaleType", rescale_type)
    if window is not None:
        headers.put(dataset, "WindowCenter", headers.decimal(window[0]))
        headers.put(dataset, "WindowWidth", headers.decimal(window[1]))
        if window[1] < 1:  # PS3.3 C.11.2.1.2.1: LINEAR starts at 1
            headers.put(dataset, "VOILUTFunction", "LINEAR_EXACT")


def _letters(direction: Sequence[float]) -> str:
    """The letters of Patient Orientation (0020,0020) for a direction; PS3.3 C.7.6.1.1.1."""
    named = sorted(zip(direction, ("LR", "PA", "HF"), strict=True), key=lambda one: -abs(one[0]))
    return "".join(letters[0] if part > 0 else letters[1] for part, letters in named if abs(part) > 0.1)


def overlay(output: Overlay, provenance: Provenance, index: int) -> Iterator[Made]:
    for number, pixels in enumerate(output.pixels):
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise TypeError("Overlay.pixels are arrays of uint8, (rows, columns, 3)")
        sources = output.sources[number]
        dataset = _capture(sources, pixels, provenance, (index, number), output.description, output.derivation)
        first = sources[0]
        if output.geometry is not None and first.get("FrameOfReferenceUID"):
            dataset["FrameOfReferenceUID"] = first["FrameOfReferenceUID"]
            headers.put(dataset, "PositionReferenceIndicator", first.get("PositionReferenceIndicator") or None)
            headers.place(dataset, output.geometry, number)
            headers.put(dataset, "PatientOrientation", [_letters(output.geometry.row), _letters(output.geometry.column)])
        headers.put(dataset, "PhotometricInterpretation", "RGB")
        headers.put(dataset, "PlanarConfiguration", 0)
        yield Made(dataset, np.ascontiguousarray(pixels))


def unplaced(output: Unplaced, provenance: Provenance, index: int) -> Iterator[Made]:
    for number, pixels in enumerate(output.pixels):
        if pixels.ndim != 2 or pixels.dtype not in (np.int16, np.uint16):
            raise TypeError("Unplaced.pixels are two-dimensional arrays of int16 or uint16")
        sources = output.sources[number]
        dataset = _capture(sources, pixels, provenance, (index, number), output.description, output.derivation)
        headers.put(dataset, "PhotometricInterpretation", "MONOCHROME2")
        _scaled(dataset, output.slope, output.intercept, output.rescale_type, output.window)
        if output.spacing_mm is not None:
            headers.put(dataset, "PixelSpacing", [headers.decimal(step) for step in output.spacing_mm])
        yield Made(dataset, np.ascontiguousarray(pixels))


def _capture(
    sources: Sequence[Dataset],
    pixels: NDArray[Any],
    provenance: Provenance,
    place: tuple[int, int],
    description: str,
    derivation: Code,
) -> Dataset:
    """Return a Secondary Capture image (PS3.3 A.8.1) with its pixels, that lies nowhere; `place` is output and number."""
    (index, number), first = place, sources[0]
    dataset = Dataset()
    headers.copy_shared(dataset, first)
    headers.put(dataset, "SOPClassUID", SecondaryCaptureImageStorage)
    headers.put(dataset, "SOPInstanceUID", provenance.uid("instance", index, number))
    headers.put(dataset, "SeriesInstanceUID", provenance.uid("series", index))
    headers.put(dataset, "Modality", "OT")
    headers.put(dataset, "ConversionType", "WSD")
    headers.put(dataset, "SeriesNumber", headers.series_number(first, index))
    headers.put(dataset, "SeriesDescription", headers.series_description(description))
    headers.put(dataset, "Manufacturer", headers.MANUFACTURER)
    headers.put(dataset, "SecondaryCaptureDeviceManufacturer", headers.MANUFACTURER)
    headers.put(dataset, "SecondaryCaptureDeviceManufacturerModelName", provenance.processor)
    headers.put(dataset, "SecondaryCaptureDeviceSoftwareVersions", provenance.version)
    headers.put(dataset, "InstanceNumber", number + 1)
    headers.put(dataset, "ImageType", ["DERIVED", "SECONDARY"])
    date, time = headers.content_moment(first)
    for keyword, value in (("ContentDate", date), ("ContentTime", time)):
        headers.put(dataset, keyword, value)
    for keyword in ("SeriesDate", "SeriesTime", *headers.IMAGE_ATTRIBUTES):
        if keyword in first:
            dataset[keyword] = first[keyword]
    headers.put(dataset, "BurnedInAnnotation", first.get("BurnedInAnnotation") or "NO")
    headers.put(dataset, "PatientOrientation", None)
    headers.conditional(dataset)
    bits = pixels.dtype.itemsize * 8
    headers.put(dataset, "SamplesPerPixel", 3 if pixels.ndim == 3 else 1)
    headers.put(dataset, "Rows", pixels.shape[0])
    headers.put(dataset, "Columns", pixels.shape[1])
    headers.put(dataset, "BitsAllocated", bits)
    headers.put(dataset, "BitsStored", bits)
    headers.put(dataset, "HighBit", bits - 1)
    headers.put(dataset, "PixelRepresentation", 1 if pixels.dtype.kind == "i" else 0)
    headers.put(dataset, "SourceImageSequence", headers.references(sources, preserved=False))
    headers.put(dataset, "DerivationDescription", provenance.description)
    headers.put(dataset, "DerivationCodeSequence", DicomSequence([headers.code_item(derivation)]))
    if any(one.get("LossyImageCompression") == "01" for one in sources):
        headers.put(dataset, "LossyImageCompression", "01")  # PS3.3 C.7.6.1.1.5: once lossy, always lossy
    stored = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.add_new(0x7FE00010, "OB" if bits == 8 else "OW", _padded(stored))
    headers.stamp(dataset, provenance, image=True)
    headers.fill_type_2(dataset)
    return dataset


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)
