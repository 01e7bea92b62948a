"""An ultrasound image: a sector of speckle with a cyst, under a banner into which a name is burned."""

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.phantoms.base import PATIENT_ID, PATIENT_NAME, dataset, read

BANNER_ROWS = 48
"""Height of the banner above the region that Sequence of Ultrasound Regions declares."""


def ultrasound(*, text: bool = True, noise: float = 0.35, seed: int = 1) -> Dataset:
    """Return a 480 x 640 grey image of 8 bits; with `text`, the planted name and number stand in its banner."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:480, :640].astype(np.float64)
    depth, angle = np.hypot(y - 40, x - 320), np.arctan2(x - 320, y - 40)
    sector = (np.abs(angle) < 0.65) & (depth > 30) & (depth < 410)
    tissue = 90 + 25 * np.sin(depth / 37) - depth / 9
    tissue[np.hypot(y - 250, x - 300) < 45] = 8
    speckle = cv2.GaussianBlur(random.rayleigh(1.0, (480, 640)), (0, 0), 1.2)
    frame = np.where(sector & (y > BANNER_ROWS), tissue * (1 + noise * (speckle - speckle.mean()) / speckle.std()), 0)
    frame = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
    if text:
        name = PATIENT_NAME.replace("^", " ").upper()
        cv2.putText(frame, f"{name}  {PATIENT_ID}", (12, 31), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2, cv2.LINE_AA)
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, BANNER_ROWS
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 639, 479
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.03
    one = dataset(
        frame=frame,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1",
        Modality="US",
        ImageType=["ORIGINAL", "PRIMARY"],
        StudyDescription="Ultrasound",
        SeriesDescription="ABDOMEN",
        BodyPartExamined="ABDOMEN",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        KVP=None,
        SliceThickness=None,
        PatientPosition=None,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        FrameOfReferenceUID=None,
        PositionReferenceIndicator=None,
        PixelSpacing=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        RescaleType=None,
        PatientOrientation="",
        BurnedInAnnotation="YES" if text else "NO",
        LossyImageCompression="00",
        SequenceOfUltrasoundRegions=Sequence([region]),
    )
    return read([one])[0]
