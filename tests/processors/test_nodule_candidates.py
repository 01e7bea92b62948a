"""`nodule-candidates`: planted nodules are among the candidates."""

from pathlib import Path

import making
import numpy as np
import pytest
import workbench
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.nodule_candidates import nodule_candidates
from processors.scores.nodule_candidates import on_public, score


def test_all_planted_nodules_come_first() -> None:
    """Six of six, before any false one, within a millimetre, diameter within a fifth."""
    scores = score().scores

    assert scores["of them found"] == scores["nodules of 6 to 12 mm"] == 6
    assert scores["rank of the last true one"] == 6
    assert scores["false candidates (ends of vessels)"] <= 4
    assert scores["largest error of place (mm)"] < 1
    assert scores["largest error of diameter (%)"] <= 20


def test_places_are_in_the_report(tmp_path: Path) -> None:
    """Each is a point in the source's frame of reference (DoG, too), marked and pictured; no error of dciodvfy."""
    datasets = phantoms.chest()

    made, marks, picture = workbench.assert_conforms(nodule_candidates, datasets, tmp_path, method="dog", smallest_mm=8, most=3)

    points = _points(made)
    assert all(one.ReferencedFrameOfReferenceUID == datasets[0].FrameOfReferenceUID for one in points)
    places = np.array([[float(v) for v in one.GraphicData] for one in points])
    truth = np.array(next(place for place, diameter in phantoms.NODULES if diameter == 12.0))
    assert np.linalg.norm(places - truth, axis=1).min() < 1
    drawn = [item.GraphicObjectSequence[0].GraphicType for item in marks.GraphicAnnotationSequence]
    assert drawn == ["CIRCLE"] * len(points)
    assert (picture.Rows, picture.Columns) == (160, 160 * len(points))


def test_marks_lie_on_the_slices_of_their_nodules() -> None:
    """The circle's centre is the place, in the nearest image; the thumbnail is bright in its middle, not at its corners."""
    spots, marks, picture = scoring.outputs(nodule_candidates, phantoms.chest(), most=4)

    for spot, mark in zip(spots.spots, marks.marks, strict=True):
        image = spots.series.datasets[mark.image]
        x, y, z = (float(v) for v in image.ImagePositionPatient)
        (row, column), edge = mark.at
        assert abs(z - spot.at_mm[2]) <= 0.75
        assert (x + column * 1.8, y + row * 1.8) == pytest.approx(spot.at_mm[:2], abs=0.02)
        assert (edge[1] - column) * 1.8 == pytest.approx(spot.values[0].value / 2 + 2, abs=0.1)
    (pixels,) = picture.pixels
    for left in range(0, 640, 160):
        assert pixels[75:85, left + 75 : left + 85].mean() > pixels[30:50, left + 30 : left + 50].mean() + 50


def _points(dataset: Dataset) -> list[Dataset]:
    found = []
    for item in dataset.get("ContentSequence") or []:
        if item.get("ValueType") == "SCOORD3D":
            found.append(item)
        found += _points(item)
    return found


def test_a_boxed_nodule_is_the_first_candidate(shared_data: Path, long_run: bool) -> None:
    """On a whole low-dose chest, which takes half a minute: only with --long."""
    if not long_run:
        pytest.skip("only with --long")
    measured = on_public(shared_data)

    assert measured is not None
    assert measured.scores["its rank"] == 1
    assert measured.scores["false candidates"] <= 25


@pytest.mark.parametrize(
    ("datasets", "reason"),
    [
        (lambda: phantoms.read(making.ct_series(4)), "too thick"),
        (lambda: phantoms.bead()[0], "no enclosed lung|not axial|no air|lung"),
    ],
)
def test_what_is_no_thin_chest_is_refused(datasets: object, reason: str) -> None:
    """Thick slices, and a volume without lungs."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(nodule_candidates, datasets())  # type: ignore[operator]
