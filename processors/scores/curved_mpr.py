"""What `curved-mpr` is measured on, and what comes out."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from pacs import phantoms
from pacs.processing import Series, Unplaced
from pacs.processing.curves import directions, lengths
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs
from processors.airways import airways
from processors.curved_mpr import airway_line, curved_mpr

PIXEL, WIDTH = 0.5, 40.0
BEYOND = 0.15
"""How far (rad) the line goes on beyond the tube's ends."""


def score() -> Measured:
    datasets, tube = phantoms.tube()
    angles = np.arange(-BEYOND, tube.angle + BEYOND + 1e-9, (tube.angle + 2 * BEYOND) / 12)
    points = "; ".join(",".join(f"{v:.3f}" for v in tube.at(float(angle))) for angle in angles)
    scores: Scores = {}
    shown = []
    for kind in ("straightened", "stretched", "projected"):
        (images,) = outputs(curved_mpr, datasets, points=points, kind=kind, views=2, width_mm=WIDTH, pixel_mm=PIXEL)
        for number, picture in enumerate(pictures(images)):
            if kind == "straightened":
                rows, wide = measured(picture)
                scores[f"straightened, view {number + 1}: error of length (mm)"] = round(rows * PIXEL - tube.length, 2)
                scores[f"straightened, view {number + 1}: error of radius (mm)"] = round(wide * PIXEL / 2 - tube.radius, 2)
            else:
                long, expected = along_the_line(picture, tube, kind, 90.0 * number)
                scores[f"{kind}, view {number + 1}: error of length (mm)"] = round(long - expected, 2)
            if number == 0:
                shown.append(grey(picture, 150, 500))
    chest, _ = phantoms.airways()
    for bronchus in ("right", "left"):
        line = airway_line(Series(chest), Series(chest).geometry(), bronchus)
        apart = distance_to_truth(line, -1 if bronchus == "right" else 1)
        scores[f"trachea and {bronchus} bronchus: line, mean distance to the true one (mm)"] = round(float(apart.mean()), 2)
        scores[f"trachea and {bronchus} bronchus: length that is followed (mm)"] = round(float(lengths(line)[-1]), 1)
    (images,) = outputs(curved_mpr, chest, kind="stretched", views=1)
    shown.append(grey(pictures(images)[0], -500, 1400))
    return Measured(
        scores,
        beside(*shown),
        "A bent tube straightened, stretched and projected, and the trachea and right bronchus of a phantom stretched",
        "a tube of 6 mm radius bent by 2.4 rad, its line given by 13 points; a tree of tubes in a chest",
    )


def on_public(folder: Path) -> Measured | None:
    """A low-dose chest; its airways were not labelled."""
    chest = folder / "ct_chest_nlst101287" / "CT"
    if not chest.is_dir():
        return None
    datasets = [dcmread(path) for path in sorted(chest.iterdir())]
    series = Series(datasets)
    geometry = series.geometry()
    (segmentation, *_) = outputs(airways, datasets)
    scores: Scores = {}
    shown = []
    for bronchus in ("right", "left"):
        line = airway_line(series, geometry, bronchus)
        scores[f"NLST chest: trachea to {bronchus} bronchus, length (mm)"] = round(float(lengths(line)[-1]), 1)
        scores[f"NLST chest: share of that line within the airway, {bronchus} (%)"] = round(
            100 * within(line, segmentation.array() > 0, series), 1
        )
        (images,) = outputs(curved_mpr, datasets, kind="straightened", bronchus=bronchus, views=2, pixel_mm=0.7)
        shown += [grey(one, -500, 1400) for one in pictures(images)]
    return Measured(
        scores,
        beside(*shown),
        "Trachea and right bronchus straightened, two views; the same of the left",
        "NLST 101287 (143 slices of 2 mm, low dose)",
    )


def pictures(images: Unplaced) -> list[NDArray[np.float64]]:
    return [one * images.slope + images.intercept for one in images.pixels]


def measured(picture: NDArray[np.float64], half: float = 150.0) -> tuple[float, float]:
    """Return how many rows the tube fills along its middle, and how many columns across (mean over inner rows)."""
    bright = picture > half
    rows = np.flatnonzero(bright.any(axis=1))
    # Half a pixel at both ends, by how far the brightest value of the row has come towards the edge.
    peaks = picture[rows[0] - 1 : rows[-1] + 2].max(axis=1)
    length = rows[-1] - rows[0] + (peaks[1] - half) / (peaks[1] - peaks[0]) + (peaks[-2] - half) / (peaks[-2] - peaks[-1])
    inner = picture[rows[len(rows) // 8 : -len(rows) // 8]]
    # Each column counts for the share of it that is tube.
    return float(length), float(np.clip(inner / (2 * half), 0, 1).sum(axis=1).mean())


def along_the_line(picture: NDArray[np.float64], tube: phantoms.Tube, kind: str, angle_deg: float) -> tuple[float, float]:
    """Return how long (mm) the tube is in a picture whose line is unrolled along one direction, and how long it has to be.

    Where each point of the line has to lie follows from the circle; there the picture is looked at.
    """
    angles = np.linspace(-BEYOND, tube.angle + BEYOND, 4001)
    line = np.array([tube.at(float(angle)) for angle in angles])
    chord, across = directions(line, angle_deg)
    shift = (line - line[0]) @ across
    flat = line - (line @ across)[:, None] * across
    row = lengths(flat) if kind == "stretched" else (flat - flat[0]) @ chord
    column = (shift - shift.min() + WIDTH / 2) / PIXEL
    seen = picture[
        np.clip(np.rint(row / PIXEL).astype(int), 0, len(picture) - 1),
        np.clip(np.rint(column).astype(int), 0, picture.shape[1] - 1),
    ]
    bright = np.flatnonzero(seen > 150)
    first, last = (int(np.searchsorted(angles, at)) for at in (0.0, tube.angle))
    return float(row[bright[-1]] - row[bright[0]]), float(row[last] - row[first])


def distance_to_truth(line: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return how far each point lies from the true line of the tree: trachea, main bronchus, one of its two branches."""
    carina, hilum = np.array([0.0, 0, 92]), np.array([side * 42.0, 0, 68])
    ends = ((side * 62.0, -18.0, 44.0), (side * 66.0, 16.0, 50.0))
    tubes = [(np.array([0.0, 0, 155]), carina), (carina, hilum), *((hilum, np.array(end)) for end in ends)]
    apart = []
    for start, end in tubes:
        share = np.clip((line - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
        apart.append(np.linalg.norm(line - start - share[:, None] * (end - start), axis=1))
    found: NDArray[np.float64] = np.min(apart, axis=0)
    return found


def within(line: NDArray[np.float64], mask: NDArray[np.bool_], series: Series) -> float:
    geometry = series.geometry()
    axes = np.stack([geometry.normal, np.asarray(geometry.column), np.asarray(geometry.row)])
    index = np.rint((line - np.asarray(geometry.origin)) @ axes.T / np.asarray(geometry.spacing_mm)).astype(int)
    return float(mask[tuple(index.T)].mean())
