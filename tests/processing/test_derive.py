"""The one writer: deterministic, conforming, true to its source, and free of what it must not carry."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import highdicom as hd
import judges
import making
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from pacs import phantoms
from pacs.processing import (
    Blending,
    Finding,
    Images,
    Map,
    Mark,
    Measurements,
    Overlay,
    Presentation,
    Probabilities,
    Report,
    Segment,
    Segmentation,
    Series,
    Spot,
    Spots,
    Value,
    codes,
)
from pacs.processing.derive import Made, Provenance, decimal, derive, encode
from pacs.processing.outputs import Output
from pacs.processing.validate import findings

PROVENANCE = Provenance("ab" * 32, "sample", "1.2.3", {"level": 1.5})


def made(outputs: Iterable[Output]) -> list[Made]:
    return list(derive(outputs, PROVENANCE))


def every_kind() -> tuple[list[Dataset], list[Output]]:
    """One output of each kind over a small CT."""
    source = making.ct_series(4)
    marks = Dataset()
    marks.CodeValue, marks.CodingSchemeDesignator, marks.CodeMeaning = "113100", "DCM", "Basic Profile"
    for one in source:
        one.PatientIdentityRemoved = "YES"
        one.DeidentificationMethod = "test"
        one.DeidentificationMethodCodeSequence = DicomSequence([marks])
        one.LongitudinalTemporalInformationModified = "MODIFIED"
        one.BurnedInAnnotation = "NO"
    source = phantoms.read(source)
    series = Series(source)
    labels = np.zeros((4, 64, 64), np.uint8)
    labels[1:3, 20:40, 20:40] = 1
    segmentation = Segmentation(series, labels, {1: Segment("Lung", codes.SCT.Lung)}, "Lungs")
    grid = series.geometry().resized(32, 32)
    smaller = Images(
        [np.zeros((32, 32), np.uint16)] * 4,
        like=source,
        description="Other grid",
        geometry=grid,
        slope=0.5,
        intercept=-1000,
        window=(40, 400),
        image_type="RESAMPLED",
    )
    likely = np.stack([labels * 0.5, labels * 0.25], axis=-1)
    noise = Map(series, series.array(), codes.SCT.Mean, codes.UCUM.HounsfieldUnit, "Numbers", window=(40, 400))
    marks = [
        Mark(0, "circle", [(30, 30), (30, 40)], "here"),
        Mark(1, "polyline", [(1, 1), (1, 9), (9, 9), (1, 1)], is_filled=True),
        Mark(1, "ellipse", [(20, 10), (20, 30), (15, 20), (25, 20)]),
        Mark(2, "point", [(5, 6)]),
        Mark(2, "text", [(7, 8)], "words"),
    ]
    return source, [
        Images([one.pixel_array for one in source], like=source, description="Same grid", rescale_type="US"),
        smaller,
        segmentation,
        Measurements(segmentation, {1: [Value(codes.SCT.Volume, 12.5, codes.UCUM.CubicCentimeter)]}, "Volumes", {1: "note"}),
        Spots(series, [Spot("One", codes.SCT.Nodule, (1.5, -2.5, 10), [], "why")], "Places"),
        Report(series, [Finding(codes.DCM.AcquisitionPlane, codes.SCT.Axial, 0.9, "why")], "What it shows"),
        Overlay(
            [np.full((32, 32, 3), 7, np.uint8)] * 4, sources=[[one] for one in source], description="Picture", geometry=grid
        ),
        Segmentation(series, labels, {1: Segment("Lung", codes.SCT.Lung)}, "Label map", encoding="labelmap"),
        Probabilities(series, likely, [Segment("Lung", codes.SCT.Lung), Segment("Bone", codes.SCT.Bone)], "How likely"),
        noise,
        noise.images(description="Numbers of 16 bits"),
        Map(
            series, np.eye(64, dtype=np.float32)[None].repeat(4, 0), codes.SCT.Mean, codes.UCUM.NoUnits, "Zero to one"
        ).images(),
        Map(series, np.full((4, 32, 32), 0.25), codes.SCT.Mean, codes.UCUM.HounsfieldUnit, "Smaller map", geometry=grid),
        Presentation(series, "Window and marks", window=(-600, 1500), marks=marks),
        Presentation(smaller, "Window", window=(40, 400)),
        Blending(series, smaller, "One over the other", under_window=(40, 400), over_window=(0, 2000)),
    ]


@cache
def all_made() -> list[Made]:
    """What `every_kind` becomes, made once for the tests that only look at it."""
    return made(every_kind()[1])


def test_a_second_run_gives_the_same_bytes() -> None:
    """No clock and no random number: every object of every kind is byte-identical."""
    first = [encode(one.dataset) for one in all_made()]
    second = [encode(one.dataset) for one in made(every_kind()[1])]

    assert first == second
    assert len(first) == 4 + 4 + 1 + 1 + 1 + 1 + 4 + 3 + 4 + 4 + 4


def test_another_job_has_other_uids() -> None:
    """UIDs come from the job's key, the kind and the number, so no two objects share one."""
    here = {str(one.dataset.SOPInstanceUID) for one in all_made()}
    there = {str(one.dataset.SOPInstanceUID) for one in derive(every_kind()[1], Provenance("cd" * 32, "sample", "1", {}))}

    assert len(here) == 31
    assert here.isdisjoint(there)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in here | there)


def test_outside_judges_find_no_error(tmp_path: Path) -> None:
    """dciodvfy has no error for any kind, and dcentvfy none for all of them together with their source."""
    source, _ = every_kind()
    results = [one.dataset for one in all_made()]
    paths = judges.written(tmp_path / "derived", results)

    assert {path.name: judges.errors(path) for path in paths if judges.errors(path)} == {}
    assert judges.errors_together([*judges.written(tmp_path / "source", source), *paths]) == []


def test_the_own_judge_finds_nothing() -> None:
    """Attributes, references, pixels and place of every kind, as they are judged before they may become visible."""
    source, _ = every_kind()
    known = {str(one.SOPInstanceUID) for one in source}
    for one in all_made():
        assert findings(one, encode(one.dataset), known, str(source[0].StudyInstanceUID)) == []
        known.add(str(one.dataset.SOPInstanceUID))


def test_highdicom_opens_them() -> None:
    """What must be read back is: labels, label map, fractions and numbers, each at its place."""
    series = Series(every_kind()[0])
    found = {str(one.dataset.SeriesDescription).removesuffix(" (research use)"): one.dataset for one in all_made()}
    inside = np.zeros((4, 64, 64), bool)
    inside[1:3, 20:40, 20:40] = True
    volume = series.array()

    one_at_a_time = {
        "source_sop_instance_uids": [one.SOPInstanceUID for one in series.datasets],
        "assert_missing_frames_are_empty": True,
    }
    binary = hd.seg.Segmentation.from_dataset(found["Lungs"]).get_pixels_by_source_instance(**one_at_a_time)
    labels = hd.seg.Segmentation.from_dataset(found["Label map"]).get_pixels_by_source_instance(
        combine_segments=True, **one_at_a_time
    )
    likely = hd.seg.Segmentation.from_dataset(found["How likely"]).get_pixels_by_source_instance(**one_at_a_time)
    numbers = hd.pm.ParametricMap.from_dataset(found["Numbers"])

    assert np.array_equal(binary[..., 0], inside)
    assert np.array_equal(labels, inside)
    assert np.allclose(likely, inside[..., None] * [0.5, 0.25], atol=0.5 / 255)
    at = np.linalg.inv(numbers.get_volume_geometry().affine) @ [*series.geometry().position(2), 1]
    assert np.allclose(numbers.get_volume().array[round(at[0])], volume[2])


def test_provenance_is_in_every_object() -> None:
    """Processor, version, parameters, sources, and what it is not for."""
    for one in all_made():
        dataset = one.dataset
        equipment = dataset.ContributingEquipmentSequence[-1]
        assert equipment.ManufacturerModelName == "sample"
        assert equipment.SoftwareVersions == "1.2.3"
        assert equipment.ContributionDescription == '{"level":1.5}'
        assert "research use" in dataset.SeriesDescription
        if "PixelData" in dataset:
            assert "not for diagnosis" in dataset.ImageComments


def test_the_marks_of_deidentification_are_carried_over() -> None:
    """(0012,0062) to (0012,0064), (0028,0303), patient and study are those of the source."""
    source, _ = every_kind()

    for one in all_made():
        for keyword in (
            "PatientIdentityRemoved",
            "DeidentificationMethod",
            "DeidentificationMethodCodeSequence",
            "LongitudinalTemporalInformationModified",
            "PatientID",
            "StudyInstanceUID",
            "StudyDescription",
            "AccessionNumber",
        ):
            assert one.dataset[keyword].value == source[0][keyword].value, keyword


def test_a_source_that_lacks_patient_attributes_can_be_reported_on() -> None:
    """Incomplete objects are in every archive; reports and segmentations of them are made all the same."""
    source = making.ct_series(2)
    for one in source:
        for keyword in ("PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyTime", "ReferringPhysicianName"):
            delattr(one, keyword)
    series = Series(phantoms.read(source))
    finding = Finding(codes.DCM.AcquisitionPlane, None, 0.1, "why not")

    segments = {1: Segment("Lung", codes.SCT.Lung)}
    results = made([Report(series, [finding], "x"), Segmentation(series, np.ones((2, 64, 64), np.uint8), segments, "x")])

    assert all(one.dataset.PatientSex in (None, "") for one in results)


def test_what_must_not_be_carried_over_is_dropped() -> None:
    """Private elements, overlays, old references and statistics of the old pixels."""
    source = making.dataset()
    source.add_new(0x00091010, "LO", "private")
    source.add_new(0x60003000, "OW", b"\0" * 16)
    source.SmallestImagePixelValue = 1
    source.SliceLocation = "5"
    (source,) = phantoms.read([source])

    (one,) = made([Images([source.pixel_array], like=[source], description="x")])

    assert not any(element.tag.is_private or element.tag.group == 0x6000 for element in one.dataset)
    assert "SmallestImagePixelValue" not in one.dataset
    assert "SliceLocation" not in one.dataset
    assert source.SliceLocation == 5, "the source itself is never changed"


def test_dates_are_the_sources() -> None:
    """Nothing is dated now, because a date of processing would undo the shift of dates."""
    for one in all_made():
        assert one.dataset.ContentDate == "20240229"
        for element in one.dataset.iterall():
            if element.VR in ("DA", "DT") and element.value and element.keyword != "PatientBirthDate":
                assert str(element.value).startswith("2024"), element.keyword


def test_a_marker_voxel_keeps_its_place() -> None:
    """Geometry written as decimal strings comes back within a hundredth of a voxel."""
    series = phantoms.read(phantoms.pet_ct()[0])
    grid = Series(series).geometry().resized(48, 48)
    images = [np.zeros((48, 48), np.int16)] * len(series)

    results = made([Images(images, like=series, description="x", geometry=grid)])

    for number, one in enumerate(results):
        assert np.allclose([float(v) for v in one.dataset.ImagePositionPatient], grid.position(number), atol=0.01)


@pytest.mark.parametrize("value", [0.0, 1 / 3, -1234567.891234, 1e-7, 123456789012.5, -0.000123456789])
def test_a_number_fits_a_decimal_string(value: float) -> None:
    """At most 16 characters (PS3.5 6.2), and near the number."""
    assert len(decimal(value)) <= 16
    assert float(decimal(value)) == pytest.approx(value, rel=1e-5)
