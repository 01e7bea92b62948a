"""`threshold`: parts above or below, by Otsu or as given, and what is none of it is refused."""

from pathlib import Path

import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.scores.threshold import score
from processors.threshold import threshold


def test_parts_are_what_lies_beyond_the_threshold() -> None:
    """Lungs below -400 HU; a tube of 300 HU in water by Otsu, its volume within 3 %."""
    scores = score().scores

    assert min(value for name, value in scores.items() if "Dice" in name) > 0.97
    assert 100 < scores["bent tube, by Otsu: threshold (HU; half way is 150)"] < 200
    assert abs(scores["bent tube, by Otsu: error of volume (%)"]) < 3


def test_the_largest_parts_come_first_and_small_ones_not_at_all() -> None:
    """Three spheres of SUV 3 to 10: by size, not by height; what is enclosed is filled where asked for."""
    datasets = phantoms.hot_spheres()

    segmentation, measurements = scoring.outputs(threshold, datasets, method="fixed", level=4000.0, most=5, smallest_ml=2.0)

    volumes = [values[0].value for values in measurements.values.values()]
    assert len(segmentation.segments) >= 2 and volumes == sorted(volumes, reverse=True) and min(volumes) >= 2.0
    hollow, whole = (
        scoring.outputs(threshold, datasets, method="fixed", level=4000.0, side="below", fill=fill)[1].values[1][0].value
        for fill in (False, True)
    )
    assert whole - hollow == pytest.approx(sum(volumes), abs=0.05)


@pytest.mark.parametrize("kind", ["CT", "MR", "PT"])
def test_the_objects_conform(kind: str, tmp_path: Path) -> None:
    """SEG and SR of each modality, no error of dciodvfy, the same again."""
    datasets = {"CT": lambda: phantoms.tube()[0], "MR": lambda: phantoms.head()[0], "PT": phantoms.hot_spheres}[kind]()

    made = workbench.assert_conforms(threshold, datasets, tmp_path)

    assert [one.Modality for one in made] == ["SEG", "SR"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"method": "fixed", "level": 100000.0}, "nothing of at least"), ({"smallest_ml": 10000.0}, "nothing of at least")],
)
def test_nothing_is_no_result(given: dict[str, object], reason: str) -> None:
    """Nothing beyond the threshold, or nothing large enough."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(threshold, phantoms.tube()[0], **given)


def test_radiographs_are_refused() -> None:
    """There is no volume in a projection."""
    with pytest.raises(NotApplicable, match="made for"):
        scoring.outputs(threshold, phantoms.read([phantoms.radiograph()]))
