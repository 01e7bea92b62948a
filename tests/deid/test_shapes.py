"""Under a policy that removes faces, what carries shapes and cannot be cut stays out, unless its header names another part."""

import making
import pytest
from deid.deidentifying import deidentifier

from pacs.model.errors import Quarantined

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PET = "1.2.840.10008.5.1.4.1.1.128"


@pytest.mark.parametrize("sop_class_uid", [SEGMENTATION, PET])
@pytest.mark.parametrize("words", [{"BodyPartExamined": "HEAD"}, {"BodyPartExamined": ""}])
def test_a_shape_of_a_head_goes_to_quarantine(sop_class_uid: str, words: dict[str, str]) -> None:
    """A segmentation or PET image of a head, or of who knows what, is doubtful."""
    silent = {"SeriesDescription": "", "StudyDescription": ""}
    ds = making.dataset(SOPClassUID=sop_class_uid, **{**silent, **words})

    with pytest.raises(Quarantined, match="shape of a face"):
        deidentifier("research-faceless").deidentify(making.received(ds))

    assert deidentifier("research").deidentify(making.received(ds)).pending == ()


def test_a_shape_of_another_part_comes_in() -> None:
    """A segmentation of the chest is what it says."""
    ds = making.dataset(SOPClassUID=SEGMENTATION, BodyPartExamined="CHEST")

    assert deidentifier("research-faceless").deidentify(making.received(ds)).policy == "research-faceless"
