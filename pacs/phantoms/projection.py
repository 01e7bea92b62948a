"""Radiographs: a ramp with discs, for presentation and for processing; faint discs."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.phantoms.base import code, dataset, read


def radiograph(*, modality: str = "CR", for_processing: bool = False) -> Dataset:
    """Return a 160 x 128 radiograph of 12 bits: a ramp with two discs."""
    y, x = np.mgrid[:160, :128]
    frame = 800 + 8 * x + np.where(np.hypot(y - 80, x - 40) < 20, 300, 0) + np.where(np.hypot(y - 80, x - 90) < 12, -200, 0)
    frame = np.clip(frame + np.random.default_rng(3).normal(0, 5, frame.shape), 1, 4095).astype("<u2")
    classes = {"CR": "1.2.840.10008.5.1.4.1.1.1", "DX": "1.2.840.10008.5.1.4.1.1.1.1" + (".1" if for_processing else "")}
    one = dataset(
        frame=frame,
        SOPClassUID=classes[modality],
        Modality=modality,
        ImageType=["ORIGINAL", "PRIMARY"],
        ViewPosition="PA",
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=0,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        FrameOfReferenceUID=None,
        PositionReferenceIndicator=None,
        SliceThickness=None,
        PatientPosition=None,
        PatientOrientation=["L", "F"],
        PixelSpacing=None,
        ImagerPixelSpacing=[0.2, 0.2],
        SeriesDescription="CHEST PA",
    )
    if modality == "DX":
        one.PresentationIntentType = "FOR PROCESSING" if for_processing else "FOR PRESENTATION"
        one.PixelIntensityRelationship = "LIN" if for_processing else "LOG"
        one.PixelIntensityRelationshipSign = 1
        one.PresentationLUTShape = "IDENTITY"
        one.RescaleType = "US"
        one.ImageLaterality, one.LossyImageCompression, one.BurnedInAnnotation = "U", "00", "NO"
        one.WindowCenter, one.WindowWidth = "1400", "1600"
        one.DetectorType, one.PositionerType = "DIRECT", "COLUMN"
        one.AcquisitionContextSequence = Sequence()
        one.AnatomicRegionSequence = Sequence([code("816094009", "SCT", "Chest")])
    return one


FAINT = tuple((row, column) for row in (30, 80, 130) for column in (30, 64, 98))
"""Row and column of each faint disc."""


def faint() -> list[Dataset]:
    """Return a radiograph of 12 bits: a steep ramp with nine faint discs of 3 pixels' radius and 40 grey levels."""
    y, x = np.mgrid[:160, :128]
    frame = 500 + 20.0 * x
    for row, column in FAINT:
        frame[np.hypot(y - row, x - column) < 3] += 40
    frame += np.random.default_rng(3).normal(0, 4, frame.shape)
    one = radiograph()
    one.PixelData = np.clip(np.rint(frame), 0, 4095).astype("<u2").tobytes()
    return read([one])
