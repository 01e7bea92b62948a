"""CT, MR and PET on a grid of cubes: the same distance between voxels in all three directions.

Source: Lehmann TM, Goenner C, Spitzer K, "Survey: interpolation methods in medical image processing", IEEE Trans Med
Imaging 18 (1999) 1049-1075. Where the new voxels are larger than the old ones, the volume is smoothed first along that
direction (Gaussian; Cardoso MJ et al., "Scale factor point spread function matching", MICCAI 2015), so that fine detail
does not fold over.

New slices between old ones are interpolated, not seen: thick slices do not become thin ones.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing import (
    Choice,
    Geometry,
    Images,
    NotApplicable,
    Range,
    Run,
    Series,
    Storage,
    grid_over,
    on_grid,
    processor,
    resampled,
)


@processor(
    "resample-isotropic",
    version="1.0.0",
    makes=("CT", "MR", "PT"),
    when={"Modality": ["CT", "MR", "PT"], "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=3"},
    queue="heavy",
    memory_mb=8192,
)
def resample_isotropic(
    series: Series,
    run: Run,
    *,
    spacing_mm: Annotated[float, Range(0, 20, "mm"), "edge of a voxel; 0 takes the smallest of the source"] = 0.0,
    interpolation: Annotated[str, Choice("linear", "cubic"), "cubic overshoots at sharp edges"] = "linear",
    most_mvoxel: Annotated[int, Range(1, 1000, "10^6 voxels"), "larger results are refused"] = 400,
) -> Iterator[Images]:
    """The same volume with cubic voxels, as a derived series with its own geometry."""
    if series.modality not in ("CT", "MR", "PT"):
        raise NotApplicable("made for CT, MR and PET")
    source = series.geometry()
    edge = spacing_mm or min(source.spacing_mm)
    target = grid_over(source, source.row, source.column, (edge, edge, edge))
    if np.prod(target.shape, dtype=np.int64) > most_mvoxel * 1_000_000:
        raise NotApplicable(f"the result would have more than {most_mvoxel} million voxels; choose a larger spacing_mm")
    values = series.array()
    run.progress(0.3, "resampling")
    moved = isotropic(values, source, target, "cubic" if interpolation == "cubic" else "linear")
    storage = Storage.of(series, float(moved.min()), float(moved.max()))
    run.progress(0.8, "writing")
    yield on_grid(
        series,
        source,
        target,
        (storage.stored(plane) for plane in moved),
        storage,
        description=f"{series.text('SeriesDescription') or series.modality} isotropic",
        image_type="RESAMPLED",
        like=[series.datasets[_nearest(source, target, number)] for number in range(target.shape[0])],
    )


def isotropic(values: NDArray[np.float32], source: Geometry, target: Geometry, interpolation: Any) -> NDArray[np.float32]:
    """Return `values` on `target`, smoothed first where that is coarser."""
    image = source.image(values)
    for axis, (old, new) in enumerate(zip(reversed(source.spacing_mm), reversed(target.spacing_mm), strict=True)):
        if new > 1.01 * old:
            # A voxel of width w averages like a Gaussian of w / 2.355 (full width at half maximum); the source did so already.
            image = sitk.RecursiveGaussian(image, float(np.sqrt(new**2 - old**2)) / 2.355, direction=axis)
    return resampled(sitk.GetArrayFromImage(image), source, target, interpolation=interpolation, outside=float(values.min()))


def _nearest(source: Geometry, target: Geometry, number: int) -> int:
    along = float((np.asarray(target.position(number)) - np.asarray(source.origin)) @ source.normal) / source.spacing_mm[0]
    return int(np.clip(round(along), 0, source.shape[0] - 1))
