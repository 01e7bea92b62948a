"""Measures each processor against phantoms of known truth, and writes its page in docs/processors.

    .venv/bin/python tests/benchmarks/score_processors.py [NAME …]

The same measurements are asserted by tests/processors, so that a page cannot say what is not so.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests")) if path not in sys.path]

import bodies  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import phantoms  # noqa: E402
import workbench  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402

import processors.agatston as agatston_module  # noqa: E402
from pacs.processing import Geometry, Images, Series  # noqa: E402
from processors.agatston import agatston  # noqa: E402
from processors.ct_tissues import ct_tissues  # noqa: E402
from processors.denoise import denoise, estimate  # noqa: E402
from processors.mip import mip  # noqa: E402
from processors.mpr import mpr  # noqa: E402
from processors.multiscale import multiscale  # noqa: E402
from processors.n4_bias import n4_bias  # noqa: E402
from processors.nodule_candidates import nodule_candidates  # noqa: E402
from processors.pet_lesions import pet_lesions  # noqa: E402
from processors.quality_control import DEFECT, quality_control  # noqa: E402
from processors.resample_isotropic import resample_isotropic  # noqa: E402

Scores = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """What was measured on a phantom (name with unit: value), a picture, and what the picture shows."""

    scores: Scores
    picture: np.ndarray
    caption: str
    phantom: str


def values_of(images: Images, series: Series) -> np.ndarray:
    """Return the pixels of derived images in modality units, shape (frames, rows, columns)."""
    first = series.first
    slope = float(first.get("RescaleSlope") or 1) if images.slope is None else images.slope
    intercept = float(first.get("RescaleIntercept") or 0) if images.intercept is None else images.intercept
    return np.stack(list(images.pixels)).astype(np.float64) * slope + intercept


def place_of(values: np.ndarray, geometry: Geometry, background: float) -> np.ndarray:
    """Return the centre of mass (x, y, z in mm) of what lies above half of the height of the brightest voxel."""
    weight = np.clip(values - (background + values.max()) / 2, 0, None)
    index = [float((weight * axis).sum() / weight.sum()) for axis in np.indices(values.shape)]
    return (
        np.asarray(geometry.origin)
        + index[0] * geometry.spacing_mm[0] * geometry.normal
        + index[1] * geometry.spacing_mm[1] * np.asarray(geometry.column)
        + index[2] * geometry.spacing_mm[2] * np.asarray(geometry.row)
    )


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def psnr(values: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise ratio in dB, the peak being 1000 HU."""
    return 10 * float(np.log10(1000**2 / np.mean((values - truth) ** 2)))


# Pictures


def grey(plane: np.ndarray, center: float, width: float) -> np.ndarray:
    unit = np.clip((plane - center + width / 2) / width, 0, 1)
    return np.repeat(np.rint(unit * 255).astype(np.uint8)[..., None], 3, axis=2)


def painted(picture: np.ndarray, mask: np.ndarray, color: Sequence[int]) -> np.ndarray:
    found = picture.astype(np.float32)
    found[mask] = 0.5 * found[mask] + 0.5 * np.asarray(color, np.float32)
    return np.rint(found).astype(np.uint8)


def beside(*pictures: np.ndarray, height: int = 240) -> np.ndarray:
    """Return pictures (RGB) at one height, side by side."""
    parts = []
    for one in pictures:
        width = max(1, round(one.shape[1] * height / one.shape[0]))
        method = cv2.INTER_NEAREST if one.shape[0] < height else cv2.INTER_AREA
        parts += [cv2.resize(one, (width, height), interpolation=method), np.full((height, 6, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


# Measurements, one per processor


def score_quality_control() -> Measured:
    def whole() -> list[Dataset]:
        return bodies.tissue(frames=8)[0]

    def changed(change: Callable[[np.ndarray], np.ndarray], only: int | None = None) -> list[Dataset]:
        datasets = whole()
        for number, one in enumerate(datasets):
            if only is None or number == only:
                one.PixelData = change(one.pixel_array.astype(np.int32)).astype("<i2").tobytes()
        return phantoms.read(datasets)

    def moved(step: Callable[[int], tuple[float, float]]) -> list[Dataset]:
        datasets = whole()
        for number, one in enumerate(datasets):
            sideways, along = step(number)
            x, y, z = one.ImagePositionPatient
            one.ImagePositionPatient = [x, y + sideways, z + along]
        return datasets

    def twice() -> list[Dataset]:
        datasets = whole()
        again = phantoms.read([datasets[3]])[0]
        again.SOPInstanceUID += ".9"
        return [*datasets, again]

    def coarse(plane: np.ndarray) -> np.ndarray:
        return plane + np.random.default_rng(4).normal(0, 120, plane.shape)

    def implant(plane: np.ndarray) -> np.ndarray:
        return np.where(
            np.hypot(*(np.indices(plane.shape) - 48)) < 4, 3000 + np.arange(plane.size).reshape(plane.shape) % 71, plane
        )

    cases: Mapping[str, Callable[[], list[Dataset]]] = {
        "Missing slices": lambda: whole()[:3] + whole()[4:],
        "Duplicate slices": twice,
        "Spacing of slices": lambda: moved(lambda n: (0, 0.4 if n == 4 else 0)),
        "Tilted gantry": lambda: moved(lambda n: (1.3 * n, 0)),
        "Values fit the modality": lambda: changed(lambda plane: plane + 2000),
        "Clipped values": lambda: changed(lambda plane: np.minimum(plane, 60)),
        "Noise": lambda: changed(coarse),
        "Slices without content": lambda: changed(lambda plane: np.full(plane.shape, -1000), only=5),
        "Metal": lambda: changed(implant),
    }

    def defects(datasets: list[Dataset]) -> set[str]:
        (report,) = workbench.outputs(quality_control, datasets)
        return {one.question.meaning for one in report.findings[1:] if one.answer is DEFECT}

    found = {name: defects(make()) for name, make in cases.items()}
    false = len(defects(whole()))
    hit = sum(name in answer for name, answer in found.items())
    also = sum(len(answer - {name}) for name, answer in found.items())
    shown = [cases[name]()[3 if name != "Slices without content" else 5] for name in ("Noise", "Clipped values", "Metal")]
    picture = beside(*(grey(one.pixel_array, 0, 1000) for one in [whole()[3], *shown]))
    scores: Scores = {
        "defects planted": len(cases),
        "of them found": hit,
        "defects found in the clean series": false,
        "further defects found beside the planted ones": also,
    }
    return Measured(
        scores, picture, "Clean, noisy, clipped, with metal", "a CT of a body, into which one defect at a time is put"
    )


def score_denoise() -> Measured:
    datasets, clean = bodies.tissue(noise=25, frames=3)
    series = Series(datasets)
    noisy = series.array()
    scores: Scores = {"noise put in (HU)": 25.0, "noise measured (HU)": round(estimate(series), 1)}
    scores["PSNR before (dB)"] = round(psnr(noisy, clean), 1)
    shown = [grey(noisy[1], 50, 500)]
    inside = clean > -500
    for method in ("nlm", "curvature", "tv"):
        (images,) = workbench.outputs(denoise, datasets, method=method)
        values = values_of(images, series)
        scores[f"{method}: PSNR after (dB)"] = round(psnr(values, clean), 1)
        scores[f"{method}: largest shift of an insert's mean (HU)"] = round(
            max(abs(float(values[_core(clean, value)].mean()) - value) for value in (50, 120, -100, 300)), 1
        )
        scores[f"{method}: standard deviation left inside (HU)"] = round(
            float((values - clean)[inside & _flat(clean)].std()), 1
        )
        shown.append(grey(values[1], 50, 500))
    return Measured(
        scores, beside(*shown), "Before, non-local means, curvature diffusion, total variation", "a CT of a body with inserts"
    )


def _core(clean: np.ndarray, value: float) -> np.ndarray:
    """Where a value holds and its surroundings, too."""
    mask = np.stack([cv2.erode((plane == value).astype(np.uint8), np.ones((7, 7), np.uint8)) for plane in clean])
    return mask > 0


def _flat(clean: np.ndarray) -> np.ndarray:
    kernel = np.ones((5, 5), np.uint8)
    return np.stack([cv2.dilate(p.astype(np.float32), kernel) == cv2.erode(p.astype(np.float32), kernel) for p in clean])


def score_n4_bias() -> Measured:
    datasets, field, white, whole = bodies.head()
    series = Series(datasets)
    before = series.array()
    (images,) = workbench.outputs(n4_bias, datasets, coarse_mm=9.0, iterations=25)
    after = values_of(images, series)
    found = np.where(whole, before / np.maximum(after, 1), 1)
    scores: Scores = {
        "correlation of found and true field": round(float(np.corrcoef(np.log(found[whole]), np.log(field[whole]))[0, 1]), 3),
        "variation of white matter before (%)": round(100 * float(before[white].std() / before[white].mean()), 1),
        "variation of white matter after (%)": round(100 * float(after[white].std() / after[white].mean()), 1),
    }
    middle = len(datasets) // 2
    shown = [
        grey(before[middle], 400, 800),
        grey(after[middle], 400, 800),
        grey(found[middle], 1, 1),
        grey(field[middle], 1, 1),
    ]
    return Measured(
        scores, beside(*shown), "Before, after, the field that was found, the true one", "a T1-like head with shading"
    )


def score_resample_isotropic() -> Measured:
    datasets, at = bodies.bead()
    series = Series(datasets)
    (images,) = workbench.outputs(resample_isotropic, datasets)
    values = values_of(images, series)
    geometry = images.geometry
    assert geometry is not None
    source = series.geometry()
    ramp_error = _ramp_error(source)
    scores: Scores = {
        "voxel before, largest edge (mm)": max(source.spacing_mm),
        "voxel after (mm)": geometry.spacing_mm[0],
        "shift of a bead (mm)": round(float(np.linalg.norm(place_of(values, geometry, -1000) - np.asarray(at))), 3),
        "largest error on a linear ramp (share of its step)": round(ramp_error, 4),
    }
    column = round((at[1] + 48) / 1.5)
    shown = [grey(series.array()[::-1, column], 0, 2000), grey(values[::-1, column], 0, 2000)]
    return Measured(
        scores, beside(*shown), "A coronal cut before (3 mm slices) and after", "a bead of 3 mm (sigma) in air, 3 mm slices"
    )


def _ramp_error(source: Geometry) -> float:
    from pacs.processing import grid_over
    from processors.resample_isotropic import isotropic

    target = grid_over(source, source.row, source.column, (1.5, 1.5, 1.5))
    ramp = np.broadcast_to(np.arange(source.shape[0], dtype=np.float32)[:, None, None], source.shape)
    moved = isotropic(np.ascontiguousarray(ramp), source, target, "linear")
    at = [(np.asarray(target.position(n)) - np.asarray(source.origin)) @ source.normal / 3.0 for n in range(target.shape[0])]
    truth = np.clip(np.asarray(at), 0, source.shape[0] - 1)
    return float(np.abs(moved[:, 8:-8, 8:-8] - truth[:, None, None]).max())


def score_mpr() -> Measured:
    datasets, at = bodies.bead()
    series = Series(datasets)
    scores: Scores = {}
    shown = []
    for name, given in (
        ("coronal", {}),
        ("sagittal", {"plane": "sagittal"}),
        ("oblique by 30 and 20 degrees", {"turn_deg": 30.0, "tilt_deg": 20.0}),
    ):
        (images,) = workbench.outputs(mpr, datasets, step_mm=1.5, **given)
        values = values_of(images, series)
        assert images.geometry is not None
        shift = np.linalg.norm(place_of(values, images.geometry, -1000) - np.asarray(at))
        scores[f"{name}: shift of a bead (mm)"] = round(float(shift), 3)
    chest = bodies.chest()
    for given in ({}, {"plane": "sagittal"}, {"turn_deg": 30.0, "tilt_deg": 20.0}):
        (images,) = workbench.outputs(mpr, chest, step_mm=6.0, **given)
        values = values_of(images, Series(chest))
        shown.append(grey(values[int(len(values) * (0.42 if "plane" not in given else 0.28))], -300, 1400))
    return Measured(
        scores, beside(*shown), "Coronal, sagittal and oblique plane through a chest", "a bead in air, 3 mm slices; a chest"
    )


def score_mip() -> Measured:
    datasets, at = bodies.bead()
    series = Series(datasets)
    volume = series.array()
    scores: Scores = {}
    for kind, truth in (("max", volume.max(axis=0)), ("min", volume.min(axis=0)), ("mean", volume.mean(axis=0))):
        (images,) = workbench.outputs(mip, datasets, kind=kind, slab_mm=0.0)
        (plane,) = values_of(images, series)
        # The slab's planes lie half as far apart as slices: between them, interpolation never leaves the range of both.
        scores[f"{kind}: largest difference from numpy's (HU)"] = round(float(np.abs(plane - truth).max()), 1)
    (images,) = workbench.outputs(mip, datasets, slab_mm=6.0)
    values = values_of(images, series)
    assert images.geometry is not None
    place = place_of(values, images.geometry, -1000)
    scores["shift of a bead in the plane (mm)"] = round(float(np.linalg.norm((place - np.asarray(at))[:2])), 3)
    chest = bodies.chest()
    (high,) = workbench.outputs(mip, chest, plane="coronal", slab_mm=30.0)
    (low,) = workbench.outputs(mip, chest, plane="coronal", slab_mm=30.0, kind="min")
    one, two = values_of(high, Series(chest)), values_of(low, Series(chest))
    shown = [grey(one[len(one) // 2], -300, 1400), grey(two[len(two) // 2], -300, 1400)]
    return Measured(
        scores, beside(*shown), "Coronal slabs of 30 mm: maximum and minimum", "a bead in air, 3 mm slices; a chest"
    )


def score_multiscale() -> Measured:
    source = bodies.faint()
    before = source[0].pixel_array.astype(np.float64)
    (same,) = workbench.outputs(multiscale, source, power=1.0)
    (changed,) = workbench.outputs(multiscale, source, power=0.6)
    (sharper,) = workbench.outputs(multiscale, source, power=1.0, unsharp=1.5, radius_mm=0.6)
    identity, after, sharp = (next(iter(one.pixels)).astype(np.float64) for one in (same, changed, sharper))
    y, x = np.mgrid[:160, :128]

    def contrast(plane: np.ndarray) -> float:
        found = []
        for row, column in bodies.FAINT:
            distance = np.hypot(y - row, x - column)
            found.append(plane[distance < 3].mean() - plane[(distance > 5) & (distance < 8)].mean())
        return float(np.mean(found))

    def noise(plane: np.ndarray) -> float:
        part = plane[45:65, 20:110]
        return float((part - part.mean(axis=0)).std())

    blurred = cv2.GaussianBlur(before.astype(np.float32), (0, 0), 0.6 / 0.2, borderType=cv2.BORDER_REFLECT)
    truth = np.rint(np.clip(before + 1.5 * (before - blurred), 0, 4095))
    scores: Scores = {
        "power 1: largest change (grey levels)": float(np.abs(identity - before).max()),
        "power 0.6: contrast of faint discs, times": round(contrast(after) / contrast(before), 2),
        "power 0.6: contrast to noise, times": round(contrast(after) / contrast(before) * noise(before) / noise(after), 2),
        "unsharp: largest difference from the formula (grey levels)": float(np.abs(sharp - truth).max()),
    }
    shown = [grey(one - one.mean(axis=0), 0, 200) for one in (before, after, sharp)]
    caption = "Before, power 0.6, unsharp 1.5; the ramp is taken away for the eye"
    return Measured(scores, beside(*shown), caption, "a radiograph: a steep ramp with nine faint discs")


def score_ct_tissues() -> Measured:
    datasets, truth = bodies.thigh()
    segmentation, measurements = workbench.outputs(ct_tissues, datasets)
    found = segmentation.array()
    scores: Scores = {}
    for number, name in ((1, "bone with marrow"), (2, "fat"), (3, "muscle")):
        scores[f"{name}: Dice"] = round(dice(found == number, truth == number), 4)
        volume = measurements.values[number][0].value
        scores[f"{name}: error of volume (%)"] = round(100 * (volume / ((truth == number).sum() * 0.02) - 1), 2)
    picture = grey(datasets[4].pixel_array, 40, 500)
    colored = picture
    for number, segment in segmentation.segments.items():
        colored = painted(colored, found[4] == number, segment.color_rgb)
    return Measured(
        scores, beside(picture, colored), "A thigh, and bone, fat and muscle", "a thigh with femur, marrow and table"
    )


def score_pet_lesions() -> Measured:
    scores: Scores = {"spheres": len(bodies.SPHERES)}
    shown: list[np.ndarray] = []
    for sharpness, fwhm_mm in (("sharp", 0.0), ("blurred by 6 mm", 6.0)):
        datasets = bodies.hot_spheres(fwhm_mm=fwhm_mm)
        uptake = Series(datasets).array() * 80000 / (3.7e8 * 2 ** (-3600 / 6588))
        for name, given in (("SUV 2.5", {"suv": 2.5}), ("SUV 4", {"suv": 4.0}), ("41 %", {"method": "percent", "suv": 2.5})):
            segmentation, measurements = workbench.outputs(pet_lesions, datasets, **given)
            scores[f"{sharpness}, {name}: lesions"] = len(measurements.values)
            errors = [_sphere_errors(number, measurements) for number in measurements.values]
            for index, what in enumerate(("volume", "SUVmax", "SUVpeak")):
                scores[f"{sharpness}, {name}: largest error of {what} (%)"] = round(max(one[index] for one in errors), 1)
            if fwhm_mm:
                flat = 255 - grey(uptake.max(axis=1)[::-1], 4, 8)
                colored = flat
                for number, segment in segmentation.segments.items():
                    colored = painted(colored, (segmentation.array() == number).any(axis=1)[::-1], segment.color_rgb)
                shown += [colored] if shown else [flat, colored]
    caption = "Maximum projection from the front; lesions at SUV 2.5, SUV 4, 41 %"
    return Measured(
        scores, beside(*shown), caption, "spheres of 12 to 16 mm radius and SUV 10, 6, 3 in a background of 1, 4 mm voxels"
    )


def _sphere_errors(number: int, measurements: Any) -> tuple[float, float, float]:
    _, radius, suv = bodies.SPHERES[number - 1]
    volume, largest, _, peak, _ = (one.value for one in measurements.values[number])
    truth_ml = 4 / 3 * np.pi * radius**3 / 1000
    return 100 * abs(volume / truth_ml - 1), 100 * abs(largest / suv - 1), 100 * abs(peak / suv - 1)


def score_nodule_candidates() -> Measured:
    datasets = bodies.chest()
    (spots,) = workbench.outputs(nodule_candidates, datasets)
    places = np.array([one.at_mm for one in spots.spots])
    errors, sizes, ranks = [], [], []
    for place, diameter in bodies.NODULES:
        distance = np.linalg.norm(places - np.asarray(place), axis=1)
        nearest = int(distance.argmin())
        if distance[nearest] < diameter / 2:
            errors.append(float(distance[nearest]))
            sizes.append(abs(spots.spots[nearest].values[0].value / diameter - 1))
            ranks.append(nearest)
    scores: Scores = {
        "nodules of 6 to 12 mm": len(bodies.NODULES),
        "of them found": len(errors),
        "false candidates (ends of vessels)": len(spots.spots) - len(set(ranks)),
        "largest error of place (mm)": round(max(errors), 2),
        "largest error of diameter (%)": round(100 * max(sizes), 0),
        "rank of the last true one": max(ranks) + 1,
    }
    series = Series(datasets)
    shown = []
    for height in (70.0, 80.0, 95.0):
        index = round((height - 8) / 1.5)
        picture = grey(series.frame(index), -400, 1500)
        for one in spots.spots:
            if abs(one.at_mm[2] - height) < 3:
                center = (round((one.at_mm[0] + 116.1) / 1.8), round((one.at_mm[1] + 98.1) / 1.8))
                cv2.circle(picture, center, 7, (255, 200, 0), 1)
        shown.append(picture)
    return Measured(
        scores,
        beside(*shown),
        "Slices with the candidates near them",
        "a chest with vessels and six solid nodules, 1.5 mm slices",
    )


def score_agatston() -> Measured:
    datasets, truth = bodies.calcium()
    segmentation, measurements = workbench.outputs(agatston, datasets, radius_mm=100.0)
    chest = bodies.chest(nodules=False, plaques=True)
    by_itself, own = workbench.outputs(agatston, chest)
    pixel = 1.8 * 1.8
    expected = sum(rows * columns * pixel * agatston_module.weight(value) for _, (rows, columns), value in bodies.PLAQUES) / 2
    scores: Scores = {
        "plaques: score by hand": round(truth, 2),
        "plaques: score": measurements.values[1][0].value,
        "chest, region found by itself: score by hand": round(expected, 2),
        "chest, region found by itself: score": own.values[1][0].value,
    }
    first = painted(grey(datasets[4].pixel_array, 100, 800), segmentation.array()[4] == 2, (250, 250, 90))
    index = round((70 - 8) / 1.5)
    second = grey(chest[index].pixel_array, -100, 1200)
    second = painted(second, by_itself.array()[index] == 1, (120, 120, 220))
    second = painted(second, by_itself.array()[index] == 2, (255, 255, 0))
    return Measured(
        scores,
        beside(first, second),
        "A plaque; the region between the lungs and a plaque in it",
        "plaques of known area and density",
    )


MEASURED: Mapping[str, tuple[Any, Callable[[], Measured]]] = {
    "quality-control": (quality_control, score_quality_control),
    "denoise": (denoise, score_denoise),
    "n4-bias": (n4_bias, score_n4_bias),
    "resample-isotropic": (resample_isotropic, score_resample_isotropic),
    "mpr": (mpr, score_mpr),
    "mip": (mip, score_mip),
    "multiscale": (multiscale, score_multiscale),
    "ct-tissues": (ct_tissues, score_ct_tissues),
    "pet-lesions": (pet_lesions, score_pet_lesions),
    "nodule-candidates": (nodule_candidates, score_nodule_candidates),
    "agatston": (agatston, score_agatston),
}


def page(name: str, function: Any, measured: Measured) -> str:
    """Return a processor's page."""
    spec = workbench.spec_of(function)
    module = inspect.getmodule(function)
    assert module is not None and module.__doc__ is not None
    summary, sources, *rest = inspect.cleandoc(module.__doc__).split("\n\n")
    lines = [f"# {name}", "", spec.summary, "", f"![{measured.caption}]({name}.png)", "", f"*{measured.caption}.*", ""]
    lines += ["## How", "", summary, "", sources, ""]
    lines += ["## Limits", "", "\n\n".join(rest), ""] if rest else []
    lines += [f"Version {spec.version}. On {_conditions(spec.when)}; makes {', '.join(spec.makes)}.", ""]
    lines += ["## Parameters", "", "| name | default | allowed | what it is |", "|---|---|---|---|"]
    for one in spec.parameters:
        allowed = ", ".join(map(str, one.choices)) or (
            f"{one.low:g} to {one.high:g} {one.unit}".strip() if one.high is not None else ""
        )
        lines.append(f"| `{one.name}` | {one.default} | {allowed} | {one.help} |")
    lines += ["", "## Measured", "", f"On {measured.phantom}.", "", "| measure | value |", "|---|---|"]
    lines += [f"| {measure} | {value:g} |" for measure, value in measured.scores.items()]
    lines += ["", f"Written by `tests/benchmarks/score_processors.py {name}`; the same numbers are bounded by a test.", ""]
    return "\n".join(lines)


def _conditions(when: Mapping[str, Any]) -> str:
    def told(value: Any) -> str:
        return " or ".join(map(str, value)) if isinstance(value, list) else str(value) if value else "empty"

    return ", ".join(f"{keyword} {told(value)}" for keyword, value in when.items())


def main(names: Sequence[str]) -> None:
    """Write the pages of `names`, or of all."""
    folder = ROOT / "docs" / "processors"
    folder.mkdir(exist_ok=True)
    for name, (function, score) in MEASURED.items():
        if names and name not in names:
            continue
        measured = score()
        (folder / f"{name}.md").write_text(page(name, function, measured), encoding="utf-8")
        cv2.imwrite(str(folder / f"{name}.png"), measured.picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        print(name)
        for measure, value in measured.scores.items():
            print(f"  {measure}: {value:g}")


if __name__ == "__main__":
    main(sys.argv[1:])
