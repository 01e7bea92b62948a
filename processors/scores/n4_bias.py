"""What `n4-bias` is measured on, and what comes out."""

import numpy as np

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, values_of
from processors.n4_bias import n4_bias


def score() -> Measured:
    datasets, field, white, whole = phantoms.head()
    series = Series(datasets)
    before = series.array()
    (images,) = outputs(n4_bias, datasets, coarse_mm=9.0, iterations=25)
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
