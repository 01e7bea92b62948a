"""Pictures show what the header and the caller say (PS3.3 C.11, PS3.18 8.3.5)."""

import struct

import cv2
import making
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from serving import OTHER_STUDY, Served, cine, colour_image

from pacs.dicom import elements
from pacs.model.instance import Element
from pacs.web import picture
from pacs.web.picture import Viewport, Window


def header(ds: Dataset, **overrides: object) -> list[Element]:
    """Return the data set's elements without Pixel Data."""
    for keyword, value in overrides.items():
        setattr(ds, keyword, value)
    return [one for one in elements.walk(making.encode(ds)) if one.tag != 0x7FE00010]


def ramp() -> NDArray[np.int16]:
    """Return values from -100 to 155, one column each."""
    return np.tile(np.arange(-100, 156, dtype=np.int16), (8, 1))


def test_window_of_the_header_is_used_as_the_formula_says() -> None:
    """C.11.2.1.2.1: with centre 0 and width 101, -51 is black, 50 is white, and the middle is the middle."""
    shown = picture.draw(header(making.dataset(), WindowCenter="0", WindowWidth="101"), ramp())

    assert (shown[0, 48], shown[0, 150], shown[0, 155]) == (0, 255, 255)
    assert abs(int(shown[0, 100]) - 128) <= 2


def test_the_callers_window_comes_first_and_works_on_modality_values() -> None:
    """Rescale Slope and Intercept are applied before the window."""
    ds = header(making.dataset(), RescaleSlope="2", RescaleIntercept="1000", WindowCenter="1", WindowWidth="2")
    shown = picture.draw(ds, ramp(), window=Window(1000, 200, "LINEAR_EXACT"))

    assert abs(int(shown[0, 100]) - 127) <= 1
    assert (shown[0, 49], shown[0, 151]) == (0, 255)


def test_monochrome1_is_turned() -> None:
    """The lowest value is white (C.7.6.3.1.2)."""
    straight = picture.draw(header(making.dataset(), WindowCenter="0", WindowWidth="200"), ramp())
    turned = picture.draw(
        header(making.dataset(), WindowCenter="0", WindowWidth="200", PhotometricInterpretation="MONOCHROME1"), ramp()
    )

    assert np.abs(turned.astype(int) + straight - 255).max() <= 1


def test_without_a_window_the_values_are_shown() -> None:
    """A picture without window is neither black nor white."""
    shown = picture.draw(header(making.dataset()), making.pixels())

    assert shown.std() > 40


def test_pixel_padding_is_black_and_does_not_move_the_window() -> None:
    """Pixel Padding Value is outside the image (C.7.5.1.1.2)."""
    values = ramp()
    values[0, :] = -2000
    shown = picture.draw(header(making.dataset(), PixelPaddingValue=-2000), values)

    assert not shown[0].any()
    assert shown[1, 200] > shown[1, 100] > shown[1, 30] > 0


def test_palette_colour_goes_through_its_tables() -> None:
    """C.7.6.3.1.5: the index is looked up in three tables, from the first value mapped on."""
    ds = making.dataset(PhotometricInterpretation="PALETTE COLOR", PixelRepresentation=0)
    for name, entries in (("Red", [0, 255, 0]), ("Green", [0, 0, 255]), ("Blue", [9, 9, 9])):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [3, 5, 16])
        setattr(ds, f"{name}PaletteColorLookupTableData", struct.pack("<3H", *(one << 8 for one in entries)))
    shown = picture.draw(header(ds), np.array([[0, 5, 6, 7, 99]], np.uint8))

    assert shown[0].tolist() == [[0, 0, 9], [0, 0, 9], [255, 0, 9], [0, 255, 9], [0, 255, 9]]


def test_a_segmentation_is_a_mask_in_its_segments_colour() -> None:
    """What is inside has the Recommended Display CIELab Value, the rest is black."""
    ds = making.dataset(SegmentationType="BINARY")
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    segment, group, identification = Dataset(), Dataset(), Dataset()
    segment.SegmentNumber = 1
    segment.RecommendedDisplayCIELabValue = [34885, 53485, 50171]  # pure red
    identification.ReferencedSegmentNumber = 1
    group.SegmentIdentificationSequence = Sequence([identification])
    ds.SegmentSequence, ds.PerFrameFunctionalGroupsSequence = Sequence([segment]), Sequence([group])
    shown = picture.draw(header(ds), np.array([[0, 1], [1, 0]], np.uint8))

    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[0, 1, 0] > 240
    assert shown[0, 1, 1:].max() < 20


def test_functional_groups_of_the_frame_are_used() -> None:
    """An enhanced image has its window in each frame's own group (C.7.6.16.2.10)."""
    ds = making.dataset()
    groups = []
    for center in (0, 100):
        group, voi = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = str(center), "10"
        group.FrameVOILUTSequence = Sequence([voi])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)

    first, second = (picture.draw(header(ds), ramp(), number=number) for number in (1, 2))

    assert (first[0, 150], second[0, 150]) == (255, 0)


def test_viewport_keeps_the_shape_and_unequal_spacing_is_shown_square() -> None:
    """A 64 x 64 image of 2 x 1 mm pixels is twice as high as wide; a viewport holds it whole."""
    tall = header(making.dataset(), PixelSpacing=["2", "1"])

    assert picture.draw(tall, making.pixels()).shape == (128, 64)
    assert picture.draw(tall, making.pixels(), viewport=Viewport(100, 100)).shape == (100, 50)
    assert picture.draw(header(making.dataset()), ramp(), viewport=Viewport(20, 20, 10, 2, 4, 4)).shape == (20, 20)


def decoded(data: bytes) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG as RGB."""
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found[:, :, ::-1] if found.ndim == 3 else found


@pytest.fixture(scope="module")
def places(filled: Served) -> dict[str, str]:
    """Paths of an instance of each kind."""
    found = {}
    for name, number in (("colour", "7"), ("cine", "8"), ("ct", "2")):
        rows = filled.client.get("/dicom-web/instances", params={"SeriesNumber": number, "ModalitiesInStudy": "OT"}).json()
        found[name] = rows[0]["00081190"]["Value"][0]
    return found


def test_w10_rendered_colour_is_the_colour_that_was_sent(filled: Served, places: dict[str, str]) -> None:
    """PNG of an RGB image: red, green and blue thirds."""
    answer = filled.client.get(f"{places['colour']}/rendered", headers={"Accept": "image/png"})
    shown = decoded(answer.content)

    assert answer.headers["content-type"] == "image/png"
    assert [shown[20, x].tolist() for x in (10, 30, 50)] == [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
    assert colour_image().Rows == shown.shape[0]


def test_w10_rendered_frames_are_the_frames(filled: Served, places: dict[str, str]) -> None:
    """Frame 3 of the cine is brighter than frame 1; the browser's Accept gets a JPEG."""
    browser = {"Accept": "image/avif,image/webp,image/apng,*/*;q=0.8"}
    one, three = (filled.client.get(f"{places['cine']}/frames/{n}/rendered", headers=browser) for n in (1, 3))

    assert one.headers["content-type"] == "image/jpeg"
    assert abs(float(decoded(one.content).mean()) - 40) < 3
    assert abs(float(decoded(three.content).mean()) - 120) < 3
    assert cine().NumberOfFrames == 4


@pytest.mark.parametrize("level", ["", "/series", "/instances"])
def test_w11_thumbnails_of_every_level(filled: Served, places: dict[str, str], level: str) -> None:
    """Study, series and instance have a small picture that honours `?accept=` and `viewport`."""
    place = places["ct"]
    place = {"": place.partition("/series")[0], "/series": place.partition("/instances")[0], "/instances": place}[level]
    answer = filled.client.get(f"{place}/thumbnail", params={"accept": "image/png", "viewport": "32,32"})

    assert answer.headers["content-type"] == "image/png"
    assert decoded(answer.content).shape[:2] == (32, 32)
    assert filled.client.get(f"{place}/thumbnail", headers={"If-None-Match": answer.headers["etag"]}).status_code == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("window=40,400", 200),
        ("window=40,400,sigmoid", 200),
        ("window=40,400,linear-exact&viewport=20,20&quality=50", 200),
        ("window=40", 400),
        ("window=40,0", 400),
        ("window=a,b", 400),
        ("window=nan,1", 400),
        ("window=1,400,cubic", 400),
        ("viewport=0,10", 400),
        ("viewport=100000,100000", 400),
        ("viewport=10,10,0,0,-5,5", 406),
        ("quality=0", 400),
        ("quality=%C2%B2", 400),
        ("accept=image/gif", 406),
    ],
)
def test_w10_parameters_are_checked(filled: Served, places: dict[str, str], query: str, status: int) -> None:
    """Malformed is 400, what is not made is 406."""
    assert filled.client.get(f"{places['ct']}/rendered?{query}").status_code == status


def test_w10_no_pixels_is_404(served: Served) -> None:
    """An object without Pixel Data has no picture."""
    ds = making.dataset(study_uid=f"{OTHER_STUDY}.5", series_uid=f"{OTHER_STUDY}.5.1", Modality="RTSTRUCT")
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"):
        delattr(ds, keyword)
    answer = served.stow(ds)
    assert answer.status_code == 200, answer.text

    assert served.client.get(answer.json()["00081190"]["Value"][0] + "/thumbnail").status_code == 404
