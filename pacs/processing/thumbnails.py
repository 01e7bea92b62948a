"""Pictures of places that a processor found: marks on the images themselves, and one picture with a part of each."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pacs.processing.outputs import Mark, Overlay, Presentation, Spots, private_code
from pacs.processing.series import Geometry, rescale

THUMBNAILS = private_code("THUMBNAILS", "Thumbnails of findings")
COLOR_RGB = (255, 200, 0)
SIDE = 160
"""Of a thumbnail, in pixels."""


def pictured(
    spots: Spots, diameters_mm: Sequence[float], *, window: tuple[float, float], view_mm: float = 48.0
) -> Iterator[Presentation | Overlay]:
    """Yield a presentation state that marks each spot of a volume with a circle, and one picture of all of them.

    Parameters
    ----------
    diameters_mm : sequence of float
        Of the spots; circles are drawn around, not over them.
    window : (float, float)
        Centre and width in modality units.
    view_mm : float
        What a thumbnail shows of the image, on each side.
    """
    series, geometry = spots.series, spots.series.geometry()
    places = [indices(geometry, one.at_mm) for one in spots.spots]
    nearest = [int(np.clip(round(place[0]), 0, len(series) - 1)) for place in places]
    row_mm, column_mm = geometry.spacing_mm[1:]
    # A presentation can hold one rescale; PET often has one for each image.
    if len({rescale(one) for one in series.datasets}) == 1:
        marks = [
            Mark(image, "circle", [place[1:], (place[1], place[2] + (size / 2 + 2) / column_mm)], spot.label)
            for image, place, size, spot in zip(nearest, places, diameters_mm, spots.spots, strict=True)
        ]
        yield Presentation(series, f"{spots.description}, marked", window, marks, COLOR_RGB)
    tiles = []
    for number, (image, place, size) in enumerate(zip(nearest, places, diameters_mm, strict=True), 1):
        # Where the view's first pixel's centre and last pixel's centre lie in the image, in pixels of it.
        step = (view_mm / SIDE / row_mm, view_mm / SIDE / column_mm)
        matrix = np.array(
            [[step[1], 0, place[2] - step[1] * (SIDE - 1) / 2], [0, step[0], place[1] - step[0] * (SIDE - 1) / 2]], np.float64
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        part = cv2.warpAffine(series.frame(image), matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        unit = np.clip((part - window[0] + window[1] / 2) / window[1], 0, 1)
        tile = np.repeat(np.rint(unit * 255).astype(np.uint8)[..., None], 3, axis=2)
        radius = round((size / 2 + 2) * SIDE / view_mm)
        cv2.circle(tile, (SIDE // 2, SIDE // 2), radius, COLOR_RGB, 1, cv2.LINE_AA)
        cv2.putText(tile, str(number), (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, COLOR_RGB, 1, cv2.LINE_AA)
        tiles.append(tile)
    sources = [series.datasets[image] for image in sorted(set(nearest))]
    yield Overlay([_montage(tiles)], [sources], f"{spots.description}, pictures", derivation=THUMBNAILS)


def indices(geometry: Geometry, at_mm: Sequence[float]) -> tuple[float, float, float]:
    """Return where a place in patient coordinates lies in the array (frame, row, column), whole numbers at voxel centres."""
    offset = np.asarray(at_mm) - np.asarray(geometry.origin)
    axes = (geometry.normal, np.asarray(geometry.column), np.asarray(geometry.row))
    frame, row, column = (float(offset @ axis) / step for axis, step in zip(axes, geometry.spacing_mm, strict=True))
    return frame, row, column


def _montage(tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    across = min(len(tiles), 6)
    down = -(-len(tiles) // across)
    picture = np.zeros((down * SIDE, across * SIDE, 3), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // across * SIDE, number % across * SIDE
        picture[top : top + SIDE, left : left + SIDE] = tile
    return picture
