"""How long to wait before something is tried again."""

LONGEST_WAIT_S = 3600.0


def wait_s(first_s: float, tries: int) -> float:
    """Return how long to wait after so many tries: `first_s`, doubled from try to try, an hour at the most.

    >>> [wait_s(5.0, tries) for tries in (1, 2, 3, 40)]
    [5.0, 10.0, 20.0, 3600.0]
    """
    return min(first_s * 2.0 ** min(max(tries - 1, 0), 32), LONGEST_WAIT_S)
