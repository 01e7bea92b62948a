"""What `nodule-candidates` is measured on, and what comes out."""

import cv2
import numpy as np

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs
from processors.nodule_candidates import nodule_candidates


def score() -> Measured:
    datasets = phantoms.chest()
    (spots,) = outputs(nodule_candidates, datasets)
    places = np.array([one.at_mm for one in spots.spots])
    errors, sizes, ranks = [], [], []
    for place, diameter in phantoms.NODULES:
        distance = np.linalg.norm(places - np.asarray(place), axis=1)
        nearest = int(distance.argmin())
        if distance[nearest] < diameter / 2:
            errors.append(float(distance[nearest]))
            sizes.append(abs(spots.spots[nearest].values[0].value / diameter - 1))
            ranks.append(nearest)
    scores: Scores = {
        "nodules of 6 to 12 mm": len(phantoms.NODULES),
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
