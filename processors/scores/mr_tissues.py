"""What `mr-tissues` is measured on, and what comes out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs import phantoms
from pacs.phantoms.head import FLUID as TRUE_FLUID
from pacs.phantoms.head import GREY as TRUE_GREY
from pacs.phantoms.head import WHITE as TRUE_WHITE
from pacs.processing import Series
from pacs.processing.masks import volume_ml
from pacs.processing.scoring import Measured, Scores, beside, dice, grey, outputs, painted
from processors.mr_tissues import FLUID, GREY, SEGMENTS, WHITE, mr_tissues

TRUTH = {FLUID: TRUE_FLUID, GREY: TRUE_GREY, WHITE: TRUE_WHITE}


def score() -> Measured:
    """Within the mask that was found: how the mask itself does is measured with `mr-brain`."""
    datasets, labels = phantoms.tissues(depth=0.3, noise=45)
    series = Series(datasets)
    found = outputs(mr_tissues, datasets)[0].array()
    inside = (found > 0) & np.isin(labels, list(TRUTH.values()))
    scores: Scores = {}
    for number, label in TRUTH.items():
        one, other = (found == number) & inside, (labels == label) & inside
        name = SEGMENTS[number].label
        scores[f"{name}: Dice"] = round(dice(one, other), 4)
        geometry = series.geometry()
        scores[f"{name}: error of volume (%)"] = round(100 * (volume_ml(one, geometry) / volume_ml(other, geometry) - 1), 2)
    picture = grey(series.frame(32), 350, 800)
    return Measured(
        scores,
        beside(picture, _colored(picture, found[32])),
        "A slice, and its tissues",
        "a T1-like head with strong shading and noise",
    )


def _colored(picture: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    for number, color in ((FLUID, (40, 110, 255)), (GREY, (230, 70, 60)), (WHITE, (250, 240, 120))):
        picture = painted(picture, labels == number, color)
    return picture
