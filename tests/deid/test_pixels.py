"""Burned-in text, really read by the bundled models: traps 42, 43 and 52."""

import numpy as np
import pytest
from deid.lettering import NAME, shoulders, speckle, written
from rapidocr.utils.download_file import DownloadFile

from pacs.deid import pixels, reading
from pacs.deid.pixels import Look, TextLeft

GREY = Look("MONOCHROME2")


def colour(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=-1)


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    """RGB as YBR_FULL (PS3.3 C.7.6.3.1.2)."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.clip(rgb @ matrix.T + [0, 128, 128], 0, 255).round().astype(np.uint8)


PALETTE = np.array([[255 - index, index // 2, 40] for index in range(256)], np.uint8)
CASES: dict[str, tuple[np.ndarray, Look]] = {
    "speckle": (written(speckle(), value=255), GREY),
    "small": (written(np.zeros((240, 320), np.uint8), size=8), GREY),
    "upright": (written(speckle(320, 240, spread=10, mean=30), at=(100, 8), turned=90), GREY),
    "slanted": (written(speckle(320, 320, spread=8, mean=30), at=(20, 40), size=16, turned=30), GREY),
    "low contrast": (written(np.full((240, 320), 80, np.uint8), value=92, size=16), GREY),
    "coloured": (written(colour(speckle()), value=(40, 90, 255), size=16), Look("RGB")),
    "YBR_FULL": (ycbcr(written(colour(speckle(spread=10)), value=(255, 220, 0), size=16)), Look("YBR_FULL")),
    "MONOCHROME1": (written(speckle(mean=200, spread=12), value=5, size=16), Look("MONOCHROME1")),
    "palette": (written(speckle(spread=8), value=250, size=16), Look("PALETTE COLOR", palette=PALETTE)),
    "12 of 16 bits": (
        written(speckle().astype(np.uint16) * 8, value=4000, size=16),
        Look("MONOCHROME2", bits_stored=12, high_bit=11),
    ),
    "signed": (
        written(speckle().astype(np.int16) * 4 - 1000, value=900, size=16),
        Look("MONOCHROME2", bits_stored=16, high_bit=15, signed=True),
    ),
    "wide strip": (written(np.zeros((48, 1500), np.uint8), at=(1100, 16)), GREY),
}


@pytest.mark.parametrize("case", list(CASES))
def test_trap_42_text_of_every_kind_is_found_and_blanked(case: str) -> None:
    """Afterwards nothing can be read, and outside the blanked patch not a pixel has changed."""
    frame, look = CASES[case]

    found = pixels.clean([frame], look)

    assert found.frames is not None and found.mask is not None and found.pieces >= 1
    (left,) = found.frames
    assert (left.shape, left.dtype) == (frame.shape, frame.dtype)
    assert pixels.find(left, look, least=0.3) == []
    assert np.array_equal(left[~found.mask], frame[~found.mask])
    assert found.mask.mean() < 0.35


def test_trap_43_a_name_on_one_frame_only_is_found() -> None:
    """Frame 3 of 5 shows it, over noise that differs from frame to frame; the others keep all else."""
    frames = [speckle(160, 320, seed=number) for number in range(5)]
    frames[2] = written(frames[2], value=255, size=16)

    found = pixels.clean(frames, GREY)

    assert found.frames is not None and found.mask is not None
    assert pixels.find(found.frames[2], GREY, least=0.3) == []
    for before, after in zip(frames, found.frames, strict=True):
        assert np.array_equal(after[~found.mask], before[~found.mask])


def test_trap_43_frames_that_do_not_change_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A still of a hundred frames costs what one frame does; the one in which a name appears is seen."""
    still = np.zeros((160, 320), np.uint8)
    frames = [still] * 60 + [written(still)] + [still] * 39
    windows = []
    find = pixels.find
    monkeypatch.setattr(pixels, "find", lambda *given, **named: windows.append(1) or find(*given, **named))

    found = pixels.clean(frames, GREY)

    assert found.frames is not None
    assert len(windows) <= 4


@pytest.mark.parametrize("spread", [10, 40])
def test_trap_52_text_free_frames_come_back_untouched(spread: int) -> None:
    """No new frames at all: what is stored stays bit for bit what it was."""
    assert pixels.clean([speckle(spread=spread), speckle(spread=spread, seed=4)], GREY).frames is None


def test_markers_of_side_stay_on_projection_x_rays() -> None:
    """An "L" names nobody, and to lose it would be dangerous; a name beside it goes."""
    film = written(np.zeros((240, 320), np.uint8), "L", at=(280, 190), size=28)
    look = Look("MONOCHROME2", keep=pixels.LATERALITY)
    assert pixels.clean([film], look).frames is None

    found = pixels.clean([written(film)], look)

    assert found.frames is not None
    assert np.array_equal(found.frames[0][180:], film[180:])


def test_a_line_in_the_margin_of_an_ultrasound_image_goes_from_side_to_side() -> None:
    """Above the calibrated region the whole line is blanked: what is beside a name is of the same kind. The region stays."""
    frame = written(speckle(spread=6, mean=20), at=(12, 10))
    region = (0, 60, 319, 239)

    found = pixels.clean([frame], Look("MONOCHROME2", regions=(region,)))

    assert found.frames is not None
    (left,) = found.frames
    assert (left[14:26] == 0).all()
    assert np.array_equal(left[60:], frame[60:])


def test_little_but_text_is_not_called_clean() -> None:
    """A page of text is no image: somebody should look at it."""
    page = np.zeros((240, 400), np.uint8)
    for line in range(9):
        page = written(page, NAME, at=(4, 2 + 26 * line), size=24)

    with pytest.raises(TextLeft):
        pixels.clean([page], GREY)


def test_nothing_is_ever_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models are those of the wheel, by their paths."""

    def refused(*_: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(DownloadFile, "run", refused)
    reading._engine.cache_clear()

    assert pixels.find(written(speckle(), value=255), GREY)


@pytest.mark.parametrize("size", [8, 120])
def test_trap_42_letters_small_and_large_are_found_in_a_large_image(size: int) -> None:
    """8 px in the corner of 768 x 1024, and letters larger than a tile: neither the detector's scale nor an edge hides them."""
    frame = written(np.zeros((768, 1024), np.uint8), NAME if size < 20 else "QUILLFEATHER", at=(20, 600), size=size)

    assert pixels.find(frame, GREY)


@pytest.mark.parametrize("seed", [14, 17])
def test_anatomy_that_looks_like_letters_is_not_called_text(seed: int) -> None:
    """Letters are read into shoulders and arms: for the cleaner that is enough, who judges a picture asks for more."""
    picture = shoulders(seed)

    assert pixels.find(picture, Look("RGB")) != []
    assert not pixels.is_legible([picture], Look("RGB"))


@pytest.mark.parametrize(("text", "size"), [(NAME, 8), ("DOE", 10), ("MRN 4711", 14), ("QUILLFEATHER", 36)])
def test_a_name_planted_into_such_a_picture_is_legible(text: str, size: int) -> None:
    """Small or large, on the last of several frames."""
    planted = written(shoulders(14), text, at=(8, 4), size=size, value=(255, 255, 255))

    assert pixels.is_legible([shoulders(14), shoulders(14), planted], Look("RGB"))


@pytest.mark.parametrize("case", ["slanted", "low contrast", "12 of 16 bits"])
def test_what_is_hardest_to_read_is_legible(case: str) -> None:
    """Who judges sees what the cleaner takes away."""
    frame, look = CASES[case]

    assert pixels.is_legible([frame], look)
