"""Less noise on CT, MR and radiographs: non-local means, curvature diffusion or total variation.

Sources: Buades A, Coll B, Morel JM, "A review of image denoising algorithms, with a new one", Multiscale Model Simul 4
(2005) 490-530 (non-local means); Whitaker RT, Xue X, "Variable-conductance, level-set curvature for image denoising", Proc
IEEE ICIP 2001, III 142-145 (curvature diffusion: a curvature flow that stops at edges); Rudin LI, Osher S, Fatemi E,
"Nonlinear total variation based noise removal algorithms", Physica D 60 (1992) 259-268, solved as in Chambolle A, "An
algorithm for total variation minimization and applications", J Math Imaging Vis 20 (2004) 89-97. Noise is estimated after
Immerkaer (`pacs.processing.noise`), for non-local means and total variation.

Each slice is filtered by itself; values keep their unit. Noise is taken as white and Gaussian: on magnitude MR of low signal
(Rician) a small bias stays, and the correlated noise of smooth kernels is underestimated (raise `strength`). Total variation
lowers the contrast of small things, the more the smaller they are.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing import Choice, Code, Images, NotApplicable, Range, Run, Series, Storage, noise, processor

SMOOTHING = Code("113087", "DCM", "Smoothing")
LOOKED_AT = 9
"""Slices, evenly spread, whose median noise counts."""


@processor(
    "denoise",
    version="1.0.0",
    makes=("CT", "MR", "CR", "DX"),
    when={"Modality": ["CT", "MR", "CR", "DX"], "ImageType": "!LOCALIZER"},
    queue="heavy",
    memory_mb=4096,
)
def denoise(
    series: Series,
    run: Run,
    *,
    method: Annotated[str, Choice("nlm", "curvature", "tv"), "non-local means, curvature diffusion, total variation"] = "nlm",
    strength: Annotated[float, Range(0, 3), "times the measured noise; 0 changes nothing"] = 1.0,
    sigma: Annotated[float, Range(0, 1000, "modality units"), "noise, where it is known; 0 measures it"] = 0.0,
) -> Iterator[Images]:
    """Less noise on CT, MR and radiographs, edges kept, values in their unit; as a derived series."""
    if series.modality not in ("CT", "MR", "CR", "DX"):
        raise NotApplicable("made for CT, MR, CR and DX")
    if series.first.get("PresentationIntentType") == "FOR PROCESSING":
        raise NotApplicable("noise of images FOR PROCESSING depends on the dose in each pixel")
    level = strength * (sigma or estimate(series))
    storage = Storage.of(series, *_range(series))

    def frames() -> Iterator[NDArray[Any]]:
        for index, plane in enumerate(series.frames()):
            same = level == 0 or float(plane.max()) == float(plane.min())
            yield storage.stored(plane if same else smoothed(plane, level, method, max(1, round(10 * strength))))
            run.progress((index + 1) / len(series), "filtering")

    yield Images(
        pixels=frames(),
        like=series.datasets,
        description=f"{series.text('SeriesDescription') or series.modality} {method}",
        derivation=SMOOTHING,
        slope=storage.slope,
        intercept=storage.intercept,
        bits_stored=storage.bits,
    )


def estimate(series: Series) -> float:
    """Return the noise of a series in modality units: the median over slices spread evenly."""
    chosen = np.unique(np.linspace(0, len(series) - 1, min(LOOKED_AT, len(series))).round().astype(int))
    return float(np.median([noise(series.frame(int(index))) for index in chosen]))


def smoothed(plane: NDArray[np.float32], level: float, method: str, rounds: int = 10) -> NDArray[np.float32]:
    """Return one image with noise of standard deviation `level` taken out; curvature diffusion goes `rounds` steps instead."""
    if method == "nlm":
        return nonlocal_means(plane, level)
    if method == "tv":
        return total_variation(plane, level)
    # A time step of 0.125 is stable in two dimensions; conductance is in units of the image's own mean gradient.
    moved = sitk.CurvatureAnisotropicDiffusion(
        sitk.GetImageFromArray(plane), timeStep=0.125, conductanceParameter=1.0, numberOfIterations=rounds
    )
    found: NDArray[np.float32] = sitk.GetArrayFromImage(moved)
    return found


def nonlocal_means(plane: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Non-local means with patches of 5 x 5 pixels within 15 x 15 (OpenCV, 16 bits).

    Two patches of the same thing differ by 1.13 times the noise on average; at `h` of the noise itself they get a quarter of a
    patch's own weight. Grey levels are a twentieth of the noise, or as fine as 16 bits allow.
    """
    low, high = float(plane.min()), float(plane.max())
    step = max(level / 20, (high - low) / 65535)
    levels = np.rint((plane - low) / step).astype(np.uint16)
    found = cv2.fastNlMeansDenoising(levels, [level / step], None, 5, 15, cv2.NORM_L1)
    return np.asarray(found, np.float32) * np.float32(step) + np.float32(low)


def total_variation(plane: NDArray[np.float32], level: float, rounds: int = 60) -> NDArray[np.float32]:
    """The image of least total variation that differs from `plane` by noise of standard deviation `level`."""
    p: NDArray[np.float32] = np.zeros_like(plane)
    q: NDArray[np.float32] = np.zeros_like(plane)
    weight = np.float32(level)
    for number in range(rounds):
        ascent = _divergence(p, q) - plane / weight
        down, right = np.zeros_like(plane), np.zeros_like(plane)
        down[:-1] = np.diff(ascent, axis=0)
        right[:, :-1] = np.diff(ascent, axis=1)
        length = 1 + np.float32(0.25) * np.hypot(down, right)
        p = ((p + np.float32(0.25) * down) / length).astype(np.float32)
        q = ((q + np.float32(0.25) * right) / length).astype(np.float32)
        if number % 10 == 9:
            # Chambolle, section 4: the weight is moved until what is taken out has the size of the noise.
            taken = float(weight) * float(np.sqrt(np.mean(_divergence(p, q) ** 2)))
            weight = np.float32(float(weight) * np.clip(level / max(taken, 1e-9), 0.5, 2.0))
    found: NDArray[np.float32] = plane - weight * _divergence(p, q)
    return found


def _divergence(p: NDArray[np.float32], q: NDArray[np.float32]) -> NDArray[np.float32]:
    found = p + q
    found[1:] -= p[:-1]
    found[:, 1:] -= q[:, :-1]
    return found


def _range(series: Series) -> tuple[float, float]:
    lows, highs = zip(*((float(plane.min()), float(plane.max())) for plane in series.frames()), strict=True)
    return min(lows), max(highs)
