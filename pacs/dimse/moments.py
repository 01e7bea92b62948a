"""Dates and times that belong together: combined date-time matching and timezone adjustment of a C-FIND, where negotiated.

The index compares a date and a time each for itself. Where they are matched as one moment (PS3.4 C.2.2.2.5), or in another
timezone than the one they were written in (PS3.4 C.4.1.1.3.1), the index is asked a wider question and its answers are adjusted
and compared here. What does not say its timezone (0008,0201) was written in the one of this machine.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pacs.index import compare
from pacs.index.attributes import LAST_TIME, date_key, time_key
from pacs.model.errors import InvalidQuery
from pacs.model.query import AnyOf, Between, Match, Query, Single

PAIRS = {
    "StudyDate": "StudyTime",
    "SeriesDate": "SeriesTime",
    "AcquisitionDate": "AcquisitionTime",
    "ContentDate": "ContentTime",
    "PerformedProcedureStepStartDate": "PerformedProcedureStepStartTime",
}
"""Dates and the times that tell when in them. A date of birth is none of them: it is where the patient was."""
OFFSET = "TimezoneOffsetFromUTC"
_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)")
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Moments:
    """What a query asks of moments: `zone` is the offset from UTC it speaks in, "" for as written."""

    combined: bool
    zone: str
    matches: Mapping[str, Match]

    @property
    def idle(self) -> bool:
        """Whether answers of the index need no second look."""
        return not self.zone and not any(self._as_one(date) for date in PAIRS)

    def widened(self, query: Query) -> Query:
        """Return what to ask the index: every answer that may be meant is among its answers."""
        matches = dict(query.matches)
        for date, time in PAIRS.items():
            if self.zone:
                matches.pop(time, None)
                if date in matches:
                    matches[date] = _widened(matches[date])
            elif self._as_one(date):
                matches.pop(time)
        return replace(query, matches=matches)

    def answers(self, rows: Iterator[dict[str, str]]) -> Iterator[dict[str, str]]:
        """Yield the answers that are meant, in the timezone of the question."""
        for row in rows:
            moved = _moved(row, self.zone) if self.zone else row
            if all(self._meant(date, time, moved) for date, time in PAIRS.items()):
                yield moved

    def _as_one(self, date: str) -> bool:
        """Whether a date and its time are both ranges, to be matched as one."""
        ends = self.matches.get(date), self.matches.get(PAIRS[date])
        return self.combined and all(isinstance(one, Between) and one.low != one.high for one in ends)

    def _meant(self, date: str, time: str, row: Mapping[str, str]) -> bool:
        if not self._as_one(date):
            if not self.zone:
                return True
            return all(compare.matches(one, row.get(one, ""), self.matches[one]) for one in (date, time) if one in self.matches)
        days, hours = self.matches[date], self.matches[time]
        assert isinstance(days, Between) and isinstance(hours, Between)
        if not row.get(date):
            return False
        here = date_key(row[date]) + time_key(row.get(time, "") or "00")
        low = date_key(days.low) + time_key(hours.low or "00") if days.low else ""
        high = date_key(days.high) + _last(hours.high) if days.high else ""
        return (not low or here >= low) and (not high or here <= high)


def moments(query: Query, *, combined: bool, zone: str) -> Moments:
    """Return how the moments of a query are to be taken. Raises `InvalidQuery` for an offset that is none."""
    if zone and (not _OFFSET.fullmatch(zone) or not -720 <= _minutes(zone) <= 840):
        raise InvalidQuery("Timezone Offset From UTC is not between -1200 and +1400")
    return Moments(combined, zone, query.matches)


def _last(high: str) -> str:
    """Return the last moment that a time of reduced precision means; that of the day where none is named."""
    return high + LAST_TIME[len(high) :] if high else LAST_TIME


def _minutes(offset: str) -> int:
    found = _OFFSET.fullmatch(offset)
    assert found is not None
    minutes = int(found[2]) * 60 + int(found[3])
    return -minutes if found[1] == "-" else minutes


def _widened(match: Match) -> Match:
    """Return a date match with a day before and a day after."""
    if isinstance(match, Between):
        low, high = match.low, match.high
    elif isinstance(match, Single | AnyOf):
        values = [match.value] if isinstance(match, Single) else list(match.values)
        low, high = min(map(date_key, values)), max(map(date_key, values))
    else:
        return match
    return Between(_day(low, -_DAY), _day(high, _DAY))


def _day(date: str, step: timedelta) -> str:
    if not date:
        return ""
    try:
        return f"{datetime.strptime(date_key(date), '%Y%m%d') + step:%Y%m%d}"
    except (ValueError, OverflowError):
        raise InvalidQuery("a date of the query is not one") from None


def _moved(row: dict[str, str], zone: str) -> dict[str, str]:
    """Return an answer with its moments in another timezone; a date without a time stays."""
    moved = {**row, OFFSET: zone}
    for date, time in PAIRS.items():
        said = row.get(time, "").replace(":", "")
        try:
            at = datetime.strptime(date_key(row.get(date, "")) + said[:4].ljust(4, "0"), "%Y%m%d%H%M")
        except ValueError:
            continue
        if said:
            there = at + timedelta(minutes=_minutes(zone) - _written_in(row, at))
            moved[date] = f"{there:%Y%m%d}"
            moved[time] = f"{there:%H%M}{said[4:]}" if len(said) > 2 or there.minute else f"{there:%H}"
    return moved


def _written_in(row: Mapping[str, str], at: datetime) -> int:
    """Return the offset from UTC, in minutes, in which an answer was written."""
    said = row.get(OFFSET, "")
    if _OFFSET.fullmatch(said):
        return _minutes(said)
    ours = at.astimezone().utcoffset() or timedelta()
    return round(ours.total_seconds() / 60)
