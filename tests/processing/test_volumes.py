"""Grids, resampling, storage and noise: what processors of volumes share."""

import making
import numpy as np
import pytest

from pacs import phantoms
from pacs.processing import Geometry, Series, Storage, contributing, grid_over, noise, resampled

SOURCE = Geometry((-10.0, -20.0, 5.0), (1, 0, 0), (0, 1, 0), (3.0, 1.0, 2.0), (5, 40, 20))


def test_a_grid_over_itself_is_itself() -> None:
    """Same directions, same spacing: the same grid."""
    assert grid_over(SOURCE, SOURCE.row, SOURCE.column, SOURCE.spacing_mm) == SOURCE


def test_a_grid_covers_every_voxel() -> None:
    """Whatever the directions, the corners of the source's field of view lie within the new one's."""
    angle = np.deg2rad(33)
    row, column = (np.cos(angle), np.sin(angle), 0.0), (0.0, 0.0, -1.0)
    grid = grid_over(SOURCE, row, column, (2.0, 1.5, 1.0))

    axes = np.stack([grid.normal, grid.column, grid.row])
    for corner in np.array(np.meshgrid((-0.5, 4.5), (-0.5, 39.5), (-0.5, 19.5))).T.reshape(-1, 3):
        point = np.asarray(SOURCE.origin) + (corner * SOURCE.spacing_mm) @ np.stack([SOURCE.normal, SOURCE.column, SOURCE.row])
        index = (axes @ (point - np.asarray(grid.origin))) / grid.spacing_mm
        assert (index >= -0.5 - 1e-6).all() and (index <= np.asarray(grid.shape) - 0.5 + 1e-6).all()


def test_values_are_found_again_in_place() -> None:
    """Resampled to a reversed grid, each voxel keeps its value at its place; outside is what was asked for."""
    values = np.random.default_rng(1).normal(0, 1, SOURCE.shape).astype(np.float32)
    back = Geometry((-10.0, -20.0, 5.0 + 12.0 + 3.0), (1, 0, 0), (0, -1, 0), SOURCE.spacing_mm, (6, 1, 20))

    found = resampled(values, SOURCE, back, outside=-7.0)

    assert np.allclose(found[1:, 0], values[::-1, 0], atol=1e-5)
    assert (found[0] == -7).all()


def test_contributing_slices() -> None:
    """On a slice: that one. Between two: both. Across all: all. With a thickness: what it touches."""
    on = Geometry((-10.0, -20.0, 8.0), SOURCE.row, SOURCE.column, (1.5, 1, 2), (2, 40, 20))
    across = Geometry((-10.0, 0.0, 5.0), (1, 0, 0), (0, 0, 1), (1, 3, 2), (1, 5, 20))

    assert contributing(SOURCE, on, 0) == [1]
    assert contributing(SOURCE, on, 1) == [1, 2]
    assert contributing(SOURCE, across, 0) == [0, 1, 2, 3, 4]
    assert contributing(SOURCE, on, 0, 4.0) == [0, 1, 2]


def test_values_are_stored_like_the_sources() -> None:
    """One scale in the source: it stays, and what does not fit is cut, not wrapped. Several: one of its own."""
    series = Series(phantoms.read(making.ct_series(3)))
    storage = Storage.of(series, -1000, 3000)
    assert (storage.slope, storage.intercept) == (None, None)
    assert storage.stored(np.array([[-40000.0, 1.4, 40000.0]])).tolist() == [[-32768, 1, 32767]]

    pet = phantoms.hot_spheres()[:3]
    pet[1].RescaleSlope = "3"
    own = Storage.of(Series(pet), 0, 1000)
    assert own.slope == pytest.approx(1000 / 32767) and own.stored(np.array([[1000.0]])).tolist() == [[32767]]


@pytest.mark.parametrize("sigma", [3.0, 30.0])
def test_noise_is_measured(sigma: float) -> None:
    """White noise on a ramp, within 5 %."""
    plane = np.add.outer(np.arange(128.0), 2 * np.arange(128.0)) + np.random.default_rng(2).normal(0, sigma, (128, 128))

    assert noise(plane.astype(np.float32)) == pytest.approx(sigma, rel=0.05)


def test_a_constant_image_has_no_noise() -> None:
    """Nothing to measure is zero, not an error."""
    assert noise(np.zeros((8, 8), np.float32)) == 0
