"""The balloon of `mr-brain`: a tessellated sphere that is inflated inside a head until it lies on the brain.

Source: Smith SM, "Fast robust automated brain extraction", Human Brain Mapping 17 (2002) 143-155; the symbols are its own.
Positions are in mm along the axes of the array (slices, rows, columns) of cubes of `CUBE_MM`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pacs.processing.masks import filled

CUBE_MM = 2.0
LOOK_MM = 20
"""How far along the inner normal the darkest voxel is searched; the brightest half as far (d1 and d2)."""
CURVES_MM = (3.33, 10.0)
"""Radii of curvature: folds of less are smoothed away, those of more are left (r_min and r_max)."""
ROUNDS = ((3, 300), (4, 150))
"""How often the icosahedron is halved, and steps at that fineness."""
Values = NDArray[np.float32]
Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Levels:
    """What the intensities of a head are: 2nd and 98th percentile, head from air, and the median well inside."""

    low: float
    high: float
    air: float
    middle: float
    centre: Points
    radius_mm: float

    @classmethod
    def of(cls, cubes: Values) -> "Levels":
        low, high = (float(one) for one in np.percentile(cubes, (2, 98)))
        air = low + 0.1 * (high - low)
        head = cubes > air
        weight = np.where(head, np.minimum(cubes, high) - low, 0)
        total = max(float(weight.sum()), 1e-6)
        places = [np.arange(count) * CUBE_MM for count in cubes.shape]
        along = [weight.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
        centre = np.array([float((one * place).sum()) / total for one, place in zip(along, places, strict=True)])
        radius = float((3 * head.sum() * CUBE_MM**3 / (4 * np.pi)) ** (1 / 3))
        z, y, x = np.meshgrid(*(place - at for place, at in zip(places, centre, strict=True)), indexing="ij", sparse=True)
        inside = cubes[z**2 + y**2 + x**2 < radius**2]
        inside = inside[(inside > low) & (inside < high)]
        return cls(low, high, air, float(np.median(inside)) if inside.size else low, centre, radius)


def inflate(cubes: Values, strength: float, gradient: float) -> Values:
    """Return where the brain is on a grid of cubes: 1 within the balloon, 0.5 at its surface, 0 outside."""
    levels = Levels.of(cubes)
    mesh = sphere(ROUNDS[0][0])
    points = levels.centre + 0.5 * levels.radius_mm * mesh.points
    for number, (halvings, steps) in enumerate(ROUNDS):
        if number:
            mesh = sphere(halvings)
            points = between(points, mesh.parents)
        for _ in range(steps):
            points = points + step(points, mesh, cubes, levels, strength, gradient)
    return voxels(points, mesh.faces, cubes.shape)


def step(points: Points, mesh: "Sphere", cubes: Values, levels: Levels, strength: float, gradient: float) -> Points:
    """Return by how much each point moves (mm)."""
    normals = mesh.normals(points)
    around = points[mesh.neighbours]
    count = mesh.counts[:, None]
    apart = float(np.linalg.norm(around - points[:, None], axis=2).sum() / mesh.counts.sum())
    pull = around.sum(axis=1) / count - mesh.lacking(points) / count - points
    inward = (pull * normals).sum(axis=1, keepdims=True)
    across = pull - inward * normals
    # Smoothing along the normal: strong where the surface curves tightly, near nothing where it is smooth.
    tight, wide = (1 / one for one in CURVES_MM)
    curvature = 2 * np.abs(inward) / apart**2
    smooth = (1 + np.tanh(6 / (tight - wide) * (curvature - (tight + wide) / 2))) / 2
    depths = np.arange(0, LOOK_MM, 1.0)
    seen = sampled(cubes, points[:, None] - depths[:, None] * normals[:, None])
    darkest = np.maximum(levels.low, np.minimum(levels.middle, seen.min(axis=1)))
    brightest = np.minimum(levels.middle, np.maximum(levels.air, seen[:, : LOOK_MM // 2].max(axis=1)))
    share = strength**0.275 + gradient * (points[:, 0] - levels.centre[0]) / levels.radius_mm * 0.3
    border = (brightest - levels.low) * np.clip(share, 0, 1) + levels.low
    push = 2 * (darkest - border) / np.maximum(brightest - levels.low, 1e-6)
    moved: Points = 0.5 * across + smooth * inward * normals + 0.05 * apart * push[:, None] * normals
    return moved


def sampled(cubes: Values, places: Points) -> Values:
    """Return the values of the nearest voxels; 0 outside."""
    index = np.rint(places / CUBE_MM).astype(np.int32)
    shape = np.array(cubes.shape)
    inside = ((index >= 0) & (index < shape)).all(axis=-1)
    index = np.clip(index, 0, shape - 1)
    flat = (index[..., 0] * shape[1] + index[..., 1]) * shape[2] + index[..., 2]
    found: Values = np.where(inside, cubes.ravel()[flat], np.float32(0)).astype(np.float32)
    return found


def voxels(points: Points, faces: NDArray[np.int64], shape: tuple[int, ...]) -> Values:
    """Return how much of each cube's middle lies in a closed surface: 1 within, 0.5 on it, 0 outside."""
    corners = points[faces]
    shell = np.zeros(shape, np.bool_)
    # Points so close together that the shell has no hole: a face's edges are of a few mm.
    edge = float(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max())
    count = int(np.ceil(2 * edge / CUBE_MM)) + 1
    for one in range(count + 1):
        for other in range(count + 1 - one):
            a, b = one / count, other / count
            place = a * corners[:, 0] + b * corners[:, 1] + (1 - a - b) * corners[:, 2]
            index = np.rint(place / CUBE_MM).astype(int)
            index = index[((index >= 0) & (index < np.array(shape))).all(axis=1)]
            shell[index[:, 0], index[:, 1], index[:, 2]] = True
    whole = filled(shell)
    found: Values = ((whole.astype(np.float32) + (whole & ~shell)) / 2).astype(np.float32)
    return found


@dataclass(frozen=True, slots=True)
class Sphere:
    """A halved icosahedron: unit points, faces (three points each, outside to the front), and who neighbours whom.

    Rows of `neighbours` and `around` are six long; where a point has five, the last repeats the point itself, or the face
    after the last, whose normal counts as nothing. `parents` are the two points of the coarser sphere that each lies between.
    """

    points: Points
    faces: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    counts: NDArray[np.int64]
    around: NDArray[np.int64]
    parents: NDArray[np.int64]

    def normals(self, points: Points) -> Points:
        """Return the outward normal of each point: the sum of its faces' normals, by area."""
        one, two, three = (points[self.faces[:, number]] for number in range(3))
        of_faces = np.concatenate([np.cross(two - one, three - one), np.zeros((1, 3))])
        summed = of_faces[self.around].sum(axis=1)
        unit: Points = summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-9)
        return unit

    def lacking(self, points: Points) -> Points:
        """Return what points with five neighbours have too much in a sum over six."""
        return np.where(self.counts[:, None] == 5, points, 0)


@cache
def sphere(halvings: int) -> Sphere:
    """Return the icosahedron with each edge halved so often: 10 * 4**halvings + 2 points."""
    golden = (1 + 5**0.5) / 2
    corners = [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    points = np.array([one[-turn:] + one[:-turn] for turn in range(3) for one in corners], float)
    points /= np.linalg.norm(points[0])
    edge = float(np.sort(np.linalg.norm(points - points[0], axis=1))[1])
    near = np.abs(np.linalg.norm(points[:, None] - points[None], axis=2) - edge) < 1e-6
    faces = [(a, b, c) for a in range(12) for b in range(a) for c in range(b) if near[a, b] and near[b, c] and near[a, c]]
    parents = np.stack([np.arange(12)] * 2, axis=1)
    for _ in range(halvings):
        made: dict[tuple[int, int], int] = {}
        finer, kept = [], len(points)
        for a, b, c in faces:
            ab, bc, ca = (made.setdefault((min(pair), max(pair)), kept + len(made)) for pair in ((a, b), (b, c), (c, a)))
            finer += [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        parents = np.concatenate([np.stack([np.arange(kept)] * 2, axis=1), np.array(list(made))])
        points = between(points, parents)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        faces = finer
    outward = [
        (a, b, c) if np.dot(np.cross(points[b] - points[a], points[c] - points[a]), points[a]) > 0 else (a, c, b)
        for a, b, c in faces
    ]
    of_point: list[list[int]] = [[] for _ in points]
    beside: list[set[int]] = [set() for _ in points]
    for number, face in enumerate(outward):
        for corner in face:
            of_point[corner].append(number)
            beside[corner] |= set(face) - {corner}
    neighbours = np.array([([*sorted(one), at])[:6] for at, one in enumerate(beside)])
    around = np.array([([*one, len(outward)])[:6] for one in of_point])
    counts = np.array([len(one) for one in beside])
    return Sphere(points, np.array(outward), neighbours, counts, around, parents)


def between(points: Points, parents: NDArray[np.int64]) -> Points:
    """Return the points of a finer sphere: the coarser one's, and the middles of its edges."""
    found: Points = points[parents].mean(axis=1)
    return found
