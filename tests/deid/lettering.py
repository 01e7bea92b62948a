"""Pictures with a name burned into them, as scanners and people do it."""

from typing import Any

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
