"""Held instances on every database: invisible, due for cleaning, replaced or withdrawn in one transaction."""

from dataclasses import replace

import arrivals
import pytest
from arrivals import placed

from pacs.index.database import Index
from pacs.model.errors import NotFound
from pacs.model.instance import Arrival, Cleaned, Location, SealedRegion, Stored
from pacs.model.job import Claim, JobState, NewJob
from pacs.model.query import Level, Query

RESTS = {"settle_s": 2.0, "quiet_s": 20.0, "study_settle_s": 4.0}


def held(number: int, *pending: str, **overrides: object) -> tuple[Arrival, Location]:
    """An arrival that must be cleaned first."""
    arrival, location = placed(number, **overrides)
    return replace(arrival, pending=pending or ("pixels",)), location


def claimed(index: Index, clock: arrivals.Clock) -> Claim:
    """A cleaning job for what is held, claimed."""
    (series,) = index.settled_held(clock.now + 30, **RESTS)
    job = NewJob(
        f"k{series.generation}", "clean-pixels", "1", {}, "de-identification", "cpu", "1.1", ("1.1.1",), series.completion
    )
    (job_id,) = index.scheduled_held(series, [job])
    assert index.jobs.claim(job_id, "w", 30) is not None
    return Claim(job_id, "w")


def as_cleaned(stored: Stored, number: int, *remaining: str) -> Cleaned:
    """The record that takes its place, with another digest elsewhere."""
    arrival, _ = placed(number)
    encoded = replace(arrival.encoded, digest=b"clean" + bytes([number]), transfer_syntax_uid="1.2.840.10008.1.2.4.202")
    arrival = replace(arrival, encoded=encoded, pending=remaining, received_digest=stored.digest)
    return Cleaned(stored, arrival, Location("worker-1.seg", 512 * number, 77))


def counted(index: Index) -> int:
    """How many instances anybody sees."""
    seen = index.count(Query(level=Level.IMAGE, matches={}))
    assert seen == index.summary()["instances"] == len(index.locate(study_instance_uids=["1.1"]))
    return seen


def test_what_is_held_is_seen_by_nobody_and_wakes_no_rule(index: Index, clock: arrivals.Clock) -> None:
    """Not even its study; but a resend is known, and it waits to be cleaned."""
    (stored,) = index.add([held(1)])

    assert (counted(index), list(index.studies())) == (0, [])
    assert index.settled(clock.now + 1000, **{**RESTS, "study_settle_s": 0}) == []
    assert index.equal("1.1.1.1", stored.digest) is not None
    (there,) = index.locate(study_instance_uids=["1.1"], include_held=True)
    assert there.pending == ("pixels",)
    assert index.pending() == 1


def test_a_held_series_is_due_when_its_association_was_released(index: Index, clock: arrivals.Clock) -> None:
    """By the same evidence as every series, once for each generation; the clock is the last resort."""
    index.add([held(1, association="a1"), held(2, "pixels", "faces", association="a1")])
    assert index.settled_held(clock.now + 10, **RESTS) == []

    index.end_association("a1")
    (series,) = index.settled_held(clock.now + 10, **RESTS)

    assert (series.pending, series.completion) == (("faces", "pixels"), "association released")
    index.scheduled_held(series, [])
    assert index.settled_held(clock.now + 10, **RESTS) == []
    index.add([held(3)])
    assert len(index.settled_held(clock.now + 30, **RESTS)) == 1


def test_clean_records_take_the_place_of_the_held_ones(index: Index, clock: arrivals.Clock) -> None:
    """In the transaction that ends the job: location, digest and syntax are the new ones, and rules are woken by it."""
    index.add([placed(1), held(2), held(3)])
    assert index.settled(clock.now + 1000, **{**RESTS, "study_settle_s": 0}) == []
    two, three = (one for one in index.locate(study_instance_uids=["1.1"], include_held=True) if one.pending)
    claim = claimed(index, clock)

    taken = index.cleaned([as_cleaned(two, 2), as_cleaned(three, 3)], finishing=claim, reason="2 clean")

    assert taken == [True, True]
    assert index.jobs.get(claim.job_id).state is JobState.SUCCEEDED
    assert counted(index) == 3
    now = index.locate(sop_instance_uids=["1.1.1.2"])[0]
    assert (now.location.container, now.digest, now.received_digest) == ("worker-1.seg", b"clean\2", two.digest)
    assert (now.pending, now.transfer_syntax_uid) == ((), "1.2.840.10008.1.2.4.202")
    resent = index.equal("1.1.1.2", two.digest)
    assert resent is not None and resent.location == now.location
    (series,) = (one for one in index.settled(clock.now + 3, **{**RESTS, "study_settle_s": 0}) if one.series_instance_uid)
    assert series.attributes["NumberOfSeriesRelatedInstances"] == "3"
    assert index.settled_held(clock.now + 1000, **RESTS) == []
    assert index.pending() > 0


def test_an_equal_resend_of_what_was_cleaned_makes_no_second_version(index: Index, clock: arrivals.Clock) -> None:
    """Through the committer's door as well: the digest that it came with is remembered."""
    (stored,) = index.add([held(1)])
    index.cleaned([as_cleaned(stored, 1)], finishing=claimed(index, clock))

    (again,) = index.add([held(1)])

    assert not again.fresh and again.location.container == "worker-1.seg"
    assert counted(index) == 1


def test_what_is_to_be_cleaned_twice_stays_held_in_between(index: Index, clock: arrivals.Clock) -> None:
    """Pixels first, then faces: due again for the second."""
    (stored,) = index.add([held(1, "pixels", "faces")])

    index.cleaned([as_cleaned(stored, 1, "faces")], finishing=claimed(index, clock))

    assert counted(index) == 0
    (series,) = index.settled_held(clock.now + 30, **RESTS)
    assert series.pending == ("faces",)


def test_what_is_doubtful_leaves_the_index_with_an_event(index: Index, clock: arrivals.Clock) -> None:
    """It lies in quarantine by then; the same may come again and is fresh."""
    index.add([placed(1)])
    (doubtful,) = index.add([held(2)])

    index.cleaned([Cleaned(doubtful, reason="no decoder")], finishing=claimed(index, clock))

    assert counted(index) == 1
    (event,) = (one for one in index.events() if one.kind == "instance_withdrawn")
    assert (event.sop_instance_uid, event.detail["reason"]) == ("1.1.1.2", "no decoder")
    assert index.add([held(2)])[0].fresh


def test_other_content_moves_up_when_the_first_is_withdrawn(index: Index, clock: arrivals.Clock) -> None:
    """A conflict's second version is the current one from then on, and still has to be clean."""
    (first,) = index.add([held(1)])
    arrival, location = placed(1, content="other")
    index.add([(replace(arrival, pending=("pixels",)), location)])

    index.cleaned([Cleaned(first, reason="doubt")], finishing=claimed(index, clock))

    assert counted(index) == 0
    (now,) = index.locate(sop_instance_uids=["1.1.1.1"], include_held=True)
    assert (now.digest, now.pending) == (arrival.encoded.digest, ("pixels",))
    assert len(index.settled_held(clock.now + 30, **RESTS)) == 1


def test_a_lost_lease_changes_nothing(index: Index, clock: arrivals.Clock) -> None:
    """All or nothing: the job is somebody else's."""
    (stored,) = index.add([held(1)])
    claim = claimed(index, clock)
    index.jobs.cancel(claim.job_id)

    with pytest.raises(NotFound):
        index.cleaned([as_cleaned(stored, 1)], finishing=claim)

    assert counted(index) == 0


def test_a_record_that_was_replaced_already_is_not_replaced_again(index: Index, clock: arrivals.Clock) -> None:
    """The second of two jobs over the same image is told so, and gives its record up."""
    (stored,) = index.add([held(1)])
    first = claimed(index, clock)
    index.add([held(2)])
    second = claimed(index, clock)

    assert index.cleaned([as_cleaned(stored, 1)], finishing=first) == [True]
    assert index.cleaned([as_cleaned(stored, 3)], finishing=second) == [False]


def test_what_waits_for_its_study_is_due_when_nothing_else_of_it_is_open_or_held(index: Index, clock: arrivals.Clock) -> None:
    """A segmentation is at rest long before the head that tells where its face lies."""
    index.add([held(1, "shapes", association="a1"), held(2, "faces", association="a2", series="1.1.2")])
    index.end_association("a1")

    def due(at: float) -> list[tuple[str, ...]]:
        return [one.pending for one in index.settled_held(clock.now + at, **RESTS, with_study=["shapes"])]

    assert due(10) == []
    index.end_association("a2")
    assert due(3) == [("faces",)]
    assert due(30) == [("faces",)]

    (stored,) = (one for one in index.locate(study_instance_uids=["1.1"], include_held=True) if one.pending == ("faces",))
    (series,) = index.settled_held(clock.now + 30, **RESTS, with_study=["shapes"])
    job = NewJob("k", "clean-faces", "1", {}, "de-identification", "cpu", "1.1", ("1.1.2",), series.completion)
    (job_id,) = index.scheduled_held(series, [job])
    assert due(30) == []
    assert index.jobs.claim(job_id, "w", 30) is not None
    region = SealedRegion("1.1 1.99 1.1.2", "1.1", "1.99", "k1", b"sealed")
    index.cleaned([as_cleaned(stored, 2)], finishing=Claim(job_id, "w"), located=[region])

    assert due(3) == [] and due(30) == [("shapes",)]
    assert index.face_regions.of("1.1") == [region]


def test_a_region_is_replaced_by_the_next_look_and_forgotten_with_its_study(index: Index, clock: arrivals.Clock) -> None:
    """One for each series of a frame of reference; when the identity key changes it is sealed anew."""
    for sealed in (b"first", b"second"):
        (stored,) = index.add([held(len(sealed))])
        region = SealedRegion("1.1 1.99 1.1.1", "1.1", "1.99", "k1", sealed)
        index.cleaned([as_cleaned(stored, len(sealed))], finishing=claimed(index, clock), located=[region])

    assert index.face_regions.of("1.1") == [region]
    assert index.face_regions.of("1.2") == []
    ((row,),) = index.sealed.under_others("k2")
    assert row.bound_to == region.place and index.sealed.replace(row, "k2", b"anew")
    assert index.sealed.sealed_with() == {"k2": 1}
    index.upkeep.forget("1.1")
    assert index.face_regions.of("1.1") == []
