"""The dictionary: pydicom's, and what PS3.6 has added."""

import pytest
from pydicom.datadict import DicomDictionary

from pacs.dicom import dictionary
from pacs.standard import tables


def test_additions_are_known_by_tag_and_keyword() -> None:
    """Elements newer than pydicom have VR and keyword, and are not in pydicom."""
    added = tables.dictionary_additions()

    assert len(added) > 100
    for tag, entry in added.items():
        assert tag not in DicomDictionary
        assert dictionary.vrs_of(tag) == entry.vrs and dictionary.tag_of(entry.keyword) == tag


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00100010, "PN"),
        (0x7FE00010, "OW"),
        (0x00280106, "US"),
        (0x60123000, "OW"),
        (0x00090010, "LO"),
        (0x00091001, "UN"),
        (0x00080000, "UL"),
    ],
)
def test_vrs(tag: int, vr: str) -> None:
    """Standard, repeating, private and group length elements."""
    assert dictionary.vr_of(tag) == vr


def test_an_unknown_keyword_is_a_key_error() -> None:
    """Nobody gets a tag for a word that is none."""
    with pytest.raises(KeyError):
        dictionary.tag_of("NoSuchKeyword")
    assert dictionary.keyword_of(0x00091001) == ""
