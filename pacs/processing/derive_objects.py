"""Segmentations and structured reports, by highdicom: SEG BINARY (PS3.3 A.51) and Comprehensive 3D SR, TID 1500 (PS3.16).

highdicom stamps the time and draws random UIDs for dimensions; both are replaced, so that a second run gives the same bytes.
"""

from collections.abc import Iterator, Sequence

import highdicom as hd
import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pacs.processing import derive, standard
from pacs.processing.outputs import Finding, Measurements, Report, Segmentation, Spots, private_code
from pacs.processing.series import Series

IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
UNDETERMINED = private_code("UNDETERMINED", "Undetermined")
PERCENT = Code("%", "UCUM", "Percent")


def segmentation(output: Segmentation, provenance: derive.Provenance, index: int) -> derive.Made:
    """Write a Segmentation; frames without any label are left out."""
    labels = output.array()
    sources = output.series.datasets
    if labels.shape != (len(sources), int(sources[0].Rows), int(sources[0].Columns)):
        raise TypeError("Segmentation.labels must have the shape of its series")
    algorithm = hd.AlgorithmIdentificationSequence(
        name=provenance.processor,
        version=provenance.version,
        family=Code("113076", "DCM", "Segmentation"),
        parameters={key: str(value) for key, value in provenance.parameters.items()},
        source=derive.MANUFACTURER,
    )
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.label,
            segmented_property_category=segment.category,
            segmented_property_type=segment.type,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=_tracking_uid(provenance, index, number),
            tracking_id=segment.label,
            display_color=hd.color.CIELabColor.from_rgb(*segment.color_rgb),
        )
        for number, segment in sorted(output.segments.items())
    ]
    dataset = hd.seg.Segmentation(
        source_images=[_complete(sources[0]), *sources[1:]],
        pixel_array=labels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=provenance.uid("series", index),
        series_number=derive.series_number(sources[0], index),
        sop_instance_uid=provenance.uid("instance", index, 0),
        instance_number=1,
        manufacturer=derive.MANUFACTURER,
        manufacturer_model_name=provenance.processor,
        software_versions=provenance.version,
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description=output.description[:64],
        series_description=derive.series_description(output.description),
        omit_empty_frames=True,
    )
    organization = provenance.uid("dimensions", index)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    for keyword in derive.IMAGE_ATTRIBUTES:
        if keyword in sources[0] and keyword != "PatientPosition":
            dataset[keyword] = sources[0][keyword]
    _finish(dataset, sources[0], provenance)
    return derive.Made(dataset)


def measurements(
    output: Measurements, provenance: derive.Provenance, index: int, of_index: int, segmented: Dataset
) -> derive.Made:
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
            finding_type=segment.type,
            algorithm_id=algorithm,
            measurements=[
                sr.Measurement(name=one.name, value=one.value, unit=one.unit, derivation=one.derivation) for one in values
            ],
        )
        if number in output.comments:
            _comment(group, output.comments[number])
        groups.append(group)
    return _report(groups, output.description, output.of.series, [segmented], provenance, index)


def report(output: Report, provenance: derive.Provenance, index: int) -> derive.Made:
    """Write findings: TID 1501 groups, each with a qualitative evaluation, its certainty, and the reasons as a comment."""
    groups = list(_finding_groups(output, provenance, index))
    return _report(groups, output.description, output.series, [], provenance, index)


def spots(output: Spots, provenance: derive.Provenance, index: int) -> derive.Made:
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
            finding_type=spot.finding,
            algorithm_id=algorithm,
            measurements=[
                sr.Measurement(name=one.name, value=one.value, unit=one.unit, derivation=one.derivation) for one in spot.values
            ],
        )
        if spot.comment:
            _comment(group, spot.comment)
        groups.append(group)
    return _report(groups, output.description, output.series, [], provenance, index)


def _finding_groups(
    output: Report, provenance: derive.Provenance, index: int
) -> Iterator[sr.MeasurementsAndQualitativeEvaluations]:
    algorithm = sr.AlgorithmIdentification(name=provenance.processor, version=provenance.version)
    source = sr.SourceImageForMeasurementGroup.from_source_image(output.series.first)
    for number, finding in enumerate(output.findings):
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=provenance.uid("tracking", index, number), identifier=finding.question.meaning
            ),
            algorithm_id=algorithm,
            measurements=[
                sr.Measurement(
                    name=codes.DCM.CertaintyOfFinding, value=round(100 * _bounded(finding.certainty), 1), unit=PERCENT
                )
            ],
            qualitative_evaluations=[
                sr.QualitativeEvaluation(
                    name=finding.question, value=UNDETERMINED if finding.answer is None else finding.answer
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
    provenance: derive.Provenance,
    index: int,
) -> derive.Made:
    first = series.first
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=provenance.uid("device"),
        name=provenance.processor,
        manufacturer_name=derive.MANUFACTURER,
        model_name=f"{provenance.processor} {provenance.version}",
    )
    observer = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=IMAGING_PROCEDURE,
        imaging_measurements=list(groups),
        title=codes.DCM.ImagingMeasurementReport,
    )
    dataset = sr.Comprehensive3DSR(
        evidence=[_complete(first), *series.datasets[1:], *more_evidence],
        content=content,
        series_instance_uid=provenance.uid("series", index),
        series_number=derive.series_number(first, index),
        sop_instance_uid=provenance.uid("instance", index, 0),
        instance_number=1,
        manufacturer=derive.MANUFACTURER,
        is_complete=True,
        is_verified=False,
        is_final=False,
        series_description=derive.series_description(description),
    )
    derive.put(dataset, "ManufacturerModelName", provenance.processor)
    derive.put(dataset, "SoftwareVersions", provenance.version)
    _finish(dataset, first, provenance)
    return derive.Made(dataset)


def _complete(first: Dataset) -> Dataset:
    """The source with what highdicom reads of it and incomplete objects lack: patient and study attributes, empty."""
    complete = Dataset()
    complete.update({element.tag: element for element in first if element.keyword != "PixelData"})
    for module in ("patient", "general-study"):
        for keyword, kind, path in standard.attributes(module):
            if kind == "2" and not path and keyword not in complete:
                derive.put(complete, keyword, None)
    # An empty or misspelt term is common, and highdicom refuses it; the text is decoded by now and goes out as UTF-8.
    terms = complete.get("SpecificCharacterSet") or [""]
    known = {term.value for term in hd.SpecificCharacterSetValues}
    if not {str(term) for term in ([terms] if isinstance(terms, str) else terms)} <= known:
        complete.SpecificCharacterSet = "ISO_IR 192"
    return complete


def _finish(dataset: Dataset, source: Dataset, provenance: derive.Provenance) -> None:
    charset = dataset.get("SpecificCharacterSet")
    derive.copy_shared(dataset, source)
    if charset:
        derive.put(dataset, "SpecificCharacterSet", charset)
    date, time = derive.content_moment(source)
    for keyword, value in (
        ("ContentDate", date),
        ("ContentTime", time),
        ("SeriesDate", source.get("SeriesDate")),
        ("SeriesTime", source.get("SeriesTime")),
    ):
        if value or keyword.startswith("Content"):
            derive.put(dataset, keyword, value)
        elif keyword in dataset:
            del dataset[keyword]
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID", "ContributingEquipmentSequence"):
        if keyword in dataset:
            del dataset[keyword]
    derive.stamp(dataset, provenance, image="PixelData" in dataset)
    derive.fill_type_2(dataset)


def _comment(group: sr.MeasurementsAndQualitativeEvaluations, text: str) -> None:
    # TID 1501 and 1411 are extensible; (121106, DCM, "Comment") is what TID 1400 uses for words.
    item = sr.TextContentItem(name=codes.DCM.Comment, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    group[0].ContentSequence.append(item)


def _reason(finding: Finding) -> str:
    return finding.reason or "no reason given"


def _tracking_uid(provenance: derive.Provenance, index: int, number: int) -> str:
    return provenance.uid("segment", index, number)


def _bounded(value: float) -> float:
    return min(max(float(value), 0.0), 1.0)
