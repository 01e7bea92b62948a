"""Enhanced multi-frame CT, MR and PET objects as the single-frame images that processors know.

Each frame gets the header it would have as a CT, MR or PET Image of its own: what the functional groups say of it, shared or
per frame (PS3.3 C.7.6.16), stands at the top level, and what has another name or another form there is translated (C.8.13 and
C.8.15 to C.8.2, C.8.3; C.8.22 to C.8.9). Frames remember their object and number, so that results refer to what is stored.
"""

from collections.abc import Iterator
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRLittleEndian

CLASSIC = {
    "1.2.840.10008.5.1.4.1.1.2.1": "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.2": "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4.1": "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.4": "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.130": "1.2.840.10008.5.1.4.1.1.128",
    "1.2.840.10008.5.1.4.1.1.128.1": "1.2.840.10008.5.1.4.1.1.128",
}
"""SOP Classes that are read frame by frame (enhanced and legacy converted), and the class of each frame."""

_MULTI_FRAME_ONLY = frozenset(
    """
    PixelData NumberOfFrames SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionIndexSequence
    DimensionOrganizationSequence DimensionOrganizationType ConcatenationUID InConcatenationNumber
    ConcatenationFrameOffsetNumber SOPClassUID ImageType PixelPresentation VolumetricProperties
    VolumeBasedCalculationTechnique ContentQualification
    ComplexImageComponent AcquisitionContrast PresentationLUTShape ReferencedImageEvidenceSequence SourceImageEvidenceSequence
    UnassignedSharedConvertedAttributesSequence UnassignedPerFrameConvertedAttributesSequence
    """.split()
)
_RENAMED = {"EffectiveEchoTime": "EchoTime", "FrameAcquisitionDateTime": "AcquisitionDateTime", "FrameType": "ImageType"}
_PET_UNITS = {
    "Bq/ml": "BQML",
    "Bq/mL": "BQML",
    "g/ml{SUVbw}": "GML",
    "g/ml": "GML",
    "{counts}": "CNTS",
    "{propcounts}": "PROPCNTS",
}


class Frame(Dataset):
    """One frame of a multi-frame object, as a single-frame image; `whole` is the object, `number` counts from 1."""

    whole: Dataset
    number: int


def stored_as(dataset: Dataset) -> tuple[str, str]:
    """Return SOP Class and SOP Instance UID of the object that is in the archive; for a frame, of the whole."""
    whole = dataset.whole if isinstance(dataset, Frame) else dataset
    return str(whole.SOPClassUID), str(whole.SOPInstanceUID)


def is_enhanced(dataset: Dataset) -> bool:
    """Whether an object is read frame by frame."""
    return str(dataset.get("SOPClassUID", "")) in CLASSIC and "PerFrameFunctionalGroupsSequence" in dataset


def frames(whole: Dataset) -> list[Frame]:
    """Return the frames of an enhanced object; the object itself loses its pixels, which are theirs now.

    Raises whatever the decoder raises for compressed pixels that cannot be decoded.
    """
    groups = list(whole.PerFrameFunctionalGroupsSequence)
    shared = whole.SharedFunctionalGroupsSequence[0] if whole.get("SharedFunctionalGroupsSequence") else Dataset()
    planes = list(_planes(whole, len(groups)))
    if "PixelData" in whole:
        del whole["PixelData"]
    found = []
    for number, group in enumerate(groups, 1):
        frame = Frame()
        frame.update({one.tag: one for one in whole if one.keyword not in _MULTI_FRAME_ONLY})
        _put(frame, "SOPClassUID", CLASSIC[str(whole.SOPClassUID)])
        for macros in (shared, group):
            _lift(frame, macros)
        _translate(frame, whole)
        _put(frame, "InstanceNumber", number)
        if planes:
            frame.add_new(0x7FE00010, "OW", planes[number - 1])
        frame.file_meta = FileMetaDataset()
        frame.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        frame.whole, frame.number = whole, number
        found.append(frame)
    return found


def _planes(whole: Dataset, count: int) -> Iterator[bytes]:
    if "PixelData" not in whole:
        return
    if whole.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian:
        size = int(whole.Rows) * int(whole.Columns) * int(whole.SamplesPerPixel) * int(whole.BitsAllocated) // 8
        data = memoryview(whole.PixelData)
        yield from (bytes(data[number * size : (number + 1) * size]) for number in range(count))
    else:
        array = whole.pixel_array.reshape(count, int(whole.Rows), int(whole.Columns))
        yield from (plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes() for plane in array)


def _lift(frame: Frame, macros: Dataset) -> None:
    """Put what functional groups say to the top level, the names changed where the single-frame image has others."""
    for macro in macros:
        if macro.VR != "SQ" or not macro.value or macro.tag.is_private:
            continue
        if macro.keyword in ("DerivationImageSequence", "ReferencedImageSequence", "RealWorldValueMappingSequence"):
            frame[macro.tag] = macro
            continue
        for element in macro.value[0]:
            if element.tag.is_private or element.keyword == "FrameContentSequence":
                continue
            keyword = _RENAMED.get(element.keyword, element.keyword)
            if keyword and tag_for_keyword(keyword) is not None:
                _put(frame, keyword, element.value)


def _put(frame: Frame, keyword: str, value: Any) -> None:
    # A new element each time: assignment would change the one that all frames share with the whole.
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    frame.add_new(tag, dictionary_VR(tag), value)


def _translate(frame: Frame, whole: Dataset) -> None:
    if frame.SOPClassUID == CLASSIC["1.2.840.10008.5.1.4.1.1.4.1"]:
        _as_mr(frame, whole)
    elif frame.SOPClassUID == CLASSIC["1.2.840.10008.5.1.4.1.1.130"]:
        _as_pet(frame, len(whole.PerFrameFunctionalGroupsSequence))
    kinds = [str(one) for one in (frame.get("ImageType") or whole.get("ImageType") or [])]
    # C.8.16.1: a frame may be MIXED or without a fourth value; C.8.2.1.1.1: the third of a CT is AXIAL or LOCALIZER.
    if frame.Modality == "CT" and len(kinds) > 2:
        kinds[2] = "LOCALIZER" if kinds[2] == "LOCALIZER" else "AXIAL"
        kinds = kinds[:3]
    elif frame.Modality == "MR":
        kinds = [*kinds[:2], "OTHER"]
    elif frame.Modality == "PT":
        kinds = kinds[:2]
    _put(frame, "ImageType", kinds or ["ORIGINAL", "PRIMARY"])
    if "FrameLaterality" in frame:
        if frame.FrameLaterality in ("L", "R") and "Laterality" not in frame:
            _put(frame, "Laterality", frame.FrameLaterality)
        del frame.FrameLaterality


def _as_mr(frame: Frame, whole: Dataset) -> None:
    """Scanning Sequence and Sequence Variant (C.8.3.1) from what Enhanced MR says instead (C.8.13.3, C.8.13.5)."""
    if "ScanningSequence" not in frame:
        echo = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}.get(str(frame.get("EchoPulseSequence")), ["RM"])
        more = [("InversionRecovery", "IR"), ("EchoPlanarPulseSequence", "EP")]
        _put(frame, "ScanningSequence", [*echo, *(term for keyword, term in more if frame.get(keyword) == "YES")])
    if "SequenceVariant" not in frame:
        found = ["SK"] if frame.get("SegmentedKSpaceTraversal") == "PARTIAL" else []
        found += ["SP"] if str(frame.get("Spoiling", "NONE")) not in ("NONE", "") else []
        found += ["SS"] if str(frame.get("SteadyStatePulseSequence", "NONE")) not in ("NONE", "") else []
        _put(frame, "SequenceVariant", found or ["NONE"])
    if "ScanOptions" not in frame:
        _put(frame, "ScanOptions", None)
    if "MRAcquisitionType" not in frame:
        described = str(frame.get("VolumetricProperties") or whole.get("VolumetricProperties"))
        _put(frame, "MRAcquisitionType", "3D" if described == "VOLUME" else "2D")
    if "IR" in frame.ScanningSequence and "InversionTime" not in frame:
        times = frame.get("InversionTimes") or [None]  # several are possible there, one here
        _put(frame, "InversionTime", times[0] if isinstance(times, list | MultiValue) else times)


def _as_pet(frame: Frame, count: int) -> None:
    """What a PET Image must say (C.8.9.1, C.8.9.4), from Enhanced PET's flags (C.8.22.2 to C.8.22.5)."""
    if "Units" not in frame:
        _put(frame, "Units", _PET_UNITS.get(_unit(frame), "NONE"))
    defaults: dict[str, Any] = {
        "SeriesType": ["STATIC", "IMAGE"],
        "CountsSource": "EMISSION",
        "DecayCorrection": "START" if frame.get("DecayCorrected") == "YES" else "NONE",
        "NumberOfSlices": count,
        "ImageIndex": frame.get("InStackPositionNumber") or 1,
        "FrameReferenceTime": "0",
        "ActualFrameDuration": None,
    }
    flags = {
        "DecayCorrected": "DECY",
        "AttenuationCorrected": "ATTN",
        "ScatterCorrected": "SCAT",
        "DeadTimeCorrected": "DTIM",
        "RandomsCorrected": "RAN",
        "SensitivityCalibrated": "NORM",
    }
    defaults["CorrectedImage"] = [term for keyword, term in flags.items() if frame.get(keyword) == "YES"]
    for keyword, value in defaults.items():
        if keyword not in frame:
            _put(frame, keyword, value)


def _unit(frame: Frame) -> str:
    for item in frame.get("RealWorldValueMappingSequence") or []:
        for unit in item.get("MeasurementUnitsCodeSequence") or []:
            return str(unit.get("CodeValue", ""))
    return str(frame.get("RescaleType", ""))
