"""Reading text in frames, by RapidOCR's bundled models.

The models lie in the wheel of `rapidocr` and are named one by one, so that nothing is ever downloaded. What was read is never
kept: only where it lies, how many characters it has, and how sure that is.
"""

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TILE, OVERLAP, PADDING = 544, 160, 32
"""RapidOCR shrinks beyond 2,000 px without a word; and the larger a tile, the more its detector misses: lines of 16 px at
1,280, of 8 px at 960. At 512 it found all of them."""
SURE, SUSPICIOUS = 0.5, 0.3
"""Confidence of what is text, and of what is where there is other text."""
_LONE = 0.8
LARGEST_LONE, LARGEST_PAIR = 0.02, 0.25
"""Shares of the image that one letter and two may fill; more is anatomy."""


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


def find(frame: Array, look: Look, *, least: float = SURE) -> list[Found]:
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


def _counts(corners: Array, words: str, score: float, shape: tuple[int, ...], look: Look, least: float) -> bool:
    """Tell whether something read is text that has to go."""
    letters = "".join(one for one in words if one.isalnum())
    if not letters or score < least:
        return False
    if words.strip(" .:()[]").upper() in look.keep:
        return False
    # One letter names nobody, two hardly anybody; but anatomy that looks like them is common: an "0" was read into a whole
    # angiogram, two letters into a whole slice of a thigh.
    share = share_of(corners, shape)
    if len(letters) == 1:
        return score >= _LONE and share <= LARGEST_LONE
    return len(letters) > 2 or share <= LARGEST_PAIR


def share_of(corners: Array, shape: tuple[int, ...]) -> float:
    """Return the share of an image that the upright box around something read takes."""
    return float(np.ptp(corners[:, 0]) * np.ptp(corners[:, 1])) / (shape[0] * shape[1])


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
