"""When a rule's jobs may begin: windows of the week in the machine's own time zone, such as "mon-fri 19:00-06:00"."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_WINDOW = re.compile(r"(?:(?P<days>[a-z,-]+)\s*)?(?:(?P<begin>\d\d:\d\d)\s*-\s*(?P<end>\d\d:\d\d))?$")


@dataclass(frozen=True, slots=True)
class Window:
    """Weekdays on which it opens (0 is Monday), and minutes of the day; one that ends before it begins ends the next day."""

    days: frozenset[int]
    begin: int
    end: int

    @property
    def minutes(self) -> int:
        """How long it is open."""
        return (self.end - self.begin) % _DAY_MINUTES or _DAY_MINUTES


def parse(text: str) -> Window:
    """Read a window: days ("mon-fri", "sat,sun"; all where absent), hours ("19:00-06:00"; all day where absent), or both.

    >>> parse("sat-sun").minutes, parse("19:00-06:00").minutes
    (1440, 660)
    """
    found = _WINDOW.match(text.strip().lower())
    if not found or not text.strip():
        raise ValueError('hours are like "19:00-06:00", "sat-sun" or "mon-fri 19:00-06:00"')
    days = frozenset(range(7)) if not found["days"] else _days(found["days"])
    return Window(days, _minutes(found["begin"] or "00:00"), _minutes(found["end"] or "00:00") % _DAY_MINUTES)


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"days are {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1)}
    return frozenset(found)


def _minutes(text: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    if minutes > 59 or hours * 60 + minutes > _DAY_MINUTES:
        raise ValueError(f"{text} is no time of the day")
    return hours * 60 + minutes


def opens_at(windows: Sequence[Window], now: float) -> float:
    """Return when the next window opens, seconds since the epoch; `now` itself while one is open (or there is none)."""
    if not windows:
        return now
    local = datetime.fromtimestamp(now)
    starts = []
    for window in windows:
        for ahead in range(-1, 8):
            date = (local + timedelta(days=ahead)).date()
            if date.weekday() not in window.days:
                continue
            # Wall-clock times: over a change of summer time a window keeps its hours, not its length.
            start = datetime.combine(date, time()) + timedelta(minutes=window.begin)
            if start <= local < start + timedelta(minutes=window.minutes):
                return now
            if start > local:
                starts.append(start)
                break
    return min(starts).timestamp()
