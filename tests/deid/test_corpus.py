"""Nothing of the planted corpus survives, and a name in any text attribute of the dictionary does not either."""

import hashlib
import subprocess
import sys

import making
import pydicom
import pytest
from benchmarks.corpus import corpus, surviving
from deid.deidentifying import deidentifier, encoded
from hypothesis import given, settings
from hypothesis import strategies as some
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


def test_another_process_gives_the_same_bytes_for_the_whole_corpus() -> None:
    """Under another hash seed, in another order, each object comes out byte for byte the same."""
    script = (
        "import sys, hashlib; sys.path.insert(0, 'tests'); import making; from benchmarks.corpus import corpus;"
        "from deid.deidentifying import deidentifier, encoded; one = deidentifier();"
        "print(sorted((name, hashlib.sha256(encoded(one.deidentify(making.received(ds)))).hexdigest())"
        " for name, ds in sorted(corpus().items(), reverse=True)))"
    )
    surroundings = {"PYTHONPATH": ".", "PYTHONHASHSEED": "7", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=surroundings)

    here = sorted(
        (name, hashlib.sha256(encoded(deidentifier().deidentify(making.received(ds)))).hexdigest())
        for name, ds in CORPUS.items()
    )
    assert done.stdout.strip() == str(here)


@settings(max_examples=30, deadline=None)
@given(some.integers(1, 60), some.sampled_from(["RequestAttributesSequence", "ProcedureCodeSequence", "ContentSequence"]))
def test_depth_hides_nothing(depth: int, keyword: str) -> None:
    """A name, an identifier and a UID at any depth that is taken in."""
    inner = Dataset()
    inner.PatientName, inner.PatientComments, inner.TextValue = making.PATIENT_NAME, PLANTED, f"of {PLANTED}"
    inner.StudyInstanceUID, inner.AccessionNumber = making.STUDY_UID, "ACC-5561907"
    for _ in range(depth):
        outer = Dataset()
        setattr(outer, keyword, [inner])
        inner = outer
    ds = making.dataset(**{keyword: inner[keyword].value})

    text = encoded(deidentifier().deidentify(making.received(ds)))

    assert not any(planted.encode() in text for planted in making.PLANTED)
