"""Attributes in their levels and their comparable forms."""

import doctest

import pytest

from pacs.index import attributes
from pacs.index.attributes import VR, columns_of, level_of, number_key, split, time_key
from pacs.model.query import Level


def test_the_examples_in_the_documentation_are_true() -> None:
    """Each docstring example gives what it says."""
    assert doctest.testmod(attributes).failed == 0


def test_attributes_go_to_their_level() -> None:
    """By the module of PS3.3 they belong to; what is unknown belongs to the instance, what is empty to none."""
    levels = split({"PatientID": "1", "StudyDate": "", "Modality": "CT", "Rows": "5", "SomethingElse": "x"})

    assert levels == {
        Level.PATIENT: {"PatientID": "1"},
        Level.STUDY: {},
        Level.SERIES: {"Modality": "CT"},
        Level.IMAGE: {"Rows": "5", "SomethingElse": "x"},
    }


def test_every_key_has_a_level() -> None:
    """Stored and computed ones; a key that cannot be matched has none."""
    assert {level_of(keyword) for keyword in VR} == set(Level)
    assert level_of("ModalitiesInStudy") is Level.STUDY
    assert level_of("PregnancyStatus") is None


@pytest.mark.parametrize("value", ["", "x", "1e5", "2147483648", "1.5"])
def test_a_number_that_is_none_has_no_key(value: str) -> None:
    """PS3.5 Table 6.2-1: IS is a whole number between -2^31 and 2^31 - 1."""
    assert number_key(value) is None


def test_a_time_has_full_precision() -> None:
    """Whatever was left out is zero; nothing stays nothing."""
    assert [time_key(value) for value in ("", "10", "101112.5")] == ["", "100000.000000", "101112.500000"]


def test_no_value_is_too_long_to_be_compared() -> None:
    """A database index refuses long keys; the rest of such a value does not count."""
    columns = columns_of(
        Level.STUDY, dict.fromkeys(("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"), "x" * 9999)
    )

    assert max(len(str(value)) for name, value in columns.items() if "words" not in name) <= attributes.LONGEST
