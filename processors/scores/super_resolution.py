"""What `super-resolution` is measured on, and what comes out."""

import numpy as np

from pacs import phantoms
from pacs.processing import Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, psnr, values_of
from processors.super_resolution import super_resolution


def score() -> Measured:
    """Make thick slices of a chest of thin ones, and the thin ones again; beside linear interpolation."""
    thin = Series(phantoms.chest(noise=0.0)).array()[:88].astype(np.float64)
    scores: Scores = {}
    shown = []
    for factor in (2, 4):
        thick = thin.reshape(len(thin) // factor, factor, *thin.shape[1:]).mean(axis=1)
        datasets = phantoms.stack(thick, (1.5 * factor, 1.8, 1.8), (-116.1, -98.1, 8 + 0.75 * (factor - 1)))
        (images,) = outputs(super_resolution, datasets, factor=factor)
        found = values_of(images, Series(datasets))
        at = np.clip((np.arange(len(thin)) + 0.5) / factor - 0.5, 0, len(thick) - 1)
        low = np.minimum(at.astype(int), len(thick) - 2)
        share = (at - low)[:, None, None]
        linear = thick[low] * (1 - share) + thick[low + 1] * share
        scores[f"{factor} times: PSNR by linear interpolation (dB)"] = round(psnr(linear, thin), 1)
        scores[f"{factor} times: PSNR (dB)"] = round(psnr(found, thin), 1)
        again = found.reshape(thick.shape[0], factor, *thin.shape[1:]).mean(axis=1)
        scores[f"{factor} times: made thick again, differs on average by (HU)"] = round(float(np.abs(again - thick).mean()), 2)
        column = 60
        shown = [
            grey(np.repeat(thick, factor, axis=0)[::-1, column], -300, 1400),
            *(grey(one[::-1, column], -300, 1400) for one in (linear, found, thin)),
        ]
    caption = "Slices of 6 mm, linear interpolation, this, and the truth of 1.5 mm"
    return Measured(scores, beside(*shown), caption, "a chest of 1.5 mm slices, made thick")
