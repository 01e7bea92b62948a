"""PET on the grid of its CT, and both blended in colour.

Sources: Townsend DW, "Combined positron emission tomography-computed tomography: the historical perspective", Semin Ultrasound
CT MR 29 (2008) 232-235 (hardware fusion: one frame of reference, so resampling alone registers); SUV by body weight after the
QIBA FDG-PET profile's vendor-neutral pseudo-code. Resampling is linear. Nothing is registered: images of different frames of
reference are refused rather than guessed at.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.processing import Geometry, Images, NotApplicable, Overlay, Range, Run, Series, Study, private_code, processor
from processors.uptake import suv_factor

FUSED = private_code("FUSION", "Fusion of two modalities")


@processor(
    "petct-fusion",
    version="1.0.0",
    level="study",
    makes=("PT", "OT"),
    # A CT has no Corrected Image; a PET that is not attenuation-corrected is not worth reading.
    when={"Modality": ["CT", "PT"], "ImageType": "!LOCALIZER", "CorrectedImage": ["ATTN", ""]},
    queue="cpu",
    memory_mb=6144,
)
def petct_fusion(
    study: Study,
    run: Run,
    *,
    matrix: Annotated[int, Range(64, 512), "largest in-plane size of the results"] = 256,
    alpha: Annotated[float, Range(0, 1), "share of PET colour in the blend"] = 0.5,
    suv_max: Annotated[float, Range(1, 50, "g/mL"), "SUV that is shown white"] = 10.0,
    window_center: Annotated[float, Range(-1000, 1000, "HU"), "CT window"] = 40.0,
    window_width: Annotated[float, Range(1, 4000, "HU"), "CT window"] = 400.0,
) -> Iterator[Images | Overlay]:
    """Attenuation-corrected PET resampled to its CT, as a PET series, and a colour blend of both for any viewer."""
    ct, pet, ct_grid, pet_grid = choose(study)
    first, last = _overlap(ct_grid, pet_grid)
    grid = ct_grid.slab(first, last)
    scale = max(1, int(np.ceil(max(grid.shape[1:]) / matrix)))
    grid = grid.resized(max(1, grid.shape[1] // scale), max(1, grid.shape[2] // scale))
    slices = ct.datasets[first : last + 1]
    run.progress(0.1, "reading PET")
    activity = resample(pet.array(), pet_grid, grid)
    run.progress(0.4, "resampling")
    near = [_nearest(pet, pet_grid, grid.position(number)) for number in range(grid.shape[0])]
    peak = float(activity.max())
    if peak <= 0:
        raise NotApplicable("the PET shows no activity where the CT is")
    slope = peak / 32767
    yield Images(
        pixels=(np.rint(np.clip(plane, 0, None) / np.float32(slope)).astype(np.int16) for plane in activity),
        like=[two[0] for two in near],
        sources=near,
        geometry=grid,
        description="PET on the CT grid",
        slope=slope,
        intercept=0,
        image_type="RESAMPLED",
        window=_pet_window(pet, activity, suv_max),
    )
    center, width = _pet_window(pet, activity, suv_max)
    hot_top = center + width / 2

    def blends() -> Iterator[NDArray[np.uint8]]:
        for number in range(grid.shape[0]):
            plane = ct.frame(first + number)
            plane = cv2.resize(plane, (grid.shape[2], grid.shape[1]), interpolation=cv2.INTER_AREA)
            yield blend(plane, activity[number] / np.float32(hot_top), alpha, window_center, window_width)
            run.progress(0.5 + 0.5 * (number + 1) / grid.shape[0], "blending")

    yield Overlay(
        pixels=blends(),
        sources=[[image, *two] for image, two in zip(slices, near, strict=True)],
        geometry=grid,
        description="PET/CT fusion",
        derivation=FUSED,
    )


def choose(study: Study) -> tuple[Series, Series, Geometry, Geometry]:
    """Pick the CT and the PET: volumes of one frame of reference, most slices; PET with attenuation correction.

    Raises `NotApplicable` with the nearest reason where there is no such pair.
    """
    reasons: list[str] = []
    cts = _volumes([one for one in study.of_modality("CT") if "LOCALIZER" not in one.text("ImageType")], reasons, axial=True)
    corrected = [one for one in study.of_modality("PT") if "ATTN" in one.text("CorrectedImage").split("\\")]
    if study.of_modality("PT") and not corrected:
        raise NotApplicable("no PET series says that it is attenuation-corrected (Corrected Image ATTN)")
    pets = _volumes(corrected, reasons, axial=False)
    if not cts or not pets:
        raise NotApplicable(f"needs a CT volume and a PET volume{': ' + reasons[0] if reasons else ''}")
    for ct, ct_grid in cts:
        for pet, pet_grid in pets:
            frame = ct.text("FrameOfReferenceUID")
            if frame and frame == pet.text("FrameOfReferenceUID"):
                return ct, pet, ct_grid, pet_grid
    raise NotApplicable("CT and PET have different frames of reference; registering them is not what this does")


def resample(values: NDArray[np.float32], source: Geometry, target: Geometry) -> NDArray[np.float32]:
    """Return `values` linearly interpolated at the voxel centres of `target`; 0 outside `source`."""
    moved = sitk.Resample(source.image(values), _reference(target), sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    found: NDArray[np.float32] = sitk.GetArrayFromImage(moved)
    return found


def blend(ct: NDArray[np.float32], pet: NDArray[np.float32], alpha: float, center: float, width: float) -> NDArray[np.uint8]:
    """Return ``(1 - alpha) * grey + alpha * hot`` as RGB bytes.

    Parameters
    ----------
    ct : ndarray of float32, shape (rows, columns)
        Hounsfield units, shown in the window `center`, `width`.
    pet : ndarray of float32, shape (rows, columns)
        Activity, 1 at the top of the colour scale.
    """
    grey = np.clip((ct - (center - width / 2)) / width, 0, 1)
    mixed = (1 - alpha) * grey[..., None] + alpha * hot(pet)
    return np.rint(mixed * 255).astype(np.uint8)


def hot(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """The hot-metal scale: black, red, yellow, white; shape (…, 3), 0 to 1."""
    unit = np.clip(unit, 0, 1)
    return np.clip(np.stack([3 * unit, 3 * unit - 1, 3 * unit - 2], axis=-1), 0, 1)


def _volumes(series: Sequence[Series], reasons: list[str], *, axial: bool) -> list[tuple[Series, Geometry]]:
    found = []
    for one in sorted(series, key=len, reverse=True):
        try:
            grid = one.geometry()
        except NotApplicable as reason:
            reasons.append(str(reason))
            continue
        if axial and abs(grid.normal[2]) < 0.8:
            reasons.append("the CT is not axial")
            continue
        found.append((one, grid))
    return found


def _overlap(ct: Geometry, pet: Geometry) -> tuple[int, int]:
    """First and last CT slice that lie within the PET."""
    ends = [float(np.dot(np.asarray(pet.position(n)), ct.normal)) for n in (0, pet.shape[0] - 1)]
    low, high = min(ends) - pet.spacing_mm[0] / 2, max(ends) + pet.spacing_mm[0] / 2
    along = [float(np.dot(np.asarray(ct.position(n)), ct.normal)) for n in range(ct.shape[0])]
    inside = [n for n, at in enumerate(along) if low <= at <= high]
    if len(inside) < 2:
        raise NotApplicable("CT and PET do not cover the same part of the body")
    return inside[0], inside[-1]


def _nearest(pet: Series, grid: Geometry, position: tuple[float, float, float]) -> list[Dataset]:
    """The one or two PET slices that a slice at `position` is interpolated from."""
    offset = np.asarray(position) - np.asarray(grid.origin)
    at = float(np.dot(offset, grid.normal)) / grid.spacing_mm[0]
    lower = min(max(int(np.floor(at)), 0), len(pet) - 1)
    upper = min(lower + 1, len(pet) - 1)
    nearest, other = (lower, upper) if at - lower <= 0.5 else (upper, lower)
    return [pet.datasets[n] for n in dict.fromkeys((nearest, other))]


def _pet_window(pet: Series, activity: NDArray[np.float32], suv_max: float) -> tuple[float, float]:
    try:
        factor = suv_factor(pet.datasets)
    except NotApplicable:
        factor = 0.0
    inside = activity[:, ::4, ::4]
    top = suv_max / factor if factor else float(np.percentile(inside[inside > 0], 99.5)) if (inside > 0).any() else 1.0
    return top / 2, max(top, 1e-6)


def _reference(grid: Geometry) -> Any:
    image = sitk.Image([grid.shape[2], grid.shape[1], grid.shape[0]], sitk.sitkUInt8)
    image.SetSpacing([grid.spacing_mm[2], grid.spacing_mm[1], grid.spacing_mm[0]])
    image.SetOrigin(list(grid.origin))
    image.SetDirection(np.stack([grid.row, grid.column, grid.normal], axis=1).ravel().tolist())
    return image
