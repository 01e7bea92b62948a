"""Digitally reconstructed radiographs: what an X-ray of this CT would look like, from any side.

Source: Sherouse GW, Novins K, Chaney EL, "Computation of digitally reconstructed radiographs for use in radiotherapy treatment
design", Int J Radiat Oncol Biol Phys 18 (1990) 651-658. Hounsfield units become attenuation, mu = mu_water (1 + HU / 1000),
which is integrated along rays from a point source (or parallel ones) to the plane through the volume's centre.

The stored value is the line integral (times the slope): one energy, no scatter, no detector. Lengths are right in the plane
through the centre; nearer to the source they are larger, as in any radiograph.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pacs.processing import Code, Geometry, Images, NotApplicable, Range, Run, Series, grid_over, processor, resampled, turned

DERIVATION = Code("113072", "DCM", "Multiplanar reformatting")
WATER = 0.0206
"""Linear attenuation of water at 60 keV in 1/mm (NIST XCOM: 0.2059 1/cm)."""
SLOPE = 0.0005
"""Line integral per stored value: 16 bits hold up to 16, more than any body stops."""


@processor(
    "drr",
    version="1.0.0",
    makes=("CT",),
    when={"Modality": "CT", "ImageType": "!LOCALIZER", "NumberOfSeriesRelatedInstances": ">=20"},
    queue="heavy",
    memory_mb=6144,
)
def drr(
    series: Series,
    run: Run,
    *,
    angle_deg: Annotated[float, Range(-180, 180, "deg"), "turn about the head-foot axis; 0 is seen from the front"] = 0.0,
    views: Annotated[int, Range(1, 36), "how many, evenly over half a turn from there"] = 2,
    source_mm: Annotated[float, Range(0, 5000, "mm"), "from the source to the centre; 0 is parallel rays"] = 1000.0,
    pixel_mm: Annotated[float, Range(0.2, 10, "mm"), "pixel and step along rays"] = 1.5,
    above_hu: Annotated[float, Range(-1000, 3000, "HU"), "leave out what is less dense (150 shows bone alone)"] = -1000.0,
) -> Iterator[Images]:
    """Radiographs computed from a CT: front and side, or as many views as you like."""
    if series.modality != "CT":
        raise NotApplicable("made for CT")
    source = series.geometry()
    values = series.array()
    attenuation = np.where(values > above_hu, np.maximum(WATER * (1 + values / 1000), 0), 0).astype(np.float32)
    middle = series.datasets[len(series) // 2]
    for number in range(views):
        row, column = turned("coronal", angle_deg + 180.0 * number / views)
        target = grid_over(source, row, column, (pixel_mm, pixel_mm, pixel_mm))
        integral = project(attenuation, source, target, source_mm)
        run.progress((number + 1) / views, "projecting")
        yield Images(
            pixels=[np.clip(np.rint(integral / SLOPE), 0, 32767).astype(np.int16)],
            like=[middle],
            sources=[series.datasets],
            geometry=target.slab(target.shape[0] // 2, target.shape[0] // 2),
            description=f"radiograph at {angle_deg + 180.0 * number / views:g} deg {series.text('SeriesDescription')}".strip(),
            derivation=DERIVATION,
            slope=SLOPE,
            intercept=0.0,
            bits_stored=16,
            rescale_type="US",
            window=(float(integral.max()) / 2, max(float(integral.max()), SLOPE)),
            image_type="DRR",
            attributes={"SliceThickness": f"{target.shape[0] * pixel_mm:.6g}"},
        )


def project(attenuation: NDArray[np.float32], source: Geometry, target: Geometry, source_mm: float) -> NDArray[np.float64]:
    """Return line integrals, shape (rows, columns) of `target`; rays run along its normal or out of a point before it.

    Plane for plane: rays that meet the centre's plane at p meet the plane at depth d at p scaled by (source + d) / source.
    """
    middle = (target.shape[0] - 1) / 2
    centre = np.asarray(target.position(0)) + (
        np.asarray(target.row) * target.spacing_mm[2] * (target.shape[2] - 1) / 2
        + np.asarray(target.column) * target.spacing_mm[1] * (target.shape[1] - 1) / 2
    )
    total = np.zeros(target.shape[1:], np.float64)
    rows, columns = (
        (np.arange(count) - (count - 1) / 2) * step for count, step in zip(target.shape[1:], target.spacing_mm[1:], strict=True)
    )
    # A ray at an angle goes a longer way through each plane.
    slant = np.sqrt(1 + (rows[:, None] ** 2 + columns[None, :] ** 2) / source_mm**2) if source_mm else 1.0
    for number in range(target.shape[0]):
        depth = (number - middle) * target.spacing_mm[0]
        scale = (source_mm + depth) / source_mm if source_mm else 1.0
        if scale <= 0:
            raise NotApplicable("the source lies within the patient: set it further away")
        spacing = (target.spacing_mm[0], target.spacing_mm[1] * scale, target.spacing_mm[2] * scale)
        origin = (
            centre
            + number * target.spacing_mm[0] * target.normal
            - np.asarray(target.row) * spacing[2] * (target.shape[2] - 1) / 2
            - np.asarray(target.column) * spacing[1] * (target.shape[1] - 1) / 2
        )
        place = (float(origin[0]), float(origin[1]), float(origin[2]))
        plane = Geometry(place, target.row, target.column, spacing, (1, *target.shape[1:]))
        total += resampled(attenuation, source, plane)[0]
    integral: NDArray[np.float64] = total * target.spacing_mm[0] * slant
    return integral
