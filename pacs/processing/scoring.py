"""How well a processor does: what a measurement says, how it is found, and the figures that measurements share.

A score is a module named by an entry point of the group `mini_pacs.scores` under the processor's name. Its `score()` measures
on phantoms and returns `Measured`; `on_public(folder)`, where it has one, measures on public images in known folders below
`folder`, and returns `None` where they are not there. `on_installed(folder, spec)`, where it has one, stands for it where a
plug-in has taken the processor's name, and measures both. `pacs score` runs them and writes the page; tests bound the same
numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.processing.api import Run, Spec
from pacs.processing.outputs import Images
from pacs.processing.series import Geometry, Series, Study

GROUP = "mini_pacs.scores"
Scores = dict[str, float]
Picture = NDArray[np.uint8]
"""RGB, (rows, columns, 3)."""


@dataclass(frozen=True)
class Measured:
    """What was measured on a phantom (name with unit: value), a picture, what the picture shows, and on what.

    `tables` are further tables of text by title, their first row the head: a table of confusion, say.
    """

    scores: Scores
    picture: Picture
    caption: str
    phantom: str
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """The measurements of a processor."""

    score: Callable[[], Measured]
    on_public: Callable[[Path], Measured | None] | None
    on_installed: Callable[[Path, Spec], Measured | None] | None = None

    def publicly(self, folder: Path, shipped: Spec, found: Spec) -> Measured | None:
        """Return what is measured on public images, also of `found` where it is a plug-in of the same name as what ships."""
        if self.on_installed is not None and found.path != shipped.path:
            return self.on_installed(folder, found)
        return self.on_public(folder) if self.on_public is not None else None


def scored() -> dict[str, Scorer]:
    """Return every score by its processor's name."""
    found = {}
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        module = point.load()
        found[point.name] = Scorer(module.score, getattr(module, "on_public", None), getattr(module, "on_installed", None))
    return found


def spec_of(function: Any) -> Spec:
    """Return what `@processor` made of a function."""
    found: Spec = function.__processor__
    return found


def outputs(function: Any, datasets: Sequence[Dataset], **given: object) -> list[Any]:
    """Return what a series processor yields on images, without making objects of it."""
    spec = spec_of(function)
    return list(spec.call(Series(datasets), Run(), spec.bind(given)))


def outputs_of_study(function: Any, series: Sequence[Sequence[Dataset]], **given: object) -> list[Any]:
    """Return what a study processor yields."""
    spec = spec_of(function)
    return list(spec.call(Study([Series(one) for one in series]), Run(), spec.bind(given)))


def values_of(images: Images, series: Series) -> NDArray[Any]:
    """Return the pixels of derived images in modality units, shape (frames, rows, columns)."""
    first = series.first
    slope = float(first.get("RescaleSlope") or 1) if images.slope is None else images.slope
    intercept = float(first.get("RescaleIntercept") or 0) if images.intercept is None else images.intercept
    return np.stack(list(images.pixels)).astype(np.float64) * slope + intercept


def place_of(values: NDArray[Any], geometry: Geometry, background: float) -> NDArray[Any]:
    """Return the centre of mass (x, y, z in mm) of what lies above half of the height of the brightest voxel."""
    weight = np.clip(values - (background + values.max()) / 2, 0, None)
    index = [float((weight * axis).sum() / weight.sum()) for axis in np.indices(values.shape)]
    return (
        np.asarray(geometry.origin)
        + index[0] * geometry.spacing_mm[0] * geometry.normal
        + index[1] * geometry.spacing_mm[1] * np.asarray(geometry.column)
        + index[2] * geometry.spacing_mm[2] * np.asarray(geometry.row)
    )


def dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def psnr(values: NDArray[Any], truth: NDArray[Any]) -> float:
    """Peak signal to noise ratio in dB, the peak being 1000 HU."""
    return 10 * float(np.log10(1000**2 / np.mean((values - truth) ** 2)))


def grey(plane: NDArray[Any], center: float, width: float) -> NDArray[Any]:
    unit = np.clip((plane - center + width / 2) / width, 0, 1)
    return np.repeat(np.rint(unit * 255).astype(np.uint8)[..., None], 3, axis=2)


def painted(picture: NDArray[Any], mask: NDArray[Any], color: Sequence[int]) -> NDArray[Any]:
    found = picture.astype(np.float32)
    found[mask] = 0.5 * found[mask] + 0.5 * np.asarray(color, np.float32)
    return np.rint(found).astype(np.uint8)


def beside(*pictures: NDArray[Any], height: int = 240) -> NDArray[Any]:
    """Return pictures (RGB) at one height, side by side."""
    parts = []
    for one in pictures:
        width = max(1, round(one.shape[1] * height / one.shape[0]))
        method = cv2.INTER_NEAREST if one.shape[0] < height else cv2.INTER_AREA
        parts += [cv2.resize(one, (width, height), interpolation=method), np.full((height, 6, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def hausdorff(one: NDArray[np.bool_], other: NDArray[np.bool_], spacing_mm: Sequence[float], *, percent: float = 95.0) -> float:
    """Return the distance (mm) within which `percent` of each mask's voxels lie to the other mask; inf where one is empty.

    Source: Huttenlocher DP, Klanderman GA, Rucklidge WJ, "Comparing images using the Hausdorff distance", IEEE Trans Pattern
    Anal Mach Intell 15 (1993) 850-863; the 95th percentile as is usual for segmentations.
    """
    import SimpleITK as sitk

    if not one.any() or not other.any():
        return float("inf")
    far = []
    for mask, truth in ((one, other), (other, one)):
        image = sitk.GetImageFromArray(truth.astype(np.uint8))
        image.SetSpacing([float(step) for step in reversed(spacing_mm)])
        distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True))
        far.append(float(np.percentile(np.maximum(distance[mask], 0), percent)))
    return max(far)


def confusion(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the table of (truth, answer) pairs: a row a truth, a column an answer, the first row the head."""
    answers = sorted({answer for _, answer in pairs})
    rows = [["truth", *answers]]
    for truth in sorted({truth for truth, _ in pairs}):
        rows.append([truth, *(str(pairs.count((truth, answer))) for answer in answers)])
    return rows
