"""Noise of the neighbourhood: what is put where something was cut out of an image.

A mean and a spread that vary slowly are carried into the hole from what was kept around it, and noise of that spread is
drawn. The noise depends on a key and on the frame's number only, so the same input gives the same output in every process,
and filling twice is filling once: nothing of the hole is read.
"""

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

_REACH = 12
"""Pixels of the reduced frame over which the neighbourhood is averaged."""

_REDUCED = 64
"""Longest side of the reduced frame: the fill follows nothing finer."""


def fill(frame: NDArray[np.generic], mask: NDArray[np.bool_], key: bytes, number: int = 0) -> NDArray[np.generic]:
    """Return `frame` with noise where `mask` is true; every other pixel as it was.

    Parameters
    ----------
    frame : ndarray, shape (rows, columns) or (rows, columns, samples)
        Stored values of any numeric type, which is kept.
    mask : ndarray of bool, shape (rows, columns)
    key : bytes
        What the noise is drawn from. It need not be secret: under the noise there is nothing of the hole.
    number : int
        The frame's number in its series, so that frames have different noise.
    """
    if not mask.any():
        return frame
    if frame.ndim == 3:
        planes = [fill(frame[..., one], mask, key, number * 4 + one) for one in range(frame.shape[2])]
        return np.stack(planes, axis=-1)
    values = np.asarray(frame, np.float32)
    kept = values[~mask]
    out = frame.copy()
    if kept.size == 0:
        # Nothing was kept that could be a neighbour: an even field.
        out[mask] = frame.dtype.type(0)
        return out
    low, high = float(kept.min()), float(kept.max())
    mean, spread = _around(values, mask)
    seed = int.from_bytes(hashlib.sha256(b"fill" + number.to_bytes(8, "big") + key).digest()[:16], "big")
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(frame.shape, dtype=np.float32)
    made = np.clip(mean + spread * noise, low, high)[mask]
    out[mask] = (np.rint(made) if np.issubdtype(frame.dtype, np.integer) else made).astype(frame.dtype)
    return out


def _around(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and spread of what was kept, carried into the hole; both of the frame's shape."""
    rows, columns = values.shape
    scale = min(1.0, _REDUCED / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    keep = (~mask).astype(np.float32)

    def reduced(image: NDArray[np.float32]) -> NDArray[np.float32]:
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        near: NDArray[np.float32] = cv2.GaussianBlur(small, (0, 0), _REACH / 3, borderType=cv2.BORDER_CONSTANT)
        return near + np.float32(1e-4) * np.float32(small.mean())

    weight = np.maximum(reduced(keep), 1e-12)
    mean = reduced(values * keep) / weight
    square = reduced(values * values * keep) / weight
    spread = np.sqrt(np.maximum(square - mean * mean, 0))

    def enlarged(image: NDArray[np.floating]) -> NDArray[np.float32]:
        big: NDArray[np.float32] = cv2.resize(np.asarray(image, np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR)
        return big

    return enlarged(mean), enlarged(spread)
