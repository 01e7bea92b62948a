"""`ct-lungs`: against phantoms of known lungs, and plausible on a real chest."""

from pathlib import Path

import judges
import making
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import Measurements, NotApplicable, Run, Segmentation, Series
from pacs.processing.derive import Provenance, derive, encode
from pacs.processing.validate import findings
from processors.ct_lungs import LEFT, RIGHT, ct_lungs
from processors.scores.ct_lungs import score

SPEC = ct_lungs.__processor__  # type: ignore[attr-defined]


def outputs(datasets: list[Dataset], **given: object) -> tuple[Segmentation, Measurements]:
    segmentation, measurements = SPEC.call(Series(datasets), Run(), SPEC.bind(given))
    return segmentation, measurements


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.mark.parametrize("joined", [False, True])
def test_both_lungs_are_found(joined: bool) -> None:
    """Dice above .97 and volume within 2 % for each lung, apart or touching, despite trachea and air in the table."""
    datasets, truth = phantoms.lungs(joined=joined)

    segmentation, measurements = outputs(phantoms.read(datasets))

    found = segmentation.array()
    for number in (RIGHT, LEFT):
        assert dice(found == number, truth == number) > 0.97
        volume = next(one.value for one in measurements.values[number] if one.name.meaning == "Volume")
        assert volume == pytest.approx((truth == number).sum() * 3 * 3 * 6 / 1000, rel=0.02)
        mean = next(one.value for one in measurements.values[number] if one.derivation is not None)
        assert mean == pytest.approx(-850, abs=12)


def test_left_is_left_whatever_the_direction_of_rows() -> None:
    """Sides come from patient coordinates, not from array indices: the same body, scanned mirrored."""
    datasets, truth = phantoms.lungs()
    for one in datasets:
        frame = np.ascontiguousarray(np.frombuffer(one.PixelData, "<i2").reshape(128, 128)[::-1, ::-1])
        one.PixelData = frame.tobytes()
        one.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        x, y, z = (float(v) for v in one.ImagePositionPatient)
        one.ImagePositionPatient = [x + 127 * 3, y + 127 * 3, z]

    found = outputs(phantoms.read(datasets))[0].array()

    assert dice(found == RIGHT, truth[:, ::-1, ::-1] == RIGHT) > 0.97


def test_vessels_and_nodules_belong_to_the_lung() -> None:
    """Closing and filling take in what is solid inside or at the border of a lung."""
    datasets, truth = phantoms.lungs()
    for one in datasets[16:22]:
        frame = np.frombuffer(one.PixelData, "<i2").reshape(128, 128).copy()
        frame[60:64, 36:40] = 60
        one.PixelData = frame.tobytes()

    found = outputs(phantoms.read(datasets))[0].array()

    assert (found[17:21, 60:64, 36:40] == RIGHT).all()
    assert dice(found == RIGHT, truth == RIGHT) > 0.97


def test_the_body_is_segmented_on_request() -> None:
    """Everything within the skin that is not lung, without the table."""
    datasets, truth = phantoms.lungs()

    found = outputs(phantoms.read(datasets), body=True)[0].array()

    assert (found[20] > 0).sum() * 9 / 100 == pytest.approx(np.pi * 17 * 12, rel=0.03)
    assert (found[20, 112:] == 0).all()
    assert dice(found == LEFT, truth == LEFT) > 0.97


def _solid(datasets: list[Dataset]) -> list[Dataset]:
    for one in datasets:
        frame = np.frombuffer(one.PixelData, "<i2")
        one.PixelData = np.where(frame < -800, -1000, frame).astype("<i2").tobytes()
    return datasets


@pytest.mark.parametrize(
    ("datasets", "reason"),
    [
        (making.ct_series(24), "no enclosed lung"),
        (making.ct_series(1), "at least two slices"),
        ([making.dataset(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])], "localizers"),
        (making.ct_series(4, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "no volume|axial"),
        (making.ct_series(4, RescaleIntercept="5000"), "not Hounsfield units"),
    ],
)
def test_what_is_no_chest_is_refused(datasets: list[Dataset], reason: str) -> None:
    """A solid body, one slice, a localizer, another plane, other units: NotApplicable with a reason."""
    with pytest.raises(NotApplicable, match=reason):
        outputs(phantoms.read(datasets))


def test_pure_air_is_no_lung() -> None:
    """Enclosed volumes of nothing but air, such as bowel or a balloon, are not taken for lungs."""
    datasets, _ = phantoms.lungs()

    with pytest.raises(NotApplicable, match="no enclosed lung"):
        outputs(phantoms.read(_solid(datasets)))


def test_the_objects_conform_and_are_the_same_again(tmp_path: Path) -> None:
    """SEG and SR: no findings, no dciodvfy error, readable by another library, byte-identical on a second run."""
    datasets = phantoms.read(phantoms.lungs()[0])
    provenance = Provenance("c" * 64, SPEC.name, SPEC.version, SPEC.bind())

    def once() -> list[bytes]:
        made = list(derive(SPEC.call(Series(datasets), Run(), SPEC.bind()), provenance))
        known, study = {str(one.SOPInstanceUID) for one in datasets}, str(datasets[0].StudyInstanceUID)
        for one in made:
            assert findings(one, encode(one.dataset), known, study) == []
            known.add(str(one.dataset.SOPInstanceUID))
        paths = judges.written(tmp_path / "out", [one.dataset for one in made])
        assert [error for path in paths for error in judges.errors(path)] == []
        return [encode(one.dataset) for one in made]

    assert once() == once()


def test_a_real_chest_is_plausible(shared_data: Path) -> None:
    """NLST low-dose chest, 143 slices of 512 x 512: 3 to 8 litres, sides alike, lung-like."""
    datasets = [dcmread(path) for path in sorted((shared_data / "ct_chest_nlst101287" / "CT").iterdir())]

    segmentation, measurements = outputs(datasets)

    volumes = [measurements.values[number][0].value / 1000 for number in (RIGHT, LEFT)]
    assert 3 < sum(volumes) < 8
    assert 0.7 < volumes[1] / volumes[0] < 1.1
    assert segmentation.array().shape == (143, 512, 512)


def test_the_page_says_what_is_so() -> None:
    """Dice over .98 and volumes within 1 %, apart and touching."""
    scores = score().scores
    assert min(value for name, value in scores.items() if "Dice" in name) > 0.98
    assert max(abs(value) for name, value in scores.items() if "volume" in name) < 1
