"""Lines through a volume: smooth, with equal steps, with a direction across that does not twist, and surfaces along them.

All in patient coordinates (mm, LPS; PS3.3 C.7.6.2.1.1), arrays of shape (points, 3).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pacs.processing.api import NotApplicable, ParameterError

Points = NDArray[np.float64]
Kind = Literal["straightened", "stretched", "projected"]
_NUMBER = r"\s*-?\d+(\.\d+)?\s*"
TRIPLE = f"{_NUMBER},{_NUMBER},{_NUMBER}"
"""A point or direction as text, "x,y,z"."""
TRIPLES = f"{TRIPLE}(;{TRIPLE})*"
"""Several of them, with semicolons between."""


def triples(text: str) -> Points:
    """Return points written as "x,y,z; x,y,z". Raises `ParameterError` where it is not that."""
    try:
        found = np.array([[float(value) for value in one.split(",")] for one in text.split(";")], np.float64)
    except ValueError as error:
        raise ParameterError("points are written as x,y,z; x,y,z … in mm") from error
    if found.ndim != 2 or found.shape[1] != 3:
        raise ParameterError("each point has three numbers: x,y,z in mm")
    return found


def unit(vector: Points) -> Points:
    """Return a vector at length 1."""
    return vector / np.linalg.norm(vector)


def lengths(line: Points) -> Points:
    """Return how far along the line each point lies, in mm."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])


def at_steps(line: Points, position: Points, step: float) -> Points:
    """Return the points at equal steps of `position`, which grows along the line; a last shorter step is left out."""
    wanted = np.arange(0.0, position[-1] - position[0] + step * 1e-6, step) + position[0]
    return np.stack([np.interp(wanted, position, line[:, axis]) for axis in range(3)], axis=1)


def smooth_line(points: Points, step_mm: float) -> Points:
    """Return the natural cubic spline through points, by the length of chords, at equal steps along it.

    Raises `NotApplicable` for fewer than two different points.

    Source: de Boor C, "A Practical Guide to Splines" (Springer 1978), chapter IV.
    """
    apart = np.linalg.norm(np.diff(points, axis=0), axis=1)
    points = points[np.concatenate([[True], apart > 1e-6])]
    if len(points) < 2:
        raise NotApplicable("a line needs at least two different points")
    knots = lengths(points)
    gaps, count = np.diff(knots), len(points)
    system, right = np.eye(count), np.zeros((count, 3))
    for i in range(1, count - 1):
        system[i, i - 1 : i + 2] = gaps[i - 1], 2 * (gaps[i - 1] + gaps[i]), gaps[i]
        right[i] = 6 * ((points[i + 1] - points[i]) / gaps[i] - (points[i] - points[i - 1]) / gaps[i - 1])
    bend = np.linalg.solve(system, right)  # second derivatives
    # Ten times finer than the steps, so that chords are as long as the arc.
    wanted = np.linspace(0.0, knots[-1], max(2, int(np.ceil(knots[-1] / step_mm * 10)) + 1))
    piece = np.clip(np.searchsorted(knots, wanted, side="right") - 1, 0, count - 2)
    gap = gaps[piece][:, None]
    above, below = (wanted - knots[piece])[:, None], (knots[piece + 1] - wanted)[:, None]
    dense = (bend[piece] * below**3 + bend[piece + 1] * above**3) / (6 * gap)
    dense += (points[piece] / gap - bend[piece] * gap / 6) * below
    dense += (points[piece + 1] / gap - bend[piece + 1] * gap / 6) * above
    return at_steps(dense, lengths(dense), step_mm)


def untwisted(line: Points, across: Points) -> Points:
    """Return for each point a unit vector at right angles to the line, the first near `across`, that never turns about it.

    Source: Wang W, Jüttler B, Zheng D, Liu Y, "Computation of rotation minimizing frames", ACM Trans Graph 27 (2008) 2:1-18
    (double reflection).
    """
    tangent = np.gradient(line, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    found = np.empty_like(line)
    found[0] = unit(across - (across @ tangent[0]) * tangent[0])
    for i in range(len(line) - 1):
        step = line[i + 1] - line[i]
        scale = 2 / (step @ step)
        mirrored, heading = (one - scale * (step @ one) * step for one in (found[i], tangent[i]))
        second = tangent[i + 1] - heading
        found[i + 1] = mirrored - 2 / (second @ second) * (second @ mirrored) * second
    return found


def directions(line: Points, angle_deg: float, *, upright: bool = False) -> tuple[Points, Points]:
    """Return the direction from the line's first to its last point, and one across it, both of length 1.

    Across is as near as can be to the patient's left (where `upright` to the feet), then turned by `angle_deg` about the
    first direction.
    """
    chord = line[-1] - line[0]
    if np.linalg.norm(chord) < 1e-3:
        chord = line[len(line) // 2] - line[0]  # a closed line
    chord = unit(chord)
    choices = np.array([[0, 0, -1.0], [1, 0, 0]] if upright else [[1.0, 0, 0], [0, 1, 0]])
    across = next(one for one in choices if abs(one @ chord) < 0.8)
    across = unit(across - (across @ chord) * chord)
    angle = np.deg2rad(angle_deg)
    return chord, across * np.cos(angle) + np.cross(chord, across) * np.sin(angle)


def surface(
    line: Points, kind: Kind, angle_deg: float, width_mm: float, pixel_mm: float, *, upright: bool = False
) -> NDArray[np.float64]:
    """Return the points of a surface along a line, shape (rows, columns, 3): a row is a straight line across it.

    "straightened": at right angles to the line, rows at equal steps of its length. "stretched": all rows have one direction,
    and are as far apart as they are in the patient, so that the surface is unrolled without being stretched itself.
    "projected": all rows have one direction, and lie where they are seen from the side.

    Source: Kanitsar A, Fleischmann D, Wegenkittl R, Felkel P, Gröller E, "CPR - curved planar reformation", IEEE Visualization
    (2002) 37-44.
    """
    chord, across = directions(line, angle_deg, upright=upright)
    if kind == "straightened":
        rows = at_steps(line, lengths(line), pixel_mm)
        count = round(width_mm / pixel_mm) + 1
        offset = (np.arange(count) - (count - 1) / 2) * pixel_mm
        # Turned about the line itself, not about the chord.
        chord_first = rows[min(1, len(rows) - 1)] - rows[0]
        upright_across = directions(np.stack([rows[0], rows[0] + chord_first]), angle_deg, upright=upright)[1]
        return rows[:, None] + offset[None, :, None] * untwisted(rows, upright_across)[:, None]
    flat = line - (line @ across)[:, None] * across
    position = lengths(flat) if kind == "stretched" else flat @ chord - flat[0] @ chord
    if (np.diff(position) < 0).any():
        raise NotApplicable("the line turns back on itself: it cannot be projected; straighten or stretch it")
    rows = at_steps(line, position, pixel_mm)
    shift = (rows - rows[0]) @ across
    count = round((float(np.ptp(shift)) + width_mm) / pixel_mm) + 1
    column = np.arange(count) * pixel_mm + shift.min() - width_mm / 2
    return rows[:, None] + (column[None, :] - shift[:, None])[..., None] * across
