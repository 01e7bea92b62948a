"""What `ct-tissues` is measured on, and what comes out."""

from pacs import phantoms
from pacs.processing.scoring import Measured, Scores, beside, dice, grey, outputs, painted
from processors.ct_tissues import ct_tissues


def score() -> Measured:
    datasets, truth = phantoms.thigh()
    segmentation, measurements = outputs(ct_tissues, datasets)
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
