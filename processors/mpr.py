"""Multi-planar reformation: coronal, sagittal, axial or oblique planes through a CT, MR or PET volume, with real geometry.

Source: Rhodes ML, Glenn WV, Azzawi YM, "Extracting oblique planes from serial CT sections", J Comput Assist Tomogr 4 (1980)
649-657; interpolation is linear. The planes lie in the frame of reference of the source, so that measuring, cross-lines and
fusion go on working. A slab (`thickness_mm`) is the mean of what it holds; `mip` does maxima and minima,
`curved-mpr` follows a line.

Between thick slices values are interpolated, not seen. Where a plane leaves the volume it shows the volume's smallest value.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pacs.processing import (
    Choice,
    Code,
    Images,
    NotApplicable,
    Pattern,
    Range,
    Run,
    Series,
    Storage,
    facing,
    grid_over,
    on_grid,
    processor,
    slab,
    turned,
)
from pacs.processing.curves import TRIPLE, triples

MPR = Code("113072", "DCM", "Multiplanar reformatting")


@processor(
    "mpr",
    version="1.1.0",
    makes=("CT", "MR", "PT"),
    when={"Modality": ["CT", "MR", "PT"], "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=10"},
    queue="heavy",
    memory_mb=8192,
)
def mpr(
    series: Series,
    run: Run,
    *,
    plane: Annotated[str, Choice("coronal", "sagittal", "axial"), "which plane, before it is turned"] = "coronal",
    turn_deg: Annotated[float, Range(-180, 180, "deg"), "turn about the head-foot axis, towards the patient's back"] = 0.0,
    tilt_deg: Annotated[float, Range(-90, 90, "deg"), "then tilt about the plane's own rows"] = 0.0,
    normal: Annotated[
        str, Pattern(TRIPLE), 'or the direction across the plane, "x,y,z"; plane and angles then do not count'
    ] = "",
    pixel_mm: Annotated[float, Range(0, 20, "mm"), "pixel; 0 takes the smallest spacing of the source"] = 0.0,
    step_mm: Annotated[float, Range(0, 100, "mm"), "from plane to plane; 0 takes the pixel"] = 3.0,
    thickness_mm: Annotated[float, Range(0, 100, "mm"), "mean over this thickness; 0 is a thin plane"] = 0.0,
) -> Iterator[Images]:
    """Coronal, sagittal, axial or oblique planes through a volume, as a derived series with real geometry."""
    if series.modality not in ("CT", "MR", "PT"):
        raise NotApplicable("made for CT, MR and PET")
    source = series.geometry()
    pixel = pixel_mm or min(source.spacing_mm)
    step = step_mm or pixel
    directions = facing(triples(normal)[0]) if normal else turned(plane, turn_deg, tilt_deg)
    target = grid_over(source, *directions, (step, pixel, pixel))
    values = series.array()
    lowest = float(values.min())
    storage = Storage.of(series, lowest, float(values.max()))

    def planes() -> Iterator[NDArray[np.generic]]:
        for number in range(target.shape[0]):
            yield storage.stored(slab(values, source, target, number, thickness_mm, lowest).mean(axis=0))
            run.progress((number + 1) / target.shape[0], "reformatting")

    name = "oblique" if normal else f"oblique {plane}" if turn_deg or tilt_deg else plane
    yield on_grid(
        series,
        source,
        target,
        planes(),
        storage,
        description=f"{name} {series.text('SeriesDescription')}",
        derivation=MPR,
        image_type="MPR",
        thickness_mm=thickness_mm,
        attributes={"SliceThickness": f"{max(thickness_mm, pixel):.6g}"},
    )
