"""Worklist items, performed steps, workitems and notifications in the index, on both databases."""

import pytest
from arrivals import Clock, a_series
from index.test_jobs import new

from pacs.index.database import Index
from pacs.model.errors import DuplicateInstance, NotFound
from pacs.model.job import Claim, NewJob
from pacs.model.peer import Peer
from pacs.model.performed import COMPLETED, IN_PROGRESS


def test_worklist_items_are_found_by_all_of_their_digests(index: Index) -> None:
    """One digest of each group; a changed item has the new ones only; what is over is left out by its state."""
    assert index.worklist.put("a", "k", b"1", ["ct", "monday"])
    assert index.worklist.put("b", "k", b"2", ["ct", "tuesday"])
    assert not index.worklist.put("b", "k", b"3", ["mr", "tuesday"])

    def found(*groups: list[str]) -> list[str]:
        return [row.item_id for row in index.worklist.candidates(groups, ("scheduled",))]

    assert (found(), found(["ct"]), found(["mr", "ct"]), found(["ct"], ["tuesday"])) == (["a", "b"], ["a"], ["a", "b"], [])
    assert index.worklist.mark(["a"], "completed") == 1
    assert found() == ["b"] and index.worklist.get("b").sealed == b"3"
    assert index.worklist.remove(["a", "b"]) == 2
    with pytest.raises(NotFound):
        index.worklist.get("a")


def test_a_performed_step_is_changed_by_one_at_a_time(index: Index, clock: Clock) -> None:
    """Who read an older revision changes nothing; the same UID is begun once; old ones are forgotten with what they listed."""
    index.performed.add("s", "CT1", "1.1", "k", b"1")
    with pytest.raises(DuplicateInstance):
        index.performed.add("s", "CT1", "1.1", "k", b"2")
    row = index.performed.get("s")

    assert index.performed.change(row, IN_PROGRESS, "k", b"2", {}, "")
    assert not index.performed.change(row, COMPLETED, "k", b"3", {"1.1.1": ["x"]}, "why")
    assert index.performed.change(index.performed.get("s"), COMPLETED, "k", b"4", {"1.1.1": ["x"]}, "why")
    assert [one.sealed for one in index.performed.of_study("1.1")] == [b"4"]
    assert index.performed.expire(clock.now) == 0
    assert index.performed.expire(clock.now + 1) == 1
    assert index.performed.list() == []


def test_listed_instances_settle_their_series_although_an_association_is_open(index: Index, clock: Clock) -> None:
    """Once all are here, and not before; what never comes is awaited for a day."""
    index.performed.add("s", "CT1", "1.1", "k", b"")
    series = a_series(3, association="open")
    uids = [one[0].encoded.key.sop_instance_uid for one in series]
    acquired = {"1.1.1": uids, "1.1.9": ["never"]}
    assert index.performed.change(index.performed.get("s"), COMPLETED, "k", b"", acquired, "step completed")

    index.add(series[:2])
    assert index.performed.settle() == 0
    index.add(series[2:])
    assert index.performed.settle() == 1

    (settled,) = index.settled(clock.now + 3, settle_s=2, quiet_s=3600, study_settle_s=3600)
    assert (settled.completion, index.performed.settle()) == ("step completed", 0)
    clock.now += 2 * 86400
    assert index.performed.settle() == 0


def test_a_workitem_has_one_uid_and_a_job_one_workitem(index: Index) -> None:
    """Found by its digest; what it lacks can be replaced."""
    first, second = new(index, "k1"), new(index, "k2", study="1.2")
    index.workitems.add(first, "d1", "k", b"1")
    with pytest.raises(DuplicateInstance):
        index.workitems.add(second, "d1", "k", b"2")
    index.workitems.change(second, "d2", "k", b"2")
    index.workitems.change(first, "d1", "k", b"3")

    found = index.workitems.of([first, second])
    assert (index.workitems.named("d1"), index.workitems.named("d3")) == (first, None)
    assert (found[first].sealed, found[second].sealed, index.workitems.of([])) == (b"3", b"2", {})


def test_who_follows_every_job_follows_the_new_ones(index: Index, clock: Clock) -> None:
    """Those that are open when it begins, and those that come, until it suspends; each once."""
    before = new(index, "k1")
    index.workitems.subscribe("ALL", "", also_open=True)
    clock.now += 1
    later = new(index, "k2", study="1.2")
    for _ in range(2):
        index.workitems.follow()

    assert sorted(one.job_id for one in index.workitems.subscriptions()) == sorted([before, later])
    first = next(one for one in index.workitems.subscriptions() if one.job_id == before)
    index.workitems.reported(first, "SCHEDULED", 0.0)
    assert index.workitems.ask_cancel(before, "BOSS") == 1
    known = {one.job_id: (one.reported, one.cancel_by) for one in index.workitems.subscriptions()}
    assert known == {before: ("SCHEDULED", "BOSS"), later: ("", "")}
    index.workitems.suspend("ALL")
    clock.now += 1
    new(index, "k3", study="1.3")
    index.workitems.follow()
    assert len(index.workitems.subscriptions()) == 2
    assert index.workitems.unsubscribe("ALL", None) == 2


def test_notifications_are_made_with_what_they_tell_of(index: Index, clock: Clock) -> None:
    """For peers that want them, of a job's output; claimed by one, put off, and ended."""
    index.peers.add(Peer("RIS", "ris", 104, options=frozenset({"availability"})))
    index.peers.add(Peer("OTHER", "other", 104, options=frozenset({"warn"})))
    job_id = new(index)
    assert index.jobs.claim(job_id, "w", 60) and index.jobs.succeed(Claim(job_id, "w"), output=["1.1.7", "1.1.5"])

    (one,) = index.notifications.due(clock.now)
    assert (one.ae_title, one.study_instance_uid, one.series) == ("RIS", "1.1", "1.1.5\\1.1.7")
    assert index.notifications.claim(one, clock.now + 60) and not index.notifications.claim(one, clock.now + 60)
    index.notifications.later(one, clock.now + 30)
    assert index.notifications.due(clock.now) == []
    (again,) = index.notifications.due(clock.now + 30)
    index.notifications.end(again, "sent")
    assert [(row.state, row.attempts) for row in index.notifications.list()] == [("sent", 2)]


def test_a_forgotten_study_takes_its_steps_and_workitems_along(index: Index) -> None:
    """Nothing of it is left in their tables."""
    index.add(a_series(1))
    job_id = new(index)
    index.workitems.add(job_id, "d", "k", b"")
    index.workitems.subscribe("ALL", job_id)
    index.performed.add("s", "CT1", "1.1", "k", b"")
    assert index.performed.change(index.performed.get("s"), COMPLETED, "k", b"", {"1.1.1": ["x"]}, "why")

    index.upkeep.forget("1.1")

    assert index.performed.list() == [] and index.workitems.of([job_id]) == {}
    assert list(index.workitems.subscriptions()) == []


def test_a_forgotten_study_takes_what_its_jobs_found_along(index: Index) -> None:
    """Findings and parents of a job go before the job: it is removed although others speak of it."""
    index.add(a_series(1))
    job_id = new(index)
    assert index.jobs.claim(job_id, "w", 60)
    index.chains.found(Claim(job_id, "w"), [{"question": "x", "answer": "y", "certainty": 1.0}])
    (after,) = index.jobs.add([NewJob("after", "next", "1", {}, "rule", "cpu", "1.1", ("1.1.1",), "", parents=(job_id,))])

    index.upkeep.forget("1.1")

    assert index.chains.findings([job_id]) == {} and index.chains.parents(after) == []
