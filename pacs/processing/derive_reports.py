"""Structured reports: Comprehensive 3D SR after TID 1500 (PS3.16), by highdicom.

highdicom stamps the time; it is replaced, so that a second run gives the same bytes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset

from pacs.processing import headers
from pacs.processing.concepts import Code, codes
from pacs.processing.enhanced import Frame
from pacs.processing.headers import Made, Provenance
from pacs.processing.outputs import Finding, Measurements, Report, Spots, Value, private_code
from pacs.processing.series import Series

IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
UNDETERMINED = private_code("UNDETERMINED", "Undetermined")
PERCENT = Code("%", "UCUM", "Percent")
_OF_REPORTS = {
    "series_instance_uid",
    "series_number",
    "sop_instance_uid",
    "instance_number",
    "manufacturer",
    "series_description",
}


def measurements(output: Measurements, provenance: Provenance, index: int, of_index: int, segmented: Dataset) -> Made:
    """Write numbers per segment: TID 1411, Volumetric ROI Measurements."""
    source = output.of.series.first
    algorithm = sr.AlgorithmIdentification(name=provenance.processor, version=provenance.version)
    groups = []
    for number, values in sorted(output.values.items()):
        segment = output.of.segments[number]
        # `ReferencedSegment.from_segmentation` fails for SEG of one segment; built by hand it is the same (TID 1411).
        reference = sr.ReferencedSegment(
            sop_class_uid=segmented.SOPClassUID,
            sop_instance_uid=segmented.SOPInstanceUID,
            segment_number=number,
            source_series=sr.SourceSeriesForSegmentation(referenced_series_instance_uid=source.SeriesInstanceUID),
        )
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=reference,
            tracking_identifier=sr.TrackingIdentifier(
                uid=_tracking_uid(provenance, of_index, number), identifier=segment.label
            ),
            finding_type=headers.code_item(segment.type),
            algorithm_id=algorithm,
            measurements=[_measurement(one) for one in values],
        )
        if number in output.comments:
            _comment(group, output.comments[number])
        groups.append(group)
    return _report(groups, output.description, output.of.series, [segmented], provenance, index)


def report(output: Report, provenance: Provenance, index: int) -> Made:
    """Write findings: TID 1501 groups, each with a qualitative evaluation, its certainty, and the reasons as a comment."""
    groups = list(_finding_groups(output, provenance, index))
    return _report(groups, output.description, output.series, [], provenance, index)


def spots(output: Spots, provenance: Provenance, index: int) -> Made:
    """Write places: TID 1410 groups, each with a point in the source's frame of reference."""
    frame_of_reference = output.series.text("FrameOfReferenceUID")
    if not frame_of_reference:
        raise TypeError("Spots need a series with a frame of reference")
    algorithm = sr.AlgorithmIdentification(name=provenance.processor, version=provenance.version)
    groups = []
    for number, spot in enumerate(output.spots):
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=provenance.uid("tracking", index, number), identifier=spot.label),
            referenced_region=sr.ImageRegion3D(
                graphic_type=sr.GraphicTypeValues3D.POINT,
                graphic_data=np.array([spot.at_mm], np.float32),
                frame_of_reference_uid=frame_of_reference,
            ),
            finding_type=headers.code_item(spot.finding),
            algorithm_id=algorithm,
            measurements=[_measurement(one) for one in spot.values],
        )
        if spot.comment:
            _comment(group, spot.comment)
        groups.append(group)
    return _report(groups, output.description, output.series, [], provenance, index)


def _finding_groups(output: Report, provenance: Provenance, index: int) -> Iterator[sr.MeasurementsAndQualitativeEvaluations]:
    algorithm = sr.AlgorithmIdentification(name=provenance.processor, version=provenance.version)
    source = _source_image(output.series.first)
    for number, finding in enumerate(output.findings):
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=provenance.uid("tracking", index, number), identifier=finding.question.meaning
            ),
            algorithm_id=algorithm,
            measurements=[
                _measurement(Value(codes.DCM.CertaintyOfFinding, round(100 * _bounded(finding.certainty), 1), PERCENT))
            ],
            qualitative_evaluations=[
                sr.QualitativeEvaluation(
                    name=headers.code_item(finding.question),
                    value=headers.code_item(UNDETERMINED if finding.answer is None else finding.answer),
                )
            ],
            source_images=[source],
        )
        _comment(group, _reason(finding))
        yield group


def _report(
    groups: Sequence[sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations],
    description: str,
    series: Series,
    more_evidence: Sequence[Dataset],
    provenance: Provenance,
    index: int,
) -> Made:
    first = series.instances[0]
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=provenance.uid("device"),
        manufacturer_name=headers.MANUFACTURER,
        model_name=f"{provenance.processor} {provenance.version}",
    )
    observer = sr.ObserverContext(observer_type=headers.code_item(codes.DCM.Device), observer_identifying_attributes=device)
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=headers.code_item(IMAGING_PROCEDURE),
        imaging_measurements=list(groups),
        title=headers.code_item(codes.DCM.ImagingMeasurementReport),
    )
    equipment = headers.equipment(provenance, index, first, description)
    dataset = sr.Comprehensive3DSR(
        evidence=[headers.complete(first), *series.instances[1:], *more_evidence],
        content=content,
        is_complete=True,
        is_verified=False,
        is_final=False,
        **{key: value for key, value in equipment.items() if key in _OF_REPORTS},
    )
    headers.put(dataset, "ManufacturerModelName", provenance.processor)
    headers.put(dataset, "SoftwareVersions", provenance.version)
    headers.finish(dataset, first, provenance)
    return Made(dataset)


def _measurement(value: Value) -> sr.Measurement:
    return sr.Measurement(
        name=headers.code_item(value.name),
        value=value.value,
        unit=headers.code_item(value.unit),
        derivation=None if value.derivation is None else headers.code_item(value.derivation),
    )


def _source_image(dataset: Dataset) -> sr.SourceImageForMeasurementGroup:
    whole = headers.whole_of(dataset)
    return sr.SourceImageForMeasurementGroup(
        referenced_sop_class_uid=str(whole.SOPClassUID),
        referenced_sop_instance_uid=str(whole.SOPInstanceUID),
        referenced_frame_numbers=[dataset.number] if isinstance(dataset, Frame) else None,
    )


def _comment(group: sr.MeasurementsAndQualitativeEvaluations, text: str) -> None:
    # TID 1501 and 1411 are extensible; (121106, DCM, "Comment") is what TID 1400 uses for words.
    name = headers.code_item(codes.DCM.Comment)
    item = sr.TextContentItem(name=name, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    group[0].ContentSequence.append(item)


def _reason(finding: Finding) -> str:
    return finding.reason or "no reason given"


def _tracking_uid(provenance: Provenance, index: int, number: int) -> str:
    return provenance.uid("segment", index, number)


def _bounded(value: float) -> float:
    return min(max(float(value), 0.0), 1.0)
