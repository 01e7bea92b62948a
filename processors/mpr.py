"""Multi-planar reformation: coronal, sagittal, axial or oblique planes through a CT, MR or PET volume, with real geometry.

Source: Rhodes ML, Glenn WV, Azzawi YM, "Extracting oblique planes from serial CT sections", J Comput Assist Tomogr 4 (1980)
649-657; interpolation is linear. The planes lie in the frame of reference of the source, so that measuring, cross-lines and
fusion go on working. A slab (`thickness_mm`) is the mean of what it holds; `mip` does maxima and minima.

Between thick slices values are interpolated, not seen. Where a plane leaves the volume it shows the volume's smallest value.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pacs.processing import (
    Choice,
    Code,
    Geometry,
    Images,
    NotApplicable,
    Range,
    Run,
    Series,
    Storage,
    contributing,
    grid_over,
    processor,
    resampled,
)

MPR = Code("113072", "DCM", "Multiplanar reformatting")
Directions = tuple[tuple[float, float, float], tuple[float, float, float]]
PLANES: dict[str, Directions] = {
    # Rows towards the patient's left or back, columns towards the feet: as radiologists hang them.
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}


@processor(
    "mpr",
    version="1.0.0",
    makes=("CT", "MR", "PT"),
    when={"Modality": ["CT", "MR", "PT"], "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=10"},
    queue="heavy",
    memory_mb=8192,
)
def mpr(
    series: Series,
    run: Run,
    *,
    plane: Annotated[str, Choice("coronal", "sagittal", "axial"), "which plane, before it is turned"] = "coronal",
    turn_deg: Annotated[float, Range(-180, 180, "deg"), "turn about the head-foot axis, towards the patient's back"] = 0.0,
    tilt_deg: Annotated[float, Range(-90, 90, "deg"), "then tilt about the plane's own rows"] = 0.0,
    pixel_mm: Annotated[float, Range(0, 20, "mm"), "pixel; 0 takes the smallest spacing of the source"] = 0.0,
    step_mm: Annotated[float, Range(0, 100, "mm"), "from plane to plane; 0 takes the pixel"] = 3.0,
    thickness_mm: Annotated[float, Range(0, 100, "mm"), "mean over this thickness; 0 is a thin plane"] = 0.0,
) -> Iterator[Images]:
    """Coronal, sagittal, axial or oblique planes through a volume, as a derived series with real geometry."""
    if series.modality not in ("CT", "MR", "PT"):
        raise NotApplicable("made for CT, MR and PET")
    source = series.geometry()
    pixel = pixel_mm or min(source.spacing_mm)
    step = step_mm or pixel
    target = grid_over(source, *turned(plane, turn_deg, tilt_deg), (step, pixel, pixel))
    values = series.array()
    lowest = float(values.min())
    storage = Storage.of(series, lowest, float(values.max()))
    sources = [contributing(source, target, number, thickness_mm) for number in range(target.shape[0])]

    def planes() -> Iterator[NDArray[np.generic]]:
        for number in range(target.shape[0]):
            yield storage.stored(slab(values, source, target, number, thickness_mm, lowest).mean(axis=0))
            run.progress((number + 1) / target.shape[0], "reformatting")

    angles = "oblique " if turn_deg or tilt_deg else ""
    yield Images(
        pixels=planes(),
        like=[series.datasets[one[len(one) // 2]] for one in sources],
        sources=[[series.datasets[index] for index in one] for one in sources],
        geometry=target,
        description=f"{angles}{plane} {series.text('SeriesDescription')}".strip(),
        derivation=MPR,
        slope=storage.slope,
        intercept=storage.intercept,
        bits_stored=storage.bits,
        image_type="MPR",
        attributes={"SliceThickness": f"{max(thickness_mm, pixel):.6g}"},
    )


def turned(plane: str, turn_deg: float = 0.0, tilt_deg: float = 0.0) -> Directions:
    """Return the directions of rows and columns of a plane that is turned about z and then tilted about its rows."""
    row, column = (np.asarray(one) for one in PLANES[plane])
    row, column = _rotated(row, np.array([0.0, 0.0, 1.0]), turn_deg), _rotated(column, np.array([0.0, 0.0, 1.0]), turn_deg)
    column = _rotated(column, row, tilt_deg)
    # Rounding away -0.0 and 1e-17, which would stand in Image Orientation (Patient).
    row, column = np.round(row, 12) + 0.0, np.round(column, 12) + 0.0
    return (float(row[0]), float(row[1]), float(row[2])), (float(column[0]), float(column[1]), float(column[2]))


def slab(
    values: NDArray[np.float32], source: Geometry, target: Geometry, number: int, thickness_mm: float, outside: float
) -> NDArray[np.float32]:
    """Return the planes that make up slice `number` of `target`, shape (planes, rows, columns): one where it is thin.

    Where they are parallel to the source's slices, they are those slices; else planes as far apart as the finest spacing.
    """
    parallel = abs(float(source.normal @ target.normal)) > 1 - 1e-9
    if parallel and thickness_mm > source.spacing_mm[0]:
        along = float((np.asarray(target.position(number)) - np.asarray(source.origin)) @ source.normal) / source.spacing_mm[0]
        half = thickness_mm / source.spacing_mm[0] / 2
        # From the lower edge to the upper one, without it: a slice on the border of two slabs belongs to one of them.
        first, last = (int(np.clip(np.ceil(along + way - 1e-6), 0, source.shape[0])) for way in (-half, half))
        if last > first:
            part = source.slab(first, last - 1)
            offset = (np.asarray(target.position(number)) - np.asarray(part.origin)) @ source.normal
            start = np.asarray(target.position(number)) - offset * source.normal
            if float(source.normal @ target.normal) < 0:
                start = start + (last - 1 - first) * source.spacing_mm[0] * source.normal
            place = (float(start[0]), float(start[1]), float(start[2]))
            spacing = (source.spacing_mm[0], target.spacing_mm[1], target.spacing_mm[2])
            same = Geometry(place, target.row, target.column, spacing, (last - first, *target.shape[1:]))
            return resampled(values, source, same, outside=outside)
    fine = min(source.spacing_mm)
    count = max(1, round(thickness_mm / fine))
    apart = thickness_mm / count if count > 1 else fine
    origin = np.asarray(target.position(number)) - target.normal * apart * (count - 1) / 2
    grid = Geometry(
        (float(origin[0]), float(origin[1]), float(origin[2])),
        target.row,
        target.column,
        (apart, target.spacing_mm[1], target.spacing_mm[2]),
        (count, *target.shape[1:]),
    )
    return resampled(values, source, grid, outside=outside)


def _rotated(vector: NDArray[np.float64], axis: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Rodrigues' rotation."""
    angle = np.deg2rad(degrees)
    turned_vector: NDArray[np.float64] = (
        vector * np.cos(angle) + np.cross(axis, vector) * np.sin(angle) + axis * (axis @ vector) * (1 - np.cos(angle))
    )
    return turned_vector
