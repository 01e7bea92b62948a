"""Sub-operations of one C-MOVE on several associations at once: a receiver that answers slowly is waited for side by side.

Each association has its share of the instances and looks ahead in it. What was done is counted by the caller's thread alone,
which also tells the requestor that it goes on, and hears its C-CANCEL.
"""

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from pacs.archive import Archive
from pacs.dimse.ahead import Ahead
from pacs.dimse.onward import Onward
from pacs.model.instance import Stored

Attempt = Callable[[Onward, Stored, Ahead, Callable[[], None]], int | None]
_LEAST_EACH = 8
"""Instances that are worth an association of their own."""
_LOOK_EVERY_S = 0.1


class Stopped(Exception):
    """The sub-operation that is under way is not to be waited for."""


def how_many(wanted: int, instances: int) -> int:
    """Return how many associations to use for so many instances."""
    return max(1, min(wanted, instances // _LEAST_EACH))


def send_abreast(
    archive: Archive,
    ways: Sequence[Onward],
    order: Sequence[Stored],
    attempt: Attempt,
    done: Callable[[Stored, int | None], None],
    waiting: Callable[[], None],
    cancelled: Callable[[], bool],
) -> list[Stored]:
    """Send `order` by all `ways`; return what a further association was refused for, so that the first can send it.

    `done` is told of each sub-operation, `waiting` is called while there is nothing to tell: whatever it raises ends all
    associations and is raised. After `cancelled`, what is under way is finished and nothing is begun.
    """
    results: SimpleQueue[tuple[Stored, int | None] | None] = SimpleQueue()
    enough, broken_off, begun = threading.Event(), threading.Event(), threading.Event()
    left: list[Stored] = []

    def meanwhile() -> None:
        if broken_off.is_set():
            raise Stopped

    def send(number: int) -> None:
        way, share = ways[number], order[number :: len(ways)]
        if number:
            # Not before the first stands: a peer of one association might else refuse all that come together.
            begun.wait()
        ahead = Ahead(archive, share, way.originals, way.prefers)
        try:
            for index, stored in enumerate(share):
                if enough.is_set():
                    break
                if number and not index and ways[0].gone:
                    left.extend(share)
                    break
                code = attempt(way, stored, ahead, meanwhile)
                begun.set()
                if number and not index and code is None and way.gone:
                    # The peer takes fewer associations: nothing was tried, so nothing has failed.
                    left.extend(share)
                    break
                results.put((stored, code))
            # Released at once: a receiver that takes one association at a time is waiting for that. Where others were
            # refused, the first goes on with their share by the association it has.
            if number or not left:
                way.close()
        except Stopped:
            way.abandon()
        finally:
            begun.set()
            ahead.close()
            results.put(None)

    threads = [threading.Thread(target=send, args=(number,), name="abreast", daemon=True) for number in range(len(ways))]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            try:
                found = results.get(timeout=_LOOK_EVERY_S)
            except Empty:
                waiting()
            else:
                if found is None:
                    running -= 1
                else:
                    done(*found)
            if cancelled():
                enough.set()
    finally:
        enough.set()
        broken_off.set()
        for thread in threads:
            thread.join()
    return left
