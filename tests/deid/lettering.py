"""Pictures with a name burned into them, as scanners and people do it."""

from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

NAME = "QUILLFEATHER^ZEBULON 1958-03-17"


def speckle(rows: int = 240, columns: int = 320, *, mean: int = 60, spread: int = 25, seed: int = 3) -> np.ndarray:
    """Return the ground of an ultrasound image, shape (rows, columns), uint8."""
    noise = np.random.default_rng(seed).rayleigh(1.0, (rows // 2, columns // 2)).repeat(2, 0).repeat(2, 1)
    return np.clip((noise - noise.mean()) / noise.std() * spread + mean, 0, 255).astype(np.uint8)


def written(
    ground: np.ndarray, text: str = NAME, *, at: tuple[int, int] = (12, 30), size: int = 14, value: Any = 230, turned: int = 0
) -> np.ndarray:
    """Return the ground with text on it, x and y of its corner, `turned` anticlockwise."""
    font = ImageFont.load_default(size)
    width, height = (int(one) for one in font.getbbox(text)[2:])
    letters = Image.new("L", (width + 8, height + 8))
    ImageDraw.Draw(letters).text((4, 4), text, fill=255, font=font)
    if turned:
        letters = letters.rotate(turned, expand=True, resample=Image.Resampling.BICUBIC)
    share = np.array(letters) / 255.0
    x, y = at
    place = (slice(y, y + share.shape[0]), slice(x, x + share.shape[1]))
    share = share[: ground[place].shape[0], : ground[place].shape[1]]
    if ground.ndim == 3:
        share = share[..., None]
    result = ground.copy()
    result[place] = (ground[place] * (1 - share) + np.array(value) * share).astype(ground.dtype)
    return result


def shoulders(seed: int) -> np.ndarray:
    """Return arms, neck and table as PET over CT shows them, shape (256, 256, 3): with some seeds letters are read."""
    draw = np.random.default_rng(seed)
    grey = np.zeros((256, 256), np.uint8)
    cv2.ellipse(grey, (128, 160), (95, 30), 0, 0, 360, 90, -1)
    for x in (55, 205):
        y = int(draw.integers(115, 140))
        cv2.ellipse(grey, (x, y), (int(draw.integers(28, 38)), int(draw.integers(38, 55))), 0, 0, 360, 90, -1)
    cv2.ellipse(grey, (128, 115), (int(draw.integers(28, 40)), 55), 0, 0, 360, 95, -1)
    for x in (55, 205):
        cv2.ellipse(grey, (x, 130), (9, 16), 0, 0, 360, 220, 4)
    cv2.ellipse(grey, (128, 90), (14, 10), 0, 180, 360, 220, 5)
    cv2.circle(grey, (128, 105), 8, 0, -1)
    cv2.polylines(grey, [np.array([[20, 200], [75, 245], [180, 245], [235, 200]])], False, 120, 1)
    noise = draw.normal(0, 8, grey.shape) * (grey > 0)
    return np.stack([np.clip((grey + noise) * share, 0, 255).astype(np.uint8) for share in (1, 0.7, 0.7)], -1)
