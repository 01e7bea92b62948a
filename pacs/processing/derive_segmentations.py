"""Segmentations: binary and fractional (PS3.3 A.51), and label maps (A.51 with Segmentation Type LABELMAP), by highdicom.

highdicom stamps the time and draws random UIDs for dimensions; both are replaced, so that a second run gives the same bytes.
"""

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs.processing import headers
from pacs.processing.concepts import Code
from pacs.processing.headers import Made, Provenance
from pacs.processing.outputs import Probabilities, Segment, Segmentation
from pacs.processing.series import Series

STEPS = 255
"""Maximum Fractional Value (0062,000E)."""


def segmentation(output: Segmentation, provenance: Provenance, index: int) -> Made:
    """Write labels; frames without any label are left out."""
    labels = output.array()
    _check_shape(labels, output.series, "Segmentation.labels")
    if output.encoding not in ("binary", "labelmap"):
        raise TypeError("Segmentation.encoding is binary or labelmap")
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *output.segments})
    if unknown:
        raise TypeError(f"Segmentation.labels has a label without a segment: {unknown[0]}")
    kind = hd.seg.SegmentationTypeValues(output.encoding.upper())
    dataset = _write(output.series, labels, kind, output.segments, output.description, provenance, index)
    return Made(dataset)


def probabilities(output: Probabilities, provenance: Provenance, index: int) -> Made:
    """Write fractions of 255; frames that are zero throughout are left out."""
    values = np.asarray(output.values, np.float32)
    if values.ndim == 3:
        values = values[..., None]
    _check_shape(values[..., 0], output.series, "Probabilities.values")
    if values.shape[-1] != len(output.segments):
        raise TypeError("Probabilities.values needs one last axis entry for each segment")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise TypeError("Probabilities.values lie between 0 and 1")
    fraction = "OCCUPANCY" if output.occupancy else "PROBABILITY"
    segments = dict(enumerate(output.segments, 1))
    kind = hd.seg.SegmentationTypeValues.FRACTIONAL
    dataset = _write(output.series, values, kind, segments, output.description, provenance, index, fraction)
    return Made(dataset)


def _check_shape(planes: NDArray[Any], series: Series, name: str) -> None:
    if planes.shape != (len(series), int(series.first.Rows), int(series.first.Columns)):
        raise TypeError(f"{name} must have the shape of its series")


def _write(
    series: Series,
    planes: NDArray[Any],
    kind: hd.seg.SegmentationTypeValues,
    segments: Any,
    description: str,
    provenance: Provenance,
    index: int,
    fraction: str = "PROBABILITY",
) -> Dataset:
    sources = series.instances
    dataset = hd.seg.Segmentation(
        source_images=[headers.complete(sources[0]), *sources[1:]],
        pixel_array=series.in_stored_order(planes),
        segmentation_type=kind,
        fractional_type=hd.seg.SegmentationFractionalTypeValues(fraction),
        max_fractional_value=STEPS,
        segment_descriptions=_descriptions(segments, provenance, index),
        content_label="SEGMENTATION",
        content_description=description[:64],
        omit_empty_frames=True,
        **headers.equipment(provenance, index, sources[0], description),
    )
    headers.settle_dimensions(dataset, provenance, index)
    headers.copy_image_attributes(dataset, sources[0])
    headers.finish(dataset, sources[0], provenance)
    return dataset


def _descriptions(segments: Any, provenance: Provenance, index: int) -> Sequence[hd.seg.SegmentDescription]:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=provenance.processor,
        version=provenance.version,
        family=headers.code_item(Code("113076", "DCM", "Segmentation")),
        parameters={key: str(value) for key, value in provenance.parameters.items()},
        source=headers.MANUFACTURER,
    )
    return [_description(number, segment, algorithm, provenance, index) for number, segment in sorted(segments.items())]


def _description(
    number: int, segment: Segment, algorithm: hd.AlgorithmIdentificationSequence, provenance: Provenance, index: int
) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=headers.code_item(segment.category),
        segmented_property_type=headers.code_item(segment.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=provenance.uid("segment", index, number),
        tracking_id=segment.label,
        display_color=hd.color.CIELabColor.from_rgb(*segment.color_rgb),
    )
