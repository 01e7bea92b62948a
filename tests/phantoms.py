"""Phantoms with known truth for processors: lungs of known volume, a PET/CT with one hot spot, radiographs."""

from collections.abc import Sequence as Several
from io import BytesIO

import making
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.8.498.77.1"
STUDY = "1.2.826.0.1.3680043.8.498.77"


def read(datasets: Several[Dataset]) -> list[Dataset]:
    """Return data sets as a processor gets them: written, and read again."""
    found = []
    for one in datasets:
        again = dcmread(BytesIO(making.encode(one)), force=True)
        again.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        found.append(again)
    return found


def lungs(*, joined: bool = False) -> tuple[list[Dataset], np.ndarray]:
    """Return a chest CT of 40 slices of 6 mm, 128 x 128 at 3 mm, and its labels: 1 right lung, 2 left lung.

    Two ellipsoids of -850 HU in an elliptic body of 40 HU on a table, with a trachea of -1000 HU above; `joined` lets the
    lungs touch at the front, as real ones do.
    """
    depth, size, pixel, gap = 40, 128, 3.0, 6.0
    z, y, x = np.meshgrid(np.arange(depth) * gap, np.arange(size) * pixel, np.arange(size) * pixel, indexing="ij")
    cx = cy = size * pixel / 2
    volume = np.full(z.shape, -1000.0)
    body = ((x - cx) / 170) ** 2 + ((y - cy) / 120) ** 2 < 1
    volume[body] = 40
    labels = np.zeros(z.shape, np.uint8)
    offset = 66.0 if joined else 78.0
    for number, side in ((1, -1), (2, 1)):
        half = x < cx - 1 if side < 0 else x >= cx + 1
        lung = (((x - cx - side * offset) / 66) ** 2 + ((y - cy) / 85) ** 2 + ((z - 110) / 100) ** 2 < 1) & half
        volume[lung] = -850
        labels[lung] = number
    if joined:
        bridge = (np.abs(x - cx) < 5) & (np.abs(y - cy) < 4) & (np.abs(z - 110) < 8)
        volume[bridge] = -850
    trachea = (np.hypot(x - cx, y - cy) < 9) & (z > 150)
    volume[trachea] = -1000
    labels[trachea] = 0
    volume[(np.abs(y - (cy + 150)) < 4) & (np.abs(x - cx) < 180)] = 100
    # Air inside the table's shell: large, enclosed, and no lung.
    shell = (np.abs(y - (cy + 172)) < 18) & (np.abs(x - cx) < 180)
    volume[shell] = 100
    volume[(np.abs(y - (cy + 172)) < 13) & (np.abs(x - cx) < 174)] = -900
    noise = np.random.default_rng(7).normal(0, 12, volume.shape)
    frames = np.rint(volume + noise).astype("<i2")
    series = [
        making.dataset(
            instance=i + 1,
            frame=frames[i],
            PixelSpacing=[pixel, pixel],
            SliceThickness=str(gap),
            ImagePositionPatient=[-cx, -cy, i * gap],
            WindowCenter="40",
            WindowWidth="400",
        )
        for i in range(depth)
    ]
    return series, labels


def pet_ct(*, same_frame: bool = True, corrected: bool = True) -> tuple[list[Dataset], list[Dataset], tuple[float, ...]]:
    """Return a CT (24 slices, 64 x 64 at 4 mm), a PET on a coarser and shifted grid, and the hot spot's place in mm."""
    ct = []
    for i in range(24):
        one = making.dataset(
            instance=i + 1,
            study_uid=STUDY,
            series_uid=f"{STUDY}.1",
            PixelSpacing=[4, 4],
            SliceThickness="5",
            ImagePositionPatient=[-126, -126, 5.0 * i],
            FrameOfReferenceUID=FRAME_OF_REFERENCE,
            WindowCenter="40",
            WindowWidth="400",
        )
        ct.append(one)
    hot = (24.0, -16.0, 60.0)
    z, y, x = np.meshgrid(np.arange(20) * 6.0 + 3, np.arange(32) * 8.0 - 124, np.arange(32) * 8.0 - 124, indexing="ij")
    activity = 500 + 20000 * np.exp(-((x - hot[0]) ** 2 + (y - hot[1]) ** 2 + (z - hot[2]) ** 2) / (2 * 12.0**2))
    pet = []
    for i in range(20):
        frame = np.rint(activity[i] / 2.0).astype("<i2")
        one = making.dataset(
            instance=i + 1,
            study_uid=STUDY,
            series_uid=f"{STUDY}.2",
            frame=frame,
            SOPClassUID="1.2.840.10008.5.1.4.1.1.128",
            Modality="PT",
            ImageType=["ORIGINAL", "PRIMARY"],
            SeriesNumber=3,
            SeriesDescription="PET AC",
            SeriesTime="101500",
            AcquisitionTime="101500",
            PixelSpacing=[8, 8],
            SliceThickness="6",
            ImagePositionPatient=[-124, -124, 6.0 * i + 3],
            FrameOfReferenceUID=FRAME_OF_REFERENCE if same_frame else FRAME_OF_REFERENCE + ".9",
            RescaleSlope="2",
            RescaleIntercept="0",
            RescaleType=None,
            Units="BQML",
            SeriesType=["STATIC", "IMAGE"],
            CountsSource="EMISSION",
            DecayCorrection="START",
            CorrectedImage=["DECY", "ATTN"] if corrected else ["DECY"],
            NumberOfSlices=20,
            ImageIndex=i + 1,
            FrameReferenceTime="0",
            ActualFrameDuration="60000",
            CollimatorType="RING",
            KVP=None,
        )
        drug = Dataset()
        drug.RadiopharmaceuticalStartTime = "091500"
        drug.RadionuclideTotalDose = "370000000"
        drug.RadionuclideHalfLife = "6588"
        drug.RadionuclideCodeSequence = Sequence()
        one.RadiopharmaceuticalInformationSequence = Sequence([drug])
        one.EnergyWindowRangeSequence = Sequence()
        one.PatientOrientationCodeSequence = Sequence()
        one.PatientGantryRelationshipCodeSequence = Sequence()
        pet.append(one)
    return ct, pet, hot


def radiograph(*, modality: str = "CR", for_processing: bool = False) -> Dataset:
    """Return a 160 x 128 radiograph of 12 bits: a ramp with two discs."""
    y, x = np.mgrid[:160, :128]
    frame = 800 + 8 * x + np.where(np.hypot(y - 80, x - 40) < 20, 300, 0) + np.where(np.hypot(y - 80, x - 90) < 12, -200, 0)
    frame = np.clip(frame + np.random.default_rng(3).normal(0, 5, frame.shape), 1, 4095).astype("<u2")
    classes = {"CR": "1.2.840.10008.5.1.4.1.1.1", "DX": "1.2.840.10008.5.1.4.1.1.1.1" + (".1" if for_processing else "")}
    one = making.dataset(
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
        region = Dataset()
        region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "816094009", "SCT", "Chest"
        one.AnatomicRegionSequence = Sequence([region])
    return one
