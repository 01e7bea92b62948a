"""Radiographs with their fine detail raised: a Laplacian pyramid whose layers go through a power law, and unsharp masking.

Sources: Vuylsteke P, Schoeters E, "Multiscale image contrast amplification (MUSICA)", Proc SPIE 2167 (1994) 551-560; Burt PJ,
Adelson EH, "The Laplacian pyramid as a compact image code", IEEE Trans Commun 31 (1983) 532-540. Values below the noise of a
layer get a straight line instead of the power, so that noise is not raised without bound.

With `power` 1 and `unsharp` 0 an image for presentation comes out exactly as it went in. Linear images FOR PROCESSING are
turned into attenuation (logarithm) first. Values afterwards have no unit (Rescale Type US): do not measure on them.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.processing import (
    Code,
    Images,
    NotApplicable,
    Range,
    Run,
    Series,
    for_presentation,
    needs_grey,
    noise,
    processor,
    shown_bits,
    to_logarithm,
)

ENHANCEMENT = Code("113086", "DCM", "Edge enhancement")


@processor("multiscale", version="1.0.0", makes=("CR", "DX", "MG"), when={"Modality": ["CR", "DX", "MG"]}, memory_mb=6144)
def multiscale(
    series: Series,
    run: Run,
    *,
    power: Annotated[float, Range(0.3, 1), "exponent of detail contrast; 1 is none, smaller is more"] = 0.7,
    levels: Annotated[int, Range(1, 12), "layers of the pyramid; the finest is one pixel"] = 7,
    unsharp: Annotated[float, Range(0, 5), "share of detail added once more by unsharp masking"] = 0.0,
    radius_mm: Annotated[float, Range(0.05, 20, "mm"), "of the unsharp mask"] = 1.0,
) -> Iterator[Images]:
    """Radiographs with fine detail raised over large differences of density, for presentation."""
    if series.modality not in ("CR", "DX", "MG"):
        raise NotApplicable("made for CR, DX and MG")
    needs_grey(series)
    take_log = to_logarithm(series)
    bits = shown_bits(series)
    top = 2**bits - 1

    def frames() -> Iterator[NDArray[Any]]:
        for index, one in enumerate(series.datasets):
            plane = series.stored(index).astype(np.float32)
            if take_log:
                plane = np.log1p(plane - plane.min())
                plane *= np.float32(top / max(float(plane.max()), 1e-6))
            changed = amplified(plane, power, levels)
            if unsharp:
                changed = sharpened(changed, unsharp, radius_mm / _pixel_mm(one))
            yield np.rint(np.clip(changed, 0, top)).astype(np.uint8 if bits == 8 else np.uint16)
            run.progress((index + 1) / len(series), "enhancing")

    yield for_presentation(
        series,
        frames(),
        description=f"{series.text('SeriesDescription') or series.modality} multiscale",
        derivation=ENHANCEMENT,
        logarithm=take_log,
    )


def amplified(plane: NDArray[np.float32], power: float, levels: int) -> NDArray[np.float32]:
    """Return an image whose detail went through ``m * sign(x) * |x / m|**power``, layer by layer, in the range it had.

    `m` is a layer's largest value. The result is scaled so that the per mille at either end lies where it lay before.
    """
    if power == 1:
        return plane
    floor = 3 * noise(plane)
    rest, layers = plane, []
    for _ in range(levels):
        if min(rest.shape) < 4:
            break
        smaller = cv2.pyrDown(rest)
        layers.append(rest - cv2.pyrUp(smaller, dstsize=rest.shape[::-1]))
        rest = smaller
    for layer in reversed(layers):
        # Each layer halves what noise is left of the one before.
        rest = cv2.pyrUp(rest, dstsize=layer.shape[::-1]) + _curve(layer, power, floor)
    before, after = np.percentile(plane, (0.1, 99.9)), np.percentile(rest, (0.1, 99.9))
    scale = (before[1] - before[0]) / max(float(after[1] - after[0]), 1e-6)
    found: NDArray[np.float32] = ((rest - after[0]) * scale + before[0]).astype(np.float32)
    return found


def sharpened(plane: NDArray[np.float32], amount: float, radius_px: float) -> NDArray[np.float32]:
    """Unsharp masking: ``plane + amount * (plane - blurred)``."""
    blurred = cv2.GaussianBlur(plane, (0, 0), max(radius_px, 0.3), borderType=cv2.BORDER_REFLECT)
    found: NDArray[np.float32] = plane + np.float32(amount) * (plane - blurred)
    return found


def _curve(layer: NDArray[np.float32], power: float, floor: float) -> NDArray[np.float32]:
    largest = float(np.abs(layer).max())
    if largest <= 0:
        return layer
    knee = min(max(floor / largest, 0.01), 1.0)
    unit = np.abs(layer) / np.float32(largest)
    # Below the knee a line through the origin that meets the power there.
    gain = np.where(unit > knee, np.maximum(unit, knee) ** np.float32(power - 1), np.float32(knee ** (power - 1)))
    return layer * gain


def _pixel_mm(one: Any) -> float:
    spacing = one.get("ImagerPixelSpacing") or one.get("PixelSpacing")
    return float(spacing[0]) if spacing else 0.15
