"""Draws heads before and after their face was removed, into docs/images: `python tests/rendering_heads.py [REAL-DATA]`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import making_head
import numpy as np
from numpy.typing import NDArray

from pacs.deid import face
from pacs.deid.fill import fill
from pacs.deid.planes import Plane

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
_RAY_MM = 1.0


def surface(
    planes: Sequence[Plane], frames: Sequence[NDArray[np.floating]], level: float, *, degrees: float, side: int = 260
) -> NDArray[np.uint8]:
    """Return a shaded view of the surface at `level` from the front, turned by `degrees` about the long axis.

    The slices must be parallel and evenly spaced. Each pixel follows one ray until it meets a value above `level`.
    """
    ordered = sorted(range(len(planes)), key=lambda n: float(np.dot(planes[n].position, planes[0].normal)))
    first, last = planes[ordered[0]], planes[ordered[-1]]
    volume = np.stack([cv2.GaussianBlur(np.asarray(frames[n], np.float32), (5, 5), 0) for n in ordered])
    step = (np.asarray(last.position) - np.asarray(first.position)) / (len(planes) - 1)
    matrix = np.stack(
        [step, np.asarray(first.column) * first.spacing_mm[0], np.asarray(first.row) * first.spacing_mm[1]], axis=1
    )
    inverse = np.linalg.inv(matrix)
    centre = np.asarray(first.position) + matrix @ (np.array(volume.shape) - 1) / 2
    angle = np.radians(degrees)
    across = np.array([np.cos(angle), -np.sin(angle), 0])
    into = np.array([np.sin(angle), np.cos(angle), 0])
    grid = (np.arange(side) - side / 2) * (290 / side)
    start = centre - 160 * into + grid[None, :, None] * across - grid[:, None, None] * np.array([0, 0, 1])
    depth = np.full((side, side), np.nan)
    for t in np.arange(0, 320, _RAY_MM):
        index = np.rint((start + t * into - first.position) @ inverse.T).astype(int)
        inside = np.all((index >= 0) & (index < volume.shape), axis=-1) & np.isnan(depth)
        hit = np.zeros((side, side), bool)
        hit[inside] = volume[tuple(index[inside].T)] > level
        depth[hit] = t
    far = np.where(np.isnan(depth), 320, depth)
    smooth = cv2.GaussianBlur(cv2.medianBlur(far.astype(np.float32), 5), (0, 0), 1.2)
    down, right = np.gradient(smooth, 290 / side)
    normal = np.stack([-right, -down, np.ones_like(smooth)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    light = np.clip(normal @ (np.array([-0.35, -0.45, 0.82])), 0, 1) * np.clip(1.25 - far / 420, 0.3, 1)
    return np.where(np.isnan(depth), 18, 30 + 225 * light).astype(np.uint8)


def before_after(
    planes: Sequence[Plane],
    frames: Sequence[NDArray[np.integer]],
    *,
    modality: str,
    level: float,
    segment: Sequence[NDArray[np.bool_]] = (),
) -> NDArray[np.uint8]:
    """Return two rows of views, before above after: from the front, half from the side, and from the side.

    With `segment`, of that segment in its own frames, emptied where the images show the face.
    """
    region = face.find(planes, (np.asarray(one, np.float32) for one in frames), modality=modality, said=face.Said.HEAD)
    assert region is not None
    masks = [region.mask(plane) for plane in planes]
    if len(segment):
        frames = [np.asarray(one, np.int16) * 1000 for one in segment]
        cleaned = [np.where(mask, 0, one) for mask, one in zip(masks, frames, strict=True)]
    else:
        cleaned = [fill(one, mask, b"docs", n) for n, (mask, one) in enumerate(zip(masks, frames, strict=True))]
    rows = []
    for these in (frames, cleaned):
        views = [surface(planes, these, level, degrees=degrees) for degrees in (0, 40, 90)]
        rows.append(np.hstack(views))
    return np.vstack(rows)


def average_head(folder: Path) -> tuple[list[Plane], list[NDArray[np.integer]]]:
    """Return SPM's average of 152 heads from the real data, as planes and frames of 0 to 1000."""
    from deid.test_face_shared import load

    planes, frames = load(folder / "gt_brain_spm152" / "T1")
    top = max(float(one.max()) for one in frames)
    return planes, [np.rint(one * (1000 / top)).astype(np.int16) for one in frames]


def main() -> None:
    """Write the pictures of docs/defacing.md; that of the average head where the real data are given."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for modality, level in (("MR", 150.0), ("CT", -300.0)):
        made = making_head.head(modality, slice_mm=1.5, slab_mm=(-135, 145))
        picture = before_after(made.planes, list(made.frames), modality=modality, level=level)
        cv2.imwrite(str(IMAGES / f"defacing-{modality.lower()}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        if modality == "MR":
            picture = before_after(made.planes, list(made.frames), modality="MR", level=500.0, segment=list(made.skin))
            cv2.imwrite(str(IMAGES / "defacing-seg.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if len(sys.argv) > 1:
        planes, frames = average_head(Path(sys.argv[1]))
        picture = before_after(planes, frames, modality="MR", level=180.0)
        cv2.imwrite(str(IMAGES / "defacing-spm152.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
