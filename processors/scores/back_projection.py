"""What `back-projection` is measured on, and what comes out."""

import cv2
import numpy as np

from pacs.phantoms.sinogram import attenuation, sinogram
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, values_of
from processors.back_projection import back_projection

WATER = 0.0206


def score() -> Measured:
    """Reconstruct ellipses from their exact line integrals, with and without noise."""
    one = sinogram(noise=0.0)
    place = np.arange(256) - 127.5
    truth = 1000 * (attenuation(place[None, :], place[:, None]) / WATER - 1)
    flat = np.ones((9, 9), np.uint8)
    even = cv2.erode(truth.astype(np.float32), flat) == cv2.dilate(truth.astype(np.float32), flat)
    field = np.hypot(place[None, :], place[:, None]) < 120
    scores: Scores = {}
    shown = [grey(Series([one]).frame(0), 2, 4), grey(truth, -200, 1600)]
    for window in ("ram-lak", "shepp-logan", "hann"):
        (images,) = outputs(back_projection, [one], window=window)
        found = values_of(images, Series([one]))[0]
        error = (found - truth)[even & field]
        scores[f"{window}: mean error where it is even (HU)"] = round(float(error.mean()), 1)
        scores[f"{window}: its standard deviation (HU)"] = round(float(error.std()), 1)
    noisy = sinogram(noise=0.02)
    for window in ("ram-lak", "hann"):
        (images,) = outputs(back_projection, [noisy], window=window)
        found = values_of(images, Series([noisy]))[0]
        scores[f"{window}, noisy projections: standard deviation (HU)"] = round(float((found - truth)[even & field].std()), 0)
        shown.append(grey(found, -200, 1600))
    caption = "The sinogram, the truth, and noisy projections reconstructed by ram-lak and hann"
    return Measured(scores, beside(*shown), caption, "the exact line integrals of five ellipses, 360 views of 256 elements")
