"""Finding a head in a coarse volume: what is tissue, what is skull, and where the axes of the head lie.

Head coordinates are millimetres in the frame that brain atlases use: l toward the left ear, a toward the nose, s toward the
vertex, the origin between the ears in the middle of the brain. An average head (`MODEL`, a handful of ellipsoids whose sizes
follow adult anthropometry) is laid over the tissue of the volume by least squares: three shifts, three turns, three sizes,
each held near what is usual. Surface is all it uses, so CT and every MR contrast are alike, and a part of a head will do.
Pure: arrays in, numbers out.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.deid.planes import WORK_MM, Work

Mask = NDArray[np.bool_]

MODEL: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = (
    ((0, -16, 3), (80, 102, 86)),  # the vault
    ((0, 28, -55), (64, 54, 62)),  # the upper face
    ((0, 30, -92), (52, 56, 52)),  # the jaw
    ((0, 88, -62), (15, 18, 24)),  # the nose
    ((0, -50, -75), (62, 52, 45)),  # the nape
    ((0, -46, -130), (56, 56, 90)),  # the neck
)
"""Centre and radii (l, a, s) in mm of the ellipsoids whose union is the average head."""

_SOFT_MM = 8.0
"""Half the width over which inside becomes outside: steep enough to measure, soft enough to find the way."""

_TABLE_MM = 4.0
_TABLE_LOW = np.array([-150.0, -190.0, -240.0])
_TABLE_SHAPE = (91, 96, 76)  # (s, a, l): up to 120 mm, 190 mm, 150 mm


@dataclass(frozen=True, slots=True)
class Pose:
    """How a head lies: turn about l (chin up), a (ear down) and s (looking aside) in radians, shift in mm, sizes.

    `misfit` is the mean squared difference of model and tissue over the head, 0 to 1. `agreed` is the share of the model's
    surface, where it was seen, at which the tissue has its surface, too: a head agrees by 0.6 and more, other parts of the
    body by 0.2 to 0.5, however well an ellipsoid fills them. `surface_cm2` is how much surface was seen.
    """

    shift: NDArray[np.float64]
    turn: NDArray[np.float64]
    size: NDArray[np.float64]
    misfit: float = 1.0
    agreed: float = 0.0
    surface_cm2: float = 0.0

    def matrix(self) -> NDArray[np.float64]:
        """Return the 4 x 4 matrix from (l, a, s) in the patient to head coordinates."""
        rotation = rotation_of(self.turn)
        matrix = np.eye(4)
        matrix[:3, :3] = rotation.T / self.size[:, None]
        matrix[:3, 3] = -matrix[:3, :3] @ self.shift
        return matrix


@dataclass(frozen=True, slots=True)
class Tether:
    """Where the middle of the head is expected, give or take `play_mm`, and how far it may be turned (radians)."""

    middle: NDArray[np.float64]
    play_mm: NDArray[np.float64]
    turn: NDArray[np.float64]


def rotation_of(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation by `turn` radians about l, a and s."""
    (cl, ca, cs), (sl, sa, ss) = np.cos(turn), np.sin(turn)
    about_l = np.array([[1, 0, 0], [0, cl, -sl], [0, sl, cl]])
    about_a = np.array([[ca, 0, sa], [0, 1, 0], [-sa, 0, ca]])
    about_s = np.array([[cs, -ss, 0], [ss, cs, 0], [0, 0, 1]])
    product_of_all: NDArray[np.float64] = about_s @ about_a @ about_l
    return product_of_all


def ball(radius_mm: float) -> NDArray[np.uint8]:
    """Return a disc for cv2's morphology of `radius_mm` on the working grid."""
    size = 2 * max(1, round(radius_mm / WORK_MM)) + 1
    disc: NDArray[np.uint8] = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return disc


def widen(mask: Mask, radius_mm: float) -> Mask:
    """Return `mask` grown by about `radius_mm` in all directions."""
    return ~shrink(~mask, radius_mm, border=True)


def shrink(mask: Mask, radius_mm: float, *, border: bool = False) -> Mask:
    """Return `mask` less a skin of about `radius_mm`; what is outside the volume counts as `border`."""
    steps = max(1, round(radius_mm / WORK_MM))
    padded = np.pad(mask, steps, constant_values=border).astype(np.uint8)
    # An octahedron-like ball: discs in the plane, then one voxel up and down for each step.
    disc = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for _ in range(steps):
        planes = np.stack([cv2.erode(one, disc) for one in padded])
        padded = planes.copy()
        padded[1:] = np.minimum(padded[1:], planes[:-1])
        padded[:-1] = np.minimum(padded[:-1], planes[1:])
    inner = padded[steps:-steps, steps:-steps, steps:-steps]
    return inner.astype(bool)


def components(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label the connected parts of `mask`: labels from 1 on (0 outside) and the voxels of each label, by label.

    cv2 labels each slice; labels that touch in neighbouring slices (same row and column) are then joined.
    """
    labels = np.zeros(mask.shape, np.int32)
    total = 0
    for number, plane in enumerate(mask):
        count, here = cv2.connectedComponents(plane.astype(np.uint8), connectivity=4)
        labels[number] = np.where(plane, here + total, 0)
        total += count
    parent = np.arange(total + 1)

    def root(label: int) -> int:
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = int(parent[label])
        return label

    for lower, upper in pairwise(labels):
        both = (lower > 0) & (upper > 0)
        if both.any():
            for one, other in np.unique(np.stack([lower[both], upper[both]], axis=1), axis=0):
                first, second = root(int(one)), root(int(other))
                parent[max(first, second)] = min(first, second)
    roots = np.array([root(label) for label in range(total + 1)])
    labels = roots[labels].astype(np.int32)
    return labels, np.bincount(labels.ravel(), minlength=total + 1)


def largest(mask: Mask) -> Mask:
    """Return the largest connected part of `mask`; nothing of nothing."""
    labels, sizes = components(mask)
    sizes[0] = 0
    if sizes.sum() == 0:
        return mask
    part: Mask = labels == int(sizes.argmax())
    return part


def filled(mask: Mask, axis: int = 0) -> Mask:
    """Return `mask` with what it encloses in each plane across `axis` (an edge of the volume encloses nothing)."""
    turned = np.moveaxis(mask, axis, 0)
    out = np.empty_like(turned)
    for number, plane in enumerate(turned):
        padded = np.pad(plane, 1).astype(np.uint8)
        cv2.floodFill(padded, None, (0, 0), 2)
        out[number] = padded[1:-1, 1:-1] != 2
    return np.moveaxis(out, 0, axis)


def tissue(work: Work, modality: str) -> Mask:
    """Return what is body, without table and head rest: above -300 HU, or above the noise of an MR image."""
    body = work.seen & (_smooth(work.values) > body_level(work, modality))
    if modality != "CT":
        # Bone is as dark as air: bring the scalp and what lies within the skull together.
        closed = shrink(widen(body, 7.5), 7.5, border=True)
        body = filled(closed, 0) | filled(closed, 1) | filled(closed, 2)
    else:
        body = filled(body)
    whole = largest(shrink(body & work.seen, 5, border=True))
    return widen(whole, 5) & body & work.seen


def _smooth(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the volume less its noise."""
    return np.stack([cv2.blur(one, (3, 3)) for one in values])


def body_level(work: Work, modality: str) -> float:
    """Return the value above which a voxel is body."""
    if modality == "CT":
        return -300.0
    values = work.values[work.seen]
    top = float(np.percentile(values, 99.5))
    if top <= float(values.min()):
        return top
    low = float(values.min())
    scaled = np.clip((values - low) / (top - low) * 255, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(scaled.reshape(1, -1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    # Otsu parts bright from dark tissue, too; half of it is still far above the noise of air.
    return low + float(otsu) / 255 * (top - low) * 0.5


def cranial_cavity(work: Work) -> Mask:
    """Return what a CT shows to lie inside a skull: soft tissue that bone encloses in two directions at least."""
    bone = work.seen & (work.values > 220)
    closed = widen(bone, 2.5)
    around = sum(filled(closed, axis).astype(np.uint8) for axis in range(3))
    soft = work.seen & (work.values > -30) & (work.values < 130) & ~closed
    inside: Mask = largest(shrink(soft & (around >= 2), 2.5))
    return widen(inside, 5) & soft


@cache
def _average() -> NDArray[np.float32]:
    """The average head as a table: 1 inside, 0 outside, a ramp of 2 * _SOFT_MM between."""
    s, a, left = (
        (np.arange(count) * _TABLE_MM + low).astype(np.float32)
        for count, low in zip(_TABLE_SHAPE, _TABLE_LOW[::-1], strict=True)
    )
    return occupancy(np.stack(np.broadcast_arrays(left[None, None, :], a[None, :, None], s[:, None, None]), axis=-1))


def occupancy(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return 1 inside the average head, 0 outside, for points (l, a, s) in head coordinates along the last axis."""
    distance = np.full(points.shape[:-1], np.inf)
    for centre, radii in MODEL:
        relative = points - np.asarray(centre)
        level = np.sqrt(((relative / radii) ** 2).sum(axis=-1)) + 1e-6
        slope = np.sqrt(((relative / np.square(radii)) ** 2).sum(axis=-1)) + 1e-6
        distance = np.minimum(distance, level * (level - 1) / slope)
    return np.clip(0.5 - distance / (2 * _SOFT_MM), 0, 1).astype(np.float32)


def _looked_up(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `occupancy` at points of shape (3, n) from the table, trilinear."""
    base, part = [], []
    for at, low, count in zip(points, _TABLE_LOW, _TABLE_SHAPE[::-1], strict=True):
        index = np.clip((at - np.float32(low)) * np.float32(1 / _TABLE_MM), 0, count - 1.001)
        whole = index.astype(np.int32)
        base.append(whole)
        part.append(index - whole)
    table = _average().ravel()
    flat = (base[2] * _TABLE_SHAPE[1] + base[1]) * _TABLE_SHAPE[2] + base[0]
    # Linear along l, then a, then s.
    corners = [table[flat + (ds * _TABLE_SHAPE[1] + da) * _TABLE_SHAPE[2] + dl] for ds, da, dl in product((0, 1), repeat=3)]
    for along in part:
        corners = [low + (high - low) * along for low, high in zip(corners[::2], corners[1::2], strict=True)]
    return np.asarray(corners[0], np.float32)


_SCALES = np.array([10.0, 10.0, 10.0, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05])
"""A step of one in each parameter of the search, so that all weigh alike: mm, radians, logarithm of size."""

_USUAL_TURN = np.radians([16.0, 10.0, 12.0])
_USUAL_SIZE = 0.06
_PRIOR = 40.0


def fit(work: Work, body: Mask, top_mm: float) -> Pose:
    """Lay the average head over `body` and return how it lies.

    Parameters
    ----------
    body : ndarray of bool, shape of the work volume
        What is tissue.
    top_mm : float
        Height (s) of the vertex, or of the highest slice where the vertex is not in view. What lies more than 240 mm lower,
        neck and shoulders, is not looked at.
    """
    soft = _softened(work, body)
    points, wanted, weight = _samples(work, soft, top_mm)
    if points.shape[1] < 500:
        return Pose(np.zeros(3), np.zeros(3), np.ones(3))
    best: tuple[float, NDArray[np.float64]] | None = None
    tether = _tether(points)
    for start in _starts(points, wanted, top_mm):
        found, cost = _descend(start, points[:, ::7], wanted[::7], weight[::7] * 7, tether, steps=12)
        if best is None or cost < best[0]:
            best = (cost, found)
    assert best is not None
    found, _ = _descend(best[1], points[:, ::2], wanted[::2], weight[::2] * 2, tether, steps=8)
    pose = _pose(found)
    model = _looked_up(_apply(pose.matrix(), points))
    misfit = float((weight * (model - wanted) ** 2).sum() / max((weight * np.maximum(model, wanted)).sum(), 1))
    surface = _is_edge(model)
    agreed = float((surface & _is_edge(wanted)).sum() / max(surface.sum(), 1))
    area = float(surface.sum()) * (_STEP * WORK_MM) ** 3 / (0.7 * 2 * _SOFT_MM) / 100
    return Pose(pose.shift, pose.turn, pose.size, misfit, agreed, area)


_STEP = 2
"""Every second voxel of the working grid is compared: 5 mm, finer than the model knows a head."""


def _is_edge(soft: NDArray[np.float32]) -> Mask:
    edge: Mask = (soft > 0.15) & (soft < 0.85)
    return edge


def _softened(work: Work, body: Mask) -> NDArray[np.float32]:
    """Return `body` with an edge as soft as the model's, made only of what was seen."""
    width = round(2 * _SOFT_MM / WORK_MM) | 1

    def blurred(volume: NDArray[np.float32]) -> NDArray[np.float32]:
        flat = np.stack([cv2.blur(one, (width, width), borderType=cv2.BORDER_REPLICATE) for one in volume])
        tall = cv2.blur(flat.reshape(len(flat), -1), (1, width), borderType=cv2.BORDER_REPLICATE)
        again: NDArray[np.float32] = tall.reshape(volume.shape)
        return again

    seen = blurred(work.seen.astype(np.float32))
    return np.asarray(blurred((body & work.seen).astype(np.float32)) / np.maximum(seen, 1e-3), np.float32)


def _samples(
    work: Work, soft: NDArray[np.float32], top_mm: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return points (3, n), what is there, and how much each counts."""
    s, a, left = (
        (np.arange(0, count, _STEP) * WORK_MM + low).astype(np.float32)
        for count, low in zip(work.values.shape, work.origin[::-1], strict=True)
    )
    sparse = soft[::_STEP, ::_STEP, ::_STEP]
    deep = top_mm - s
    high = (deep < 240) & (deep > -25)
    if not high.any():
        return np.zeros((3, 0), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32)
    # Arms and shoulders beside the head are none of its outline.
    upper = sparse[(deep < 110) & high] > 0.5
    across, along = upper.any(axis=(0, 1)), upper.any(axis=(0, 2))
    near = np.broadcast_to(high[:, None, None], sparse.shape) & work.seen[::_STEP, ::_STEP, ::_STEP]
    if across.any():
        near &= np.abs(left - left[across].mean()) < 150
        near &= (np.abs(a - a[along].mean()) < 190)[:, None]
    points = np.stack([one[near] for one in np.broadcast_arrays(left, a[:, None], s[:, None, None])])
    weight = np.clip((240 - (top_mm - points[2])) / 80, 0, 1)
    return points, sparse[near], weight


def _starts(points: NDArray[np.float32], wanted: NDArray[np.float32], top_mm: float) -> list[NDArray[np.float64]]:
    """Return where to begin: level, chin up and chin down; and in several depths where a stack is too narrow to tell."""
    upper = (points[2] > top_mm - 110) & (wanted > 0.5)
    body = points[:, upper] if upper.sum() > 50 else points
    left, ahead = np.percentile(body[0], (1, 99)).mean(), np.percentile(body[1], (1, 99)).mean() + 16
    forward = (-60, -30, 0, 30, 60) if np.ptp(points[1]) < 160 else (0,)
    starts = []
    for da, pitch in product(forward, (-20, 0, 20)):
        start = np.zeros(9)
        start[:3] = np.array([left, ahead + da, top_mm - 89]) / _SCALES[:3]
        start[3] = np.radians(pitch) / _SCALES[3]
        starts.append(start)
    return starts


def _tether(points: NDArray[np.float32]) -> Tether:
    """Return what is usual: a stack too narrow to show the outline of a head is centred on it, and hardly turned."""
    low, high = points.min(axis=1).astype(float), points.max(axis=1).astype(float)
    narrow = high - low < np.array([140, 170, 0])
    turn = np.where([False, narrow[0], narrow[0] or narrow[1]], _USUAL_TURN / 4, _USUAL_TURN)
    return Tether((low + high) / 2 * narrow, np.where(narrow, np.array([6.0, 40.0, 1e6]), 1e6), turn)


def _pose(parameters: NDArray[np.float64]) -> Pose:
    numbers = parameters * _SCALES
    return Pose(numbers[:3], numbers[3:6], np.exp(numbers[6:]))


def _apply(matrix: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return points of shape (3, n) after `matrix`; written out, because a product this narrow is slow by BLAS."""
    (x, y, z), m = points, matrix.astype(np.float32)
    return np.stack([m[n, 0] * x + m[n, 1] * y + m[n, 2] * z + m[n, 3] for n in range(3)])


def _descend(
    start: NDArray[np.float64],
    points: NDArray[np.float32],
    wanted: NDArray[np.float32],
    weight: NDArray[np.float32],
    tether: "Tether",
    *,
    steps: int,
) -> tuple[NDArray[np.float64], float]:
    """Return the nearest best fit and its cost, by Levenberg's and Marquardt's method with numeric derivatives."""
    root = np.sqrt(weight)

    def residuals(at: NDArray[np.float64]) -> NDArray[np.float64]:
        size = at[6:] * _SCALES[6:]
        prior = np.concatenate(
            [
                at[3:6] * _SCALES[3:6] / tether.turn,
                (size - size.mean()) / (_USUAL_SIZE / 1.5),
                size / (_USUAL_SIZE * 1.5),
                (at[:3] * _SCALES[:3] - tether.middle) / tether.play_mm,
            ]
        )
        return np.concatenate([root * (_looked_up(_apply(_pose(at).matrix(), points)) - wanted), prior * np.sqrt(_PRIOR)])

    at, damping = start, 1e-2
    here = residuals(at)
    cost = float(here @ here)
    for _ in range(steps):
        columns = []
        for number in range(9):
            moved = at.copy()
            moved[number] += 0.15
            columns.append((residuals(moved) - here) / 0.15)
        jacobian = np.stack(columns, axis=1)
        normal, slope = jacobian.T @ jacobian, jacobian.T @ here
        for _ in range(5):
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-6), -slope)
            there = residuals(at + step)
            reached = float(there @ there)
            if reached < cost:
                break
            damping *= 8
        else:
            break
        gained = cost - reached
        at, here, cost, damping = at + step, there, reached, max(damping / 5, 1e-5)
        if gained < 1e-4 * cost:
            break
    return at, cost
