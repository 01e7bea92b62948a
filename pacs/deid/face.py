"""Clean Recognizable Visual Features, PS3.15 E.3.2 (113102): the face and the ears of CT and MR heads, without weights.

`find` looks at a whole series and says whether a face is in view, and where; what is to be cut is then a region of the
patient, not of an image: the same region serves every series, segmentation and derived image of that frame of reference.
`mask_of` lays it over a frame, and `fill` puts noise of the neighbourhood there. Pure functions: who holds the series until
it is complete, and what is written into the headers, is `pacs.processing`. docs/defacing.md has the method, the measurements
and the limits.
"""

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pacs.deid import head
from pacs.deid.candidates import METHOD, Said, Verdict, needs_defacing, said_of
from pacs.deid.fill import fill
from pacs.deid.planes import LPS_TO_LAS, WORK_MM, Plane, Work, gather, is_sound
from pacs.model.errors import Quarantined

__all__ = ["METHOD", "Plane", "Region", "Said", "Verdict", "fill", "find", "mask_of", "needs_defacing", "said_of"]


@dataclass(frozen=True, slots=True)
class Region:
    """What is cut out of a patient: a face and its ears, as a shape in head coordinates less the brain that was seen.

    `matrix` leads from patient coordinates (mm, LPS) to head coordinates (`pacs.deid.head`). `brain` are the protected voxels
    of the working grid, its first voxel at `origin` in (l, a, s).
    """

    matrix: NDArray[np.float64]
    origin: NDArray[np.float64]
    brain: NDArray[np.bool_] = field(repr=False)

    def mask(self, plane: Plane) -> NDArray[np.bool_]:
        """Return which pixels of a frame are cut, shape of the plane."""
        return mask_of([self], plane)

    def to_bytes(self) -> bytes:
        """Return the region as bytes, for series of the same frame of reference that come later."""
        shape = np.array(self.brain.shape)
        head_line = json.dumps({"matrix": self.matrix.tolist(), "origin": self.origin.tolist(), "shape": shape.tolist()})
        return head_line.encode() + b"\n" + zlib.compress(np.packbits(self.brain).tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Region":
        """Undo `to_bytes`."""
        line, _, packed = data.partition(b"\n")
        told = json.loads(line)
        shape = tuple(told["shape"])
        bits = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8), count=int(np.prod(shape)))
        return cls(np.array(told["matrix"]), np.array(told["origin"]), bits.astype(bool).reshape(shape))


def mask_of(regions: Sequence[Region], plane: Plane) -> NDArray[np.bool_]:
    """Return which pixels of a frame are cut where several series of its frame of reference say where the face is.

    What one of them cuts is cut, unless another saw brain there: that one shows those voxels anyway.
    """
    rows = np.arange(plane.shape[0])[:, None]
    columns = np.arange(plane.shape[1])[None, :]
    cut = np.zeros(plane.shape, bool)
    for one in regions:
        start, down, right = plane.affine_to(one.matrix)
        left, ahead, up = (start[n] + down[n] * rows + right[n] * columns for n in range(3))
        cut |= inside_cut(left, ahead, up)
    if cut.any():
        r, c = np.nonzero(cut)
        start, down, right = plane.affine_to(LPS_TO_LAS)
        points = start + r[:, None] * down + c[:, None] * right
        cut[r, c] = ~np.any([_looked_up(one.brain, one.origin, points) for one in regions], axis=0)
    return cut


_CUT_LINE = np.array(
    [(-20, -80), (-6, -64), (5, -53), (22, -43), (30, -32), (60, -19), (74, -12), (80, 0), (90, 4), (400, 4)], float
)
"""(a, s) in mm, from the angle of the jaw below the temporal lobe and the orbital roof to the brow: below it, all is face."""

_CHIN_MM = -152.0
_THROAT_MM = -20.0


def inside_cut(left: NDArray[np.float64], ahead: NDArray[np.float64], up: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where head coordinates lie in the face's wedge or beside the head where the ears are."""
    face = (ahead > _THROAT_MM) & (up > _CHIN_MM) & (up < np.interp(ahead, _CUT_LINE[:, 0], _CUT_LINE[:, 1]))
    beside = np.abs(left) > 67 + 9 * np.clip((up + 35) / 45, 0, 1)
    ears = beside & (up > -85) & (up < 14) & (ahead > -65) & (ahead < 32)
    cut: NDArray[np.bool_] = face | ears
    return cut


def find(planes: Sequence[Plane], frames: Iterable[NDArray[np.floating]], *, modality: str, said: Said) -> Region | None:
    """Look for a face in a complete series; None where there is none in view.

    Parameters
    ----------
    planes : sequence of Plane
        Where each frame lies.
    frames : iterable of ndarray, shape of its plane
        The frames in modality units (Hounsfield units for CT), read once, in the order of `planes`.
    modality : str
        "CT", or anything else for MR.
    said : Said
        What the headers name; it decides only where the pixels leave a doubt.

    Raises
    ------
    Quarantined
        There may be a face, and it could not be located: no geometry, a head that fits no head, a jaw without its skull.
    """
    if not is_sound(planes):
        _doubt(said, "the images have no usable geometry")
        return None
    work = gather(planes, frames)
    if work is None:
        _doubt(said, "the images span more than a patient")
        return None
    if not work.seen.any() or float(np.ptp(work.values[work.seen])) <= 0:
        return None
    body = head.tissue(work, modality)
    cavity = head.cranial_cavity(work) if modality == "CT" else np.zeros_like(body)
    if cavity.sum() * WORK_MM**3 < _LEAST_CAVITY_MM3:
        # A narrow stack shows no closed skull; the outline may still be a head's.
        cavity = np.zeros_like(body)
    pose = head.fit(work, body, _top(work, body, cavity)) if body.any() else None
    if pose is None or (not cavity.any() and (pose.misfit > _NO_HEAD or pose.agreed < _NO_AGREEMENT)):
        if said is Said.HEAD:
            _doubt(said, "what is in view fits no head")
        if modality == "CT" and _jaw_on_top(work, body):
            raise Quarantined("a jaw is in view without the head above it")
        return None
    if pose.misfit > _HEAD or pose.agreed < _AGREEMENT or not 0.65 < pose.size.min() <= pose.size.max() < 1.4:
        # Brain within a skull is a head, whatever the header says.
        _doubt(Said.HEAD if cavity.any() else said, "the head's position is uncertain")
        return None
    to_head = pose.matrix()
    region = Region(to_head @ LPS_TO_LAS, work.origin, _protected(work, to_head, cavity))
    return region if _in_view(work, to_head) > _LEAST_VIEW else None


_HEAD, _NO_HEAD = 0.085, 0.13
_AGREEMENT, _NO_AGREEMENT = 0.55, 0.5
_LEAST_CAVITY_MM3 = 120_000.0
_LEAST_VIEW = 0.002
_BRAIN_MARGIN_MM = 5.0


def _doubt(said: Said, why: str) -> None:
    """Raise `Quarantined`, unless the header names another part of the body."""
    if said is not Said.OTHER:
        raise Quarantined(f"a face may be in view: {why}")


def _top(work: Work, body: head.Mask, cavity: head.Mask) -> float:
    """Return the height of the vertex: a skull's where one was found (raised arms may reach higher), else the body's."""
    if cavity.any():
        levels = np.nonzero(cavity.any(axis=(1, 2)))[0]
        return float(work.origin[2] + levels[-1] * WORK_MM + 12)
    levels = np.nonzero(body.sum(axis=(1, 2)) > 30)[0]
    return float(work.origin[2] + (levels[-1] if len(levels) else 0) * WORK_MM)


def _jaw_on_top(work: Work, body: head.Mask) -> bool:
    """Tell whether the highest slices of a CT show bone in front of a neck: a lower jaw, without the skull that is above."""
    levels = np.nonzero(body.sum(axis=(1, 2)) > 30)[0]
    if not len(levels):
        return False
    dense = 0
    for level in levels[levels > levels[-1] - 40 / WORK_MM]:
        ahead, left = np.nonzero(body[level])
        wide, deep = np.ptp(left) * WORK_MM, np.ptp(ahead) * WORK_MM
        if 90 < wide < 230 and deep > 110:
            front = work.values[level, ahead.max() - int(0.4 * deep / WORK_MM) : ahead.max() + 1]
            dense += int((front > 350).sum())
    return dense * WORK_MM**3 > 4000


def _grid(work: Work, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the head coordinates (left, ahead, up) of each voxel."""
    s, a, left = np.meshgrid(*(np.arange(count, dtype=np.float64) for count in work.values.shape), indexing="ij", sparse=True)
    places = [left * WORK_MM + work.origin[0], a * WORK_MM + work.origin[1], s * WORK_MM + work.origin[2]]
    x, y, z = (sum(matrix[n, m] * places[m] for m in range(3)) + matrix[n, 3] for n in range(3))
    return x, y, z


def _in_view(work: Work, matrix: NDArray[np.float64]) -> float:
    """Return the share of the average face and ears that the images show."""
    x, y, z = _grid(work, matrix)
    cut = inside_cut(x, y, z) & work.seen
    points = np.stack([x[cut], y[cut], z[cut]], axis=-1)
    shown = (head.occupancy(points) > 0.5).sum() if len(points) else 0
    return float(shown * WORK_MM**3 * abs(np.linalg.det(matrix[:3, :3])) / 900_000)


def _protected(work: Work, matrix: NDArray[np.float64], cavity: head.Mask) -> head.Mask:
    """Return the brain as it was seen, with a margin: whatever the average head says, this is not cut.

    Values like those in the middle of the brain, within the vault, in one piece once thin bridges are broken.
    """
    x, y, z = _grid(work, matrix)
    if cavity.any():
        return head.widen(cavity & (z > np.interp(y, _CUT_LINE[:, 0], _CUT_LINE[:, 1] - 14)), _BRAIN_MARGIN_MM)
    core = work.seen & ((x / 40) ** 2 + ((y + 15) / 55) ** 2 + ((z - 22) / 32) ** 2 < 1)
    vault = ((x / 72) ** 2 + ((y + 16) / 92) ** 2 + ((z - 3) / 80) ** 2 < 1) & (
        z > np.interp(y, _CUT_LINE[:, 0], _CUT_LINE[:, 1] - 12)
    )
    if core.sum() < 100:
        everything: head.Mask = vault & work.seen
        return everything
    usual = float(np.median(work.values[core]))
    alike = work.seen & vault & (work.values > 0.55 * usual) & (work.values < 1.7 * usual)
    seed = head.largest(head.shrink(alike, 2.5, border=False))
    brain: head.Mask = head.widen(head.widen(seed, 2.5) & alike, _BRAIN_MARGIN_MM) & vault
    return brain


def _looked_up(volume: NDArray[np.bool_], origin: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return `volume` at the voxels nearest to points (l, a, s), False outside."""
    index = np.rint((points - origin) / WORK_MM).astype(np.int64)[:, ::-1]
    inside = np.all((index >= 0) & (index < np.array(volume.shape)), axis=1)
    found = np.zeros(len(points), bool)
    found[inside] = volume[tuple(index[inside].T)]
    return found
