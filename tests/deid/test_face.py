"""Faces: found in any acquisition, cut without touching the brain, and looked for where they are not, in vain."""

from dataclasses import replace
from functools import cache

import making_head
import numpy as np
import pytest

from pacs.deid import face
from pacs.deid.candidates import Verdict
from pacs.deid.face import Plane, Region, Said, fill, find, needs_defacing, said_of
from pacs.model.errors import Quarantined
from pacs.phantoms import petct

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
COARSE = {"pixel_mm": 2.0, "slice_mm": 4.0}


def region_of(made: making_head.Head, said: Said = Said.NOTHING) -> Region:
    """Return the region of a head that has a face."""
    region = find(made.planes, made.floats(), modality=made.modality, said=said)
    assert region is not None
    return region


def mask_of(made: making_head.Head, region: Region) -> np.ndarray:
    return np.stack([region.mask(plane) for plane in made.planes])


@cache
def axial(modality: str) -> tuple[making_head.Head, Region, np.ndarray]:
    made = making_head.head(modality, **COARSE)
    region = region_of(made)
    return made, region, mask_of(made, region)


def assert_faceless(made: making_head.Head, mask: np.ndarray) -> None:
    """Assert that over 99 % of each part in view is cut, and not a voxel of the brain."""
    for name, part in made.parts.items():
        if part.any():
            assert (mask & part).sum() > 0.99 * part.sum(), name
    assert not (mask & made.brain).any()


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_eyes_nose_mouth_chin_and_ears_go_and_the_brain_stays(modality: str) -> None:
    """Over 99 % of every part of the face is cut; not one voxel of the brain."""
    made, _, mask = axial(modality)

    assert_faceless(made, mask)


def test_no_more_of_the_head_goes_than_its_face() -> None:
    """Two thirds of what is not face nor neck stay: the mask is a wedge, not everything but the brain."""
    made, region, mask = axial("MR")

    above = np.stack([_height(plane, region) for plane in made.planes]) > 0
    assert (mask & made.skin & above).sum() < 0.02 * (made.skin & above).sum()
    assert (mask & made.skin).sum() < 0.45 * made.skin.sum()


def _height(plane: Plane, region: Region) -> np.ndarray:
    start, down, right = plane.affine_to(region.matrix)
    r, c = np.mgrid[: plane.shape[0], : plane.shape[1]]
    return start[2] + r * down[2] + c * right[2]


@pytest.mark.parametrize(
    "turned", [(20, 0, 0), (-20, 0, 0), (0, 15, 0), (5, -5, 20)], ids=["chin up", "chin down", "ear down", "aside"]
)
def test_a_turned_head_loses_its_face(turned: tuple[float, float, float]) -> None:
    """The region follows the head, not the axes of the scanner."""
    made = making_head.head("MR", turned=turned, **COARSE)

    assert_faceless(made, mask_of(made, region_of(made)))


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("acquisition", ["sagittal", "coronal"])
def test_the_acquisition_does_not_matter(acquisition: str, modality: str) -> None:
    """Sagittal and coronal series of a head lose what the axial one loses: nine tenths and more of the cut is common."""
    made, _, mask = axial(modality)

    other = region_of(making_head.head(modality, acquisition, **COARSE))

    same = mask_of(made, other)
    assert_faceless(made, same)
    tissue = made.skin
    assert 2 * (mask & same & tissue).sum() > 0.93 * ((mask & tissue).sum() + (same & tissue).sum())


@pytest.mark.parametrize(
    "about",
    [
        {"modality": "MR", "acquisition": "sagittal", "slab_mm": (-18, 18)},
        {"modality": "CT", "acquisition": "sagittal", "slab_mm": (-18, 18)},
        {"modality": "MR", "slice_mm": 5.0, "gap_mm": 2.5},
        {"modality": "MR", "slab_mm": (-120, 20)},
        {"modality": "CT", "slab_mm": (-120, 20)},
        {"modality": "CT", "field_mm": 420.0, "shoulders": True},
        {"modality": "MR", "size": 0.85},
    ],
    ids=["narrow MR", "narrow CT", "gaps", "no vertex MR", "no vertex CT", "shoulders", "child"],
)
def test_parts_of_heads_and_other_sizes(about: dict) -> None:
    """A few sagittal slices, gaps, a missing vertex, shoulders and a child's head are no excuse."""
    made = making_head.head(**{**COARSE, **about})

    assert_faceless(made, mask_of(made, region_of(made)))


def test_a_chest_has_no_face() -> None:
    """The phantom chest comes out untouched, whatever little its header says."""
    grid, volume = petct.CT_GRID, petct.hounsfield(petct.CT_GRID)
    planes = [
        Plane(
            (grid.origin[0], grid.origin[1], grid.origin[2] + n * grid.slice_mm),
            (1, 0, 0),
            (0, 1, 0),
            (grid.pixel_mm, grid.pixel_mm),
            frame.shape,
            grid.slice_mm,
        )
        for n, frame in enumerate(volume)
    ]

    found = find(planes, (one.astype(np.float32) for one in volume), modality="CT", said=Said.NOTHING)

    assert found is None


def test_a_brain_without_a_face_in_view_keeps_its_pixels() -> None:
    """The upper half of a head shows neither face nor ears."""
    made = making_head.head("MR", slab_mm=(52, 140), **COARSE)

    assert find(made.planes, made.floats(), modality="MR", said=Said.HEAD) is None


@pytest.mark.parametrize("said", [Said.HEAD, Said.NOTHING])
def test_what_cannot_be_placed_is_in_doubt(said: Said) -> None:
    """Images without a usable geometry are quarantined unless their header names another part of the body."""
    made, _, _ = axial("MR")
    planes = [replace(one, row=(1.0, 1.0, 0.0)) for one in made.planes]

    with pytest.raises(Quarantined):
        find(planes, made.floats(), modality="MR", said=said)
    assert find(planes, made.floats(), modality="MR", said=Said.OTHER) is None


def test_a_header_that_says_head_over_pixels_that_show_none_is_in_doubt() -> None:
    """Noise that is called a head goes to quarantine; noise that is called a knee does not."""
    noise = np.random.default_rng(1).normal(100, 5, (20, 64, 64)).astype(np.float32)
    planes = [Plane((0.0, 0.0, 4.0 * n), (1, 0, 0), (0, 1, 0), (3.0, 3.0), (64, 64), 4.0) for n in range(20)]

    with pytest.raises(Quarantined):
        find(planes, iter(noise), modality="MR", said=Said.HEAD)
    assert find(planes, iter(noise), modality="MR", said=Said.OTHER) is None


@pytest.mark.parametrize("said", list(Said))
def test_a_jaw_without_its_skull_is_in_doubt(said: Said) -> None:
    """A CT that ends below the nose shows a lower jaw, a chest by name or not; nothing tells where the rest would be."""
    made = making_head.head("CT", slab_mm=(-140, -70), shoulders=True, field_mm=420, **COARSE)

    with pytest.raises(Quarantined):
        find(made.planes, made.floats(), modality="CT", said=said)


def test_the_same_again() -> None:
    """The same series gives the same region, and the same frames under the same key; another key gives other noise."""
    made, _, mask = axial("MR")
    again = region_of(made)

    one, two, other = (fill(made.frames[30], again.mask(made.planes[30]), key, 30) for key in (b"k", b"k", b"other"))

    assert np.array_equal(mask, mask_of(made, again))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_filling_twice_is_filling_once() -> None:
    """Nothing of the hole is read, and nothing but the hole is written."""
    made, _, mask = axial("CT")
    number = int(mask.sum(axis=(1, 2)).argmax())
    frame, hole = made.frames[number], mask[number]

    once = fill(frame, hole, b"key", number)

    assert once.dtype == frame.dtype
    assert np.array_equal(fill(once, hole, b"key", number), once)
    assert np.array_equal(once[~hole], frame[~hole])
    assert np.array_equal(fill(np.where(hole, frame.dtype.type(7), frame), hole, b"key", number), once)


def test_the_noise_does_not_follow_the_face() -> None:
    """What is filled in correlates with what was there no more than chance and the slow neighbourhood allow."""
    made, _, mask = axial("MR")
    outside = np.stack([fill(f, m, b"key", n) for n, (f, m) in enumerate(zip(made.frames, mask, strict=True))])

    face_or_air = mask & np.stack([_ahead(plane, axial("MR")[1]) > 60 for plane in made.planes])
    correlation = np.corrcoef(outside[face_or_air], made.skin[face_or_air])[0, 1]
    assert abs(correlation) < 0.35


def _ahead(plane: Plane, region: Region) -> np.ndarray:
    start, down, right = plane.affine_to(region.matrix)
    r, c = np.mgrid[: plane.shape[0], : plane.shape[1]]
    return start[1] + r * down[1] + c * right[1]


def test_the_region_serves_other_series_of_the_frame_of_reference() -> None:
    """A coronal series of the same patient loses its face by the axial series' region, kept as bytes."""
    _, region, _ = axial("MR")
    kept = Region.from_bytes(region.to_bytes())
    coronal = making_head.head("MR", "coronal", **COARSE)

    assert_faceless(coronal, mask_of(coronal, kept))


def test_several_series_cut_what_one_of_them_cuts_but_no_brain_that_one_saw() -> None:
    """A slab tells less well where the face is; together with the whole head it takes nothing of the cut back, and no brain."""
    made, region, mask = axial("MR")
    slab = region_of(making_head.head("MR", "sagittal", slab_mm=(-18, 18), **COARSE))

    both = np.stack([face.mask_of([region, slab], plane) for plane in made.planes])

    assert_faceless(made, both)
    assert not (mask & ~both & made.skin & ~made.brain).sum() > 0.01 * mask.sum()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"BodyPartExamined": "HEAD"}, Said.HEAD),
        ({"BodyPartExamined": "CHEST"}, Said.OTHER),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "Sinus 1.0"}, Said.HEAD),
        ({"SeriesDescription": "whole body"}, Said.HEAD),
        ({"SeriesDescription": "t1_mprage_sag"}, Said.NOTHING),
        ({}, Said.NOTHING),
    ],
)
def test_what_headers_say(values: dict[str, str], expected: Said) -> None:
    """Any word for the head outweighs any other part of the body."""
    assert said_of(values) is expected


def test_every_tomographic_ct_and_mr_is_a_candidate() -> None:
    """Body Part Examined keeps nothing from being looked at; only our own code says that it was done."""
    assert needs_defacing({"SOPClassUID": CT, "BodyPartExamined": "CHEST"}) is Verdict.CANDIDATE
    assert needs_defacing({"SOPClassUID": MR, "RecognizableVisualFeatures": "NO"}) is Verdict.CANDIDATE
    assert needs_defacing({"SOPClassUID": MR, "DeidentificationMethodCodes": f"113100\\{face.METHOD}"}) is Verdict.DONE
    assert needs_defacing({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}) is Verdict.NOT
