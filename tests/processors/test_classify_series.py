"""`classify-series`: right where it can know, undetermined where it cannot."""

from pathlib import Path

import judges
import making
import numpy as np
import pytest
import workbench
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import Finding, NotApplicable, Report, Run, Series, scoring
from pacs.processing.derive import Provenance, derive
from processors.classify_series import Slice as Cut
from processors.classify_series import (
    classify_series,
    contrast_of,
    plane_of,
    region_of_slices,
    region_of_text,
    view_of,
    weighting_of,
)

SPEC = classify_series.__processor__  # type: ignore[attr-defined]


def findings(datasets: list[Dataset], **given: object) -> dict[str, Finding]:
    (report,) = SPEC.call(Series(datasets), Run(), SPEC.bind(given))
    assert isinstance(report, Report)
    return {one.question.meaning: one for one in report.findings}


def answer(finding: Finding) -> str:
    return finding.answer.meaning if finding.answer is not None else ""


def mr(**overrides: object) -> Series:
    return Series([making.dataset(Modality="MR", SeriesDescription="", StudyDescription="", **overrides)])


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("CHEST", "chest"),
        ("CT Thorax/Abdomen/Pelvis", "chest abdomen pelvis"),
        ("ABDOMENPELVIS", "abdomen pelvis"),
        ("t1_mprage head", "head"),
        ("L-SPINE lat", "spine"),
        ("WB 3D FDG", "whole body"),
        ("LSPINE", "spine"),
        ("series 4", ""),
        ("", ""),
    ],
)
def test_regions_in_words(text: str, region: str) -> None:
    """The longest region that the words name, nothing where they name none."""
    assert region_of_text(text) == region


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        ([1, 0, 0, 0, 1, 0], "Axial"),
        ([1, 0, 0, 0, 0, -1], "Coronal"),
        ([0, 1, 0, 0, 0, -1], "Sagittal"),
        ([1, 0, 0, 0, 0.7071, -0.7071], "Oblique"),
    ],
)
def test_the_plane_is_that_of_the_normal(orientation: list[float], plane: str) -> None:
    """From Image Orientation (Patient) alone."""
    assert answer(plane_of(Series([making.dataset(ImageOrientationPatient=orientation)]))) == plane


@pytest.mark.parametrize(
    ("given", "weighting"),
    [
        ({"ProtocolName": "ax FLAIR"}, "FLAIR"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "Apparent diffusion coefficient"),
        ({"ProtocolName": "ep2d_diff"}, "Diffusion weighted"),
        ({"EchoTime": "12", "RepetitionTime": "500", "ScanningSequence": "SE"}, "T1 weighted"),
        ({"EchoTime": "100", "RepetitionTime": "4000", "ScanningSequence": "SE"}, "T2 weighted"),
        ({"EchoTime": "20", "RepetitionTime": "3000", "ScanningSequence": "SE"}, "PD weighted"),
        ({"EchoTime": "120", "RepetitionTime": "9000", "InversionTime": "2500", "ScanningSequence": ["SE", "IR"]}, "FLAIR"),
        ({"EchoTime": "3", "RepetitionTime": "8", "FlipAngle": "12", "ScanningSequence": "GR"}, "T1 weighted"),
        ({"EchoTime": "25", "RepetitionTime": "600", "FlipAngle": "20", "ScanningSequence": "GR"}, "T2* weighted"),
        ({}, ""),
    ],
)
def test_mr_weighting(given: dict[str, object], weighting: str) -> None:
    """Words first, then echo, repetition and inversion times; undetermined without either."""
    assert answer(weighting_of(mr(**given))) == weighting


@pytest.mark.parametrize(
    ("given", "contrast"),
    [
        ({"ContrastBolusAgent": "OMNIPAQUE"}, "Yes"),
        ({"ContrastBolusAgent": "NONE"}, "No"),
        ({"ProtocolName": "ABD portal venous"}, "Yes"),
        ({"ProtocolName": "CHEST W/O CONTRAST"}, "No"),
        ({}, ""),
    ],
)
def test_contrast(given: dict[str, object], contrast: str) -> None:
    """Named, denied, or unknown: that no agent is named proves nothing."""
    assert answer(contrast_of(mr(**given))) == contrast


def test_views_of_radiographs() -> None:
    """From View Position; undetermined where it is missing."""
    assert answer(view_of(Series([phantoms.radiograph()]))) == "postero-anterior"
    bare = phantoms.radiograph()
    del bare.ViewPosition
    bare.SeriesDescription = bare.StudyDescription = ""
    assert view_of(Series([bare])).answer is None


CHEST, BELLY, HEAD = Cut(600, 350, 0.4, 0.05, 0.1), Cut(600, 340, 0.0, 0.03, 0.3), Cut(200, 150, 0.0, 0.2, 0.05)


@pytest.mark.parametrize(
    ("cuts", "covered_mm", "region"),
    [
        ([CHEST] * 30 + [BELLY] * 3, 330, "chest"),
        ([CHEST] * 20 + [BELLY] * 15, 500, "chest abdomen"),
        ([CHEST] * 15 + [BELLY] * 25, 700, "chest abdomen pelvis"),
        ([HEAD] * 30, 200, "head"),
        ([HEAD] * 5 + [CHEST] * 8 + [BELLY] * 20, 1100, "whole body"),
        ([], 300, ""),
    ],
)
def test_regions_in_slices(cuts: list[Cut], covered_mm: float, region: str) -> None:
    """What slices are made of tells the region, given the length that they cover."""
    assert region_of_slices(cuts, covered_mm)[0] == region


def test_the_pixels_tell_a_chest_without_any_words() -> None:
    """The lung phantom is a chest although its header names no region."""
    datasets, _ = phantoms.lungs()
    for one in datasets:
        one.BodyPartExamined = one.SeriesDescription = one.StudyDescription = ""

    found = findings(phantoms.read(datasets))["Finding Site"]

    assert "chest" in answer(found).casefold()
    assert "slices look like" in found.reason


def test_what_is_too_uncertain_is_undetermined() -> None:
    """Below the certainty asked for there is no answer, but still a reason."""
    found = findings(phantoms.read(making.ct_series(2)), least_certainty=1.0)

    assert all(one.answer is None and one.reason for one in found.values())


def test_the_report_conforms(tmp_path: Path) -> None:
    """A TID 1500 report without dciodvfy errors that says question, answer, certainty and reason."""
    datasets = phantoms.read(making.ct_series(6))
    provenance = Provenance("f" * 64, SPEC.name, SPEC.version, SPEC.bind())

    (made,) = derive(SPEC.call(Series(datasets), Run(), SPEC.bind()), provenance)

    assert judges.errors(judges.written(tmp_path, [made.dataset])[0]) == []
    texts = [
        str(element.value)
        for item in made.dataset.ContentSequence
        for element in item.iterall()
        if element.keyword == "TextValue"
    ]
    assert any("Body Part Examined" in text for text in texts)


def test_real_series_are_recognised(shared_data: Path) -> None:
    """A chest CT is a chest in axial slices; knees and heads of the MR set have the planes that they are named for."""
    chest = [dcmread(path) for path in sorted((shared_data / "ct_chest_nlst101287" / "CT").iterdir())]
    found = findings(chest)
    assert answer(found["Finding Site"]).startswith("Chest")
    assert answer(found["Acquisition Plane"]) == "Axial"
    for folder, plane in (("COR_T_1", "Coronal"), ("SAG_T_1", "Sagittal")):
        series = [dcmread(path) for path in sorted((shared_data / "mr_head_study" / folder).iterdir())]
        found = findings(series)
        assert answer(found["Acquisition Plane"]) == plane
        assert answer(found["MR weighting"]) == "T1 weighted"
        assert np.isfinite(found["MR weighting"].certainty)


@pytest.mark.parametrize("term", ["", "ISO-IR 100"])
def test_an_empty_or_misspelt_character_set_does_not_stop_it(term: str) -> None:
    """Scanners write both; the report goes out as UTF-8."""
    made = workbench.results(classify_series, making.ct_series(3, SpecificCharacterSet=term))

    assert [one.SpecificCharacterSet for one in made] == ["ISO_IR 192"]


def test_objects_without_pixels_are_refused() -> None:
    """Media often hold headers alone."""
    with pytest.raises(NotApplicable, match="no pixels"):
        scoring.outputs(classify_series, making.ct_series(2, PixelData=None, Rows=None))
