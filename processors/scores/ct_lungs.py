"""What `ct-lungs` is measured on, and what comes out."""

import contextlib
from pathlib import Path

from pydicom import dcmread

from pacs import phantoms
from pacs.processing import NotApplicable, Series
from pacs.processing.scoring import Measured, Picture, Scores, beside, dice, grey, hausdorff, outputs, painted
from pacs.processing.truth import read
from processors.ct_lungs import LEFT, RIGHT, ct_lungs

RIGHT_RGB, LEFT_RGB = (90, 160, 230), (240, 150, 90)


def score() -> Measured:
    """Find the lungs of phantoms, apart and touching at the front."""
    scores: Scores = {}
    shown: list[Picture] = []
    for name, joined in (("apart", False), ("touching", True)):
        datasets, truth = phantoms.lungs(joined=joined)
        series = Series(phantoms.read(datasets))
        segmentation, measurements = outputs(ct_lungs, series.datasets)
        found = segmentation.array()
        for side, number in (("right", RIGHT), ("left", LEFT)):
            one, other = found == number, truth == number
            scores[f"{name}, {side}: Dice"] = round(dice(one, other), 4)
            scores[f"{name}, {side}: Hausdorff distance, 95 % (mm)"] = round(hausdorff(one, other, (6.0, 3.0, 3.0)), 1)
            volume = next(v.value for v in measurements.values[number] if v.name.meaning == "Volume")
            scores[f"{name}, {side}: error of volume (%)"] = round(100 * (volume / (other.sum() * 0.054) - 1), 2)
        shown.append(_colored(series, found, 18))
    return Measured(
        scores, beside(*shown), "Lungs apart, and touching at the front", "two ellipsoids in a body on a table, with a trachea"
    )


def on_public(folder: Path) -> Measured | None:
    """A whole low-dose chest, and slices below the lungs: on one experts drew none, in others a network found none."""
    chest, slice_below, abdomen = (
        folder / "ct_chest_nlst101287" / "CT",
        folder / "ct_thorax_lctsc101",
        folder / "ct_abdomen_totalseg",
    )
    if not all(one.is_dir() for one in (chest, slice_below, abdomen)):
        return None
    series = Series([dcmread(path) for path in sorted(chest.iterdir())])
    segmentation, measurements = outputs(ct_lungs, series.datasets)
    volumes = [measurements.values[number][0].value / 1000 for number in (RIGHT, LEFT)]
    labelled = read(slice_below)
    drawn = {name for one in labelled.series for name, mask in labelled.masks(one).items() if mask.any()}
    scores: Scores = {
        "NLST chest: volume of the right lung (L)": round(volumes[0], 2),
        "NLST chest: volume of the left lung (L)": round(volumes[1], 2),
        "NLST chest: left to right": round(volumes[1] / volumes[0], 2),
        "LCTSC slice: lungs that experts drew on it": sum(name.startswith("Lung") for name in drawn),
        "LCTSC slice: voxels taken for lung": _claimed(labelled.series),
        "abdomen without lung: voxels taken for lung": _claimed(read(abdomen).series),
    }
    found = segmentation.array()
    shown = [_colored(series, found, index) for index in (35, 70, 105)]
    return Measured(
        scores,
        beside(*shown),
        "Three slices of the NLST chest",
        "NLST 101287 (143 slices), LCTSC-Test-S1-101 (one), TotalSegmentator's example (20)",
    )


def _claimed(found: list[Series]) -> int:
    """Return how many voxels are taken for lung; 0 where a series is refused."""
    claimed = 0
    for one in found:
        with contextlib.suppress(NotApplicable):
            claimed += int(outputs(ct_lungs, one.datasets)[0].array().sum())
    return claimed


def _colored(series: Series, labels: Picture, index: int) -> Picture:
    picture = grey(series.frame(index), -400, 1500)
    for number, color in ((RIGHT, RIGHT_RGB), (LEFT, LEFT_RGB)):
        picture = painted(picture, labels[index] == number, color)
    return picture
