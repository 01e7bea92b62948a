"""Work that waits in rows until it is due: looked for, claimed, done, and put off where a peer does not take it.

Several processes may look at the same rows; whoever claims one has it for a while, and nobody loses it by dying.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from pacs.logs import get_logger

log = get_logger(__name__)
LEASE_S = 600.0
Row = TypeVar("Row")


class Rows(Protocol[Row]):
    """A table of such work."""

    def due(self, now: float) -> Sequence[Row]:
        """Return what is to be done now."""

    def claim(self, row: Row, until: float, /) -> bool:
        """Keep a row from others until then; false if somebody else was first."""


def turn(rows: Rows[Row], work: Callable[[Row], None], now: Callable[[], float]) -> int:
    """Do what is due and nobody else has; returns how many rows were looked at."""
    found = rows.due(now())
    for row in found:
        if rows.claim(row, now() + LEASE_S):
            work(row)
    return len(found)


def keep_on(take_turn: Callable[[], int], stop: threading.Event, rest: Callable[[], object], *, failed: str) -> None:
    """Take turns until `stop` is set, resting after those in which there was nothing; a bug is logged as `failed`."""
    while not stop.is_set():
        try:
            worked = take_turn()
        except Exception as error:
            log.exception(failed, error)
            worked = 0
        if not worked:
            rest()
