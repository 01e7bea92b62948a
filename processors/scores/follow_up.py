"""What `follow-up` is measured on, and what comes out."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import Geometry, Series, resampled
from pacs.processing.registration import deform
from pacs.processing.scoring import Measured, Scores, beside, grey, outputs_of_study, values_of
from processors.follow_up import follow_up

SHAPE, SPACING, ORIGIN = (60, 74, 87), (2.25, 2.7, 2.7), (-116.1, -98.1, 8.0)
GRID = Geometry(ORIGIN, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), SPACING, SHAPE)
NEW = ((58.0, -15.0, 90.0), 10.0)
"""Centre (x, y, z) and diameter in mm of a nodule that only the later CT has."""


def score() -> Measured:
    """Take a chest, breathe, grow a nodule; subtract."""
    earlier, later, truth = pair()
    scores: Scores = {}
    shown = [grey(Series(one).array()[30], -300, 1400) for one in (earlier, later)]
    before, now = Series(earlier).array(), Series(later).array()
    z, y, x = phantoms.mesh(SHAPE, SPACING, ORIGIN)
    (cx, cy, cz), diameter = NEW
    core = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < (diameter / 3) ** 2
    body = (x / 100) ** 2 + (y / 75) ** 2 < 1
    rest = body & ((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 > diameter**2)
    scores["without registration: mean difference elsewhere (HU)"] = round(float(np.abs(now - before)[rest].mean()), 1)
    for name, given in (("rigid alone", {"deformable": False}), ("rigid and deformable", {})):
        (images,) = outputs_of_study(follow_up, [earlier, later], **given)
        found = values_of(images, Series(later))
        scores[f"{name}: mean difference elsewhere (HU)"] = round(float(np.abs(found[rest]).mean()), 1)
        scores[f"{name}: mean difference in the new nodule (HU)"] = round(float(found[core].mean()), 0)
        shown.append(grey(found[36], 0, 1200))
    field = deform(now, before, GRID)
    points = [(a, b, c) for a in (-52.0, 52.0) for b in (-40.0, 0.0, 40.0) for c in (40.0, 75.0, 110.0)]
    off = [np.linalg.norm(np.subtract(field.TransformPoint(at), truth.TransformPoint(at))) for at in points]
    moved = [np.linalg.norm(np.subtract(at, truth.TransformPoint(at))) for at in points]
    scores["breathing put in, mean at points in the lungs (mm)"] = round(float(np.mean(moved)), 2)
    scores["left of it by deformable registration, mean (mm)"] = round(float(np.mean(off)), 2)
    caption = "Earlier, later, difference after rigid and after deformable registration"
    return Measured(scores, beside(*shown), caption, "a chest that breathes, with a new nodule of 10 mm")


def breathing() -> sitk.Transform:
    """Return a smooth motion of points, up to 6 mm towards the feet in the middle of the lungs."""
    coarse = Geometry((-130.0, -110.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (10.0, 10.0, 10.0), (16, 23, 27))
    z, y, x = phantoms.mesh(coarse.shape, coarse.spacing_mm, coarse.origin)
    along = 6.0 * np.exp(-((np.abs(x) - 52) ** 2) / 1200 - y**2 / 2500 - (z - 75) ** 2 / 2500)
    vectors = np.stack([0.15 * along, 0.2 * along, -along], axis=-1)
    image = sitk.GetImageFromArray(vectors, isVector=True)
    image.SetOrigin(coarse.origin)
    image.SetSpacing((10.0, 10.0, 10.0))
    return sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))


def pair() -> tuple[list[Dataset], list[Dataset], sitk.Transform]:
    """Return an earlier and a later CT of one study, and the motion from points of the later to points of the earlier."""
    clean = Series(phantoms.chest(noise=0.0))
    source = clean.geometry()
    still = resampled(clean.array(), source, GRID, outside=-1000.0)
    motion = breathing()
    now: NDArray[np.float32] = resampled(still, GRID, GRID, transform=motion, outside=-1000.0)
    z, y, x = phantoms.mesh(SHAPE, SPACING, ORIGIN)
    (cx, cy, cz), diameter = NEW
    now[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < (diameter / 2) ** 2] = 40
    noise = np.random.default_rng(3)
    earlier = phantoms.stack(still + noise.normal(0, 6, SHAPE), SPACING, ORIGIN, AcquisitionTime="101500")
    uid = "1.2.826.0.1.3680043.8.498.1001.2"
    later = phantoms.stack(
        now + noise.normal(0, 6, SHAPE), SPACING, ORIGIN, AcquisitionTime="111500", series_uid=uid, SeriesNumber=3
    )
    return earlier, later, motion
