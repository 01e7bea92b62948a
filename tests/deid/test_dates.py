"""Dates, times and ages."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pacs.deid.dates import clean_age, clean_time, shift_date, shift_date_time


@given(some.dates(min_value=date(1920, 1, 1), max_value=date(2100, 1, 1)), some.integers(-3661, -364))
def test_a_date_moves_by_exactly_the_days(day: date, days: int) -> None:
    """Whatever the calendar does, the distance is kept."""
    assert shift_date(f"{day:%Y%m%d}", days) == f"{day + timedelta(days=days):%Y%m%d}"


@pytest.mark.parametrize("value", ["", "00000000", "20240230", "2024", "today", "20240101 Smith"])
def test_what_is_no_date_becomes_empty(value: str) -> None:
    """Text that is no date cannot hide in a DA."""
    assert shift_date(value, -7) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20240301120000.123456+0100", "20240223120000.123456+0100"),
        ("20240301", "20240223"),
        ("2024030112", "2024022312"),
        ("Smith", ""),
        ("20240301120000 Smith", ""),
    ],
)
def test_a_date_time_keeps_time_fraction_and_zone(value: str, expected: str) -> None:
    """Only the date moves; what is no DT is given up."""
    assert shift_date_time(value, -7) == expected


@pytest.mark.parametrize(("value", "expected"), [("2024", 4), ("202403", 6)])
def test_partial_dates_keep_their_precision(value: str, expected: int) -> None:
    """A year stays a year, a month a month."""
    assert len(shift_date_time(value, -400)) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("101502.5", "101502.5"), ("10", "10"), ("10:15:02", "10:15:02"), ("noon", "")]
)
def test_times_stay_if_they_are_times(value: str, expected: str) -> None:
    """TM is kept as it came, or given up."""
    assert clean_time(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("089Y", "089Y"), ("090Y", "090Y"), ("104Y", "090Y"), ("999M", "999M"), ("003W", "003W"), ("old", "")],
)
def test_ages_above_89_are_one_class(value: str, expected: str) -> None:
    """The oldest cannot be told by their age."""
    assert clean_age(value) == expected
