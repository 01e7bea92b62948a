"""Multi-frame images of any size, made frame by frame, for tests and benchmarks that must not hold them."""

import struct
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import making
import numpy as np
from pydicom.uid import EnhancedCTImageStorage

from pacs.dicom import part10

EXPLICIT = "1.2.840.10008.1.2.1"
ROWS = COLUMNS = 512
FRAME_BYTES = 2 * ROWS * COLUMNS
_PATTERNS = 8


@lru_cache(maxsize=_PATTERNS)
def _pattern(number: int, noisy: bool) -> np.ndarray:
    if noisy:
        return np.random.default_rng(number).integers(0, 1 << 16, (ROWS, COLUMNS)).astype("<i2")
    return making.pixels(ROWS, COLUMNS, seed=number)


def frame(number: int, *, noisy: bool = False) -> bytes:
    """Return frame `number` (1 is the first), unlike all others; `noisy` ones cannot be compressed."""
    pixels = _pattern(number % _PATTERNS, noisy).copy()
    pixels[0, :2] = number & 0x7FFF, number >> 15
    return pixels.tobytes()


def header(frames: int, **overrides: Any) -> bytes:
    """Return the data set before Pixel Data, Explicit VR Little Endian."""
    ds = making.dataset(SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=frames, **overrides)
    ds.Rows, ds.Columns = ROWS, COLUMNS
    del ds.PixelData
    return making.encode(ds)


def native(frames: int, *, noisy: bool = False, **overrides: Any) -> Iterator[bytes]:
    """Yield a whole data set, Explicit VR Little Endian, piece by piece."""
    yield header(frames, **overrides)
    yield struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, frames * FRAME_BYTES)
    for number in range(1, frames + 1):
        yield frame(number, noisy=noisy)


def sop_instance_uid(**overrides: Any) -> str:
    """Return the UID that `native` gives its object."""
    return str(making.dataset(**overrides).SOPInstanceUID)


def file(path: Path, frames: int, *, noisy: bool = False, **overrides: Any) -> Path:
    """Write a Part 10 file."""
    meta = part10.file_meta(EnhancedCTImageStorage, sop_instance_uid(**overrides), EXPLICIT)
    with path.open("wb") as sink:
        sink.write(meta)
        sink.writelines(native(frames, noisy=noisy, **overrides))
    return path


def pixel_digest(frames: int, *, noisy: bool = False) -> str:
    """Return SHA-256 of all native pixels."""
    digest = sha256()
    for number in range(1, frames + 1):
        digest.update(frame(number, noisy=noisy))
    return digest.hexdigest()
