"""Drawn lines of presentation states: Clean Graphics is claimed where they cannot be handwriting."""

import making
import pytest
from deid.deidentifying import deidentifier
from pydicom.dataset import Dataset

GSPS = "1.2.840.10008.5.1.4.1.1.11.1"
RECTANGLE = [0.0, 0, 9, 0, 9, 9, 0, 9, 0, 0]
SCRIBBLE = [float(number % 7) for number in range(40)]


def drawn(*graphics: tuple[str, list[float]]) -> Dataset:
    """A presentation state with these graphic objects."""
    annotation = Dataset()
    annotation.GraphicLayer = "ONE"
    annotation.GraphicObjectSequence = []
    for kind, data in graphics:
        one = Dataset()
        one.GraphicAnnotationUnits, one.GraphicDimensions = "PIXEL", 2
        one.NumberOfGraphicPoints, one.GraphicData, one.GraphicType = len(data) // 2, data, kind
        annotation.GraphicObjectSequence.append(one)
    ds = making.dataset(SOPClassUID=GSPS, Modality="PR", GraphicAnnotationSequence=[annotation])
    del ds.PixelData
    return ds


@pytest.mark.parametrize(
    ("graphics", "claimed"),
    [
        ([("POINT", [1.0, 2]), ("CIRCLE", [5.0, 5, 9, 5]), ("POLYLINE", RECTANGLE)], True),
        ([("INTERPOLATED", SCRIBBLE)], False),
        ([("POLYLINE", [0.0, 0, 1, 1])] * 4, False),
    ],
)
def test_113103_is_claimed_where_lines_are_too_few_to_write_with(
    graphics: list[tuple[str, list[float]]], claimed: bool
) -> None:
    """Points, shapes and one rectangle spell nothing; a scribble or many strokes may. The lines themselves stay as they are."""
    result = deidentifier().deidentify(making.received(drawn(*graphics)))

    assert ("113103" in result.methods) is claimed
    (kept,) = (one for one in result.elements if one.tag == 0x00700001)
    assert len(kept.value) > 50
