"""Even brightness on MR: the slow shading of surface coils is estimated and divided out.

Source: Tustison NJ, Avants BB, Cook PA et al., "N4ITK: improved N3 bias correction", IEEE Trans Med Imaging 29 (2010)
1310-1320, in SimpleITK's implementation. The field is fitted on a coarser grid inside the body and applied at full
resolution.

The field is smooth by construction (control points a few centimetres apart): sharp shading, spikes and moving artefacts stay.
On quantitative maps (T1, ADC) there is no shading to remove, and they are refused where the header names them.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing import Images, NotApplicable, Range, Run, Series, Storage, private_code, processor

BIAS = private_code("N4", "Intensity inhomogeneity correction (N4)")
MAPS = {"ADC", "T1 MAP", "T2 MAP", "T2_STAR", "FA", "PHASE", "VELOCITY", "P"}


@processor(
    "n4-bias",
    version="1.0.0",
    makes=("MR",),
    when={"Modality": "MR", "NumberOfSeriesRelatedInstances": ">=5"},
    queue="heavy",
    memory_mb=6144,
)
def n4_bias(
    series: Series,
    run: Run,
    *,
    coarse_mm: Annotated[float, Range(1, 20, "mm"), "voxel of the grid on which the field is fitted"] = 4.0,
    iterations: Annotated[int, Range(5, 200), "rounds at each of the levels"] = 50,
    levels: Annotated[int, Range(1, 5), "each halves the distance of the control points"] = 3,
) -> Iterator[Images]:
    """MR with the shading of the coils divided out (N4), as a derived series."""
    if series.modality != "MR":
        raise NotApplicable("made for MR")
    if MAPS & {one.upper() for one in series.text("ImageType").split("\\")}:
        raise NotApplicable("a map or a phase image has no coil shading to remove")
    values = series.array()
    if float(values.min()) < 0:
        raise NotApplicable("needs a magnitude image: values below zero")
    image = series.geometry().image(values)
    run.progress(0.1, "fitting the field")
    field = shading(image, coarse_mm, iterations, levels)
    run.progress(0.9, "dividing")
    corrected = values / field
    storage = Storage.of(series, 0.0, float(corrected.max()))
    yield Images(
        pixels=(storage.stored(plane) for plane in corrected),
        like=series.datasets,
        description=f"{series.text('SeriesDescription') or 'MR'} N4",
        derivation=BIAS,
        slope=storage.slope,
        intercept=storage.intercept,
        bits_stored=storage.bits,
    )


def shading(
    image: Any, coarse_mm: float = 4.0, iterations: int = 50, levels: int = 3, within: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Return the multiplicative field of a SimpleITK image, shape (frames, rows, columns), 1 on average inside the body.

    It is fitted in the body, which is what is bright, or `within` a mask of the same shape.
    """
    factors = [max(1, min(int(coarse_mm / step), count // 8)) for step, count in
               zip(image.GetSpacing(), image.GetSize(), strict=True)]  # fmt: skip
    coarse = sitk.Shrink(image, factors)
    if within is None:
        mask = sitk.OtsuThreshold(coarse, 0, 1, 200)
    else:
        given = sitk.GetImageFromArray(within.astype(np.uint8))
        given.CopyInformation(image)
        mask = sitk.Resample(given, coarse, sitk.Transform(), sitk.sitkNearestNeighbor)
    inside = sitk.GetArrayViewFromImage(mask) > 0
    if inside.mean() < 0.01:
        raise NotApplicable("nothing bright enough to fit a field on")
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations([iterations] * levels)
    # One thread: sums in another order would round differently, and a second run must give the same bytes.
    corrector.SetNumberOfThreads(1)
    corrector.Execute(coarse + 1.0, mask)
    log_field = sitk.GetArrayFromImage(sitk.Cast(corrector.GetLogBiasFieldAsImage(image), sitk.sitkFloat32))
    body = sitk.GetArrayFromImage(sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0
    field: NDArray[np.float32] = np.exp(log_field - log_field[body].mean()).astype(np.float32)
    return field
