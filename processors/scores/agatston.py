"""What `agatston` is measured on, and what comes out."""

from pacs import phantoms
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, painted
from processors.agatston import agatston, weight


def score() -> Measured:
    datasets, truth = phantoms.calcium()
    segmentation, measurements = outputs(agatston, datasets, radius_mm=100.0)
    chest = phantoms.chest(nodules=(), plaques=True)
    by_itself, own = outputs(agatston, chest)
    pixel = 1.8 * 1.8
    expected = sum(rows * columns * pixel * weight(value) for _, (rows, columns), value in phantoms.PLAQUES) / 2
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
