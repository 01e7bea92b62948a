"""When pixels are compressed."""

import pytest

from pacs.codec.haste import Haste


class Clock:
    """A clock that tests set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_sender_a_core_is_compressed_at_once_more_are_later() -> None:
    """The third of three senders on two cores, and everybody while they go on; a second of rest, and it is at once again."""
    clock = Clock()
    haste = Haste("auto", 2, clock=clock)

    assert [haste.later(name) for name in ("a", "b", "a", "c", "a", "b")] == [False, False, False, True, True, True]
    clock.now += 1.5
    assert [haste.later(name) for name in ("a", "b")] == [False, False]


@pytest.mark.parametrize(("when", "expected"), [("at once", False), ("later", True)])
def test_a_setting_decides_for_all(when: str, expected: bool) -> None:
    """At once, or later, whoever sends."""
    haste = Haste(when, 1)

    assert {haste.later(name) for name in ("a", "b", "c")} == {expected}


def test_a_backlog_has_a_bound() -> None:
    """When so many wait everything is compressed at once, until fewer do; it is asked now and then only."""
    clock, waiting, asked = Clock(), [10], []

    def backlog() -> int:
        asked.append(1)
        return waiting[0]

    haste = Haste("later", 1, backlog=backlog, backlog_limit=5, clock=clock)
    assert [haste.later("a") for _ in range(3)] == [False] * 3
    assert len(asked) == 1

    waiting[0], clock.now = 4, clock.now + 6
    assert haste.later("a")
