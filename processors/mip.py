"""Projections of slabs: maximum (vessels, PET, nodules), minimum (airways, emphysema) and mean (a thick slice).

Sources: Napel S, Marks MP, Rubin GD et al., "CT angiography with spiral CT and maximum intensity projection", Radiology 185
(1992) 607-610; Napel S, Rubin GD, Jeffrey RB, "STS-MIP: a new reconstruction technique for CT of the chest", J Comput Assist
Tomogr 17 (1993) 832-838 (sliding thin slabs). Planes and geometry as in `mpr`.

A projection has lost depth: what lies behind what is not told, and volumes cannot be measured on it.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from pacs.processing import (
    Choice,
    Code,
    Images,
    NotApplicable,
    Range,
    Run,
    Series,
    Storage,
    grid_over,
    on_grid,
    processor,
    slab,
    turned,
)

KINDS: dict[str, tuple[Code, str, Callable[..., Any]]] = {
    "max": (Code("113078", "DCM", "Maximum intensity projection"), "MIP", np.max),
    "min": (Code("113079", "DCM", "Minimum intensity projection"), "MINIP", np.min),
    "mean": (Code("113072", "DCM", "Multiplanar reformatting"), "AVERAGE", np.mean),
}


@processor(
    "mip",
    version="1.0.0",
    makes=("CT", "MR", "PT"),
    when={"Modality": ["CT", "MR", "PT"], "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=10"},
    queue="heavy",
    memory_mb=8192,
)
def mip(
    series: Series,
    run: Run,
    *,
    kind: Annotated[str, Choice("max", "min", "mean"), "what of the slab is shown"] = "max",
    plane: Annotated[str, Choice("axial", "coronal", "sagittal"), "which plane, before it is turned"] = "axial",
    turn_deg: Annotated[float, Range(-180, 180, "deg"), "turn about the head-foot axis"] = 0.0,
    slab_mm: Annotated[float, Range(0, 1000, "mm"), "thickness of a slab; 0 is the whole volume in one image"] = 10.0,
    step_mm: Annotated[float, Range(0, 1000, "mm"), "from slab to slab; 0 is half a slab"] = 0.0,
    pixel_mm: Annotated[float, Range(0, 20, "mm"), "pixel; 0 takes the smallest spacing of the source"] = 0.0,
) -> Iterator[Images]:
    """Maximum, minimum or mean of sliding slabs of a volume, as a derived series with real geometry."""
    if series.modality not in ("CT", "MR", "PT"):
        raise NotApplicable("made for CT, MR and PET")
    source = series.geometry()
    pixel = pixel_mm or min(source.spacing_mm)
    directions = turned(plane, turn_deg)
    whole = grid_over(source, *directions, (pixel, pixel, pixel))
    thickness = slab_mm or whole.shape[0] * pixel
    step = (step_mm or thickness / 2) if slab_mm else thickness
    target = grid_over(source, *directions, (step, pixel, pixel))
    values = series.array()
    lowest, highest = float(values.min()), float(values.max())
    storage = Storage.of(series, lowest, highest)
    derivation, word, reduce = KINDS[kind]
    # Beyond the volume nothing may win: neither its smallest value a minimum, nor its largest a maximum.
    outside = highest if kind == "min" else lowest

    def planes() -> Iterator[NDArray[np.generic]]:
        for number in range(target.shape[0]):
            yield storage.stored(reduce(slab(values, source, target, number, thickness, outside), axis=0))
            run.progress((number + 1) / target.shape[0], "projecting")

    yield on_grid(
        series,
        source,
        target,
        planes(),
        storage,
        description=f"{word} {plane} {series.text('SeriesDescription')}",
        derivation=derivation,
        image_type=word,
        thickness_mm=thickness,
        attributes={"SliceThickness": f"{thickness:.6g}"},
    )
