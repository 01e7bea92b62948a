"""Requests for storage commitment in the index."""

from pacs.index.database import Index


def test_c5_a_request_waits_until_it_is_ended(index: Index) -> None:
    """Due, put off, checked, ended; what it named is forgotten in the end."""
    number = index.commitments.add("SCU", "2.25.1", b"sealed", "k1", 3)
    (first,) = index.commitments.due(1e12)
    assert (first.commitment_id, first.state, first.request, first.instances) == (number, "waiting", b"sealed", 3)

    index.commitments.checked(number, {2: 0x0112})
    index.commitments.later(number, 1e13, attempts=1)

    assert index.commitments.due(1e12) == []
    (again,) = index.commitments.due(1e13)
    assert (again.state, again.failures, again.attempts) == ("checked", {2: 0x0112}, 1)
    index.commitments.end(number, "reported", attempts=2)
    (ended,) = index.commitments.list()
    assert (ended.state, ended.request, index.commitments.due(1e13)) == ("reported", b"", [])


def test_c3_a_transaction_uid_is_known_per_peer(index: Index) -> None:
    """The first of a peer is not known, the second is; another peer may use the same."""
    first = index.commitments.add("SCU", "2.25.1", b"", "k1", 1)
    second = index.commitments.add("SCU", "2.25.1", b"", "k1", 1)
    other = index.commitments.add("OTHER", "2.25.1", b"", "k1", 1)

    known = [
        index.commitments.known(title, "2.25.1", one) for title, one in (("SCU", first), ("SCU", second), ("OTHER", other))
    ]

    assert known == [False, True, False]
