"""`suv`: equal to what is reckoned by hand, as a map and as a series; what is missing is named."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import workbench
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import NotApplicable, scoring
from processors.scores.suv import DOSE, on_public, score
from processors.suv import suv
from processors.uptake import VARIANTS, suv_factor


def pet(**changed: object) -> list[Dataset]:
    datasets = phantoms.hot_spheres()[:2]
    for one in datasets:
        one.PatientSize = "1.8"
        for keyword, value in changed.items():
            setattr(one, keyword, value)
    return datasets


def test_every_kind_is_what_is_reckoned_by_hand() -> None:
    """Floats to their own precision, 16 bits to half a step of the hottest value."""
    scores = score().scores

    errors = {name: value for name, value in scores.items() if "error" in name}
    assert len(errors) == 2 * len(VARIANTS)
    assert max(value for name, value in errors.items() if "map" in name) < 1e-4
    assert max(value for name, value in errors.items() if "series" in name) <= 100 / 32767


def test_a_woman_has_formulas_of_her_own() -> None:
    """60 kg, 1.65 m: Janmahasatian, James, ideal weight; surface and weight know no sex."""
    datasets = pet(PatientSex="F", PatientWeight="60", PatientSize="1.65")

    by_hand = {
        "bw": 60000,
        "lbm": 9270e3 * 60 / (8780 + 244 * 60 / 1.65**2),
        "lbm-james": 1000 * (1.07 * 60 - 148 * (60 / 165) ** 2),
        "bsa": 71.84 * 60**0.425 * 165**0.725,
        "ibw": 1000 * (45.5 + 0.91 * 13),
    }
    for kind, amount in by_hand.items():
        assert suv_factor(datasets, kind) == pytest.approx(amount / DOSE, rel=1e-6)


def test_what_is_suv_already_changes_kind_only() -> None:
    """GML by weight is taken as it is; as lean SUV, by the ratio of weights; counts by the scanner's own factor."""
    datasets = pet(Units="GML", SUVType="BW")
    assert suv_factor(datasets) == 1.0
    lean = suv_factor(datasets, "lbm")
    assert lean == pytest.approx(9270 * 80 / (6680 + 216 * 80 / 1.8**2) / 80)
    assert suv_factor(pet(Units="GML", SUVType="LBMJANMA")) == pytest.approx(1 / lean)
    counts = pet(Units="CNTS")
    with pytest.raises(NotApplicable, match="counts"):
        suv_factor(counts)
    for one in counts:
        one.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.00042")
    assert suv_factor(counts) == pytest.approx(0.00042)


def test_the_scan_began_when_its_first_image_was_acquired() -> None:
    """Series Time of a later reconstruction does not count, whichever slice was acquired first."""
    datasets = pet(SeriesTime="180000", AcquisitionTime="103000")
    datasets[1].AcquisitionTime = "101500"
    assert datetime.strptime("101500", "%H%M%S") < datetime.strptime("103000", "%H%M%S")

    assert suv_factor(datasets) == pytest.approx(80000 / DOSE, rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "by", "reason"),
    [
        ({"CorrectedImage": ["DECY"]}, "bw", "attenuation"),
        ({"PatientWeight": ""}, "bw", "weight is missing"),
        ({"PatientWeight": "0.01"}, "bw", "weight is missing or cannot be"),
        ({"PatientSize": ""}, "lbm", "size is missing"),
        ({"PatientSize": "180"}, "bsa", "size is missing or cannot be"),
        ({"PatientSex": "O"}, "ibw", "sex is missing"),
        ({"DecayCorrection": "NONE"}, "bw", "decay"),
        ({"Units": "PROPCNTS"}, "bw", "neither activity"),
        ({"SeriesTime": "071500", "AcquisitionTime": "071500", "SeriesDate": ""}, "bw", "decay"),
        ({"Modality": "CT"}, "bw", "made for PET"),
    ],
)
def test_what_is_missing_is_named(changed: dict[str, object], by: str, reason: str) -> None:
    """Never assumed."""
    with pytest.raises(NotApplicable, match=reason):
        scoring.outputs(suv, pet(**changed), by=by)


@pytest.mark.parametrize("by", ["bw", "bsa"])
def test_map_and_series_conform(by: str, tmp_path: Path) -> None:
    """A Parametric Map in the unit of the kind, and PET images whose Units and SUV Type say it; no error of dciodvfy."""
    datasets = phantoms.hot_spheres()
    for one in datasets:
        one.PatientSize = "1.8"

    made = workbench.assert_conforms(suv, datasets, tmp_path, by=by)

    assert made[0].SOPClassUID == "1.2.840.10008.5.1.4.1.1.30"
    mapping = made[0].SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == VARIANTS[by].unit.value
    assert {(one.Units, one.SUVType) for one in made[1:]} == {(VARIANTS[by].units, VARIANTS[by].suv_type)}
    assert len(made) == 1 + len(datasets) and made[1].FrameOfReferenceUID == datasets[0].FrameOfReferenceUID


def test_one_of_both_is_enough() -> None:
    """For an archive that wants no maps, or no second series."""
    assert len(scoring.outputs(suv, phantoms.hot_spheres(), as_map=False)) == 1
    with pytest.raises(NotApplicable, match="neither"):
        scoring.outputs(suv, phantoms.hot_spheres(), as_map=False, as_series=False)


def test_real_pet_agrees_with_the_mapping_that_came_with_it(shared_data: Path) -> None:
    """Within a thousandth; images that are SUV already are not changed."""
    measured = on_public(shared_data)

    assert measured is not None
    assert abs(measured.scores["ACRIN: difference (%)"]) < 0.1
    assert measured.scores["STS_012, SUV already: largest change"] < 1e-3
    assert np.isfinite(list(measured.scores.values())).all()
