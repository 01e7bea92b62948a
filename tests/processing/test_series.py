"""The geometry of what a processor is given, and what is refused as a volume."""

import making
import numpy as np
import pytest

from pacs import phantoms
from pacs.processing import NotApplicable, Series


def test_slices_come_in_the_order_of_space() -> None:
    """Whatever the order of arrival or numbering, data sets ascend along the slice normal."""
    datasets = making.ct_series(5)
    shuffled = [datasets[i] for i in (3, 0, 4, 1, 2)]

    series = Series(shuffled)

    assert [float(one.ImagePositionPatient[2]) for one in series.datasets] == [5, 10, 15, 20, 25]


def test_volume_is_in_modality_units_at_its_place() -> None:
    """`volume` applies slope and intercept, and a voxel keeps its patient coordinate."""
    datasets = phantoms.read(making.ct_series(4, RescaleSlope="2", RescaleIntercept="-1000", PixelSpacing=[0.5, 2]))

    volume = Series(datasets).volume()

    assert volume.GetSpacing() == (2.0, 0.5, 5.0)
    assert volume.TransformIndexToPhysicalPoint((10, 20, 3)) == pytest.approx((-80, -90, 20))
    assert volume.GetPixel(10, 20, 3) == pytest.approx(2 * int(datasets[3].pixel_array[20, 10]) - 1000)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.pop(2), "evenly spaced"),
        (lambda d: setattr(d[2], "ImagePositionPatient", d[1].ImagePositionPatient), "at one position"),
        (lambda d: setattr(d[2], "ImageOrientationPatient", [0, 1, 0, 0, 0, 1]), "different orientations"),
        (lambda d: delattr(d[1], "PixelSpacing"), "PixelSpacing is missing"),
        (lambda d: d.__delitem__(slice(1, None)), "at least two"),
    ],
)
def test_what_is_no_volume_is_refused_with_a_reason(change: object, reason: str) -> None:
    """Gaps, doubles, mixed orientations and missing attributes are NotApplicable, never a wrong volume."""
    datasets = making.ct_series(6)
    change(datasets)  # type: ignore[operator]

    with pytest.raises(NotApplicable, match=reason):
        Series(datasets).geometry()


def test_a_tilted_gantry_is_refused() -> None:
    """Slices that shift sideways as the table moves are a sheared grid."""
    tilt = np.deg2rad(15)
    row, column = (1.0, 0.0, 0.0), (0.0, float(np.cos(tilt)), float(np.sin(tilt)))
    datasets = [
        making.dataset(
            instance=i, ImageOrientationPatient=[*row, *(f"{v:.6f}" for v in column)], ImagePositionPatient=[0, 0, 5.0 * i]
        )
        for i in range(1, 6)
    ]

    with pytest.raises(NotApplicable, match="gantry"):
        Series(datasets).geometry()


def test_an_oblique_volume_is_a_volume() -> None:
    """Slices that move along their own normal are a regular grid in any direction."""
    tilt = np.deg2rad(15)
    normal = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
    datasets = [
        making.dataset(
            instance=i,
            ImageOrientationPatient=["1", "0", "0", "0", f"{np.cos(tilt):.8f}", f"{np.sin(tilt):.8f}"],
            ImagePositionPatient=[f"{v:.6f}" for v in 5.0 * i * normal],
        )
        for i in range(1, 6)
    ]

    geometry = Series(datasets).geometry()

    assert geometry.spacing_mm[0] == pytest.approx(5.0, abs=1e-3)
    assert np.allclose(geometry.position(2), datasets[2].ImagePositionPatient, atol=1e-3)


def test_resizing_keeps_the_field_of_view() -> None:
    """Halving the matrix leaves the outer edges of the pixels where they were."""
    geometry = Series(making.ct_series(3)).geometry()

    half = geometry.resized(32, 32)

    assert half.spacing_mm[1:] == (2.0, 2.0)
    assert half.origin[:2] == pytest.approx((-99.5, -99.5))


@pytest.mark.parametrize("spoilt", ["short", "empty", "no decoder"])
def test_pixels_that_cannot_be_decoded_are_refused_with_a_reason(spoilt: str) -> None:
    """Pixel data that is cut off, missing its value, or in a syntax nobody decodes is no fault of the processor."""
    (one,) = phantoms.read(making.ct_series(1))
    one.PixelData = {"short": one.PixelData[:100], "empty": b"", "no decoder": one.PixelData}[spoilt]
    if spoilt == "no decoder":
        one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"

    with pytest.raises(NotApplicable, match="cannot be decoded"):
        Series([one]).frame(0)
