"""A chest phantom whose truth is known: CT with lungs, trachea, heart, bone and nodule; PET on the same frame of reference.

Shapes are ellipsoids in patient coordinates (millimetres, LPS), so that every mask can be computed on any grid. The identity
planted in it is invented, and every string of it is listed in `IDENTITY`, to be searched for afterwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from pacs.phantoms.base import code

IDENTITY = {
    "PatientName": "Vantongeren^Philippa^Isolde",
    "PatientID": "HOSP-88412907",
    "PatientBirthDate": "19610304",
    "AccessionNumber": "ACC20417733",
    "InstitutionName": "Hollowmere General Hospital",
    "ReferringPhysicianName": "Okonkwo-Drummond^Bartholomew",
    "OperatorsName": "Szczepanska^Wanda",
    "InstitutionAddress": "17 Larkspur Crescent, Hollowmere",
    "PatientTelephoneNumbers": "+44 555 0199 421",
}
NODULE_MM = (60.0, -10.0, 40.0)
NODULE_RADIUS_MM = 11.0
NODULE_SUV = 8.0
DOSE_BQ = 3.7e8
WEIGHT_KG = 72.0
HALF_LIFE_S = 6586.2
"""Physical half-life of fluorine-18."""


@dataclass(frozen=True, slots=True)
class Grid:
    """An axial grid: `origin` is the centre of the first voxel (x, y, z); `shape` is (slices, rows, columns)."""

    origin: tuple[float, float, float]
    pixel_mm: float
    slice_mm: float
    shape: tuple[int, int, int]

    def coordinates(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return x, y and z of every voxel, broadcastable to `shape`."""
        slices, rows, columns = self.shape
        x = (self.origin[0] + self.pixel_mm * np.arange(columns, dtype=np.float32))[None, None, :]
        y = (self.origin[1] + self.pixel_mm * np.arange(rows, dtype=np.float32))[None, :, None]
        z = (self.origin[2] + self.slice_mm * np.arange(slices, dtype=np.float32))[:, None, None]
        return x, y, z


CT_GRID = Grid((-191.25, -191.25, -120.0), 1.5, 5.0, (48, 256, 256))
PET_GRID = Grid((-190.0, -190.0, -118.0), 4.0, 4.0, (58, 96, 96))


def _ellipsoid(grid: Grid, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> NDArray[np.bool_]:
    x, y, z = grid.coordinates()
    distance = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 + ((z - centre[2]) / radii[2]) ** 2
    inside: NDArray[np.bool_] = np.less_equal(distance, 1)
    return inside


def body(grid: Grid) -> NDArray[np.bool_]:
    """Return the mask of the body."""
    return _ellipsoid(grid, (0, 0, 0), (165, 115, 1e6))


def lungs(grid: Grid) -> NDArray[np.bool_]:
    """Return the mask of both lungs, without the heart that dents them, with the nodule within them."""
    return (_ellipsoid(grid, (72, -5, 0), (52, 78, 105)) | _ellipsoid(grid, (-72, -5, 0), (52, 78, 105))) & ~heart(grid)


def heart(grid: Grid) -> NDArray[np.bool_]:
    """Return the mask of the heart."""
    return _ellipsoid(grid, (18, -22, -35), (42, 38, 50))


def nodule(grid: Grid) -> NDArray[np.bool_]:
    """Return the mask of the nodule."""
    return _ellipsoid(grid, NODULE_MM, (NODULE_RADIUS_MM,) * 3)


def bone(grid: Grid) -> NDArray[np.bool_]:
    """Return the mask of spine and ribs."""
    spine = _ellipsoid(grid, (0, 82, 0), (17, 16, 1e6))
    x, y, z = grid.coordinates()
    radius = np.sqrt((x / 150) ** 2 + (y / 100) ** 2)
    ribs = (np.abs(radius - 1) < 0.035) & (np.mod(z + 0.25 * y, 28) < 9)
    either: NDArray[np.bool_] = spine | ribs
    return either


def hounsfield(grid: Grid, *, noise_hu: float = 12.0) -> NDArray[np.int16]:
    """Return the CT numbers on `grid`, with noise that is the same every time."""
    values = np.full(grid.shape, -1000.0, np.float32)
    values[body(grid)] = 30.0
    values[lungs(grid)] = -840.0
    values[heart(grid)] = 45.0
    values[_ellipsoid(grid, (0, 25, 110), (9, 9, 60))] = -990.0
    values[nodule(grid)] = 40.0
    values[bone(grid)] = 480.0
    noise = np.random.default_rng(20260101).normal(0, noise_hu, grid.shape)
    return np.clip(np.rint(values + noise), -1024, 3071).astype(np.int16)


def suv(grid: Grid) -> NDArray[np.float32]:
    """Return standardised uptake values (g/mL, body weight) on `grid`."""
    values = np.zeros(grid.shape, np.float32)
    values[body(grid)] = 1.0
    values[lungs(grid)] = 0.4
    values[heart(grid)] = 2.0
    values[nodule(grid)] = NODULE_SUV
    return values


def study(*, long_ago: str = "20250612") -> Iterator[tuple[str, Dataset]]:
    """Yield (series name, image) for every image of a fresh PET/CT study; its UIDs are new at each call."""
    common = _common(long_ago)
    frame_of_reference_uid = generate_uid()
    for name, make in (("CT", _ct_slices), ("PT", _pet_slices)):
        series_uid = generate_uid()
        for ds in make(common):
            ds.SeriesInstanceUID = series_uid
            ds.SOPInstanceUID = generate_uid()
            ds.FrameOfReferenceUID = frame_of_reference_uid
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            yield name, ds


def write(folder: Path) -> dict[str, list[Path]]:
    """Write a fresh study into `folder`; return the files by series."""
    files: dict[str, list[Path]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, ds in study():
        path = folder / f"{name}{len(files.setdefault(name, [])):04}.dcm"
        ds.save_as(path, enforce_file_format=True)
        files[name].append(path)
    return files


def _common(date: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    for keyword, value in IDENTITY.items():
        setattr(ds, keyword, value)
    ds.StudyInstanceUID = generate_uid()
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = date
    ds.StudyTime, ds.SeriesTime, ds.AcquisitionTime, ds.ContentTime = "101500", "101600", "101700", "101800"
    ds.StudyID = "1"
    ds.StudyDescription = "PET/CT chest"
    ds.PatientSex, ds.PatientAge = "F", "064Y"
    ds.PatientWeight, ds.PatientSize = f"{WEIGHT_KG:g}", "1.70"
    ds.Manufacturer, ds.ManufacturerModelName = "mini-pacs phantom", "Ellipsoids"
    ds.DeviceSerialNumber, ds.StationName = "PHANTOM-1", "SCANNER7"
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = "HFS"
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PositionReferenceIndicator = ""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.BurnedInAnnotation = "NO"
    ds.AcquisitionNumber = 1
    return ds


def _slice(common: Dataset, grid: Grid, index: int, pixels: NDArray[np.integer]) -> Dataset:
    ds = Dataset()
    ds.update(common)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.InstanceNumber = index + 1
    ds.ImagePositionPatient = [f"{v:.6g}" for v in (*grid.origin[:2], grid.origin[2] + index * grid.slice_mm)]
    ds.PixelSpacing = [f"{grid.pixel_mm:g}"] * 2
    ds.SliceThickness = f"{grid.slice_mm:g}"
    ds.Rows, ds.Columns = pixels.shape
    ds.add_new(0x7FE00010, "OW", pixels.tobytes())
    return ds


def ct_images(grid: Grid, *, date: str = "20250612") -> Iterator[Dataset]:
    """Yield the CT images on `grid` without series and SOP instance UIDs."""
    yield from _ct_slices(_common(date), grid)


def _ct_slices(common: Dataset, grid: Grid = CT_GRID) -> Iterator[Dataset]:
    volume = hounsfield(grid)
    for index in range(grid.shape[0]):
        ds = _slice(common, grid, index, volume[index].astype("<i2"))
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.Modality, ds.SeriesNumber, ds.SeriesDescription = "CT", 2, "CT CHEST 5.0 AXIAL"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.PixelRepresentation = 1
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "HU"
        ds.KVP, ds.ConvolutionKernel = "120", "STANDARD"
        ds.WindowCenter, ds.WindowWidth = "40", "400"
        yield ds


def _pet_slices(common: Dataset) -> Iterator[Dataset]:
    values = suv(PET_GRID)
    # Decay from injection (09:15) to the series start (10:16), PS3.3 C.8.9.1: DECY corrected to START.
    decay = 2 ** (-(61 * 60.0) / HALF_LIFE_S)
    becquerel_per_ml = values * DOSE_BQ * decay / (WEIGHT_KG * 1000)
    slope = float(becquerel_per_ml.max()) / 32000
    stored = np.rint(becquerel_per_ml / slope).astype("<i2")
    for index in range(PET_GRID.shape[0]):
        ds = _slice(common, PET_GRID, index, stored[index])
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
        ds.Modality, ds.SeriesNumber, ds.SeriesDescription = "PT", 3, "PET AC"
        ds.ImageType = ["ORIGINAL", "PRIMARY"]
        ds.PixelRepresentation = 1
        ds.RescaleIntercept, ds.RescaleSlope = "0", f"{slope:.10g}"
        ds.SeriesType, ds.Units, ds.CountsSource, ds.DecayCorrection = ["WHOLE BODY", "IMAGE"], "BQML", "EMISSION", "START"
        ds.CorrectedImage = ["DECY", "ATTN", "SCAT"]
        ds.NumberOfSlices, ds.ImageIndex = PET_GRID.shape[0], index + 1
        ds.CollimatorType, ds.ReconstructionMethod = "NONE", "OSEM"
        ds.FrameReferenceTime, ds.ActualFrameDuration = "0", "180000"
        ds.DecayFactor = "1.01"
        del ds.PatientPosition  # PS3.3 C.7.3.1.1.2: not beside Patient Orientation Code Sequence
        tracer = Dataset()
        tracer.Radiopharmaceutical = "FDG"
        tracer.RadiopharmaceuticalStartTime = "091500"
        tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = f"{DOSE_BQ:g}", f"{HALF_LIFE_S:g}"
        tracer.RadionuclideCodeSequence = [code("77004003", "SCT", "^18^Fluorine")]
        ds.RadiopharmaceuticalInformationSequence = [tracer]
        ds.PatientOrientationCodeSequence = [code("102538003", "SCT", "recumbent")]
        ds.PatientGantryRelationshipCodeSequence = [code("102540008", "SCT", "headfirst")]
        yield ds
