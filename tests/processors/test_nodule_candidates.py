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
from processors.scores.nodule_candidates import score


def test_all_planted_nodules_come_first() -> None:
    """Six of six, before any false one, within a millimetre, diameter within a fifth."""
    scores = score().scores

    assert scores["of them found"] == scores["nodules of 6 to 12 mm"] == 6
    assert scores["rank of the last true one"] == 6
    assert scores["false candidates (ends of vessels)"] <= 4
    assert scores["largest error of place (mm)"] < 1
    assert scores["largest error of diameter (%)"] <= 20


def test_places_are_in_the_report(tmp_path: Path) -> None:
    """Each is a point in the source's frame of reference (DoG, too); no error of dciodvfy."""
    datasets = phantoms.chest()

    (made,) = workbench.assert_conforms(nodule_candidates, datasets, tmp_path, method="dog", smallest_mm=8, most=3)

    points = _points(made)
    assert all(one.ReferencedFrameOfReferenceUID == datasets[0].FrameOfReferenceUID for one in points)
    places = np.array([[float(v) for v in one.GraphicData] for one in points])
    truth = np.array(next(place for place, diameter in phantoms.NODULES if diameter == 12.0))
    assert np.linalg.norm(places - truth, axis=1).min() < 1


def _points(dataset: Dataset) -> list[Dataset]:
    found = []
    for item in dataset.get("ContentSequence") or []:
        if item.get("ValueType") == "SCOORD3D":
            found.append(item)
        found += _points(item)
    return found


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
