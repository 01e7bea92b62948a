"""Burned-in text: found by RapidOCR's bundled models, blanked, and looked for again until none is left (PS3.15 E.3.1).

Frames come as arrays and are read by `pacs.deid.reading`; what is text-free goes back untouched. One mask serves all frames of
an instance: what one frame shows is blanked on all, so that text which fades in or out leaves with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.deid.reading import LARGEST_LONE, LARGEST_PAIR, SURE, SUSPICIOUS, Array, Found, Look, find, share_of

__all__ = ["LATERALITY", "Cleaned", "Found", "Look", "TextLeft", "clean", "find", "is_legible"]

Mask = NDArray[np.bool_]

ROUNDS = 5
_MOSTLY_TEXT = 0.5
_LEGIBLE = 0.9
"""Confidence with which lettering of any size is read."""
_CHANGE_MARGIN = 48

LATERALITY = frozenset(
    """
    L R LT RT LEFT RIGHT AP PA LAT LL RL CC MLO LCC RCC LMLO RMLO L-CC R-CC L-MLO R-MLO LML RML XCCL
    UPRIGHT ERECT SUPINE PORT
    """.split()
)
"""Markers of side and view on projection X-rays: they name nobody, and to lose them would be dangerous."""


class TextLeft(Exception):
    """Text that could not be taken out; the message says why, never what it reads."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Frames without text. `frames` is None where none was found: not a pixel was changed.

    `mask` is what was blanked, shape (rows, columns), in `pieces` patches.
    """

    frames: list[Array] | None = field(repr=False)
    mask: Mask | None = field(default=None, repr=False)
    pieces: int = 0


def clean(frames: Sequence[Array], look: Look, report: Callable[[float], None] = lambda _: None) -> Cleaned:
    """Take the text out of all frames of one instance.

    Parameters
    ----------
    frames : sequence of ndarray, shape (rows, columns) or (rows, columns, 3)
        Samples as allocated.

    Raises
    ------
    TextLeft
        Text is still there after `ROUNDS`, or there is little else in the image.
    """
    mask: Mask = np.zeros(frames[0].shape[:2], bool)
    for x, y, width, height in look.blank:
        mask[y : y + height, x : x + width] = True
    given = float(mask.mean())
    before: Array | None = None
    for number, frame in enumerate(frames):
        window = _changed(frame, before, mask)
        if window is not None:
            _clean_frame(frame, look, mask, window)
        before = frame
        report((number + 1) / len(frames))
    if not mask.any():
        return Cleaned(None)
    if mask.mean() - given > _MOSTLY_TEXT:
        raise TextLeft("there is little but text in the image")
    pieces = cv2.connectedComponents(mask.astype(np.uint8))[0] - 1
    return Cleaned([_blanked(frame, mask, look) for frame in frames], mask, pieces)


def is_legible(frames: Sequence[Array], look: Look) -> bool:
    """Tell whether somebody could read text in an image, as `clean` gets it.

    `clean` takes too much rather than too little; here a picture is judged, by one sure look at each frame. What fills much of
    it is text only if read for sure: into slices of shoulders, three to five letters were read with 0.5 to 0.8, or an "00".
    """
    nothing: Mask = np.zeros(frames[0].shape[:2], bool)
    before: Array | None = None
    for frame in frames:
        window = _changed(frame, before, nothing)
        before = frame
        if window is None:
            continue
        y0, x0, y1, x1 = window
        for one in find(np.ascontiguousarray(frame[y0:y1, x0:x1]), look):
            share = share_of(one.corners, nothing.shape)
            if share <= LARGEST_LONE or (one.characters > 2 and (share <= LARGEST_PAIR or one.score >= _LEGIBLE)):
                return True
    return False


def _clean_frame(frame: Array, look: Look, mask: Mask, window: tuple[int, int, int, int]) -> None:
    """Add to `mask` what text one frame shows within (y0, x0, y1, x1)."""
    y0, x0, y1, x1 = window
    least = SURE if not mask.any() else SUSPICIOUS
    for _ in range(ROUNDS):
        seen = _blanked(frame, mask, look)[y0:y1, x0:x1]
        found = find(np.ascontiguousarray(seen), look, least=least)
        if not found:
            return
        for one in found:
            _cover(mask, one.corners + np.array([x0, y0], np.float32), look)
        # Where there is some text, what only may be text is taken for it.
        least = SUSPICIOUS
    raise TextLeft(f"text is still found after {ROUNDS} rounds of blanking")


def _changed(frame: Array, before: Array | None, mask: Mask) -> tuple[int, int, int, int] | None:
    """Return the window in which a frame differs from the one before, which was searched; None where it does not."""
    rows, columns = frame.shape[:2]
    if before is None:
        return 0, 0, rows, columns
    differs = frame != before
    if differs.ndim == 3:
        differs = differs.any(axis=2)
    differs &= ~mask
    if not differs.any():
        return None
    of_rows, of_columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    return (
        max(0, int(of_rows[0]) - _CHANGE_MARGIN),
        max(0, int(of_columns[0]) - _CHANGE_MARGIN),
        min(rows, int(of_rows[-1]) + _CHANGE_MARGIN),
        min(columns, int(of_columns[-1]) + _CHANGE_MARGIN),
    )


def _cover(mask: Mask, corners: Array, look: Look) -> None:
    """Mask a piece of text, widened; in the margins of an ultrasound image, its lines from side to side."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    margin = max(3, round(0.3 * float(sides.min())))
    patch = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(patch, [np.rint(corners).astype(np.int32)], 1)
    patch = cv2.dilate(patch, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    mask |= patch.astype(bool)
    if look.regions:
        top, bottom = int(corners[:, 1].min()) - margin, int(corners[:, 1].max()) + margin + 1
        first, last = min(one[1] for one in look.regions), max(one[3] for one in look.regions)
        centre = float(corners[:, 1].mean())
        if centre < first:
            mask[max(top, 0) : min(bottom, first)] = True
        elif centre > last:
            mask[max(top, last + 1) : bottom] = True


def _blanked(frame: Array, mask: Mask, look: Look) -> Array:
    if not mask.any():
        return frame
    blank = frame.copy()
    blank[mask] = _black(frame, look)
    return blank


def _black(frame: Array, look: Look) -> Any:
    """Return the value that is shown black."""
    if look.photometric_interpretation == "YBR_FULL":
        return np.array([0, 128, 128], frame.dtype)
    if frame.ndim == 3:
        return 0
    if look.palette is not None:
        return int(np.argmin(look.palette.astype(np.int32).sum(axis=1)))
    if look.photometric_interpretation == "MONOCHROME1":
        unused = look.high_bit + 1 - look.bits_stored
        return frame.max() if look.signed else ((1 << look.bits_stored) - 1) << max(unused, 0)
    return frame.min() if look.signed else 0
