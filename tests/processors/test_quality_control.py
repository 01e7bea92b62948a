"""`quality-control`: every planted defect is named, a clean series passes."""

from pathlib import Path

import making
import pytest
import workbench
from pydicom import dcmread

from pacs import phantoms
from pacs.phantoms.defects import moving
from pacs.processing import NotApplicable, scoring
from processors.quality_control import DEFECT, FINE, quality_control
from processors.scores.quality_control import PUBLIC, score


def test_every_planted_defect_is_found_and_nothing_else() -> None:
    """Ten defects, one at a time: each named, no other named beside it, none in the clean series."""
    scores = score().scores

    assert scores["of them found"] == scores["defects planted"] == 10
    assert scores["defects found in the clean series"] == 0
    assert scores["further defects found beside the planted ones"] == 0


def test_how_many_are_missing_is_told() -> None:
    """The reason counts slices, and never quotes the header."""
    datasets = phantoms.tissue(frames=8)[0]

    (report,) = scoring.outputs(quality_control, [*datasets[:2], *datasets[4:]])

    missing = next(one for one in report.findings if one.question.meaning == "Missing slices")
    assert missing.reason.startswith("2 missing in 1 gaps")
    assert not [text for text in making.PLANTED for one in report.findings if text in one.reason]


def test_what_cannot_be_known_has_no_answer() -> None:
    """One radiograph has no stack; two slices tell nothing about spacing."""
    (report,) = scoring.outputs(quality_control, phantoms.read(making.ct_series(2)))

    answers = {one.question.meaning: one.answer for one in report.findings}
    assert answers["Missing slices"] is None and answers["Spacing of slices"] is None


@pytest.mark.parametrize("kind", ["CT", "MR", "PT", "CR"])
def test_the_report_conforms(kind: str, tmp_path: Path) -> None:
    """The SR of each modality passes dciodvfy and is the same again."""
    datasets = {
        "CT": lambda: phantoms.tissue(frames=3)[0],
        "MR": lambda: phantoms.head()[0][:6],
        "PT": lambda: phantoms.hot_spheres()[:6],
        "CR": lambda: phantoms.read([phantoms.radiograph()]),
    }[kind]()

    (report,) = workbench.assert_conforms(quality_control, datasets, tmp_path)

    assert report.Modality == "SR"


def test_small_motion_is_not_a_defect_and_a_chest_stands_still() -> None:
    """A chest of 90 slices has none; every other slice 4 mm aside is motion, whatever the anatomy does from slice to slice."""
    for datasets, answer in ((phantoms.chest(), FINE), (moving(phantoms.chest(), 4.0), DEFECT)):
        (report,) = scoring.outputs(quality_control, datasets)
        assert next(one for one in report.findings if one.question.meaning == "Motion between slices").answer is answer


def test_other_modalities_are_refused() -> None:
    """Ultrasound is not what it knows."""
    with pytest.raises(NotApplicable, match="made for"):
        scoring.outputs(quality_control, [making.dataset(Modality="US")])


@pytest.mark.parametrize(("name", "question"), [("tilted CT", "Tilted gantry"), ("FLAIR with gaps", "Missing slices")])
def test_public_series_with_defects_are_found_out(name: str, question: str, shared_data: Path) -> None:
    """A tilted gantry, and slices left out."""
    (report,) = scoring.outputs(quality_control, [dcmread(path) for path in sorted(shared_data.glob(PUBLIC[name]))])

    assert next(one for one in report.findings if one.question.meaning == question).answer is DEFECT
