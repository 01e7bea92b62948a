"""The brain on T1-weighted MR heads by deepbet's two networks: one finds where it is, the other its border.

Source: Fisch L, Zumdick S, Barkhau C et al., "deepbet: fast brain extraction of T1-weighted MRI using convolutional neural
networks", Comput Biol Med 179 (2024) 108845; its weights are trained on what its code does with an image, so that here is done
the same: axes turned, not resampled, to right, front and up; the whole stretched to 128 voxels each way, cut at its 0.5th and
99.5th percentile and normed; the box of what is found, a tenth wider on all sides, stretched to 256.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs.processing import Geometry, NotApplicable, Run
from pacs.processing.masks import Mask, filled, parts
from pacs.processing.networks import opened
from processors.mr_brain import refuse_no_brain, refuse_no_volume

COARSE, FINE = (128, 128, 128), (256, 256, 256)
MARGIN = 0.1
MEAN, DEVIATION = 0.449, 0.226
"""To what a volume is normed, as the networks were trained."""
Floats = NDArray[np.float32]
Box = tuple[slice, ...]


def extract_by_network(values: Floats, geometry: Geometry, folder: Path, run: Run, threshold: float = 0.5) -> Mask:
    """Return the mask of the brain (frames, rows, columns) by the networks in `folder`, whose digests are in `model.json`."""
    refuse_no_volume(values, geometry)
    digests = json.loads((folder / "model.json").read_text(encoding="utf-8"))["networks"]
    coarse, fine = (opened(folder / name, digests[name]) for name in ("bbox_model.onnx", "model.onnx"))
    order, flipped = turned(geometry)
    head = np.flip(values.transpose(order), flipped)
    small = stretched(head, COARSE)
    low, high = (float(one) for one in np.quantile(small, (0.005, 0.995)))
    if high <= low:
        raise NotApplicable("nothing in these images: all values are alike")
    found = _largest(_shares(coarse, normed(small, low, high)) > 0.5)
    run.progress(0.3, "looking for the border")
    box = box_of(found, head.shape)
    inside = stretched(_shares(fine, normed(stretched(head[box], FINE), low, high)), head[box].shape)
    brain = np.zeros(head.shape, np.bool_)
    brain[box] = filled(_largest(inside > threshold))
    back: Mask = np.ascontiguousarray(np.flip(brain, flipped).transpose(np.argsort(order)))
    refuse_no_brain(back, geometry)
    return back


def turned(geometry: Geometry) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the order of the array's axes that are nearest to right, front and up, and which of these are to be flipped."""
    directions = np.stack([geometry.normal, np.asarray(geometry.column), np.asarray(geometry.row)])
    wanted = directions * (-1, -1, 1)
    order = max(itertools.permutations(range(3)), key=lambda one: sum(abs(wanted[axis, at]) for at, axis in enumerate(one)))
    return order, tuple(at for at, axis in enumerate(order) if wanted[axis, at] < 0)


def stretched(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Return a volume of another count of voxels, each the nearest of the old ones."""
    places = [np.floor((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(values.shape, shape, strict=True)]
    return np.ascontiguousarray(values[np.ix_(*places)])


def normed(values: Floats, low: float, high: float) -> Floats:
    """Return values between two limits with the mean and the deviation that the networks know."""
    unit = np.clip((values - low) / (high - low), 0, 1)
    found: Floats = ((unit - unit.mean()) / max(float(unit.std(ddof=1)), 1e-6) * DEVIATION + MEAN).astype(np.float32)
    return found


def box_of(found: Mask, shape: tuple[int, ...]) -> Box:
    """Return the box, in voxels of a volume of `shape`, of the planes that are at least 2 % brain, with its margin."""
    box = []
    for axis, count in enumerate(shape):
        share = found.mean(axis=tuple(other for other in range(3) if other != axis))
        planes = np.flatnonzero(share > 0.02)
        if not planes.size:
            raise NotApplicable("no brain found: not a head, or not T1-weighted")
        scale = count / found.shape[axis]
        centre = np.round((planes[-1] + 1 + planes[0]) / 2 * scale)
        size = np.round((1 + 2 * MARGIN) * (planes[-1] + 1 - planes[0]) * scale)
        box.append(slice(max(0, int(centre - size / 2)), min(count, int(centre + size / 2))))
    return tuple(box)


def _shares(session: Any, values: Floats) -> Floats:
    (answer,) = session.run(None, {session.get_inputs()[0].name: values[None, None]})
    found: Floats = answer[0, 1]
    return found


def _largest(mask: Mask) -> Mask:
    if not mask.any():
        raise NotApplicable("no brain found: not a head, or not T1-weighted")
    found: Mask = parts(mask, corners=True)[0] == 1
    return found
