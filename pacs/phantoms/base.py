"""What every phantom is made of: an image with a planted identity, axial stacks, and their bytes.

The identity is invented. Every string of it is listed in `PLANTED`, to be searched for where it must not be.
"""

import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

Three = tuple[float, float, float]

STUDY_UID = "1.2.826.0.1.3680043.8.498.1001"
SERIES_UID = "1.2.826.0.1.3680043.8.498.1001.1"
PATIENT_NAME = "Quillfeather^Zebulon^Octavian"
PATIENT_ID = "MRN-7734921"
PLANTED = (
    "Quillfeather",
    "Zebulon",
    "Octavian",
    "MRN-7734921",
    "ACC-5561907",
    "Featherstonehaugh",
    "St Wilfrid Infirmary",
    "19580317",
    STUDY_UID,
)
"""Strings that identify the phantom's patient; none may survive de-identification."""


def pixels(rows: int = 64, columns: int = 64, *, seed: int = 0) -> NDArray[Any]:
    """Return one frame of a smooth signed 16-bit phantom with some noise, shape (rows, columns)."""
    y, x = np.mgrid[:rows, :columns]
    disc = np.hypot(y - rows / 2, x - columns / 2) < min(rows, columns) / 3
    noise = np.random.default_rng(seed).normal(0, 8, (rows, columns))
    return np.where(disc, 40 + noise, -1000 + noise).round().astype("<i2")


def dataset(
    *,
    instance: int = 1,
    study_uid: str = STUDY_UID,
    series_uid: str = SERIES_UID,
    patient_id: str = PATIENT_ID,
    patient_name: str = PATIENT_NAME,
    frame: NDArray[Any] | None = None,
    **overrides: Any,
) -> Dataset:
    """Return a small CT image with planted identity; `overrides` set attributes by keyword (None deletes one)."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{series_uid}.{instance}"
    ds.StudyDate = "20240229"
    ds.SeriesDate = "20240229"
    ds.AcquisitionDate = "20240229"
    ds.ContentDate = "20240229"
    ds.StudyTime = "101500"
    ds.ContentTime = "101502.5"
    ds.AccessionNumber = "ACC-5561907"
    ds.Modality = "CT"
    ds.Manufacturer = "Phantom Works"
    ds.InstitutionName = "St Wilfrid Infirmary"
    ds.ReferringPhysicianName = "Featherstonehaugh^Ada"
    ds.StationName = "CTROOM1"
    ds.StudyDescription = "CT chest"
    ds.SeriesDescription = "AX LUNG 5mm"
    ds.PatientName = patient_name
    ds.PatientID = patient_id
    ds.PatientBirthDate = "19580317"
    ds.PatientSex = "M"
    ds.PatientAge = "065Y"
    ds.PatientWeight = "80"
    ds.BodyPartExamined = "CHEST"
    ds.SliceThickness = "5"
    ds.KVP = "120"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = study_uid
    ds.SeriesInstanceUID = series_uid
    ds.StudyID = "S1"
    ds.SeriesNumber = 2
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = instance
    ds.ImagePositionPatient = [-100, -100, 5.0 * instance]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID = f"{study_uid}.99"
    ds.PositionReferenceIndicator = ""
    frame = pixels(seed=instance) if frame is None else frame
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = frame.shape
    ds.PixelSpacing = [1, 1]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    ds.RescaleIntercept = "0"
    ds.RescaleSlope = "1"
    ds.RescaleType = "HU"
    ds.add_new(0x7FE00010, "OW", frame.tobytes())
    for keyword, value in overrides.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def ct_series(n: int = 5, **overrides: Any) -> list[Dataset]:
    """Return `n` slices of one series, 5 mm apart."""
    return [dataset(instance=i + 1, **overrides) for i in range(n)]


def encode(ds: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    """Return the data set's bytes in one of the uncompressed transfer syntaxes, without File Meta Information."""
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflate.compress(encode(ds)) + deflate.flush()
        return data + b"\0" * (len(data) % 2)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = transfer_syntax_uid == ImplicitVRLittleEndian
    buffer.is_little_endian = transfer_syntax_uid != ExplicitVRBigEndian
    if not buffer.is_little_endian and "PixelData" in ds and ds["PixelData"].VR == "OW":
        swapped = Dataset()
        swapped.update(ds)
        swapped.add_new(0x7FE00010, "OW", np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes())
        ds = swapped
    write_dataset(buffer, ds)
    return buffer.getvalue()


def read(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Return data sets as a processor gets them: written, and read again."""
    found: list[Dataset] = []
    for one in datasets:
        again = dcmread(BytesIO(encode(one)), force=True)
        again.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        found.append(again)
    return found


def stack(volume: NDArray[Any], spacing: Three, origin: Three = (0.0, 0.0, 0.0), **overrides: Any) -> list[Dataset]:
    """Return axial slices of a volume (slices, rows, columns) in stored values; `spacing` in that order, in mm."""
    return read(
        [
            dataset(
                instance=number + 1,
                frame=np.ascontiguousarray(np.rint(plane).astype("<i2")),
                PixelSpacing=[spacing[1], spacing[2]],
                SliceThickness=f"{spacing[0]:g}",
                ImagePositionPatient=[origin[0], origin[1], origin[2] + number * spacing[0]],
                **{"WindowCenter": "40", "WindowWidth": "400", **overrides},
            )
            for number, plane in enumerate(volume)
        ]
    )


def mesh(
    shape: tuple[int, int, int], spacing: Three, origin: Three = (0.0, 0.0, 0.0)
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return patient z, y, x (mm) of every voxel of an axial stack."""
    axes = [np.arange(count) * step + start for count, step, start in zip(shape, spacing, reversed(origin), strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z, y, x


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return an item of a code sequence (PS3.3 8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
