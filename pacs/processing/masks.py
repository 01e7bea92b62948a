"""Masks: connected parts, holes, and distances, in mm where a shape is meant.

A mask is an array of bool, (frames, rows, columns) or one plane of it. Balls and distances are Euclidean in patient space, so
that thick slices count for what they are.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing.series import Geometry

Mask = NDArray[np.bool_]


def parts(mask: Mask, *, corners: bool = False) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the connected parts of a volume, largest first: labels from 1 (0 outside), and voxels by label, [0] outside.

    Voxels are joined by faces, with `corners` also by edges and corners.
    """
    image = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), corners)
    image = sitk.RelabelComponent(image, sortByObjectSize=True)
    labels = sitk.GetArrayFromImage(image)
    labels = labels.astype(np.uint16 if labels.max() < 65536 else np.uint32)
    return labels, np.bincount(labels.ravel()).astype(np.int64)


def largest(mask: Mask) -> Mask:
    """Return the largest connected part of a volume; nothing of nothing."""
    found: Mask = parts(mask)[0] == 1
    return found


def filled(mask: Mask) -> Mask:
    """Return a mask with what it encloses: of a plane what no way within the plane leads out of, else in the volume."""
    if mask.ndim == 3:
        box = np.pad(mask, 1).astype(np.uint8)
        whole: Mask = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(box)))[1:-1, 1:-1, 1:-1] > 0
        return whole
    outside = (~np.pad(mask, 1)).astype(np.uint8)
    _, labels = cv2.connectedComponents(outside, connectivity=4)
    plane: Mask = (labels != labels[0, 0])[1:-1, 1:-1]
    return plane


def solid(plane: NDArray[Any], pixel_mm: float, thin_mm: float) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the parts of a CT slice (HU) above -300 that are thicker than `thin_mm`, and pixels by label, [0] outside.

    What is thinner (a table's shell, a sheet, a line) is no body.
    """
    brush = disc(thin_mm / 2, pixel_mm, least=1)
    opened_plane = cv2.morphologyEx((plane > -300).astype(np.uint8), cv2.MORPH_OPEN, brush)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(opened_plane, connectivity=4)
    return labels, stats[:, cv2.CC_STAT_AREA].astype(np.int64)


def trunk(plane: NDArray[Any], pixel_mm: float, thin_mm: float = 5.0) -> Mask:
    """Return the largest solid part of a CT slice with what it encloses; nothing where there is none."""
    labels, sizes = solid(plane, pixel_mm, thin_mm)
    if len(sizes) < 2:
        return np.zeros(plane.shape, np.bool_)
    return filled(labels == 1 + int(np.argmax(sizes[1:])))


def distance(mask: Mask, spacing_mm: Sequence[float]) -> NDArray[np.float32]:
    """Return the distance in mm from each voxel of `mask` to the nearest one outside it; 0 outside, above 0 inside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(step) for step in reversed(spacing_mm)])
    inner = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    found: NDArray[np.float32] = np.maximum(sitk.GetArrayFromImage(inner), 0) + mask * np.float32(1e-3)
    return found


def worn(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return the voxels of a mask that a ball of `radius_mm` around them does not leave; the border of the image is no edge."""
    found: Mask = mask & (distance(mask, spacing_mm) > radius_mm) if not mask.all() else mask
    return found


def grown(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return a mask with all voxels within `radius_mm` of it."""
    return ~worn(~mask, radius_mm, spacing_mm) if mask.any() else mask


def opened(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return what of a mask a ball of `radius_mm` reaches from within."""
    return grown(worn(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


def closed(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return a mask with what a ball of `radius_mm` outside it does not reach; the volume is thought to go on empty."""
    margin = [(int(np.ceil(radius_mm / step)) + 1,) * 2 for step in spacing_mm]
    wide = worn(grown(np.pad(mask, margin), radius_mm, spacing_mm), radius_mm, spacing_mm)
    found: Mask = wide[tuple(slice(low, -high) for low, high in margin)]
    return found


def disc(radius_mm: float, pixel_mm: float, *, least: int = 0) -> NDArray[np.uint8]:
    """Return a disc for cv2's morphology in a plane; its radius is at least `least` pixels."""
    reach = max(least, round(radius_mm / pixel_mm))
    found: NDArray[np.uint8] = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return found


def box(mask: Mask, geometry: Geometry, margin_mm: float = 0.0) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds a mask and `margin_mm` about it, within the volume."""
    slices = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(margin_mm / geometry.spacing_mm[axis])) + 1
        slices.append(slice(max(0, int(hit[0]) - margin), min(mask.shape[axis], int(hit[-1]) + margin + 1)))
    return slices[0], slices[1], slices[2]


def volume_ml(mask: Mask, geometry: Geometry) -> float:
    """Return the volume of a mask in mL."""
    return int(mask.sum()) * geometry.voxel_ml
