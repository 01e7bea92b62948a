"""The judge at the gate: what is wrong is found, what is right passes."""

from typing import Any

import making
import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacs import phantoms
from pacs.processing import Images, Series
from pacs.processing.derive import Made, Provenance, derive, encode
from pacs.processing.validate import findings


def good() -> tuple[Made, set[str], str]:
    source = phantoms.read(making.ct_series(1))
    outputs = [Images([source[0].pixel_array], like=source, description="x")]
    (made,) = derive(outputs, Provenance("0" * 64, "p", "1"))
    return made, {str(source[0].SOPInstanceUID)}, str(source[0].StudyInstanceUID)


def test_a_good_object_passes() -> None:
    """Nothing is found where nothing is wrong."""
    made, known, study = good()

    assert findings(made, encode(made.dataset), known, study) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.__delattr__("Rows"), "Rows is missing"),
        (lambda d: setattr(d, "ImageType", ""), "ImageType is empty"),
        (lambda d: setattr(d, "StudyInstanceUID", "1.2.3"), "StudyInstanceUID is not that of the inputs"),
        (lambda d: setattr(d.SourceImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"), "1 references"),
        (lambda d: d.add_new(0x00091010, "LO", "x"), "private attributes"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-2]), "pixels cannot be decoded"),
        (lambda d: setattr(d, "PixelData", bytes(len(d.PixelData))), "pixels are not what the processor made"),
        (lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "right angles"),
    ],
)
def test_what_is_wrong_is_found(change: Any, told: str) -> None:
    """Missing and empty attributes, foreign study, dangling references, private elements, pixels and place."""
    made, known, study = good()
    change(made.dataset)

    assert told in "; ".join(findings(made, encode(made.dataset), known, study))


def test_what_the_source_lacks_is_not_held_against_its_descendant() -> None:
    """The archive takes objects as they come, so a gap that was there before does not fail a job."""
    source: list[Dataset] = making.ct_series(1)
    del source[0].KVP
    source = phantoms.read(source)
    (made,) = derive(
        [Images([np.array(source[0].pixel_array)], like=Series(source).datasets, description="x")],
        Provenance("0" * 64, "p", "1"),
    )
    known, study = {str(source[0].SOPInstanceUID)}, str(source[0].StudyInstanceUID)

    assert findings(made, encode(made.dataset), known, study) == []
