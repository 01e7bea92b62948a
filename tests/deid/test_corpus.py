"""Nothing of the planted corpus survives, and a name in any text attribute of the dictionary does not either."""

import making
import pydicom
import pytest
from benchmarks.corpus import corpus, surviving
from deid.deidentifying import deidentifier, encoded
from pydicom.dataset import Dataset

from pacs.model.errors import ArchiveError

CORPUS = corpus()
PLANTED = "Quillfeather"
TEXTS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "PN", "UR", "AE", "CS"})
LEFT_ALONE = frozenset({0x00080005, 0x00080008, 0x00280301, 0x00280004})
"""Character set, Image Type, Burned In Annotation and Photometric Interpretation decide how an object is read at all."""


@pytest.mark.parametrize("policy", ["basic", "research"])
@pytest.mark.parametrize("name", sorted(CORPUS))
def test_nothing_planted_survives(name: str, policy: str) -> None:
    """Wherever it was hidden, under both policies; the object is stored, not merely refused."""
    assert surviving(encoded(deidentifier(policy).deidentify(making.received(CORPUS[name])))) == []


@pytest.mark.parametrize("policy", ["basic", "research"])
@pytest.mark.parametrize("nested", [False, True], ids=["top", "nested"])
def test_a_name_in_every_text_attribute_of_the_dictionary(policy: str, nested: bool) -> None:
    """Each keyword that pydicom knows, at the top and in a sequence, one object for every hundred of them."""
    tags = [
        tag
        for tag, row in sorted(pydicom.datadict.DicomDictionary.items())
        if row[4] and row[0] in TEXTS and 0x0008 <= tag >> 16 < 0x7FE0 and tag not in LEFT_ALONE and tag != 0x00041220
    ]
    assert len(tags) > 1500
    plain = {one.tag for one in making.dataset()}
    for start in range(0, len(tags), 100):
        ds = making.dataset()
        item = Dataset()
        for tag in tags[start : start + 100]:
            vr = pydicom.datadict.dictionary_VR(tag)
            if nested or tag not in plain:
                (item if nested else ds).add_new(tag, vr, PLANTED.upper() if vr == "CS" else PLANTED)
        if nested:
            ds.ReferencedImageSequence = [item]
        try:
            result = deidentifier(policy).deidentify(making.received(ds))
        except ArchiveError as error:
            raise AssertionError(f"refused at {tags[start]:08X}: {error}") from error
        assert PLANTED.lower().encode() not in encoded(result).lower(), f"{tags[start]:08X}"
