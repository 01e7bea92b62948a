"""PET: one hot spot beside a CT on another grid; spheres of known uptake."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.phantoms.base import dataset, mesh, stack

FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.8.498.77.1"
STUDY = "1.2.826.0.1.3680043.8.498.77"


def pet_ct(*, same_frame: bool = True, corrected: bool = True) -> tuple[list[Dataset], list[Dataset], tuple[float, ...]]:
    """Return a CT (24 slices, 64 x 64 at 4 mm), a PET on a coarser and shifted grid, and the hot spot's place in mm."""
    ct = []
    for i in range(24):
        one = dataset(
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
        one = dataset(
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
        window = Dataset()
        window.EnergyWindowLowerLimit, window.EnergyWindowUpperLimit = "435", "650"
        drug = Dataset()
        drug.RadiopharmaceuticalStartTime = "091500"
        drug.RadionuclideTotalDose = "370000000"
        drug.RadionuclideHalfLife = "6588"
        drug.RadionuclideCodeSequence = Sequence()
        one.RadiopharmaceuticalInformationSequence = Sequence([drug])
        one.EnergyWindowRangeSequence = Sequence([window])
        one.DecayFactor = "1.46"
        del one.PatientPosition
        one.PatientOrientationCodeSequence = Sequence()
        one.PatientGantryRelationshipCodeSequence = Sequence()
        pet.append(one)
    return ct, pet, hot


SPHERES = (((-40.0, 0.0, 40.0), 16.0, 10.0), ((35.0, 20.0, 70.0), 12.0, 6.0), ((20.0, -40.0, 30.0), 14.0, 3.0))
"""Centre (x, y, z), radius in mm and SUV of each hot sphere."""


def hot_spheres(*, spacing: float = 4.0, fwhm_mm: float = 0.0) -> list[Dataset]:
    """Return a PET in which spheres of known SUV lie in a background of SUV 1, blurred as by a scanner."""
    shape, origin = (int(112 / spacing), int(176 / spacing), int(176 / spacing)), (-86.0, -86.0, 0.0)
    z, y, x = mesh(shape, (spacing, spacing, spacing), origin)
    uptake = np.where((x / 78) ** 2 + (y / 78) ** 2 < 1, 1.0, 0.0)
    for (cx, cy, cz), radius, suv in SPHERES:
        uptake[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2] = suv
    if fwhm_mm:
        reach = np.arange(-12, 13) * spacing
        kernel = np.exp(-(reach**2) / (2 * (fwhm_mm / 2.3548) ** 2))
        for axis in range(3):
            uptake = np.apply_along_axis(np.convolve, axis, uptake, kernel / kernel.sum(), "same")
    drug = Dataset()
    drug.RadiopharmaceuticalStartTime = "091500"
    drug.RadionuclideTotalDose = "370000000"
    drug.RadionuclideHalfLife = "6588"
    drug.RadionuclideCodeSequence = Sequence()
    window = Dataset()
    window.EnergyWindowLowerLimit, window.EnergyWindowUpperLimit = "435", "650"
    factor = 80000 / (3.7e8 * 2 ** (-3600 / 6588))
    return stack(
        uptake / factor / 2,
        (spacing, spacing, spacing),
        origin,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.128",
        Modality="PT",
        ImageType=["ORIGINAL", "PRIMARY"],
        SeriesDescription="PET AC",
        SeriesTime="101500",
        AcquisitionTime="101500",
        RescaleSlope="2",
        RescaleType=None,
        Units="BQML",
        SeriesType=["STATIC", "IMAGE"],
        CountsSource="EMISSION",
        DecayCorrection="START",
        CorrectedImage=["DECY", "ATTN"],
        NumberOfSlices=shape[0],
        ImageIndex=1,
        FrameReferenceTime="0",
        ActualFrameDuration="60000",
        CollimatorType="RING",
        KVP=None,
        WindowCenter="10000",
        WindowWidth="20000",
        RadiopharmaceuticalInformationSequence=Sequence([drug]),
        EnergyWindowRangeSequence=Sequence([window]),
        DecayFactor="1.46",
        PatientPosition=None,
        PatientOrientationCodeSequence=Sequence(),
        PatientGantryRelationshipCodeSequence=Sequence(),
    )
