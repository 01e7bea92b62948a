"""Local contrast for radiographs and CT: logarithm where intensities are linear, window, then CLAHE.

Sources: Zuiderveld K, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994, 474-485; Pizer SM et al.,
"Adaptive histogram equalization and its variations", Comput Vision Graph 39 (1987) 355-368. The logarithm turns transmitted
intensity into attenuation (Beer-Lambert), which is why only linear images get it.

What the numbers mean afterwards. CT: values outside the window are untouched and still Hounsfield units; inside it they are
redistributed between its two ends, slope and intercept stay, and Rescale Type says US (unspecified). Radiographs: 0 to the
largest stored value, unspecified. With `strength` 0, CT comes out exactly as it went in.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.processing import (
    Choice,
    Images,
    NotApplicable,
    Range,
    Run,
    Series,
    for_presentation,
    needs_grey,
    private_code,
    processor,
    rescale,
    shown_bits,
    to_logarithm,
)

CLAHE = private_code("CLAHE", "Contrast limited adaptive histogram equalization")
SOFT_TISSUE = (40.0, 400.0)
"""Center and width, HU, where a CT names no window."""

BINS = 4096
"""Grey levels that are equalised: OpenCV's 16-bit CLAHE with bit shift 4. With 65536 bins a tile has too few pixels per bin."""


@processor(
    "enhance",
    version="1.0.0",
    makes=("CT", "CR", "DX", "MG"),
    when={"Modality": ["CT", "CR", "DX", "MG"]},
    memory_mb=4096,
)
def enhance(
    series: Series,
    run: Run,
    *,
    clip_limit: Annotated[float, Range(1, 40), "how far contrast may rise; 1 is none"] = 2.0,
    tiles: Annotated[int, Range(1, 32), "tiles along each side; 1 equalises the whole image"] = 8,
    strength: Annotated[float, Range(0, 1), "share of the enhanced image in the result"] = 0.7,
    window_center: Annotated[float, Range(-1000, 3000, "HU"), "CT; used where window_width is not 0"] = 40.0,
    window_width: Annotated[float, Range(0, 4000, "HU"), "CT; 0 takes the window of the header"] = 0.0,
    log: Annotated[str, Choice("auto", "on", "off"), "radiographs; auto: where intensities are linear"] = "auto",
) -> Iterator[Images]:
    """Enhanced local contrast of CT and radiographs, as a derived series in the same IOD."""
    if series.modality not in ("CT", "CR", "DX", "MG"):
        raise NotApplicable("made for CT, CR, DX and MG")
    needs_grey(series)
    if any(int(one.get("BitsAllocated") or 0) not in (8, 16) for one in series.datasets):
        raise NotApplicable("needs 8 or 16 bits allocated")
    if len({one.get("BitsStored") for one in series.datasets}) > 1:
        raise NotApplicable("needs images of one bit depth: these were not acquired as one series")
    clahe = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(tiles, tiles))
    clahe.setBitShift(4)
    if series.modality == "CT":
        window = (window_center, window_width) if window_width else _header_window(series)
        yield Images(
            pixels=_ct_frames(series, run, clahe, window, strength),
            like=series.datasets,
            description=f"{series.text('SeriesDescription') or 'CT'} enhanced",
            derivation=CLAHE,
            rescale_type="US" if strength else None,
            window=window,
            bits_stored=int(series.first.BitsStored),
        )
    else:
        yield _radiographs(series, run, clahe, strength, log)


def local_contrast(unit: NDArray[np.float32], clahe: Any, strength: float) -> NDArray[np.float32]:
    """Blend an image of values 0 to 1 with its CLAHE.

    Parameters
    ----------
    unit : ndarray of float32, shape (rows, columns)
        Values within 0 and 1.
    clahe : cv2.CLAHE
        Set up for 16 bits with a bit shift of 4, that is 4096 grey levels.
    strength : float
        0 gives `unit` itself, 1 the CLAHE alone.
    """
    if strength == 0:
        return unit
    levels = (unit * np.float32(BINS - 1)).astype(np.uint16)
    fraction = unit * np.float32(BINS - 1) - levels
    equal = clahe.apply(levels << 4).astype(np.float32) / np.float32(65535)
    # The fraction below one grey level is kept, so that steps of the equalisation add no bands to smooth areas.
    equal += fraction / np.float32(BINS - 1)
    return np.clip((1 - strength) * unit + strength * equal, 0, 1).astype(np.float32)


def _ct_frames(series: Series, run: Run, clahe: Any, window: tuple[float, float], strength: float) -> Iterator[NDArray[Any]]:
    low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    for index, one in enumerate(series.datasets):
        stored = series.stored(index)
        if strength == 0:
            yield _as_allowed(stored, one)
            continue
        slope, intercept = rescale(one)
        values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        unit = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
        changed = np.float32(low) + np.float32(high - low) * local_contrast(unit, clahe, strength)
        back = np.rint((changed - np.float32(intercept)) / np.float32(slope))
        inside = (values >= low) & (values <= high)
        limits = _limits(one)
        yield _as_allowed(np.where(inside, np.clip(back, *limits), stored), one)
        run.progress((index + 1) / len(series), "enhancing")


def _radiographs(series: Series, run: Run, clahe: Any, strength: float, log: str) -> Images:
    take_log = log == "on" or (log == "auto" and to_logarithm(series))
    bits = shown_bits(series)
    top = 2**bits - 1

    def frames() -> Iterator[NDArray[Any]]:
        for index in range(len(series)):
            values = series.frame(index)
            if take_log:
                values = np.log1p(values - values.min())
            # A per mille at either end are markers, collimator edges and dead pixels: they must not set the scale.
            low, high = np.percentile(values[::4, ::4], (0.1, 99.9))
            span = np.float32(max(float(high - low), 1e-6))
            unit = np.clip((values - np.float32(low)) / span, 0, 1)
            done = np.rint(local_contrast(unit, clahe, strength) * top)
            yield done.astype(np.uint8 if bits == 8 else np.uint16)
            run.progress((index + 1) / len(series), "enhancing")

    return for_presentation(
        series,
        frames(),
        description=f"{series.text('SeriesDescription') or series.modality} enhanced",
        derivation=CLAHE,
        logarithm=take_log,
    )


def _header_window(series: Series) -> tuple[float, float]:
    center, width = series.number("WindowCenter"), series.number("WindowWidth")
    return (center, width) if center is not None and width is not None and width > 1 else SOFT_TISSUE


def _limits(one: Any) -> tuple[int, int]:
    bits = int(one.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if one.PixelRepresentation == 1 else (0, 2**bits - 1)


def _as_allowed(stored: NDArray[Any], one: Any) -> NDArray[Any]:
    if one.PixelRepresentation == 1:
        return stored.astype(np.int16)
    return stored.astype(np.uint8 if int(one.BitsAllocated) == 8 else np.uint16)
