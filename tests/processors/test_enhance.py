"""`enhance`: identity where nothing is asked, monotone where it must be, conforming in every IOD it makes."""

from pathlib import Path

import judges
import making
import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import Images, NotApplicable, Run, Series
from pacs.processing.derive import Provenance, derive, encode
from pacs.processing.validate import findings
from processors.enhance import enhance
from processors.scores.enhance import score

SPEC = enhance.__processor__  # type: ignore[attr-defined]


def output(datasets: list[Dataset], **given: object) -> tuple[Images, list[np.ndarray]]:
    (images,) = SPEC.call(Series(datasets), Run(), SPEC.bind(given))
    assert isinstance(images, Images)
    return images, list(images.pixels)


def results(datasets: list[Dataset], **given: object) -> list[Dataset]:
    parameters = SPEC.bind(given)
    provenance = Provenance("e" * 64, SPEC.name, SPEC.version, parameters)
    made = list(derive(SPEC.call(Series(datasets), Run(), parameters), provenance))
    known, study = {str(one.SOPInstanceUID) for one in datasets}, str(datasets[0].StudyInstanceUID)
    assert [findings(one, encode(one.dataset), known, study) for one in made] == [[]] * len(made)
    return [one.dataset for one in made]


def ct(rows: int = 96) -> Dataset:
    return phantoms.read([making.dataset(frame=making.pixels(rows, rows), WindowCenter="40", WindowWidth="400")])[0]


def test_ct_without_strength_comes_out_as_it_went_in() -> None:
    """Strength 0 is the identity, bit for bit."""
    source = ct()

    _, (pixels,) = output([source], strength=0)

    assert np.array_equal(pixels, source.pixel_array)


def test_ct_outside_its_window_is_untouched() -> None:
    """Values beyond the window stay Hounsfield units; those inside stay inside."""
    source = ct()

    _, (pixels,) = output([source], strength=1)

    before = source.pixel_array
    outside = (before < -160) | (before > 240)
    assert np.array_equal(pixels[outside], before[outside])
    assert pixels[~outside].min() >= -160
    assert pixels[~outside].max() <= 240


def test_ct_with_one_tile_is_monotone() -> None:
    """Equalised as a whole, a brighter pixel is never darker than a darker one afterwards."""
    source = ct(128)

    _, (pixels,) = output([source], tiles=1, strength=1)

    order = np.argsort(source.pixel_array, axis=None, kind="stable")
    before, after = source.pixel_array.ravel()[order], pixels.ravel()[order]
    steps = np.diff(before) > 0
    assert (np.diff(after)[steps] >= 0).all()


def test_ct_gains_local_contrast() -> None:
    """A faint disc stands out more than before."""
    frame = making.pixels(128, 128)
    y, x = np.mgrid[:128, :128]
    disc = np.hypot(y - 64, x - 64) < 8
    frame[disc] += 15
    (source,) = phantoms.read([making.dataset(frame=frame, WindowCenter="40", WindowWidth="400")])

    _, (pixels,) = output([source], strength=1, clip_limit=4)

    ring = (np.hypot(y - 64, x - 64) < 14) & ~disc
    assert pixels[disc].mean() - pixels[ring].mean() > 1.3 * (frame[disc].mean() - frame[ring].mean())


def test_what_the_values_mean_is_told() -> None:
    """Slope and intercept stay, and Rescale Type says that the values are no longer Hounsfield units."""
    (result,) = results([ct()])

    assert (float(result.RescaleSlope), float(result.RescaleIntercept)) == (1, 0)
    assert result.RescaleType == "US"
    assert list(result.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert (float(result.WindowCenter), float(result.WindowWidth)) == (40, 400)


def test_a_linear_radiograph_becomes_one_for_presentation() -> None:
    """FOR PROCESSING: logarithm, the SOP Class for presentation, and the whole range of stored values."""
    source = phantoms.read([phantoms.radiograph(modality="DX", for_processing=True)])

    (result,) = phantoms.read(results(source))

    assert result.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
    assert result.PresentationIntentType == "FOR PRESENTATION"
    assert result.PixelIntensityRelationship == "LOG"
    assert result.pixel_array.max() > 4000
    assert result.pixel_array.max() <= 4095


def test_a_radiograph_scaled_only_is_monotone() -> None:
    """Without CLAHE a radiograph is clipped at a per mille and stretched, nothing else."""
    source = phantoms.read([phantoms.radiograph()])

    _, (pixels,) = output(source, strength=0)

    flat = source[0].pixel_array.ravel()
    order = np.argsort(flat, kind="stable")
    assert (np.diff(pixels.ravel()[order].astype(int))[np.diff(flat[order].astype(int)) > 0] >= 0).all()


@pytest.mark.parametrize("modality", ["CT", "CR", "DX"])
def test_outside_judges_find_no_new_error(modality: str, tmp_path: Path) -> None:
    """dciodvfy finds nothing in the result that it does not find in the source."""
    source = [ct()] if modality == "CT" else phantoms.read([phantoms.radiograph(modality=modality)])

    paths = judges.written(tmp_path / "out", results(source))

    before = set(judges.errors(judges.written(tmp_path / "in", source)[0]))
    assert [error for path in paths for error in judges.errors(path) if error not in before] == []


@pytest.mark.parametrize("change", [{"Modality": "MR"}, {"NumberOfFrames": "2"}, {"SamplesPerPixel": 3}])
def test_what_it_is_not_for_is_refused(change: dict[str, object]) -> None:
    """Other modalities, multi-frame and colour are NotApplicable."""
    with pytest.raises(NotApplicable):
        output([making.dataset(**change)])


def test_the_page_says_what_is_so() -> None:
    """Faint discs stand out more, and nothing changes that must not."""
    scores = score().scores
    assert scores["radiograph: contrast of faint discs to the range of the image, times"] > 1.5
    assert scores["CT, strength 0: largest change (HU)"] == 0
    assert scores["CT, strength 1: largest change outside the window (HU)"] == 0


def test_images_of_several_bit_depths_are_no_series() -> None:
    """Eight bits among twelve, as a set of the same slice in several compressions is: refused with the reason."""
    one, other = making.ct_series(2)
    one.BitsStored, one.HighBit = 12, 11

    with pytest.raises(NotApplicable, match="one bit depth"):
        output([one, other])
