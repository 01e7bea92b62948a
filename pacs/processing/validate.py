"""Judges every derived object before it may become visible: attributes, references, pixels, place.

Findings name attributes and never quote values; any finding fails the job. What the source itself lacks is not held against
its descendant (the archive takes objects as they come), so an image is judged by the difference to what it grew from.
"""

from collections.abc import Iterator, Set
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs.processing import standard
from pacs.processing.headers import Made

REFERENCES = (
    "SourceImageSequence",
    "ReferencedSeriesSequence",
    "DerivationImageSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ReferencedImageEvidenceSequence",
    "GraphicAnnotationSequence",
    "AdvancedBlendingSequence",
    "CurrentRequestedProcedureEvidenceSequence",
    "ContentSequence",
)


def findings(made: Made, encoded: bytes, known: Set[str], study_instance_uid: str) -> list[str]:
    """Return what is wrong with an object, nothing where it is right.

    Parameters
    ----------
    made : Made
        The object, the pixels it was meant to have and the header it grew from.
    encoded : bytes
        What will be stored: this is what is read back and judged.
    known : set of str
        SOP Instance UIDs that it may refer to: the inputs and what the job made before.
    study_instance_uid : str
        The study it must belong to.
    """
    again = dcmread(BytesIO(encoded), force=True)
    again.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    inherited = set(standard.problems(made.source)) if made.source is not None else set()
    found = [one for one in standard.problems(again) if one not in inherited]
    if again.get("StudyInstanceUID") != study_instance_uid:
        found.append("StudyInstanceUID is not that of the inputs")
    if any(element.tag.is_private for element in again):
        found.append("holds private attributes")
    dangling = sum(1 for uid in _referenced(again) if uid not in known and uid != again.get("SOPInstanceUID"))
    if dangling:
        found.append(f"{dangling} references to instances that are not inputs or results of this job")
    found += _pixel_findings(made, again)
    return found


def _pixel_findings(made: Made, again: Dataset) -> Iterator[str]:
    if "PixelData" not in again and "FloatPixelData" not in again:
        return
    try:
        array = again.pixel_array
    except Exception as error:
        # Whatever the decoder stumbles over: an image that cannot be read must not be shown.
        yield f"pixels cannot be decoded ({type(error).__name__})"
        return
    if made.pixels is not None and not np.array_equal(array, made.pixels):
        yield "pixels are not what the processor made"
    if "ImagePositionPatient" in again:
        orientation = np.array([float(v) for v in again.get("ImageOrientationPatient") or [0] * 6])
        row, column = orientation[:3], orientation[3:]
        if not (
            len(again.ImagePositionPatient) == 3
            and abs(np.linalg.norm(row) - 1) < 1e-3
            and abs(np.linalg.norm(column) - 1) < 1e-3
            and abs(float(np.dot(row, column))) < 1e-3
        ):
            yield "ImageOrientationPatient is not two unit vectors at right angles (PS3.3 C.7.6.2.1.1)"
    if made.source is not None and "FrameOfReferenceUID" in made.source and "FrameOfReferenceUID" not in again:
        yield "FrameOfReferenceUID of the source was lost"


def _referenced(dataset: Dataset) -> Iterator[str]:
    for keyword in REFERENCES:
        for item in dataset.get(keyword) or []:
            yield from _walk(item)


def _walk(item: Dataset) -> Iterator[str]:
    for element in item:
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
        elif element.VR == "SQ":
            for inner in element.value:
                yield from _walk(inner)
