"""SUV of a PET: a Parametric Map of floats for who can read one, and a PET series of 16 bits for everybody else.

Sources: as `processors.uptake` says for each kind; Boellaard R et al., "FDG PET/CT: EANM procedure guidelines for tumour
imaging: version 2.0", Eur J Nucl Med Mol Imaging 42 (2015) 328-354 (which kind for what).

It is a change of unit, no more: attenuation correction, calibration and clocks are the scanner's and are believed. Weight, size
and sex stay in the images only where de-identification keeps patient characteristics. Paravenous injection is not seen. What is
missing is refused and named, never assumed.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np

from pacs.processing import Choice, Images, Map, NotApplicable, Range, Run, Series, processor
from processors.uptake import VARIANTS, suv_factor


@processor(
    "suv",
    version="1.0.0",
    makes=("OT", "PT"),
    when={"Modality": "PT", "CorrectedImage": "ATTN"},
    queue="cpu",
    memory_mb=6144,
)
def suv(
    series: Series,
    run: Run,
    *,
    by: Annotated[str, Choice(*VARIANTS), "weight, lean weight (Janmahasatian, James), body surface, ideal weight"] = "bw",
    as_map: Annotated[bool, "write the Parametric Map"] = True,
    as_series: Annotated[bool, "write the PET series"] = True,
    top: Annotated[float, Range(0.5, 100, "g/mL"), "SUV that is shown darkest at first"] = 7.0,
) -> Iterator[Map | Images]:
    """SUV of a PET as a Parametric Map and as a PET series of 16 bits."""
    if series.modality != "PT":
        raise NotApplicable("made for PET")
    if "ATTN" not in series.text("CorrectedImage").split("\\"):
        raise NotApplicable("SUV needs attenuation correction (Corrected Image ATTN)")
    if not as_map and not as_series:
        raise NotApplicable("neither map nor series was asked for")
    variant = VARIANTS[by]
    factor = suv_factor(series.datasets, by)
    run.progress(0.2, "reading")
    values = series.array() * np.float32(factor)
    found = Map(series, values, variant.quantity, variant.unit, f"SUV {by}", window=(top / 2, top))
    if as_map:
        yield found
    run.progress(0.6, "writing")
    if as_series:
        images = found.images(units=variant.units)
        images.attributes = {"SUVType": variant.suv_type}
        yield images
