"""Under a policy that removes faces, what carries shapes is held for a mask, and what no mask helps stays out."""

import making
import pytest
from deid.deidentifying import deidentifier, read_back

from pacs.deid.candidates import SAID
from pacs.model.errors import Quarantined

STORAGE = "1.2.840.10008.5.1.4.1.1."
SEGMENTATION, PET, PARAMETRIC_MAP, DOSE, STRUCTURES = (STORAGE + one for one in ("66.4", "128", "30", "481.2", "481.3"))
SILENT = {"SeriesDescription": "", "StudyDescription": ""}


@pytest.mark.parametrize("sop_class_uid", [SEGMENTATION, STORAGE + "66.7", PET, STORAGE + "130", PARAMETRIC_MAP, DOSE])
@pytest.mark.parametrize("words", [{"BodyPartExamined": "HEAD"}, {"BodyPartExamined": ""}, {"BodyPartExamined": "CHEST"}])
def test_what_a_mask_can_cut_is_held_for_it(sop_class_uid: str, words: dict[str, str]) -> None:
    """Whatever its header says: a head in its frame of reference may show that it is wrong."""
    ds = making.dataset(SOPClassUID=sop_class_uid, **{**SILENT, **words})

    assert deidentifier("research-faceless").deidentify(making.received(ds)).pending == ("shapes",)
    assert deidentifier("research").deidentify(making.received(ds)).pending == ()


def test_which_part_was_named_is_written_down_before_words_are_cleaned() -> None:
    """A word that no vocabulary knows goes, and what is left would name the chest alone."""
    ds = making.dataset(SOPClassUID=SEGMENTATION, **{**SILENT, "BodyPartExamined": "", "StudyDescription": "Chest TMJ"})

    result = deidentifier("research-faceless").deidentify(making.received(ds))

    assert read_back(result).StudyDescription.strip() == "Chest"
    assert {one for one in result.report if one.startswith(SAID)} == {"part_named_head"}


@pytest.mark.parametrize("suffix", ["13.1.2", "20", "66.5", "481.3"])
def test_a_shape_that_no_mask_helps_goes_to_quarantine(suffix: str) -> None:
    """Meshes, contours, projections of a camera: unless they name another part of the body."""
    ds = making.dataset(SOPClassUID=STORAGE + suffix, **{**SILENT, "BodyPartExamined": ""})
    chest = making.dataset(SOPClassUID=STORAGE + suffix, BodyPartExamined="CHEST")

    with pytest.raises(Quarantined, match="shape of a face"):
        deidentifier("research-faceless").deidentify(making.received(ds))

    assert deidentifier("research-faceless").deidentify(making.received(chest)).pending == ()


def test_real_numbers_and_contours_beside_a_grid_are_not_cut() -> None:
    """A Parametric Map of floats keeps them outside of Pixel Data; a dose may carry contours: a mask misses both."""
    floats = making.dataset(SOPClassUID=PARAMETRIC_MAP, BodyPartExamined="HEAD")
    floats.add_new(0x7FE00008, "OF", bytes(floats.PixelData))
    del floats.PixelData
    contours = making.dataset(SOPClassUID=DOSE, BodyPartExamined="HEAD")
    contours.ROIContourSequence = [making.Dataset()]

    for ds in (floats, contours):
        with pytest.raises(Quarantined, match="shape of a face"):
            deidentifier("research-faceless").deidentify(making.received(ds))
