"""What `volume-rendering` is measured on, and what comes out."""

import numpy as np

from pacs import phantoms
from pacs.phantoms import petct
from pacs.processing.scoring import Measured, Scores, beside, outputs
from processors.volume_rendering import render, volume_rendering

BALL = ((20.0, -15.0, 30.0), 18.0)
"""Centre (x, y, z) and radius in mm of a ball of bone."""


def score() -> Measured:
    """Find a ball from all sides where it lies, and let a known slab stop as much light as it must."""
    shape, spacing, origin = (40, 60, 60), (3.0, 2.0, 2.0), (-59.0, -59.0, -20.0)
    z, y, x = phantoms.mesh(shape, spacing, origin)
    (cx, cy, cz), radius = BALL
    values = np.where((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2, 900.0, -1000.0)
    (overlay,) = outputs(volume_rendering, phantoms.stack(values, spacing, origin), views=4, voxel_mm=1.0, shading=0.0)
    shift, area = [], []
    for number, picture in enumerate(overlay.pixels):
        seen = picture[..., 0] > 127
        rows, columns = np.nonzero(seen)
        angle = np.deg2rad(90 * number)
        # Columns run along the turned row direction, rows towards the feet; the middle of the volume is the middle of both.
        across = (cx + 0.0) * np.cos(angle) + cy * np.sin(angle)
        down = (origin[2] + (shape[0] - 1) / 2 * spacing[0]) - cz
        middle = (np.array(seen.shape) - 1) / 2
        shift.append(float(np.hypot(columns.mean() - middle[1] - across, rows.mean() - middle[0] - down)))
        area.append(abs(float(seen.sum()) / (np.pi * radius**2) - 1))
    slab = np.full((10, 4, 4), 500.0, np.float32)
    half = ((0.0, 0.05, (200, 200, 200)), (1000.0, 0.05, (200, 200, 200)))
    stopped = float(render(slab, half, 2.0, 0.0)[0, 0, 0]) / 200
    scores: Scores = {
        "shift of a ball, the worst of four views (mm)": round(max(shift), 2),
        "error of its area, the worst of four views (%)": round(100 * max(area), 1),
        "light stopped by 20 mm of 0.05/mm": round(stopped, 3),
        "by the formula": round(1 - 0.95**20, 3),
    }
    chest = [one for name, one in petct.study() if name == "CT"]
    shown = []
    for preset in ("bone", "airways"):
        (turntable,) = outputs(volume_rendering, chest, preset=preset, views=3, voxel_mm=2.0)
        shown += list(turntable.pixels)[:2]
    return Measured(scores, beside(*shown), "Bones and lungs of a chest, two views each", "a ball of bone in air; a chest")
