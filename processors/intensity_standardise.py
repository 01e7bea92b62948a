"""MR values brought to a standard scale, so that a tissue has about the same value in every series of a kind.

Sources: Nyúl LG, Udupa JK, "On standardizing the MR image intensity scale", Magn Reson Med 42 (1999) 1072-1081, and Nyúl LG,
Udupa JK, Zhang X, "New variants of a method of MRI scale standardization", IEEE Trans Med Imaging 19 (2000) 143-150 (landmarks
of the foreground's histogram are mapped piecewise linearly); Shinohara RT, Sweeney EM, Goldsmith J et al., "Statistical
normalization techniques for magnetic resonance imaging", NeuroImage Clin 6 (2014) 9-19 (white stripe: the mode of white matter
becomes 0, its spread 1). Landmarks without a learnt scale are the 1st percentile, the median and the 99th, which become 100,
500 and 1000; `scale` takes eleven numbers learnt from series of one protocol (`learnt` of this module).

Comparable are series of one weighting and one part of the body only. Where the parts of the image differ (a neck with it, a
large tumour), percentiles stand for other tissues and the scale is off. Shading within a series stays: run `n4-bias` before.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pacs.processing import Choice, Images, NotApplicable, Range, Run, Series, Storage, private_code, processor
from pacs.processing.masks import Mask
from processors.mr_brain import extract
from processors.n4_bias import MAPS

STANDARDISED = private_code("STANDARD", "Intensity standardisation")
PERCENTS = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
THREE = ((1, 50, 99), (100.0, 500.0, 1000.0))
STRIPE = 0.05
"""Share of the brain's values on either side of white matter's mode."""


@processor(
    "intensity-standardise",
    version="1.0.0",
    makes=("MR",),
    when={"Modality": "MR", "NumberOfSeriesRelatedInstances": ">=5"},
    queue="cpu",
    memory_mb=4096,
)
def intensity_standardise(
    series: Series,
    run: Run,
    *,
    method: Annotated[str, Choice("landmarks", "z-score", "white-stripe"), "white-stripe: T1-weighted heads"] = "landmarks",
    scale: Annotated[
        str, "landmarks: eleven learnt values for the percentiles 1, 10 to 90, 99; empty for three fixed ones"
    ] = "",
    per_unit: Annotated[float, Range(1, 1000), "z-score, white-stripe: stored steps per standard deviation"] = 100.0,
) -> Iterator[Images]:
    """MR on a standard scale of values, as a derived series."""
    if series.modality != "MR":
        raise NotApplicable("made for MR")
    if MAPS & {one.upper() for one in series.text("ImageType").split("\\")}:
        raise NotApplicable("a map or a phase image has values of its own")
    values = series.array()
    if float(values.min()) < 0:
        raise NotApplicable("needs a magnitude image: values below zero")
    inside = foreground(values)
    run.progress(0.3, "finding landmarks")
    if method == "landmarks":
        changed = mapped(values, inside, wanted(scale))
        storage = Storage.of(series, 0.0, float(changed.max()))
        slope, intercept, bits = storage.slope, storage.intercept, storage.bits
        pixels = (storage.stored(plane) for plane in changed)
    else:
        if method == "white-stripe":
            mean, spread = white_stripe(values[extract(values, series.geometry())])
        else:
            mean, spread = float(values[inside].mean()), float(values[inside].std())
        if spread <= 0:
            raise NotApplicable("the foreground is of one value")
        changed = (values - np.float32(mean)) / np.float32(spread)
        slope, intercept, bits = 1 / per_unit, 0.0, 16
        pixels = (np.clip(np.rint(plane * per_unit), -32768, 32767).astype(np.int16) for plane in changed)
    low, high = (float(one) for one in np.percentile(changed[inside], (1, 99)))
    run.progress(0.8, "writing")
    yield Images(
        pixels=pixels,
        like=series.datasets,
        description=f"{series.text('SeriesDescription') or 'MR'} {method}",
        derivation=STANDARDISED,
        slope=slope,
        intercept=intercept,
        bits_stored=bits,
        rescale_type=None if slope is None else "US",
        window=((low + high) / 2, max(high - low, 1e-3)),
    )


def foreground(values: NDArray[np.float32]) -> Mask:
    """Return what is brighter than the mean of the whole image, as Nyúl and Udupa have it."""
    found: Mask = values > values.mean()
    if found.mean() < 0.01:
        raise NotApplicable("nothing stands out from the background")
    return found


def wanted(scale: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return percentiles, and what they become, from the parameter."""
    if not scale.strip():
        return THREE
    try:
        numbers = [float(one) for one in scale.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != len(PERCENTS) or any(b <= a for a, b in itertools.pairwise(numbers)):
        raise NotApplicable(f"the scale must be {len(PERCENTS)} ascending numbers")
    return PERCENTS, numbers


def mapped(values: NDArray[np.float32], inside: Mask, standard: tuple[Sequence[float], Sequence[float]]) -> NDArray[np.float32]:
    """Return values with the landmarks of the foreground moved to the standard's, straight lines between and beyond."""
    percents, targets = standard
    found = np.percentile(values[inside], percents)
    if np.diff(found).min() <= 0:
        raise NotApplicable("the histogram has too few values: landmarks fall together")
    # Below the first landmark the line goes through 0, so that air stays air; above the last it goes on.
    places = [0.0, *found, 2 * found[-1] - found[-2]]
    heights = [0.0, *targets, 2 * targets[-1] - targets[-2]]
    changed = np.interp(values, places, heights)
    beyond = values > places[-1]
    changed[beyond] = heights[-1] + (values[beyond] - places[-1]) * (heights[-1] - heights[-2]) / (places[-1] - places[-2])
    return changed.astype(np.float32)


def learnt(volumes: Sequence[NDArray[np.float32]]) -> list[float]:
    """Return the eleven landmarks of a standard scale: the mean over volumes, each brought to 100 to 1000."""
    ends = []
    for values in volumes:
        found = np.percentile(values[foreground(values)], PERCENTS)
        ends.append(100 + 900 * (found - found[0]) / (found[-1] - found[0]))
    return [round(float(one), 2) for one in np.mean(ends, axis=0)]


def white_stripe(brain: NDArray[np.float32]) -> tuple[float, float]:
    """Return mean and standard deviation of the values around white matter's mode, the brightest peak of a T1 histogram."""
    low, high = (float(one) for one in np.percentile(brain, (1, 99)))
    counts, edges = np.histogram(brain, 200, (low, high))
    reach = np.arange(-12, 13)
    smooth = np.convolve(counts, np.exp(-(reach**2) / (2 * 4.0**2)), "same")
    peaks = np.flatnonzero((smooth[1:-1] >= smooth[:-2]) & (smooth[1:-1] > smooth[2:])) + 1
    high_ones = [int(one) for one in peaks if smooth[one] > 0.3 * smooth.max()]
    if not high_ones:
        raise NotApplicable("no peak of white matter")
    mode = (edges[high_ones[-1]] + edges[high_ones[-1] + 1]) / 2
    at = float((brain <= mode).mean())
    ends = np.quantile(brain, (max(at - STRIPE, 0), min(at + STRIPE, 1)))
    stripe = brain[(brain >= ends[0]) & (brain <= ends[1])]
    return float(stripe.mean()), float(stripe.std())
