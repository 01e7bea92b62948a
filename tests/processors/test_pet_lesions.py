"""`pet-lesions`: spheres of known SUV."""

from pathlib import Path

import pytest
import workbench

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from pacs.processing.scoring import Scores
from processors.pet_lesions import pet_lesions
from processors.scores.pet_lesions import on_public, score


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score().scores


def test_each_sphere_is_found_once(scores: Scores) -> None:
    """Three above 2.5, two above 4, three at 41 %; SUVmax exact, SUVpeak within 5 % even when blurred."""
    for sharpness in ("sharp", "blurred by 6 mm"):
        assert [scores[f"{sharpness}, {name}: lesions"] for name in ("SUV 2.5", "SUV 4", "41 %")] == [3, 2, 3]
    assert max(value for name, value in scores.items() if "SUVmax" in name) <= 0.1
    assert max(value for name, value in scores.items() if "SUVpeak" in name) < 5


def test_sharp_spheres_have_their_volume(scores: Scores) -> None:
    """Within what voxels of 4 mm make of a sphere of 14 mm."""
    assert max(value for name, value in scores.items() if name.startswith("sharp") and "volume" in name) < 12


def test_numbers_agree_with_each_other() -> None:
    """TLG is volume times mean; lesions are sorted by their maximum."""
    _, measurements = scoring.outputs(pet_lesions, phantoms.hot_spheres(fwhm_mm=6), suv=2.5)

    maxima = []
    for volume, largest, mean, peak, tlg in measurements.values.values():
        assert tlg.value == pytest.approx(volume.value * mean.value, rel=1e-3)
        assert mean.value <= peak.value <= largest.value
        maxima.append(largest.value)
    assert maxima == sorted(maxima, reverse=True)


def test_percist_asks_for_the_liver() -> None:
    """Without a liver it is refused; with one, the threshold is 1.5 mean + 2 SD and the peak must reach it."""
    with pytest.raises(NotApplicable, match="liver"):
        scoring.outputs(pet_lesions, phantoms.hot_spheres(), method="percist")

    _, measurements = scoring.outputs(pet_lesions, phantoms.hot_spheres(), method="percist", liver_mean=2.4, liver_sd=0.3)

    assert len(measurements.values) == 2  # above 4.2


def test_percist_measures_the_liver_where_it_is_told() -> None:
    """A sphere of 3 cm about a point of the background, SUV 1 without spread, gives a threshold of 1.5; by lean weight less."""
    segmentation, _ = scoring.outputs(pet_lesions, phantoms.hot_spheres(), method="percist", liver_at="0,45,50")
    assert segmentation.description == "Hot lesions (SUV 1.5)" and len(segmentation.segments) == 3
    datasets = phantoms.hot_spheres()
    for one in datasets:
        one.PatientSize = "1.8"
    segmentation, measurements = scoring.outputs(pet_lesions, datasets, method="percist", liver_at="0,45,50", by="lbm")
    assert len(segmentation.segments) == 3
    assert {one.unit.value for one in measurements.values[1][1:4]} == {"g/ml{SUVlbm(Janma)}"}
    with pytest.raises(NotApplicable, match="not wholly within"):
        scoring.outputs(pet_lesions, phantoms.hot_spheres(), method="percist", liver_at="0,45,500")


def test_the_objects_conform(tmp_path: Path) -> None:
    """SEG and SR, no error of dciodvfy, the same again."""
    made = workbench.assert_conforms(pet_lesions, phantoms.hot_spheres(), tmp_path, method="percent", suv=2.5)

    assert [one.Modality for one in made] == ["SEG", "SR"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"CorrectedImage": ["DECY"]}, "attenuation"),
        ({"PatientWeight": ""}, "no SUV"),
        ({"Units": "CNTS"}, "no SUV"),
        ({"Modality": "CT"}, "made for PET"),
    ],
)
def test_what_has_no_suv_is_refused(change: dict[str, object], reason: str) -> None:
    """Attenuation correction, weight and units must be there."""
    datasets = phantoms.hot_spheres()
    for one in datasets:
        for keyword, value in change.items():
            setattr(one, keyword, value)

    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(pet_lesions, datasets)


def test_nothing_hot_is_refused_with_a_reason() -> None:
    """An empty segmentation is no result."""
    with pytest.raises(NotApplicable, match="nothing of at least"):
        scoring.outputs(pet_lesions, phantoms.hot_spheres(), suv=20)


def test_a_sarcoma_is_bounded_as_its_readers_drew_it(shared_data: Path) -> None:
    """Dice over 0.65 at SUV 2.5 and at 41 %, of the hot regions that touch the tumour."""
    measured = on_public(shared_data)

    assert measured is not None
    assert min(measured.scores[f"{name}: their Dice"] for name in ("SUV 2.5", "41 %")) > 0.65
