"""Curved planar reformation: what lies along a vessel, an airway, a spine or a jaw in one flat image.

Sources: Kanitsar A, Fleischmann D, Wegenkittl R, Felkel P, Gröller E, "CPR - curved planar reformation", IEEE Visualization
(2002) 37-44 (straightened, stretched, projected). The line is given by points, joined by a natural cubic spline; of a chest CT
without points it is that of the trachea and a main bronchus, a minimal path through what `airways` finds, after
Deschamps T, Cohen LD, "Fast extraction of minimal paths in 3D images and applications to virtual endoscopy", Med Image Anal 5
(2001) 281-299.

The images have no place in the patient: no position, no orientation, no frame of reference (Secondary Capture). Distances are
true on the line and at right angles to it (straightened), everywhere on the surface (stretched), or not told (projected).
What is near a line that bends more sharply than half the width shows twice or not at all. A line beside its vessel makes the
vessel look narrow: look at several `views` before a stenosis is believed.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pacs.processing import (
    Choice,
    Code,
    Geometry,
    NotApplicable,
    Pattern,
    Range,
    Run,
    Series,
    Storage,
    Unplaced,
    processor,
    rescale,
    sampled,
)
from pacs.processing.curves import TRIPLES, Points, lengths, smooth_line, surface, triples
from pacs.processing.masks import Mask, box, distance
from processors.airways import airways

CURVED = Code("113072", "DCM", "Multiplanar reformatting")
LEAST_RADIUS_MM = 2.0
"""Of a bronchus that is followed, from its middle to the last voxels within it."""
SMOOTH_MM = 12.0
"""A path of voxels is smoothed over this length."""


@processor(
    "curved-mpr",
    version="1.0.0",
    makes=("SC",),
    when={"Modality": ["CT", "MR", "PT"], "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=10"},
    queue="heavy",
    memory_mb=8192,
)
def curved_mpr(
    series: Series,
    run: Run,
    *,
    points: Annotated[
        str, Pattern(TRIPLES), 'the line, "x,y,z; x,y,z" in mm of the patient; none follows the trachea of a chest CT'
    ] = "",
    bronchus: Annotated[str, Choice("right", "left"), "which one the trachea's line goes on into"] = "right",
    kind: Annotated[
        str, Choice("straightened", "stretched", "projected"), "how the line is brought into a plane"
    ] = "straightened",
    angle_deg: Annotated[float, Range(-180, 180, "deg"), "turns what is shown about the line"] = 0.0,
    views: Annotated[int, Range(1, 36), "how many, evenly over half a turn from there"] = 2,
    width_mm: Annotated[float, Range(2, 500, "mm"), "how much is shown across the line"] = 60.0,
    pixel_mm: Annotated[float, Range(0, 20, "mm"), "pixel; 0 takes the smallest spacing of the source"] = 0.0,
    upright: Annotated[bool, "across is from head to feet (panoramas of a jaw), not from side to side"] = False,
) -> Iterator[Unplaced]:
    """What lies along a curved line (vessel, airway, spine, jaw) in flat images: straightened, stretched or projected."""
    if series.modality not in ("CT", "MR", "PT"):
        raise NotApplicable("made for CT, MR and PET")
    source = series.geometry()
    pixel = pixel_mm or min(source.spacing_mm)
    given = triples(points) if points else airway_line(series, source, bronchus)
    line = smooth_line(given, pixel / 4)
    if (_index(line, source) < -0.5).any() or (_index(line, source) > np.asarray(source.shape) - 0.5).any():
        raise NotApplicable("the line leaves the images")
    if lengths(line)[-1] < 2 * pixel:
        raise NotApplicable("the line is shorter than two pixels")
    run.progress(0.3, "reformatting")
    values = series.array()
    lowest = float(values.min())
    storage = Storage.of(series, lowest, float(values.max()))
    slope, intercept = rescale(series.first) if storage.slope is None else (storage.slope, storage.intercept or 0.0)
    surfaces = [
        surface(line, kind, angle_deg + 180.0 * view / views, width_mm, pixel, upright=upright)  # type: ignore[arg-type]
        for view in range(views)
    ]

    def pictures() -> Iterator[NDArray[np.int16] | NDArray[np.uint16]]:
        for number, one in enumerate(surfaces):
            picture = storage.stored(sampled(values, source, one, outside=lowest))
            picture = picture.astype(np.uint16) if picture.dtype == np.uint8 else picture
            yield picture.T if upright else picture
            run.progress(0.3 + 0.7 * (number + 1) / views, "reformatting")

    center, width = series.number("WindowCenter"), series.number("WindowWidth")
    yield Unplaced(
        pixels=pictures(),
        sources=[[series.datasets[index] for index in _slices(one, source)] for one in surfaces],
        description=f"{kind} {series.text('SeriesDescription')}",
        slope=slope,
        intercept=intercept,
        rescale_type="HU" if series.modality == "CT" else "US",
        spacing_mm=None if kind == "projected" else (pixel, pixel),
        window=(center, width) if center is not None and width else None,
        derivation=CURVED,
    )


def airway_line(series: Series, geometry: Geometry, bronchus: str) -> Points:
    """Return points from the top of the trachea to the end of what is found of a main bronchus and its branches.

    The path keeps to the middle: its speed grows with the square of the distance to the wall.
    """
    if series.modality != "CT":
        raise NotApplicable("without points it follows the trachea, of a CT")
    segmentation, *_ = airways(series, Run())
    tree: Mask = segmentation.array() > 0
    near = box(tree, geometry)
    tree = tree[near]
    radius = distance(tree, geometry.spacing_mm)
    head_up = geometry.normal[2] > 0
    top = np.flatnonzero(tree.any(axis=(1, 2)))[-1 if head_up else 0]
    seed = (int(top), *(int(v) for v in np.unravel_index(int(radius[top].argmax()), radius.shape[1:])))
    time = _arrival(np.where(tree, 1.0, 1e-6).astype(np.float32), seed, geometry)
    origin = np.asarray(geometry.origin) + _patient(np.array([[one.start or 0 for one in near]]), geometry)[0]
    place = _patient(np.stack(np.nonzero(tree), axis=1), geometry) + origin
    start = place[(np.stack(np.nonzero(tree), axis=1) == seed).all(axis=1)][0]
    # Patient coordinates: x grows to the patient's left.
    side = (place[:, 0] - start[0]) * (1 if bronchus == "left" else -1) > 10.0
    wide = side & (radius[tree] >= LEAST_RADIUS_MM)
    if not wide.any():
        raise NotApplicable(f"no {bronchus} main bronchus was found")
    end = np.stack(np.nonzero(tree), axis=1)[wide][int(time[tree][wide].argmax())]
    path = _descend(_arrival(np.where(tree, radius**2 + 1e-3, 1e-6).astype(np.float32), seed, geometry), tuple(end), seed)
    return _smoothed(_patient(path[::-1], geometry) + origin)


def _arrival(speed: NDArray[np.float32], seed: tuple[int, ...], geometry: Geometry) -> NDArray[np.float32]:
    """Return when a front from the seed comes to each voxel. Sethian JA, Proc Natl Acad Sci USA 93 (1996) 1591-1595."""
    image = sitk.GetImageFromArray(speed)
    image.SetSpacing([float(step) for step in reversed(geometry.spacing_mm)])
    found: NDArray[np.float32] = sitk.GetArrayFromImage(sitk.FastMarching(image, [list(reversed(seed))]))
    return found


def _descend(time: NDArray[np.float32], end: tuple[int, ...], seed: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the voxels from `end` to `seed`, each time to the neighbour that the front reached first."""
    at, path = np.array(end), [np.array(end)]
    while tuple(at) != seed:
        low = np.maximum(at - 1, 0)
        around = time[tuple(slice(a, b) for a, b in zip(low, at + 2, strict=True))]
        after = low + np.array(np.unravel_index(int(around.argmin()), around.shape))
        if (after == at).all():
            break
        at = after
        path.append(at)
    return np.array(path)


def _smoothed(path: Points) -> Points:
    """Return a path at steps of a third of `SMOOTH_MM`, each point the mean of what lies within that length; ends stay."""
    along = lengths(path)
    wanted = np.linspace(0, along[-1], max(2, round(3 * along[-1] / SMOOTH_MM)))
    # Near an end the stretch is shorter on both sides, so that the mean does not move inwards.
    reach = np.minimum(SMOOTH_MM / 2, np.minimum(wanted, along[-1] - wanted) + 1e-6)
    fine = np.linspace(0, along[-1], 20 * len(wanted))
    dense = np.stack([np.interp(fine, along, path[:, axis]) for axis in range(3)], axis=1)
    means = [dense[np.abs(fine - one) <= far] for one, far in zip(wanted, reach, strict=True)]
    return np.array([path[0], *(one.mean(axis=0) for one in means[1:-1]), path[-1]])


def _patient(index: NDArray[np.int64], geometry: Geometry) -> Points:
    """Return how far voxels (slice, row, column) lie from the grid's origin in the patient."""
    axes = np.stack([geometry.normal, np.asarray(geometry.column), np.asarray(geometry.row)])
    found: Points = (index * np.asarray(geometry.spacing_mm)) @ axes
    return found


def _index(points: Points, geometry: Geometry) -> Points:
    """Return where points of the patient lie, in voxels (slice, row, column)."""
    axes = np.stack([geometry.normal, np.asarray(geometry.column), np.asarray(geometry.row)])
    found: Points = (points - np.asarray(geometry.origin)) @ axes.T / np.asarray(geometry.spacing_mm)
    return found


def _slices(points: NDArray[np.float64], geometry: Geometry) -> range:
    """Return which slices a surface is interpolated from."""
    along = _index(points, geometry)[..., 0]
    first, last = (int(np.clip(one, 0, geometry.shape[0] - 1)) for one in (np.floor(along.min()), np.ceil(along.max())))
    return range(first, last + 1)
