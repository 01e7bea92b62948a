"""Parametric Maps: 32-bit float pixels with a quantity and a unit (PS3.3 A.75), by highdicom."""

from typing import Any

import highdicom as hd
import numpy as np
from pydicom.sequence import Sequence as DicomSequence

from pacs.processing import headers
from pacs.processing.headers import Made, Provenance
from pacs.processing.outputs import COMPUTED, Map


def parametric_map(output: Map, provenance: Provenance, index: int) -> Made:
    """Write a map; Real World Value Mapping with slope 1, as the stored floats are the values themselves."""
    values = np.ascontiguousarray(output.values, np.float32)
    series, geometry = output.series, output.geometry
    shape = (len(series), int(series.first.Rows), int(series.first.Columns)) if geometry is None else geometry.shape
    if values.shape != shape:
        raise TypeError("Map.values must have the shape of its series, or of its geometry")
    if not np.isfinite(values).all():
        raise TypeError("Map.values must be finite: give what has no value a number of its own, 0 for instance")
    low, high = float(values.min()), float(values.max())
    window = output.window or ((low + high) / 2, max(high - low, 1e-6))
    sources = series.instances
    grid: dict[str, Any] = {}
    if geometry is None:
        values = series.in_stored_order(values)
    else:
        grid = {
            "pixel_measures": hd.PixelMeasuresSequence(
                pixel_spacing=geometry.spacing_mm[1:],
                slice_thickness=geometry.spacing_mm[0],
                spacing_between_slices=geometry.spacing_mm[0],
            ),
            "plane_orientation": hd.PlaneOrientationSequence("PATIENT", [*geometry.row, *geometry.column]),
            "plane_positions": [
                hd.PlanePositionSequence("PATIENT", geometry.position(number)) for number in range(geometry.shape[0])
            ],
        }
    dataset = hd.pm.ParametricMap(
        source_images=[headers.complete(sources[0]), *sources[1:]],
        pixel_array=values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label=output.quantity.value[:16],
                lut_explanation=output.quantity.meaning[:64],
                unit=headers.code_item(output.unit),
                value_range=(low, high),
                slope=1.0,
                intercept=0.0,
                quantity_definition=headers.code_item(output.quantity),
            )
        ],
        voi_lut_transformations=[headers.voi(*window)],
        content_label="MAP",
        content_description=output.description[:64],
        **grid,
        **headers.equipment(provenance, index, sources[0], output.description),
    )
    headers.settle_dimensions(dataset, provenance, index)
    headers.copy_image_attributes(dataset, sources[0])
    headers.put(dataset, "DerivationDescription", provenance.description)
    headers.put(dataset, "DerivationCodeSequence", DicomSequence([headers.code_item(output.derivation or COMPUTED)]))
    headers.finish(dataset, sources[0], provenance)
    return Made(dataset)
