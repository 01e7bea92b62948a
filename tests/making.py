"""Small phantoms with known truth and planted identity, and real archives to put them into."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pacs.archive import Archive
from pacs.model.instance import Origin, Received
from pacs.settings import Settings, load
from pacs.sweep import prepare

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


def pixels(rows: int = 64, columns: int = 64, *, seed: int = 0) -> np.ndarray:
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
    frame: np.ndarray | None = None,
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


def part10(ds: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    """Return a whole Part 10 file."""
    copy = Dataset()
    copy.update(ds)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = transfer_syntax_uid
    copy.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    copy.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    buffer = BytesIO()
    copy.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_files(folder: Path, series: list[Dataset]) -> list[Path]:
    """Write a series as Part 10 files and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(series):
        path = folder / f"{number:04}.dcm"
        path.write_bytes(part10(ds))
        paths.append(path)
    return paths


def received(
    ds: Dataset,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    *,
    origin: Origin = Origin.STORAGE_SCU,
    source: str = "MODALITY",
    association: str = "a1",
) -> Received:
    """Return the data set as a door would hand it in."""
    return Received(
        data_set=encode(ds, transfer_syntax_uid),
        transfer_syntax_uid=transfer_syntax_uid,
        origin=origin,
        source=source,
        sop_class_uid=str(ds.get("SOPClassUID", "")),
        sop_instance_uid=str(ds.get("SOPInstanceUID", "")),
        association=association,
    )


def settings(home: Path, **overrides: Any) -> Settings:
    """Return settings for a test home; `overrides` are ``section__name=value``, for example ``dicom__port=0``."""
    tree = load(home, environment={})
    defaults = {"store__segment_mb": 8, "store__floor_mb": 0}
    for name, value in {**defaults, **overrides}.items():
        section, _, key = name.partition("__")
        tree = replace(tree, **{section: replace(getattr(tree, section), **{key: value})})
    return tree


@contextmanager
def archive(home: Path, *, writer: str = "test", **overrides: Any) -> Iterator[Archive]:
    """Prepare a home and open a real archive in it: real store, real keys, SQLite."""
    tree = settings(home, **overrides)
    prepare(tree)
    with Archive.opened(tree, writer=writer) as opened:
        yield opened
