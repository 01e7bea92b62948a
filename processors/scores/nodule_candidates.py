"""What `nodule-candidates` is measured on, and what comes out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs
from processors.nodule_candidates import nodule_candidates


def score() -> Measured:
    datasets = phantoms.chest()
    spots, *_ = outputs(nodule_candidates, datasets)
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


def on_public(folder: Path) -> Measured | None:
    """The one nodule that readers boxed, slice by slice, on a low-dose chest."""
    ct, boxes = folder / "ct_chest_nlst101287" / "CT", folder / "ct_chest_nlst101287" / "SR_lesion_boxes"
    if not ct.is_dir() or not boxes.is_dir():
        return None
    datasets = [dcmread(path) for path in sorted(ct.iterdir())]
    drawn = np.concatenate([_corners(dcmread(path), datasets) for path in sorted(boxes.iterdir())])
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    spots, *_, pictures = outputs(nodule_candidates, datasets)
    places = np.array([one.at_mm for one in spots.spots])
    hits = np.flatnonzero(((places >= low) & (places <= high)).all(axis=1))
    scores: Scores = {
        "nodules boxed by readers": 1,
        "of them found": int(hits.size > 0),
        "false candidates": len(places) - hits.size,
        "longest side of the box (mm)": round(float((high - low).max()), 1),
    }
    if hits.size:
        best = int(hits[0])
        scores |= {
            "its rank": best + 1,
            "from the middle of the box (mm)": round(float(np.linalg.norm(places[best] - (low + high) / 2)), 1),
            "its diameter as found (mm)": round(spots.spots[best].values[0].value, 1),
        }
    return Measured(scores, next(iter(pictures.pixels)), "All candidates, strongest first", "NLST 101287 with the Sybil boxes")


def _corners(report: Dataset, datasets: Sequence[Dataset]) -> NDArray[np.float64]:
    """Return the corners (x, y, z in mm) of the boxes that a report draws on axial slices."""
    by_uid, found = {str(one.SOPInstanceUID): one for one in datasets}, []
    for item in _regions(report):
        image = by_uid[str(item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)]
        origin, spacing = np.array(image.ImagePositionPatient, float), np.array(image.PixelSpacing, float)
        # PS3.3 C.18.6: columns and rows from the corner of the first pixel.
        for column, row in np.array(item.GraphicData, float).reshape(-1, 2):
            found.append(origin + np.array([(column - 0.5) * spacing[1], (row - 0.5) * spacing[0], 0.0]))
    return np.array(found)


def _regions(item: Dataset) -> Iterator[Dataset]:
    for one in item.get("ContentSequence") or []:
        if one.ValueType == "SCOORD":
            yield one
        yield from _regions(one)
