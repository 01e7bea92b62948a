"""Round things of 3 to 15 mm in the lungs: candidates for nodules, with place, diameter and attenuation.

Sources: Lindeberg T, "Feature detection with automatic scale selection", Int J Comput Vis 30 (1998) 79-116 (normalised
Laplacian of Gaussian, LoG; its approximation by differences of Gaussians, DoG: Marr D, Hildreth E, Proc R Soc Lond B 207
(1980) 187-217); Li Q, Sone S, Doi K, "Selective enhancement filters for nodules, vessels, and airway walls in two- and
three-dimensional CT scans", Med Phys 30 (2003) 2040-2051 (all three eigenvalues of the Hessian tell a ball from a tube).
Lungs as in `ct-lungs`.

Candidates, not diagnoses: nothing tells a nodule from a vessel's fork or a scar, nodules that touch the chest wall broadly
are missed, and several false ones per scan are to be expected. Published detectors start from such lists (LUNA16) and sort
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing import (
    Choice,
    Code,
    Geometry,
    NotApplicable,
    Overlay,
    Presentation,
    Range,
    Run,
    Series,
    Spot,
    Spots,
    Value,
    codes,
    grid_over,
    pictured,
    private_code,
    processor,
    resampled,
    units,
)
from pacs.processing.units import HOUNSFIELD, NO_UNIT
from processors.ct_lungs import ct_lungs

NODULE = codes.SCT.Nodule
DIAMETER = codes.SCT.Diameter
MILLIMETER = Code("mm", "UCUM", "millimeter")
SCORE = private_code("BLOBNESS", "Normalised Laplacian of Gaussian")
ROUNDNESS = private_code("ROUNDNESS", "Least over largest curvature")
GRID_MM = 1.0
"""Voxel of the grid that is searched; a nodule of 4 mm has 33 of them."""
PARENCHYMA = -850.0
EDGE_MM = 1.5
"""Of the lungs' outermost layer, in which voxels are part lung, part wall."""


@dataclass(frozen=True)
class Blob:
    """A local maximum over place and scale; `at` are voxel indices (slice, row, column) of the searched grid."""

    at: tuple[int, int, int]
    diameter_mm: float
    score: float
    roundness: float


@processor(
    "nodule-candidates",
    version="1.1.0",
    makes=("SR", "PR", "OT"),
    when={"Modality": "CT", "NumberOfSeriesRelatedInstances": ">=40", "SliceThickness": "<=3"},
    queue="heavy",
    timeout_s=600,
    memory_mb=8192,
)
def nodule_candidates(
    series: Series,
    run: Run,
    *,
    method: Annotated[str, Choice("log", "dog"), "Laplacian of Gaussian, or difference of Gaussians"] = "log",
    smallest_mm: Annotated[float, Range(2, 10, "mm"), "diameter"] = 4.0,
    largest_mm: Annotated[float, Range(5, 30, "mm"), "diameter"] = 15.0,
    contrast: Annotated[float, Range(50, 900, "HU"), "least contrast; a solid ball in lung has about 900"] = 350.0,
    roundness: Annotated[float, Range(0, 1), "least over largest curvature; a tube has 0, a ball 1"] = 0.4,
    most: Annotated[int, Range(1, 200), "candidates, strongest first"] = 30,
) -> Iterator[Spots | Presentation | Overlay]:
    """Candidates for lung nodules on CT, each with place, diameter and attenuation, as a report, marked, and pictured."""
    if smallest_mm > largest_mm:
        raise NotApplicable("smallest_mm is larger than largest_mm")
    geometry = series.geometry()
    if geometry.spacing_mm[0] > 3.05:
        raise NotApplicable("slices are too thick to tell small nodules from vessels")
    if not series.text("FrameOfReferenceUID"):
        raise NotApplicable("no frame of reference to give places in")
    (segmentation, *_) = ct_lungs(series, Run())
    lungs = segmentation.array() > 0
    run.progress(0.4, "resampling the lungs")
    edge = GRID_MM
    first, last = (int(one) for one in np.flatnonzero(lungs.any(axis=(1, 2)))[[0, -1]])
    part = geometry.slab(first, last)
    values = series.array()[first : last + 1]
    grid = grid_over(part, geometry.row, geometry.column, (edge, edge, edge))
    fine = resampled(values, part, grid, outside=-1000.0)
    inside = resampled(lungs[first : last + 1].astype(np.float32), part, grid, interpolation="nearest") > 0.5
    box = tuple(slice(max(int(hit[0]) - 8, 0), int(hit[-1]) + 9) for hit in
                (np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)))  # fmt: skip
    fine, inside = np.ascontiguousarray(fine[box]), np.ascontiguousarray(inside[box])
    start = tuple(one.start for one in box)
    # What is not lung becomes lung: the chest wall would answer stronger than any nodule. So does its blurred edge.
    core = sitk.BinaryErode(sitk.GetImageFromArray(inside.astype(np.uint8)), [round(EDGE_MM / edge)] * 3, sitk.sitkBall)
    inside = sitk.GetArrayFromImage(core) > 0
    fine = np.where(inside, np.clip(fine, -1000, 200), np.float32(PARENCHYMA)).astype(np.float32)
    run.progress(0.5, "searching")
    found = blobs(fine, inside, edge, smallest_mm, largest_mm, contrast, roundness, method, most, run)
    if not found:
        raise NotApplicable("no round thing of that size and contrast in the lungs")
    spots = []
    for number, blob in enumerate(found, 1):
        spots.append(
            Spot(
                label=f"Candidate {number}",
                finding=NODULE,
                at_mm=_place(grid, [at + offset for at, offset in zip(blob.at, start, strict=True)]),
                values=[
                    Value(DIAMETER, round(blob.diameter_mm, 1), MILLIMETER),
                    units.attenuation(_core(fine, blob, edge), 0),
                    Value(SCORE, round(blob.score, 1), HOUNSFIELD),
                    Value(ROUNDNESS, round(blob.roundness, 2), NO_UNIT),
                ],
                comment="candidate, not a diagnosis",
            )
        )
    report = Spots(series, spots, "Nodule candidates")
    yield report
    yield from pictured(report, [blob.diameter_mm for blob in found], window=(-500.0, 1500.0))


def blobs(
    values: NDArray[np.float32],
    inside: NDArray[np.bool_],
    edge_mm: float,
    smallest_mm: float,
    largest_mm: float,
    contrast: float,
    roundness: float,
    method: str,
    most: int,
    run: Run,
) -> list[Blob]:
    """Return bright balls, strongest first: maxima over place and scale of the normalised response.

    A ball of radius r answers most at ``sigma = r / sqrt(3)``, and the response is scaled so that it is then the ball's
    contrast to the lung around it.
    """
    image = sitk.GetImageFromArray(values)
    image.SetSpacing([edge_mm] * 3)
    count = max(2, int(np.ceil(np.log(largest_mm / smallest_mm) / np.log(1.4))) + 1)
    diameters = np.geomspace(smallest_mm, largest_mm, count)
    best = np.zeros(values.shape, np.float32)
    scale = np.zeros(values.shape, np.uint8)
    for number, diameter in enumerate(diameters):
        sigma = float(diameter) / 2 / np.sqrt(3)
        answer = _response(image, sigma, method)
        better = answer > best
        best[better] = answer[better]
        scale[better] = number
        run.progress(0.5 + 0.4 * (number + 1) / count, "searching")
    # A copy: a view into a temporary image would outlive it.
    around = sitk.GetArrayFromImage(sitk.GrayscaleDilate(sitk.GetImageFromArray(best), [1, 1, 1], sitk.sitkBox))
    peaks = best == around
    places = np.argwhere(peaks & inside & (best > contrast))
    places = places[np.argsort(-best[tuple(places.T)], kind="stable")]
    smooth: dict[int, NDArray[np.float32]] = {}
    kept: list[Blob] = []
    for at in places:
        if len(kept) == most:
            break
        level = int(scale[tuple(at)])
        diameter = float(diameters[level])
        if any(
            np.linalg.norm((at - np.asarray(other.at)) * edge_mm) < max(diameter, other.diameter_mm) / 2 + 1 for other in kept
        ):
            continue
        if level not in smooth:
            smooth[level] = _smoothed(image, diameter / 2 / np.sqrt(3))
        ball = _roundness(smooth[level], at)
        if ball >= roundness:
            kept.append(Blob((int(at[0]), int(at[1]), int(at[2])), diameter, float(best[tuple(at)]), ball))
    return kept


def _response(image: Any, sigma: float, method: str) -> NDArray[np.float32]:
    # The flux of G's gradient through a sphere of r = sqrt(3) sigma: 4 pi r^3 G(r) / sigma^2, which is 0.925 / sigma^2.
    gain = np.float32(sigma**2 / 0.925)
    if method == "log":
        # Second differences blur by a sixth of a squared voxel, which the Gaussian before them leaves out.
        edge = float(image.GetSpacing()[0])
        smooth = _smoothed(image, float(np.sqrt(max(sigma**2 - edge**2 / 6, edge**2 / 4))))
        around = np.zeros_like(smooth)
        around[1:-1, 1:-1, 1:-1] = (
            6 * smooth[1:-1, 1:-1, 1:-1]
            - (smooth[2:, 1:-1, 1:-1] + smooth[:-2, 1:-1, 1:-1])
            - (smooth[1:-1, 2:, 1:-1] + smooth[1:-1, :-2, 1:-1])
            - (smooth[1:-1, 1:-1, 2:] + smooth[1:-1, 1:-1, :-2])
        )
        return around * (gain / np.float32(edge**2))
    # d/dsigma G = sigma * Laplacian(G): two Gaussians, a factor of 1.1 on either side of sigma.
    narrow, wide = (_smoothed(image, sigma * k) for k in (1 / 1.1, 1.1))
    found: NDArray[np.float32] = (narrow - wide) / np.float32(sigma * sigma * (1.1 - 1 / 1.1)) * gain
    return found


def _smoothed(image: Any, sigma: float) -> NDArray[np.float32]:
    found: NDArray[np.float32] = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, sigma))
    return found


def _roundness(smooth: NDArray[np.float32], at: NDArray[Any]) -> float:
    """Least over largest of the Hessian's eigenvalues where all are negative (a bright ball), else 0."""
    z, y, x = (int(np.clip(index, 1, size - 2)) for index, size in zip(at, smooth.shape, strict=True))
    cube = smooth[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].astype(np.float64)
    hessian = np.empty((3, 3))
    center = [1, 1, 1]
    for a in range(3):
        for b in range(a, 3):
            step_a, step_b = np.eye(3, dtype=int)[a], np.eye(3, dtype=int)[b]
            if a == b:
                value = cube[tuple(center + step_a)] - 2 * cube[1, 1, 1] + cube[tuple(center - step_a)]
            else:
                value = (
                    cube[tuple(center + step_a + step_b)]
                    - cube[tuple(center + step_a - step_b)]
                    - cube[tuple(center - step_a + step_b)]
                    + cube[tuple(center - step_a - step_b)]
                ) / 4
            hessian[a, b] = hessian[b, a] = value
    curvatures = np.linalg.eigvalsh(hessian)
    return float(curvatures[2] / curvatures[0]) if curvatures[2] < 0 else 0.0


def _core(values: NDArray[np.float32], blob: Blob, edge_mm: float) -> float:
    reach = max(1, int(blob.diameter_mm / 4 / edge_mm))
    box = tuple(slice(max(at - reach, 0), at + reach + 1) for at in blob.at)
    return float(values[box].mean())


def _place(grid: Geometry, at: list[int]) -> tuple[float, float, float]:
    place = (
        np.asarray(grid.position(at[0]))
        + np.asarray(grid.column) * at[1] * grid.spacing_mm[1]
        + np.asarray(grid.row) * at[2] * grid.spacing_mm[2]
    )
    return round(float(place[0]), 2), round(float(place[1]), 2), round(float(place[2]), 2)
