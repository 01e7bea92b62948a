"""A mammogram: a breast in cranio-caudal view with fibres, masses and a cluster of calcifications at known places."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.phantoms.base import code, dataset, read

MASSES = ((150.0, 90.0, 14.0), (250.0, 120.0, 9.0), (200.0, 60.0, 6.0), (120.0, 50.0, 11.0))
"""Row, column and radius (pixels) of each mass, the first ones first."""
CLUSTER = (300.0, 70.0)
"""Row and column (pixels) of the centre of the calcifications."""


def mammogram(*, lesions: int = 2, noise: float = 12.0, seed: int = 1) -> tuple[Dataset, list[dict[str, Any]]]:
    """Return a 400 x 280 left CC view for presentation (12 bits, 0.2 mm), and what lies in it: kind, place and size in mm."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:400, :280].astype(np.float64)
    inside = ((y - 200) / 185) ** 2 + (x / 225) ** 2
    breast = inside < 1
    # Compressed to one thickness, falling off towards the skin.
    frame = np.where(breast, 1500 + 900 * np.clip((1 - inside) * 4, 0, 1), 60.0)
    fibres = cv2.GaussianBlur(random.normal(0, 1, (400, 280)), (0, 0), 6) * 60
    frame += np.where(breast, 350 * np.clip(fibres, -1, 2) * np.clip((1 - inside) * 2, 0, 1), 0)
    found: list[dict[str, Any]] = []
    for row, column, radius in MASSES[:lesions]:
        frame += 500 * np.exp(-((np.hypot(y - row, x - column) / radius) ** 4))
        found.append({"kind": "mass", "row": row, "column": column, "diameter_mm": round(2 * radius * 0.2, 2)})
    if lesions:
        for row, column in random.normal(0, 6, (9, 2)) + CLUSTER:
            frame += 1100 * np.exp(-(((y - row) ** 2 + (x - column) ** 2) / 1.5))
        found.append({"kind": "calcifications", "row": CLUSTER[0], "column": CLUSTER[1], "count": 9})
    return _image(frame + random.normal(0, noise, frame.shape)), found


def _image(frame: NDArray[np.float64]) -> Dataset:
    breast = code("76752008", "SCT", "Breast")
    view = code("399162004", "SCT", "cranio-caudal")
    view.ViewModifierCodeSequence = Sequence()
    one = dataset(
        frame=np.clip(np.rint(frame), 0, 4095).astype("<u2"),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2",
        Modality="MG",
        ImageType=["ORIGINAL", "PRIMARY"],
        StudyDescription="Mammography",
        SeriesDescription="L CC",
        PatientSex="F",
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=0,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        FrameOfReferenceUID=None,
        PositionReferenceIndicator=None,
        SliceThickness=None,
        PatientPosition=None,
        PixelSpacing=None,
        PatientOrientation=["A", "R"],
        ImagerPixelSpacing=[0.2, 0.2],
        BodyPartExamined="BREAST",
        ImageLaterality="L",
        ViewPosition="CC",
        ViewCodeSequence=Sequence([view]),
        AnatomicRegionSequence=Sequence([breast]),
        PresentationIntentType="FOR PRESENTATION",
        PixelIntensityRelationship="LOG",
        PixelIntensityRelationshipSign=-1,
        PresentationLUTShape="IDENTITY",
        RescaleType="US",
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
        BreastImplantPresent="NO",
        PartialView="NO",
        OrganExposed="BREAST",
        PositionerType="MAMMOGRAPHIC",
        DetectorType="DIRECT",
        AcquisitionContextSequence=Sequence(),
        WindowCenter="2000",
        WindowWidth="3600",
        KVP="28",
    )
    return read([one])[0]
