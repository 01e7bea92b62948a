"""Burned-in text: found by RapidOCR's bundled models, blanked, and looked for again until none is left (PS3.15 E.3.1).

Pure but for the models, which lie in the wheel of `rapidocr` and are named one by one, so that nothing is ever downloaded.
Frames come as arrays; what is text-free goes back untouched. One mask serves all frames of an instance: what one frame shows
is blanked on all, so that text which fades in or out leaves with it. What was read is never kept.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]

TILE, OVERLAP, PADDING = 544, 160, 32
"""RapidOCR shrinks beyond 2,000 px without a word; and the larger a tile, the more its detector misses: lines of 16 px at
1,280, of 8 px at 960. At 512 it found all of them."""
ROUNDS = 5
_SURE, _SUSPICIOUS = 0.5, 0.3
_LONE = 0.8
_LARGEST_LONE, _LARGEST_PAIR = 0.02, 0.25
"""Shares of the image that one letter and two may fill; more is anatomy."""
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
class Look:
    """How frames are to be seen.

    `palette` maps stored values to RGB, shape (entries, 3) of uint8, for PALETTE COLOR. `regions` are the calibrated regions of
    an ultrasound image, (x0, y0, x1, y1) inclusive (PS3.3 C.8.5.5). `blank` are rectangles that go whatever they show, (x, y,
    width, height); see `pacs.deid.devices`. `keep` are words that stay.
    """

    photometric_interpretation: str
    bits_stored: int = 8
    high_bit: int = 7
    signed: bool = False
    palette: Array | None = field(default=None, repr=False)
    regions: tuple[tuple[int, int, int, int], ...] = ()
    blank: tuple[tuple[int, int, int, int], ...] = ()
    keep: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """A piece of text: its corners, shape (4, 2), x and y, and how many characters were read with which confidence."""

    corners: Array = field(repr=False)
    characters: int
    score: float


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
            share = _share(one.corners, nothing.shape)
            if share <= _LARGEST_LONE or (one.characters > 2 and (share <= _LARGEST_PAIR or one.score >= _LEGIBLE)):
                return True
    return False


def find(frame: Array, look: Look, *, least: float = _SURE) -> list[Found]:
    """Return the text that a frame shows, `least` confidence and more; looked at as it is, and with local contrast."""
    found: list[Found] = []
    pictures = _pictures(frame, look)
    shown = [(picture, 1.0) for picture in pictures] + [
        _small(picture) for picture in pictures[:1] if max(frame.shape[:2]) > TILE
    ]
    for picture, scale in shown:
        for y, x, tile in _tiles(picture):
            for corners, words, score in _read(tile):
                corners = (corners + np.array([x, y], np.float32)) * scale
                if _counts(corners, words, score, frame.shape, look, least):
                    found.append(Found(corners, len(words), score))
    return found


def _clean_frame(frame: Array, look: Look, mask: Mask, window: tuple[int, int, int, int]) -> None:
    """Add to `mask` what text one frame shows within (y0, x0, y1, x1)."""
    y0, x0, y1, x1 = window
    least = _SURE if not mask.any() else _SUSPICIOUS
    for _ in range(ROUNDS):
        seen = _blanked(frame, mask, look)[y0:y1, x0:x1]
        found = find(np.ascontiguousarray(seen), look, least=least)
        if not found:
            return
        for one in found:
            _cover(mask, one.corners + np.array([x0, y0], np.float32), look)
        # Where there is some text, what only may be text is taken for it.
        least = _SUSPICIOUS
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


def _counts(corners: Array, words: str, score: float, shape: tuple[int, ...], look: Look, least: float) -> bool:
    """Tell whether something read is text that has to go."""
    letters = "".join(one for one in words if one.isalnum())
    if not letters or score < least:
        return False
    if words.strip(" .:()[]").upper() in look.keep:
        return False
    # One letter names nobody, two hardly anybody; but anatomy that looks like them is common: an "0" was read into a whole
    # angiogram, two letters into a whole slice of a thigh.
    share = _share(corners, shape)
    if len(letters) == 1:
        return score >= _LONE and share <= _LARGEST_LONE
    return len(letters) > 2 or share <= _LARGEST_PAIR


def _share(corners: Array, shape: tuple[int, ...]) -> float:
    """Return the share of an image that the upright box around something read takes."""
    return float(np.ptp(corners[:, 0]) * np.ptp(corners[:, 1])) / (shape[0] * shape[1])


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


def _pictures(frame: Array, look: Look) -> list[Array]:
    """Return a frame as 8-bit BGR pictures: its whole range, and its local contrast."""
    if frame.ndim == 3 or look.palette is not None:
        colour = _rgb(frame, look)
        return [np.ascontiguousarray(colour[..., ::-1]), _three(_local(colour.max(axis=2)))]
    values = frame.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return []
    whole = ((values - low) * (255.0 / (high - low))).astype(np.uint8)
    # The darkest and brightest of a thousand pixels must not take the contrast of all the others.
    bottom, top = (float(one) for one in np.percentile(values, (0.1, 99.9)))
    usual = np.clip((values - bottom) * (65535.0 / max(top - bottom, 1e-6)), 0, 65535).astype(np.uint16)
    return [_three(whole), _three(_local(usual))]


def _rgb(frame: Array, look: Look) -> Array:
    if look.palette is not None:
        index = np.clip(frame, 0, len(look.palette) - 1).astype(np.intp)
        return np.asarray(look.palette[index])
    samples = frame if frame.dtype == np.uint8 else (frame >> max(look.bits_stored - 8, 0)).astype(np.uint8)
    if look.photometric_interpretation == "YBR_FULL":
        # OpenCV orders luminance, red and blue difference.
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(samples[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB))
    return samples


def _local(grey: Array) -> Array:
    equalised = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8)).apply(np.ascontiguousarray(grey))
    return np.asarray(equalised if equalised.dtype == np.uint8 else (equalised >> 8).astype(np.uint8))


def _three(grey: Array) -> Array:
    return np.repeat(grey[..., None], 3, axis=2)


def _small(picture: Array) -> tuple[Array, float]:
    """Return a picture as one tile, and by how much it shrank: for letters that are larger than a tile."""
    scale = max(picture.shape[:2]) / TILE
    size = max(1, round(picture.shape[1] / scale)), max(1, round(picture.shape[0] / scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)), scale


def _tiles(picture: Array) -> list[tuple[int, int, Array]]:
    """Cut a picture into padded tiles, (y, x, tile): position of a tile's own zero in the picture."""
    rows, columns = picture.shape[:2]
    cut = []
    for y, below in _spans(rows):
        for x, right in _spans(columns):
            tile = picture[y:below, x:right]
            # Sides are multiples of 32, or the detector would stretch the picture; and text at an edge needs some ground.
            more = [-(side + PADDING) % 32 + PADDING for side in tile.shape[:2]]
            padded = cv2.copyMakeBorder(tile, PADDING, more[0], PADDING, more[1], cv2.BORDER_CONSTANT, value=(0, 0, 0))
            cut.append((y - PADDING, x - PADDING, padded))
    return cut


def _spans(length: int) -> list[tuple[int, int]]:
    """Cut a side into equal spans of at most `TILE` that overlap."""
    count = max(1, -(-(length - OVERLAP) // (TILE - OVERLAP)))
    size = -(-(length + OVERLAP * (count - 1)) // count)
    starts = [round(number * (length - size) / max(count - 1, 1)) for number in range(count)]
    return [(start, min(start + size, length)) for start in starts]


def _read(tile: Array) -> list[tuple[Array, str, float]]:
    """Return corners, text and confidence of what the models see; a tile of one value is not shown to them."""
    if tile.min() == tile.max():
        return []
    answer = _engine()(tile)
    if answer.boxes is None or answer.txts is None:
        return []
    boxes = [np.asarray(box, np.float32) for box in answer.boxes]
    return list(zip(boxes, answer.txts, [float(score) for score in answer.scores], strict=True))


@cache
def _engine() -> Any:
    """Return RapidOCR with the models of its wheel; made once a process, and never called with options of a single call."""
    import rapidocr

    models = Path(rapidocr.__file__).parent / "models"
    named = {
        "Det.model_path": models / "PP-OCRv6_det_small.onnx",
        "Rec.model_path": models / "PP-OCRv6_rec_small.onnx",
        "Cls.model_path": models / "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    }
    for path in named.values():
        if not path.is_file():
            raise FileNotFoundError(f"rapidocr came without its model {path.name}")
    threads = min(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1), os.cpu_count() or 1)
    return rapidocr.RapidOCR(
        params={
            **{name: str(path) for name, path in named.items()},
            "Global.log_level": "critical",
            "Global.text_score": 0.0,
            "Global.max_side_len": 4096,
            # Wide strips would be skipped or padded otherwise; tiles never are that wide.
            "Global.width_height_ratio": -1,
            "Global.use_preprocess_img": False,
            "Det.limit_type": "max",
            "Det.limit_side_len": 4096,
            "Det.max_candidates": 20000,
            "EngineConfig.onnxruntime.intra_op_num_threads": max(1, threads),
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
