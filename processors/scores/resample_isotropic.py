"""What `resample-isotropic` is measured on, and what comes out."""

import numpy as np

from pacs import phantoms
from pacs.processing import Geometry, Series
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs, place_of, values_of
from processors.resample_isotropic import resample_isotropic


def score() -> Measured:
    datasets, at = phantoms.bead()
    series = Series(datasets)
    (images,) = outputs(resample_isotropic, datasets)
    values = values_of(images, series)
    geometry = images.geometry
    assert geometry is not None
    source = series.geometry()
    ramp_error = _ramp_error(source)
    scores: Scores = {
        "voxel before, largest edge (mm)": max(source.spacing_mm),
        "voxel after (mm)": geometry.spacing_mm[0],
        "shift of a bead (mm)": round(float(np.linalg.norm(place_of(values, geometry, -1000) - np.asarray(at))), 3),
        "largest error on a linear ramp (share of its step)": round(ramp_error, 4),
    }
    column = round((at[1] + 48) / 1.5)
    shown = [grey(series.array()[::-1, column], 0, 2000), grey(values[::-1, column], 0, 2000)]
    return Measured(
        scores, beside(*shown), "A coronal cut before (3 mm slices) and after", "a bead of 3 mm (sigma) in air, 3 mm slices"
    )


def _ramp_error(source: Geometry) -> float:
    from pacs.processing import grid_over
    from processors.resample_isotropic import isotropic

    target = grid_over(source, source.row, source.column, (1.5, 1.5, 1.5))
    ramp = np.broadcast_to(np.arange(source.shape[0], dtype=np.float32)[:, None, None], source.shape)
    moved = isotropic(np.ascontiguousarray(ramp), source, target, "linear")
    at = [(np.asarray(target.position(n)) - np.asarray(source.origin)) @ source.normal / 3.0 for n in range(target.shape[0])]
    truth = np.clip(np.asarray(at), 0, source.shape[0] - 1)
    return float(np.abs(moved[:, 8:-8, 8:-8] - truth[:, None, None]).max())
