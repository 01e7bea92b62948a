"""`classify-series`: right where it can know, undetermined where it cannot."""

from pathlib import Path

import judges
import making
import numpy as np
import pytest
import workbench
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import Finding, NotApplicable, Report, Run, Series, scoring
from pacs.processing.derive import Provenance, derive
from processors.classify_series import classify_series, contrast_of, inversion_of, phase_of, plane_of, symmetry, view_of
from processors.regions import Slice as Cut
from processors.regions import region_of, region_of_slices, region_of_text
from processors.scores.classify_series import on_public, score
from processors.weightings import weighting_of

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
        ("EXTREMITY", "extremity"),
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
        ({"EchoTime": "194", "RepetitionTime": "4000", "InversionTime": "1400", "ScanningSequence": ["SE", "IR"]}, "FLAIR"),
        ({"EchoTime": "40", "RepetitionTime": "4000", "InversionTime": "160", "ScanningSequence": ["SE", "IR"]}, "STIR"),
        ({"EchoTime": "6", "RepetitionTime": "12", "ScanningSequence": "SE"}, ""),
        (
            {"ProtocolName": "T/S/C FAST PILOT", "EchoTime": "12.5", "RepetitionTime": "30", "ScanningSequence": "GR"},
            "Localizer",
        ),
        ({"ProtocolName": "SAG T-1"}, "T1 weighted"),
        ({"ProtocolName": "sag T12"}, ""),
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


@pytest.mark.parametrize(
    ("given", "phase"),
    [
        ({"ProtocolName": "ABD portal"}, "Portal venous"),
        ({"ProtocolName": "THX ART / AP PORT / TARDIF"}, ""),
        ({"ContrastBolusAgent": "NONE"}, "Without contrast"),
        ({"ContrastBolusStartTime": "120000", "AcquisitionTime": "120028.5"}, "Arterial"),
        ({"ContrastBolusStartTime": "115930", "AcquisitionTime": "120040"}, "Portal venous"),
        ({"ContrastBolusStartTime": "120000", "AcquisitionTime": "120050"}, ""),
        ({"StudyDescription": "LUNG DELAYS"}, ""),
    ],
)
def test_the_phase_of_contrast(given: dict[str, str], phase: str) -> None:
    """From the series' own words or the seconds since the injection; several phases, or a time between two, are none."""
    assert answer(phase_of(Series([making.dataset(**{"SeriesDescription": "", **given})]))) == phase


def test_an_inverted_radiograph_has_bright_corners() -> None:
    """Air beside the body is dark as shown; where corners differ, nothing is said."""
    body = np.zeros((200, 160), np.float32)
    body[20:180, 15:145] = 1000
    series = Series([phantoms.radiograph()])
    assert [answer(inversion_of(series, one)) for one in (body, 1000 - body)] == ["No", "Yes"]
    body[:100] += 2000
    assert inversion_of(series, body).answer is None


def test_a_symmetric_chest_is_frontal() -> None:
    """Where neither View Position nor words tell, and only of chests."""
    y, x = np.mgrid[:200, :160].astype(np.float32)
    chest = 1000 - 700 * (np.hypot((np.abs(x - 80) - 35) / 25, (y - 100) / 70) < 1) + y
    one = phantoms.radiograph()
    del one.ViewPosition
    one.SeriesDescription, one.StudyDescription = "CHEST", ""
    assert symmetry(chest) > 0.95
    assert answer(view_of(Series([one]), chest)) == "Frontal"
    assert view_of(Series([one]), np.where(x < 60, chest, 3 * y)).answer is None
    one.BodyPartExamined = "KNEE"
    assert view_of(Series([one]), chest).answer is None


CHEST, BELLY = Cut(600, 350, 0.4, 0.05, 0.1), Cut(600, 340, 0.0, 0.03, 0.3)
HEAD, NECK, LIMB = Cut(200, 150, 0, 0.2, 0.05, skull=0.9), Cut(120, 120, 0, 0.1, 0.2, air=0.02), Cut(120, 120, 0, 0.1, 0.2)
CUT, WATER = Cut(300, 200, 0.0, 0.03, 0.3, cut=0.5), Cut(300, 200, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("cuts", "covered_mm", "region"),
    [
        ([CHEST] * 30 + [BELLY] * 3, 330, "chest"),
        ([CHEST] * 20 + [BELLY] * 15, 500, "chest abdomen"),
        ([CHEST] * 15 + [BELLY] * 25, 700, "chest abdomen pelvis"),
        ([HEAD] * 30, 200, "head"),
        ([HEAD] * 5 + [CHEST] * 8 + [BELLY] * 20, 1100, "whole body"),
        ([NECK] * 30, 200, "neck"),
        ([LIMB] * 30, 200, "extremity"),
        ([CUT] * 30, 200, ""),
        ([WATER] * 30, 200, ""),
        ([], 300, ""),
    ],
)
def test_regions_in_slices(cuts: list[Cut], covered_mm: float, region: str) -> None:
    """What slices are made of tells the region, given the length that they cover."""
    assert region_of_slices(cuts, covered_mm)[0] == region


def test_words_that_the_pixels_contradict_are_no_answer() -> None:
    """A slice through the kidneys in a series of the lungs; a part of what is seen is no contradiction."""
    lung = Series([making.dataset(BodyPartExamined="LUNG")])
    thigh = Series([making.dataset(BodyPartExamined="THIGH")])

    assert region_of(lung, [BELLY]).answer is None
    assert answer(region_of(lung, [CHEST])) == "Chest"
    assert answer(region_of(thigh, [LIMB])) == "Thigh"


def test_a_protocol_for_the_whole_body_does_not_make_one() -> None:
    """Of a short stack and of a localizer the words say nothing; a long one is more than a chest."""
    short = making.ct_series(3, BodyPartExamined="", SeriesDescription="", StudyDescription="", ProtocolName="WB FDG")
    scout = making.dataset(BodyPartExamined="", ProtocolName="WB", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    long = making.ct_series(2, BodyPartExamined="CHEST")
    long[1].ImagePositionPatient = [0, 0, 900]

    assert [region_of(Series(one), ()).answer for one in (short, [scout], long)] == [None, None, None]


def test_phantoms_without_names() -> None:
    """What their pixels show is told, a lost rescale is noticed, and nothing is wrong."""
    scores = score().scores

    assert scores["right"] >= 9
    assert scores["wrong"] == 0


def test_nothing_wrong_is_certain_on_public_series(shared_data: Path) -> None:
    """Over all of them: no wrong answer with a certainty over 0.9, at most two wrong ones, four of five right."""
    measured = on_public(shared_data)

    assert measured is not None
    assert measured.scores["wrong with a certainty over 0.9"] == 0
    assert measured.scores["wrong"] <= 2
    assert measured.scores["right"] >= 0.8 * measured.scores["questions"]


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


@pytest.mark.parametrize("term", ["", "ISO-IR 100"])
def test_an_empty_or_misspelt_character_set_does_not_stop_it(term: str) -> None:
    """Scanners write both; the report goes out as UTF-8."""
    made = workbench.results(classify_series, making.ct_series(3, SpecificCharacterSet=term))

    assert [one.SpecificCharacterSet for one in made] == ["ISO_IR 192"]


def test_objects_without_pixels_are_refused() -> None:
    """Media often hold headers alone."""
    with pytest.raises(NotApplicable, match="no pixels"):
        scoring.outputs(classify_series, making.ct_series(2, PixelData=None, Rows=None))
