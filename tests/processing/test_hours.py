"""Windows of the week: over midnight, over the weekend, and in the machine's own time zone."""

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from pacs.processing.hours import opens_at, parse


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place with summer time."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("hours", "now", "opens"),
    [
        (["19:00-06:00"], "2026-03-02T12:00", "2026-03-02T19:00"),
        (["19:00-06:00"], "2026-03-02T23:59", None),
        (["19:00-06:00"], "2026-03-03T05:59", None),
        (["19:00-06:00"], "2026-03-03T06:00", "2026-03-03T19:00"),
        (["mon-fri 19:00-06:00", "sat-sun"], "2026-03-07T12:00", None),
        (["mon-fri 19:00-06:00"], "2026-03-07T05:00", None),
        (["mon-fri 19:00-06:00"], "2026-03-07T06:30", "2026-03-09T19:00"),
        (["fri-mon 08:00-09:00"], "2026-03-04T12:00", "2026-03-06T08:00"),
        (["sun"], "2026-03-08T00:00", None),
        (["sun"], "2026-03-09T00:00", "2026-03-15T00:00"),
        # The night on which clocks go forward: the window opens at its hour by the wall clock.
        (["03:30-04:00"], "2026-03-29T01:00", "2026-03-29T03:30"),
        ([], "2026-03-02T12:00", None),
    ],
)
def test_when_a_window_opens(hours: list[str], now: str, opens: str | None) -> None:
    """Now where one is open, else the next beginning."""
    at = datetime.fromisoformat(now).timestamp()

    expected = at if opens is None else datetime.fromisoformat(opens).timestamp()
    assert opens_at([parse(one) for one in hours], at) == expected


@pytest.mark.parametrize("text", ["", "noon", "19-6", "funday 10:00-11:00", "25:00-26:00", "10:61-11:00"])
def test_what_is_no_window_is_refused(text: str) -> None:
    """With an example of what is."""
    with pytest.raises(ValueError, match=r"hours are like|days are|no time"):
        parse(text)
