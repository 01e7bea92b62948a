"""Grey matter, white matter and fluid inside the brain on T1-weighted MR, by a mixture of Gaussians and a random field.

Sources: Zhang Y, Brady M, Smith S, "Segmentation of brain MR images through a hidden Markov random field model and the
expectation-maximization algorithm", IEEE Trans Med Imaging 20 (2001) 45-57; Besag J, "On the statistical analysis of dirty
pictures", J R Stat Soc B 48 (1986) 259-302 (iterated conditional modes). The brain is found as `mr-brain` finds it, and its
shading divided out (N4) unless `even` is off. Three Gaussians are fitted to the histogram inside; then each voxel takes the
tissue that its value and its six neighbours make likeliest, nearer neighbours counting more.

Each voxel is given to one tissue: at borders a share of each is lost or won, so that volumes of the thin cortex depend on the
size of voxels. Lesions, contrast medium, iron (deep grey nuclei count as white in part) and the unmyelinated brain of infants
do not fit the model, nor do averages of many heads, whose histogram has no three peaks. Fluid is that inside the brain's mask,
not all that the skull holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing import (
    Code,
    Geometry,
    Measurements,
    NotApplicable,
    Range,
    Run,
    Segment,
    Segmentation,
    Series,
    codes,
    processor,
    units,
)
from pacs.processing.masks import Mask, box, volume_ml
from processors.mr_brain import extract, refuse_no_head
from processors.n4_bias import shading

FLUID, GREY, WHITE = 1, 2, 3
SEGMENTS = {
    FLUID: Segment(
        "Cerebrospinal fluid", codes.SCT.CerebrospinalFluid, Code("91720002", "SCT", "Body Substance"), (90, 150, 220)
    ),
    GREY: Segment("Grey matter", codes.SCT.GrayMatter, color_rgb=(200, 160, 120)),
    WHITE: Segment("White matter", codes.SCT.WhiteMatter, color_rgb=(245, 245, 225)),
}
BINS = 512
LEAST_APART = 1.5
"""Means of neighbouring tissues lie at least so many mean standard deviations apart; else they are not three."""


@processor(
    "mr-tissues",
    version="1.0.0",
    makes=("SEG", "SR"),
    when={"Modality": "MR", "BodyPartExamined": ["HEAD", "BRAIN", "SKULL", ""], "NumberOfSeriesRelatedInstances": ">=10"},
    queue="heavy",
    memory_mb=6144,
)
def mr_tissues(
    series: Series,
    run: Run,
    *,
    strength: Annotated[float, Range(0.1, 0.9), "of mr-brain: larger gives a smaller brain"] = 0.5,
    even: Annotated[bool, "divide out shading (N4) first"] = True,
    smoothness: Annotated[float, Range(0, 3), "how much neighbours count; 0 looks at each voxel alone"] = 0.4,
    rounds: Annotated[int, Range(0, 20), "of looking at neighbours again"] = 6,
) -> Iterator[Segmentation | Measurements]:
    """Grey matter, white matter and fluid on a T1-weighted MR head: a segmentation, and volumes as a report."""
    refuse_no_head(series)
    geometry = series.geometry()
    values = series.array()
    brain = extract(values, geometry, strength)
    run.progress(0.4, "dividing out shading")
    if even:
        values = values / shading(geometry.image(values), 6.0, 30, 2, brain)
    run.progress(0.7, "telling tissues apart")
    mixture = fit(values[brain])
    if mixture.apart() < LEAST_APART:
        raise NotApplicable("no three tissues in the histogram of the brain: not T1-weighted, or too noisy")
    labels = np.zeros(brain.shape, np.uint8)
    # Only the brain's box: the field looks at each voxel six times.
    inner = box(brain, geometry)
    labels[inner] = classify(values[inner], brain[inner], mixture, geometry, smoothness, rounds)
    segments = {number: one for number, one in SEGMENTS.items() if (labels == number).any()}
    run.progress(0.9, "writing")
    segmentation = Segmentation(series, labels, segments, "Brain tissues")
    yield segmentation
    yield Measurements(
        segmentation,
        {number: [units.volume(volume_ml(labels == number, geometry))] for number in segments},
        "Brain tissue volumes",
    )


@dataclass(frozen=True)
class Mixture:
    """Three Gaussians, darkest first: their shares, means and standard deviations."""

    shares: NDArray[np.float64]
    means: NDArray[np.float64]
    spreads: NDArray[np.float64]

    def apart(self) -> float:
        """Return the least distance of neighbouring means in mean standard deviations of the two."""
        return float((np.diff(self.means) / ((self.spreads[1:] + self.spreads[:-1]) / 2)).min())

    def unlikely(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the negative logarithm of each tissue's density at each value, tissues along the first axis."""
        return np.stack(
            [
                ((values - mean) ** 2 / (2 * spread**2) + np.log(spread / share)).astype(np.float32)
                for share, mean, spread in zip(self.shares, self.means, self.spreads, strict=True)
            ]
        )


def fit(inside: NDArray[np.float32], rounds: int = 200) -> Mixture:
    """Return the mixture that explains the histogram best (expectation and maximization), beginning at Otsu's thresholds."""
    low, high = (float(one) for one in np.percentile(inside, (0.2, 99.8)))
    if high <= low:
        raise NotApplicable("the brain is of one value")
    counts, edges = np.histogram(inside, BINS, (low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    otsu = sitk.OtsuMultipleThresholdsImageFilter()
    otsu.SetNumberOfThresholds(2)
    otsu.Execute(sitk.GetImageFromArray(np.clip(inside, low, high)[None, None]))
    class_of = np.digitize(middles, otsu.GetThresholds())
    belongs = np.stack([class_of == number for number in range(3)]).astype(float)
    # A floor for the spread: a tissue must not shrink to one bin.
    least = 2 * (high - low) / BINS
    for _ in range(rounds):
        weight = belongs * counts
        total = np.maximum(weight.sum(axis=1), 1e-6)
        means = (weight * middles).sum(axis=1) / total
        spreads = np.maximum(np.sqrt((weight * (middles - means[:, None]) ** 2).sum(axis=1) / total), least)
        shares = total / total.sum()
        density = (shares / spreads)[:, None] * np.exp(-((middles - means[:, None]) ** 2) / (2 * spreads[:, None] ** 2))
        belongs = density / np.maximum(density.sum(axis=0), 1e-300)
    order = np.argsort(means)
    return Mixture(shares[order], means[order], spreads[order])


def classify(
    values: NDArray[np.float32], brain: Mask, mixture: Mixture, geometry: Geometry, smoothness: float, rounds: int
) -> NDArray[np.uint8]:
    """Return the labels of a volume: the likeliest tissue by value, then `rounds` times by value and neighbours."""
    unlikely = mixture.unlikely(values)
    labels = np.where(brain, 1 + unlikely.argmin(axis=0), 0).astype(np.uint8)
    near = min(geometry.spacing_mm)
    for _ in range(rounds if smoothness else 0):
        before = labels
        cost = unlikely.copy()
        padded = np.pad(labels, 1)
        for axis, step in enumerate(geometry.spacing_mm):
            for shift in (0, 2):
                cut = [slice(1, -1)] * 3
                cut[axis] = slice(shift, shift + labels.shape[axis])
                beside = padded[tuple(cut)]
                for number in (FLUID, GREY, WHITE):
                    cost[number - 1] -= np.float32(smoothness * near / step) * (beside == number)
        labels = np.where(brain, 1 + cost.argmin(axis=0), 0).astype(np.uint8)
        if (labels == before).all():
            break
    return labels
