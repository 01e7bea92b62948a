"""Coded concepts without pydicom's dictionary of them, and with it where that is asked for."""

import subprocess
import sys

import pytest
from pydicom.sr.codedict import codes as dictionary

from pacs.processing import Code, codes
from pacs.processing.concepts import COMMON


@pytest.mark.parametrize(("scheme", "keyword"), COMMON)
def test_what_is_kept_here_is_what_the_dictionary_says(scheme: str, keyword: str) -> None:
    """Value, scheme and meaning."""
    assert tuple(COMMON[scheme, keyword]) == tuple(getattr(getattr(dictionary, scheme), keyword))


def test_any_other_concept_is_looked_up() -> None:
    """A plug-in may name what no shipped processor does, of any scheme."""
    assert ("SCT", "Spleen") not in COMMON
    assert codes.SCT.Spleen == Code("78961009", "SCT", "Spleen")
    other = dir(dictionary.RADLEX)[0]
    assert getattr(codes.RADLEX, other).scheme_designator == "RADLEX"


@pytest.mark.parametrize("name", ["SCT.NoSuchThing", "NOSUCHSCHEME", "SCT._private", "_private"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    """As for any misspelt name."""
    found: object = codes
    with pytest.raises(AttributeError):
        for part in name.split("."):
            found = getattr(found, part)


@pytest.mark.parametrize(
    "statement",
    ["import pacs.dimse.receivers", "from pacs.processing.registry import discover; assert len(discover()) > 20"],
)
def test_no_process_pays_for_the_dictionary(statement: str) -> None:
    """It costs a second and 130 MB: a receiver does without it, and so does whoever lists the shipped processors.

    Where this fails after a processor named a new concept, that concept belongs into `COMMON`.
    """
    check = f"{statement}; import sys; print('pydicom.sr' in sys.modules, 'highdicom' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=120)

    assert done.stdout.split() == ["False", "False"]
