"""Filtered back-projection: a slice from its parallel-beam projections.

Sources: Ramachandran GN, Lakshminarayanan AV, "Three-dimensional reconstruction from radiographs and electron micrographs",
Proc Natl Acad Sci USA 68 (1971) 2236-2240; Shepp LA, Logan BF, "The Fourier reconstruction of a head section", IEEE Trans Nucl
Sci 21 (1974) 21-43; the filter is sampled in space, not in frequency, so that the mean is right (Kak AC, Slaney M,
"Principles of computerized tomographic imaging", IEEE Press 1988, section 3.3).

For a grey image whose Image Type says SINOGRAM: a row a view over half a turn (views evenly apart), a column a detector element
(Pixel Spacing gives its pitch), values line integrals after rescaling. Other geometries (fan, cone, helix) are not rebinned.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pacs.processing import Choice, Code, Images, NotApplicable, Range, Run, Series, processor

RECONSTRUCTION = Code("113072", "DCM", "Multiplanar reformatting")
WINDOWS = ("ram-lak", "shepp-logan", "hann")


@processor("back-projection", version="1.0.0", makes=("OT",), when={"ImageType": "SINOGRAM"}, memory_mb=4096)
def back_projection(
    series: Series,
    run: Run,
    *,
    window: Annotated[str, Choice(*WINDOWS), "ram-lak is sharpest, hann smoothest"] = "shepp-logan",
    pixel_mm: Annotated[float, Range(0, 10, "mm"), "pixel of the slice; 0 takes the detector's pitch"] = 0.0,
    water: Annotated[float, Range(0.001, 0.1, "1/mm"), "attenuation of water, for Hounsfield units"] = 0.0206,
) -> Iterator[Images]:
    """A slice in Hounsfield units from a sinogram, by filtered back-projection."""
    pixels = []
    for index in range(len(series)):
        one = series.datasets[index]
        pitch = one.get("PixelSpacing")
        if "SINOGRAM" not in (one.get("ImageType") or []) or not pitch:
            raise NotApplicable("needs projection data: Image Type SINOGRAM, and Pixel Spacing for the detector's pitch")
        pitch_mm = float(pitch[1])
        step = pixel_mm or pitch_mm
        slice_ = reconstruct(series.frame(index).astype(np.float64), pitch_mm, step, window)
        pixels.append(np.clip(np.rint(1000 * (slice_ / water - 1)), -32768, 32767).astype(np.int16))
        run.progress((index + 1) / len(series), "back-projecting")
    yield Images(
        pixels=pixels,
        like=series.datasets,
        description=f"reconstruction {window}",
        derivation=RECONSTRUCTION,
        slope=1.0,
        intercept=0.0,
        bits_stored=16,
        rescale_type="HU",
        window=(0.0, 1500.0),
        image_type="FBP",
        attributes={"PixelSpacing": [f"{step:.6g}", f"{step:.6g}"]},
    )


def reconstruct(sinogram: NDArray[np.float64], pitch_mm: float, pixel_mm: float, window: str) -> NDArray[np.float64]:
    """Return attenuation (1/mm) on a square about the centre; `sinogram` is (views, bins) of line integrals, half a turn."""
    views, bins = sinogram.shape
    length = 2 ** int(np.ceil(np.log2(2 * bins)))
    index = np.fft.fftfreq(length, 1 / length).round().astype(int)
    # The ramp, sampled in space: 1/4 at zero, -1/(pi n)^2 at odd places, 0 at even ones (Kak and Slaney, equation 61).
    kernel = np.zeros(length)
    kernel[0] = 0.25
    odd = index % 2 == 1
    kernel[odd] = -1 / (np.pi * index[odd]) ** 2
    response = np.real(np.fft.fft(kernel)) / pitch_mm
    frequency = np.fft.fftfreq(length)
    if window == "shepp-logan":
        response *= np.sinc(frequency)
    elif window == "hann":
        response *= 0.5 + 0.5 * np.cos(2 * np.pi * frequency)
    filtered = np.real(np.fft.ifft(np.fft.fft(sinogram, length, axis=1) * response, axis=1))[:, :bins]
    count = round(bins * pitch_mm / pixel_mm)
    place = (np.arange(count) - (count - 1) / 2) * pixel_mm
    detector = (np.arange(bins) - (bins - 1) / 2) * pitch_mm
    found = np.zeros((count, count))
    for theta, row in zip(np.arange(views) * np.pi / views, filtered, strict=True):
        at = place[None, :] * np.cos(theta) + place[:, None] * np.sin(theta)
        found += np.interp(at.ravel(), detector, row, left=0, right=0).reshape(at.shape)
    return found * np.pi / views
