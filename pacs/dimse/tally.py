"""Counts the statuses that an association answers with, for /metrics and for the audit (DIMSE statuses: PS3.7 Annex C).

Our answers are counted where they leave, so that no service can forget one. Counters go to the database now and then and at
the end; the audit gets one event for each kind of answer when the association has ended.
"""

import time
from collections import Counter

from pacs.dimse import messages, status
from pacs.dimse.messages import Command
from pacs.index.tallies import Tallies
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError

log = get_logger(__name__)
EVERY_S = 5.0
_RESPONSE = 0x8000


class Tally:
    """The answers of one association; `answered` is called by the thread that sends them."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._new: Counter[tuple[str, str]] = Counter()
        self._all: Counter[tuple[str, str]] = Counter()
        self._written = time.monotonic()

    def answered(self, command: bytes) -> None:
        """Count the status of a command set that goes out, if it is a response."""
        field = messages.number_in(command, messages.COMMAND_FIELD)
        if not field & _RESPONSE:
            return
        code = messages.number_in(command, messages.STATUS)
        one = (_name(field), f"{code:04X}")
        self._new[one] += 1
        self._all[one] += 1
        if time.monotonic() - self._written > EVERY_S:
            self._write()

    def close(self, caller: str, address: str) -> None:
        """Write what is left, and the events of the audit; verification that succeeded is counted and no event."""
        told = {one: count for one, count in self._all.items() if one != ("C-ECHO", f"{status.SUCCESS:04X}")}
        try:
            self._tallies.closed(self._new, told, caller=caller.replace("\0", ""), address=address)
        except ArchiveError as error:
            log.exception("statuses_not_written", error)
        self._new = Counter()

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            self._tallies.add(self._new)
        except ArchiveError as error:
            log.warning("statuses_not_written", error=type(error).__name__)
            return
        self._new = Counter()


def _name(field: int) -> str:
    """Return the name of a response's service, C-STORE for 8001H."""
    try:
        return Command(field).name.removesuffix("_RSP").replace("_", "-")
    except ValueError:
        return f"{field & ~_RESPONSE:04X}"
