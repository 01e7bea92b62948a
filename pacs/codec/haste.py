"""When pixels are compressed: before the answer while a core is free for it, later while several senders wait.

What is to be compressed later is kept packed (`pacs.codec.packing`): as durable, encrypted and exact, only larger for a while.
"""

import threading
import time
from collections.abc import Callable

AT_ONCE, LATER, AUTO = "at once", "later", "auto"
_RECENT_S = 1.0
_LOOK_EVERY_S = 5.0


class Haste:
    """Decides for each arrival; safe for threads."""

    def __init__(
        self,
        when: str,
        cores: int,
        *,
        backlog: Callable[[], int] = lambda: 0,
        backlog_limit: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a judge.

        Parameters
        ----------
        when : {"auto", "at once", "later"}
            "auto" compresses at once while no more senders than `cores` have sent within a second.
        backlog : callable
            Says how many instances wait to be compressed; asked every few seconds.
        backlog_limit : int
            So many may wait; more are compressed at once, whoever sends. 0: any number.
        """
        self._when = when
        self._cores = cores
        self._backlog, self._backlog_limit = backlog, backlog_limit
        self._clock = clock
        self._lock = threading.Lock()
        self._senders: dict[str, float] = {}
        self._looked = -_LOOK_EVERY_S
        self._is_full = False

    def later(self, sender: str) -> bool:
        """Say whether what `sender` (an association, a request) has sent is compressed after the answer."""
        if self._when == AT_ONCE:
            return False
        now = self._clock()
        with self._lock:
            self._senders[sender] = now
            if len(self._senders) > self._cores:
                recent = now - _RECENT_S
                self._senders = {name: at for name, at in self._senders.items() if at >= recent}
            several = len(self._senders) > self._cores
            look = self._backlog_limit > 0 and now - self._looked >= _LOOK_EVERY_S
            if look:
                self._looked = now
        if look:
            self._is_full = self._backlog() >= self._backlog_limit
        return (several or self._when == LATER) and not self._is_full
