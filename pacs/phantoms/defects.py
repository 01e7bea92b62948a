"""Defects put into a clean series, one at a time: what quality control has to find, and what a phantom can be asked for.

Each takes data sets as a processor gets them and returns new ones; the clean ones stay as they were.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.phantoms.base import read

Defect = Callable[[Sequence[Dataset]], list[Dataset]]


def noisy(datasets: Sequence[Dataset], deviation: float, seed: int = 4) -> list[Dataset]:
    """Add white noise of a standard deviation in stored values."""
    source = np.random.default_rng(seed)
    return changed(datasets, lambda plane: plane + source.normal(0, deviation, plane.shape))


def moving(datasets: Sequence[Dataset], distance_mm: float) -> list[Dataset]:
    """Shift every other slice along its columns, as a patient who breathes between slices does."""
    found = read(datasets)
    for one in found[1::2]:
        step = round(distance_mm / float(one.PixelSpacing[0]))
        _put(one, np.roll(one.pixel_array, step, axis=0))
    return found


def changed(
    datasets: Sequence[Dataset], change: Callable[[NDArray[Any]], NDArray[Any]], only: int | None = None
) -> list[Dataset]:
    """Put every image's stored values (or only one image's) through `change`, kept within what its bits can hold."""
    found = read(datasets)
    for number, one in enumerate(found):
        if only is None or number == only:
            _put(one, change(one.pixel_array.astype(np.int32)))
    return read(found)


def _put(one: Dataset, plane: NDArray[Any]) -> None:
    bits, signed = int(one.BitsStored), int(one.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = f"{'i' if signed else 'u'}{one.BitsAllocated // 8}"
    one.PixelData = np.clip(np.rint(plane), low, high).astype(f"<{kind}").tobytes()


def _shifted(datasets: Sequence[Dataset], step: Callable[[int], tuple[float, float]]) -> list[Dataset]:
    found = read(datasets)
    for number, one in enumerate(found):
        sideways, along = step(number)
        x, y, z = one.ImagePositionPatient
        one.ImagePositionPatient = [x, y + sideways, z + along]
    return found


def _middle(datasets: Sequence[Dataset]) -> int:
    return (len(datasets) - 1) // 2


def _without_one(datasets: Sequence[Dataset]) -> list[Dataset]:
    found = read(datasets)
    return found[: _middle(found)] + found[_middle(found) + 1 :]


def _one_twice(datasets: Sequence[Dataset]) -> list[Dataset]:
    found = read(datasets)
    again = read([found[_middle(found)]])[0]
    again.SOPInstanceUID += ".9"
    return [*found, again]


def _metal(plane: NDArray[Any]) -> NDArray[Any]:
    rows, columns = plane.shape
    where = np.hypot(*(np.indices(plane.shape) - np.array([rows, columns])[:, None, None] / 2)) < min(rows, columns) / 24
    return np.where(where, 3000 + np.arange(plane.size).reshape(plane.shape) % 71, plane)


DEFECTS: Mapping[str, tuple[str, Defect]] = {
    "missing-slice": ("Missing slices", _without_one),
    "duplicate-slice": ("Duplicate slices", _one_twice),
    "uneven-spacing": (
        "Spacing of slices",
        lambda all_of: _shifted(all_of, lambda n: (0, 0.4 if n == _middle(all_of) + 1 else 0)),
    ),
    "tilted-gantry": ("Tilted gantry", lambda all_of: _shifted(all_of, lambda n: (1.3 * n, 0))),
    "wrong-modality": ("Values fit the modality", lambda all_of: changed(all_of, lambda plane: plane + 2000)),
    "clipped": ("Clipped values", lambda all_of: changed(all_of, lambda plane: np.minimum(plane, 60))),
    "noise": ("Noise", lambda all_of: noisy(all_of, 120)),
    "empty-slice": (
        "Slices without content",
        lambda all_of: changed(all_of, lambda plane: np.full(plane.shape, -1000), only=_middle(all_of) + 2),
    ),
    "motion": ("Motion between slices", lambda all_of: moving(all_of, 4.0)),
    "metal": ("Metal", lambda all_of: changed(all_of, _metal)),
}
"""Name of a defect -> the question of `quality-control` that finds it, and how it is made."""
