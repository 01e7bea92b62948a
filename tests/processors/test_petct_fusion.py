"""`petct-fusion`: a hot spot stays where it is, colours are exact, SUV is right, mismatches are refused."""

from pathlib import Path

import judges
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import Images, NotApplicable, Overlay, Run, Series, Study
from pacs.processing.derive import Provenance, derive, encode
from pacs.processing.validate import findings
from processors.petct_fusion import blend, choose, hot, petct_fusion
from processors.scores.petct_fusion import score
from processors.uptake import suv_factor

SPEC = petct_fusion.__processor__  # type: ignore[attr-defined]


def study(**options: bool) -> tuple[Study, tuple[float, ...], list[Dataset]]:
    ct, pet, spot = phantoms.pet_ct(**options)
    ct, pet = phantoms.read(ct), phantoms.read(pet)
    return Study([Series(ct), Series(pet)]), spot, [*ct, *pet]


def test_the_hot_spot_stays_in_place() -> None:
    """The maximum of the resampled PET is at the spot, within half a voxel of the CT grid."""
    subject, spot, _ = study()

    images = next(iter(SPEC.call(subject, Run(), SPEC.bind())))

    assert isinstance(images, Images) and images.geometry is not None and images.slope is not None
    volume = np.stack(list(images.pixels)) * images.slope
    frame, row, column = np.unravel_index(int(volume.argmax()), volume.shape)
    place = np.asarray(images.geometry.position(int(frame))) + np.array(
        [column * images.geometry.spacing_mm[2], row * images.geometry.spacing_mm[1], 0]
    )
    assert np.abs(place - np.array(spot)).max() <= 4
    # Linear interpolation on a coarse grid loses some of a peak, never gains.
    assert 0.75 * 20500 < volume.max() <= 20500


def test_resampled_values_are_the_interpolated_ones() -> None:
    """At the centre of a PET voxel that is also one of the CT grid, the value is the PET's."""
    subject, _, _ = study()
    ct, pet, ct_grid, pet_grid = choose(subject)
    from processors.petct_fusion import resample

    values = pet.array()
    back = resample(values, pet_grid, pet_grid)

    assert np.allclose(back, values, rtol=1e-5)
    assert resample(values, pet_grid, ct_grid).shape == ct_grid.shape
    assert len(ct) == ct_grid.shape[0]


def test_the_blend_is_exact() -> None:
    """(1 - alpha) grey + alpha hot, rounded, by numpy's own arithmetic."""
    ct = np.array([[-1000, -160, 40, 240, 3000]], np.float32)
    pet = np.array([[0, 1 / 6, 0.5, 5 / 6, 2]], np.float32)

    rgb = blend(ct, pet, 0.25, 40, 400)

    grey = np.array([0, 0, 0.5, 1, 1])
    red, green, blue = [0, 0.5, 1, 1, 1], [0, 0, 0.5, 1, 1], [0, 0, 0, 0.5, 1]
    expected = [np.rint(255 * (0.75 * grey + 0.25 * np.array(one))) for one in (red, green, blue)]
    assert np.abs(rgb[0].astype(int) - np.stack(expected, axis=-1)).max() <= 1
    assert np.array_equal(hot(np.array([0.0, 1.0], np.float32)), [[0, 0, 0], [1, 1, 1]])


def test_suv_by_body_weight() -> None:
    """80 kg, 370 MBq, one hour at a half-life of 6588 s; and units that are SUV already."""
    _, pet, _ = phantoms.pet_ct()

    assert suv_factor(pet[:1]) == pytest.approx(80000 / (3.7e8 * 2 ** (-3600 / 6588)), rel=1e-6)
    pet[0].DecayCorrection = "ADMIN"
    assert suv_factor(pet[:1]) == pytest.approx(80000 / 3.7e8)
    pet[0].PatientWeight = ""
    with pytest.raises(NotApplicable, match="weight is missing"):
        suv_factor(pet[:1])
    pet[0].Units = "GML"
    assert suv_factor(pet[:1]) == 1.0


def test_an_injection_before_midnight_is_the_day_before() -> None:
    """A scan soon after midnight was injected on the day before."""
    _, pet, _ = phantoms.pet_ct()
    pet[0].SeriesTime = pet[0].AcquisitionTime = "003000"
    pet[0].RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime = "233000"

    assert suv_factor(pet[:1]) == pytest.approx(80000 / (3.7e8 * 2 ** (-3600 / 6588)), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"same_frame": False}, "different frames of reference"), ({"corrected": False}, "attenuation-corrected")],
)
def test_a_wrong_pair_is_refused(options: dict[str, bool], reason: str) -> None:
    """Nothing is registered and nothing uncorrected is measured."""
    subject, _, _ = study(**options)

    with pytest.raises(NotApplicable, match=reason):
        list(SPEC.call(subject, Run(), SPEC.bind()))


def test_half_a_pair_is_refused() -> None:
    """A study with a CT alone has nothing to fuse."""
    ct, _, _ = phantoms.pet_ct()

    with pytest.raises(NotApplicable, match="needs a CT volume and a PET volume"):
        choose(Study([Series(phantoms.read(ct))]))


def test_the_objects_conform(tmp_path: Path) -> None:
    """PT and Secondary Capture: no findings; dciodvfy finds no error that the sources have not."""
    subject, _, sources = study()
    provenance = Provenance("d" * 64, SPEC.name, SPEC.version, SPEC.bind())
    made = list(derive(SPEC.call(subject, Run(), SPEC.bind()), provenance))

    known, uid = {str(one.SOPInstanceUID) for one in sources}, str(sources[0].StudyInstanceUID)
    for one in made:
        assert findings(one, encode(one.dataset), known, uid) == []
    paths = judges.written(tmp_path / "out", [one.dataset for one in made])
    before = {error for path in judges.written(tmp_path / "in", [sources[0], sources[-1]]) for error in judges.errors(path)}
    chosen = [paths[0], paths[len(paths) // 2 - 1], paths[-1]]
    assert [error for path in chosen for error in judges.errors(path) if error not in before] == []
    assert judges.errors_together([*judges.written(tmp_path / "all", sources), *paths]) == []


def test_a_real_pet_ct_is_fused(shared_data: Path) -> None:
    """ACRIN 6668: the corrected PET is chosen, SUV agrees with the real world value map, outputs stay small."""
    folder = shared_data / "petct_acrin042"
    ct, pet = ([dcmread(path) for path in sorted((folder / name).iterdir())] for name in ("CT", "PT_AC"))
    factor = suv_factor(pet)
    subject = Study([Series(ct), Series(pet)])

    images, overlay = SPEC.call(subject, Run(), SPEC.bind())
    assert isinstance(images, Images) and isinstance(overlay, Overlay) and images.geometry is not None
    activity = np.stack(list(images.pixels))[:, ::2, ::2] * images.slope

    maps = [dcmread(path) for path in sorted((shared_data / "petct_acrin042" / "RWV").iterdir())]
    slopes = {
        float(one.RealWorldValueSlope)
        for item in maps[0].ReferencedImageRealWorldValueMappingSequence
        for one in item.RealWorldValueMappingSequence
        if one.MeasurementUnitsCodeSequence[0].CodeValue == "{SUVbw}g/ml"
    }
    assert factor is not None
    assert any(factor == pytest.approx(slope, rel=1e-4) for slope in slopes)
    assert images.geometry.shape[1:] == (256, 256)
    assert 2 < activity.max() * factor < 60
    assert next(iter(overlay.pixels)).shape == (256, 256, 3)


def test_the_page_says_what_is_so() -> None:
    """A quarter of a voxel, and the SUV reckoned by hand."""
    scores = score().scores
    assert scores["shift of a hot spot (mm)"] < scores["voxel of the CT (mm)"] / 4
    assert scores["SUV for 1 kBq/mL"] == pytest.approx(scores["SUV for 1 kBq/mL, by hand"], rel=1e-3)
