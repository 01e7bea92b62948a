"""Dates, times and ages (PS3.15 E.3.6, Retain Longitudinal Temporal Information with Modified Dates).

A date moves by the same whole number of weeks for all of one patient's objects; times of day stay. What is no date cannot
be moved and is given up.
"""

import re
from datetime import date, timedelta

_DATE = re.compile(r"([0-9]{4})[.\-/]?([0-9]{2})[.\-/]?([0-9]{2})\Z")
_DATE_TIME = re.compile(
    r"([0-9]{4})(?:([0-9]{2})(?:([0-9]{2})([0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?)?)?)?([+-][0-9]{4})?\Z"
)
_TIME = re.compile(r"[0-9]{2}:?(?:[0-9]{2}:?(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?\Z")
_AGE = re.compile(r"([0-9]{1,3})([DWMY])\Z")
OLDEST_YEARS = 90
"""Ages above 89 are one class: the few people of such an age could be told by it."""


def shift_date(value: str, days: int) -> str:
    """Return the DA `value` moved by `days`; "" stays "", and so becomes what is no date.

    >>> shift_date("20240228", 2)
    '20240301'
    >>> shift_date("2016.02.17", -7)
    '20160210'
    >>> shift_date("00000000", -7)
    ''
    """
    match = _DATE.match(value.strip())
    if match is None:
        return ""
    return _moved(int(match[1]), int(match[2]), int(match[3]), days)


def shift_date_time(value: str, days: int) -> str:
    """Return the DT `value` moved by `days`; time, fraction and zone stay, partial dates keep their own precision.

    >>> shift_date_time("20240301120000.5+0100", -7)
    '20240223120000.5+0100'
    >>> shift_date_time("202403", -366)
    '202302'
    """
    match = _DATE_TIME.match(value.strip())
    if match is None:
        return ""
    year, month, day, rest, zone = match.groups(default="")
    # A partial date moves from its middle, so that on average it lands in the right month or year.
    moved = _moved(int(year), int(month or 7), int(day or (15 if month else 1)), days)
    if not moved:
        return ""
    return moved[: len(year + month + day)] + rest + zone


def clean_time(value: str) -> str:
    """Return the TM `value`, or "" where it is no time."""
    stripped = value.strip()
    return stripped if _TIME.match(stripped) else ""


def clean_age(value: str) -> str:
    """Return the AS `value` with ages above 89 years as 090Y, or "" where it is no age.

    >>> clean_age("093Y"), clean_age("047Y"), clean_age("Bob")
    ('090Y', '047Y', '')
    """
    match = _AGE.match(value.strip().upper())
    if match is None:
        return ""
    years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]
    return f"{OLDEST_YEARS:03d}Y" if years >= OLDEST_YEARS else f"{int(match[1]):03d}{match[2]}"


def _moved(year: int, month: int, day: int, days: int) -> str:
    try:
        moved = date(year, month, day) + timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"
