"""What `ct-lungs` is measured on, and what comes out."""

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
    """A whole low-dose chest, and a slice below the lungs on which experts drew none."""
    chest, abdomen = folder / "ct_chest_nlst101287" / "CT", folder / "ct_thorax_lctsc101"
    if not chest.is_dir() or not abdomen.is_dir():
        return None
    series = Series([dcmread(path) for path in sorted(chest.iterdir())])
    segmentation, measurements = outputs(ct_lungs, series.datasets)
    volumes = [measurements.values[number][0].value / 1000 for number in (RIGHT, LEFT)]
    labelled = read(abdomen)
    drawn = {name for one in labelled.series for name, mask in labelled.masks(one).items() if mask.any()}
    claimed = 0
    for one in labelled.series:
        try:
            claimed += int(outputs(ct_lungs, one.datasets)[0].array().sum())
        except NotApplicable:
            continue
    scores: Scores = {
        "NLST chest: volume of the right lung (L)": round(volumes[0], 2),
        "NLST chest: volume of the left lung (L)": round(volumes[1], 2),
        "NLST chest: left to right": round(volumes[1] / volumes[0], 2),
        "LCTSC slice: lungs that experts drew on it": sum(name.startswith("Lung") for name in drawn),
        "LCTSC slice: voxels taken for lung": claimed,
    }
    found = segmentation.array()
    shown = [_colored(series, found, index) for index in (35, 70, 105)]
    return Measured(
        scores, beside(*shown), "Three slices of the NLST chest", "NLST 101287 (143 slices), LCTSC-Test-S1-101 (one)"
    )


def _colored(series: Series, labels: Picture, index: int) -> Picture:
    picture = grey(series.frame(index), -400, 1500)
    for number, color in ((RIGHT, RIGHT_RGB), (LEFT, LEFT_RGB)):
        picture = painted(picture, labels[index] == number, color)
    return picture
