"""What `threshold` is measured on, and what comes out."""

import numpy as np

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.masks import volume_ml
from pacs.processing.scoring import Measured, Scores, beside, dice, grey, outputs, painted
from processors.threshold import otsu, threshold


def score() -> Measured:
    datasets, truth = phantoms.lungs()
    datasets = phantoms.read(datasets)
    series = Series(datasets)
    lungs, _ = outputs(threshold, datasets, side="below", method="fixed", level=-400, most=4)
    scores: Scores = {}
    for number, name in ((1, "right lung"), (2, "left lung")):
        best = max(dice(lungs.array() == part, truth == number) for part in lungs.segments)
        scores[f"{name}, below -400 HU: Dice of the best part"] = round(best, 4)
    tube, facts = phantoms.tube()
    found, measurements = outputs(threshold, tube)
    expected = np.pi * facts.radius**2 * facts.length / 1000
    scores["bent tube, by Otsu: threshold (HU; half way is 150)"] = round(otsu(Series(tube).array()), 1)
    scores["bent tube, by Otsu: error of volume (%)"] = round(100 * (measurements.values[1][0].value / expected - 1), 2)
    scores["bent tube, by hand (mL)"] = round(expected, 3)
    scores["bent tube, voxels of the part (mL)"] = round(volume_ml(found.array() == 1, Series(tube).geometry()), 3)
    middle = 20
    colored = picture = grey(series.frame(middle), -300, 1400)
    for number, segment in lungs.segments.items():
        colored = painted(colored, lungs.array()[middle] == number, segment.color_rgb)
    return Measured(
        scores,
        beside(picture, colored),
        "Four largest parts below -400 HU: air, and the lungs",
        "a chest; a bent tube in water",
    )
