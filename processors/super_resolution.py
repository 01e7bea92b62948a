"""Thinner slices from thick ones, by iterative back-projection: what is computed must, made thick again, be what was measured.

Source: Irani M, Peleg S, "Improving resolution by image registration", CVGIP: Graph Models Image Process 53 (1991) 231-239,
here along the slices alone. A slice is taken as the mean over its thickness. Begun with cubic interpolation, each round
compares what the thin slices would have given with what the scanner gave, and puts the difference back, smoothly.

This is honest interpolation, no network: it makes edges between slices steeper and returns partial volume, but what lies wholly
within one thick slice stays unresolved.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pacs.processing import Geometry, Images, NotApplicable, Range, Run, Series, Storage, contributing, processor


@processor(
    "super-resolution",
    version="1.0.0",
    makes=("CT", "MR", "PT"),
    when={"Modality": ["CT", "MR", "PT"], "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=5"},
    queue="heavy",
    memory_mb=8192,
)
def super_resolution(
    series: Series,
    run: Run,
    *,
    factor: Annotated[int, Range(2, 8), "thin slices for each thick one"] = 2,
    rounds: Annotated[int, Range(1, 50), "corrections"] = 10,
) -> Iterator[Images]:
    """Thinner slices that agree with the thick ones they were computed from."""
    if series.modality not in ("CT", "MR", "PT"):
        raise NotApplicable("made for CT, MR and PET")
    source = series.geometry()
    if source.spacing_mm[0] < 1.5 * max(source.spacing_mm[1:]):
        raise NotApplicable("the slices are nearly as thin as the pixels are small")
    values = series.array()
    thin = refined(values, factor, rounds, run)
    step = source.spacing_mm[0] / factor
    start = np.asarray(source.origin) - source.normal * (source.spacing_mm[0] - step) / 2
    place = (float(start[0]), float(start[1]), float(start[2]))
    shape = (source.shape[0] * factor, *source.shape[1:])
    target = Geometry(place, source.row, source.column, (step, *source.spacing_mm[1:]), shape)
    storage = Storage.of(series, float(thin.min()), float(thin.max()))
    sources = [contributing(source, target, number) for number in range(target.shape[0])]
    yield Images(
        pixels=(storage.stored(plane) for plane in thin),
        like=[series.datasets[one[len(one) // 2]] for one in sources],
        sources=[[series.datasets[index] for index in one] for one in sources],
        geometry=target,
        description=f"thinner slices {series.text('SeriesDescription')}".strip(),
        slope=storage.slope,
        intercept=storage.intercept,
        bits_stored=storage.bits,
        image_type="RESAMPLED",
        attributes={"SliceThickness": f"{step:.6g}"},
    )


def refined(values: NDArray[np.float32], factor: int, rounds: int, run: Run | None = None) -> NDArray[np.float32]:
    """Return (slices * factor, rows, columns): each block of `factor` slices has the thick slice as its mean, nearly."""
    slices = len(values)
    at = (np.arange(slices * factor) + 0.5) / factor - 0.5
    upward = _cubic(at, slices)
    thin = np.tensordot(upward, values, axes=1).astype(np.float32)
    for number in range(rounds):
        seen = thin.reshape(slices, factor, *values.shape[1:]).mean(axis=1)
        thin += np.tensordot(upward, values - seen, axes=1).astype(np.float32)
        if run is not None:
            run.progress((number + 1) / rounds, "correcting")
    # Nothing denser or emptier than was ever measured nearby: overshoot at edges is not anatomy.
    low, high = values.min(), values.max()
    bounded: NDArray[np.float32] = np.clip(thin, low, high)
    return bounded


def _cubic(at: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """Return the matrix (len(at), count) of cubic convolution (Keys R, IEEE Trans ASSP 29 (1981) 1153-1160), ends repeated."""
    matrix = np.zeros((len(at), count), np.float32)
    base = np.floor(at).astype(int)
    for offset in (-1, 0, 1, 2):
        distance = np.abs(at - (base + offset))
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        weight = np.where(distance < 1, near, np.where(distance < 2, far, 0))
        np.add.at(matrix, (np.arange(len(at)), np.clip(base + offset, 0, count - 1)), weight.astype(np.float32))
    return matrix
