"""Volume rendering: the body as a semi-transparent object, seen from around it, as a turntable of colour pictures.

Source: Levoy M, "Display of surfaces from volume data", IEEE Comput Graph Appl 8 (1988) 29-37: colour and opacity by value,
shading by the gradient, composed from front to back along parallel rays; opacity is per millimetre, so that the grid does not
show. Everything is computed by the processor alone: no graphics driver, the same bytes everywhere.

For an overview, not for measuring: depth, thickness and what lies behind are a matter of the preset. A preset that shows skin
shows a face where the images hold one.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pacs.processing import Choice, Code, NotApplicable, Overlay, Range, Run, Series, grid_over, processor, resampled, turned

RENDERING = Code("113074", "DCM", "Volume rendering")
Point = tuple[float, float, tuple[int, int, int]]
PRESETS: dict[str, tuple[Point, ...]] = {
    # (value, opacity per millimetre, colour): linear between the points, nothing below the first.
    "bone": ((150, 0.0, (120, 60, 40)), (300, 0.15, (230, 200, 160)), (900, 0.8, (255, 250, 240))),
    "skin": ((-400, 0.0, (150, 90, 70)), (-150, 0.5, (230, 180, 150)), (300, 0.8, (250, 230, 210))),
    "airways": (
        (-1000, 0.0, (40, 60, 90)),
        (-930, 0.10, (90, 140, 200)),
        (-800, 0.03, (160, 190, 220)),
        (-600, 0, (0, 0, 0)),
    ),
}
"""In Hounsfield units."""
RELATIVE: dict[str, tuple[Point, ...]] = {
    "MR": ((0.25, 0.0, (60, 40, 40)), (0.5, 0.08, (200, 160, 140)), (1.0, 0.6, (255, 250, 240))),
    "PT": ((0.15, 0.0, (60, 0, 0)), (0.4, 0.05, (230, 90, 0)), (1.0, 0.9, (255, 255, 180))),
}
"""In shares of the 99.5th percentile, where units say nothing."""
LIGHT = np.array([-0.6, -0.4, -0.3], np.float32)
"""Direction of the light in the view (depth, down, right): from over the left shoulder of who looks."""


@processor(
    "volume-rendering",
    version="1.0.0",
    makes=("SC",),
    when={"Modality": ["CT", "MR", "PT"], "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=20"},
    queue="heavy",
    memory_mb=6144,
)
def volume_rendering(
    series: Series,
    run: Run,
    *,
    preset: Annotated[str, Choice("bone", "skin", "airways"), "what of a CT is shown"] = "bone",
    views: Annotated[int, Range(1, 72), "pictures round the head-foot axis, the first from the front"] = 12,
    voxel_mm: Annotated[float, Range(0.5, 10, "mm"), "step along rays, and pixel of the pictures"] = 2.0,
    shading: Annotated[float, Range(0, 1), "how much the light models surfaces"] = 0.7,
) -> Iterator[Overlay]:
    """A turntable of a CT, MR or PET volume in colour, for an overview."""
    if series.modality not in ("CT", "MR", "PT"):
        raise NotApplicable("made for CT, MR and PET")
    source = series.geometry()
    values = series.array()
    points = PRESETS[preset]
    if series.modality != "CT":
        top = float(np.percentile(values, 99.5))
        if top <= 0:
            raise NotApplicable("the volume is empty")
        points = tuple((value * top, opacity, color) for value, opacity, color in RELATIVE[series.modality])
    outside = float(values.min())

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for number in range(views):
            row, column = turned("coronal", 360.0 * number / views)
            target = grid_over(source, row, column, (voxel_mm, voxel_mm, voxel_mm))
            yield render(resampled(values, source, target, outside=outside), points, voxel_mm, shading)
            run.progress((number + 1) / views, "rendering")

    name = preset if series.modality == "CT" else "turntable"
    yield Overlay(
        pixels=pictures(),
        sources=[series.datasets] * views,
        description=f"volume rendering {name} {series.text('SeriesDescription')}".strip(),
        derivation=RENDERING,
    )


def render(volume: NDArray[np.float32], points: tuple[Point, ...], step_mm: float, shading: float) -> NDArray[np.uint8]:
    """Return the picture (rows, columns, 3) of a volume (depth, rows, columns) seen along its first axis, on black."""
    at = np.array([value for value, _, _ in points], np.float32)
    opacities = np.array([opacity for _, opacity, _ in points])
    colors = np.array([color for _, _, color in points], np.float32)
    left = np.ones(volume.shape[1:], np.float32)
    picture = np.zeros((*volume.shape[1:], 3), np.float32)
    light = LIGHT / np.linalg.norm(LIGHT)
    for depth in range(len(volume)):
        plane = volume[depth]
        opacity = np.interp(plane, at, opacities, left=0.0).astype(np.float32)
        seen = (opacity > 0) & (left > 1e-3)
        if not seen.any():
            continue
        # Opacity is per millimetre: a step of s lets (1 - opacity)^s through.
        stopped = left[seen] * (1 - (1 - np.minimum(opacity[seen], 0.999)) ** step_mm)
        color = np.stack([np.interp(plane[seen], at, colors[:, channel]) for channel in range(3)], axis=-1)
        if shading:
            color *= (1 - shading + shading * _lit(volume, depth, light)[seen])[:, None]
        picture[seen] += stopped[:, None] * color
        left[seen] -= stopped
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _lit(volume: NDArray[np.float32], depth: int, light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how much of the light each voxel of a plane reflects, 0 to 1: the gradient is the surface's normal."""
    before, after = volume[max(depth - 1, 0)], volume[min(depth + 1, len(volume) - 1)]
    down, right = np.gradient(volume[depth]) if min(volume.shape[1:]) > 1 else (np.zeros_like(before),) * 2
    gradient = np.stack([(after - before) / 2, down, right])
    length = np.sqrt((gradient**2).sum(axis=0)) + 1e-6
    # Towards higher values is into the body, the light comes from outside.
    reflected: NDArray[np.float32] = np.clip(-(gradient * light[:, None, None]).sum(axis=0) / length, 0, 1)
    return reflected
