"""Jobs: leases, fencing, retries and the reaper, on both databases, with a clock of our own."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from arrivals import Clock

from pacs.index.database import Index
from pacs.model.errors import NotFound
from pacs.model.job import Claim, JobState, Made, MadeBy, NewJob, Recall


def new(index: Index, key: str = "k", study: str = "1.1", series: tuple[str, ...] = ("1.1.1",), queue: str = "cpu") -> str:
    """Add one job."""
    (job_id,) = index.jobs.add([NewJob(key, "lungs", "1", {"x": [1, "a"]}, "rule", queue, study, series, "why")])
    return job_id


def test_a_job_is_kept_as_it_was_made(index: Index, clock: Clock) -> None:
    """Parameters, inputs, reason and times come back."""
    job = index.jobs.get(new(index, series=("1.1.2", "1.1.1")))

    assert (job.processor, job.version, job.rule, job.queue, job.completion) == ("lungs", "1", "rule", "cpu", "why")
    assert job.parameters == {"x": [1, "a"]}
    assert job.series_instance_uids == ("1.1.1", "1.1.2")
    assert (job.state, job.attempt, job.created_at, job.started_at) == (JobState.QUEUED, 0, clock.now, None)


def test_one_of_many_workers_gets_a_job(index: Index) -> None:
    """However often its message is delivered."""
    job_id = new(index)
    barrier = threading.Barrier(6)

    def claim(worker: int) -> bool:
        barrier.wait()
        return index.jobs.claim(job_id, f"w{worker}", 30) is not None

    with ThreadPoolExecutor(6) as pool:
        claimed = list(pool.map(claim, range(6)))

    assert claimed.count(True) == 1
    assert index.jobs.get(job_id).attempt == 1


def test_a_lease_that_is_renewed_is_not_lost(index: Index, clock: Clock) -> None:
    """And one that is not can be taken, after which the first worker is told no."""
    job_id = new(index)
    index.jobs.claim(job_id, "w1", 30)
    clock.now += 25
    assert index.jobs.renew(Claim(job_id, "w1"), 30)
    clock.now += 25
    assert index.jobs.claim(job_id, "w2", 30) is None
    clock.now += 10

    assert index.jobs.claim(job_id, "w2", 30) is not None
    assert not index.jobs.renew(Claim(job_id, "w1"), 30)
    assert not index.jobs.progress(Claim(job_id, "w1"), 0.5)
    assert not index.jobs.succeed(Claim(job_id, "w1"))
    assert not index.jobs.skip(Claim(job_id, "w1"), "no")
    assert not index.jobs.fail(Claim(job_id, "w1"), "no", retry_in_s=None)
    assert index.jobs.get(job_id).state is JobState.RUNNING


def test_progress_and_its_note_are_seen_while_it_runs(index: Index) -> None:
    """Within 0 and 1, whatever the processor says."""
    job_id = new(index)
    index.jobs.claim(job_id, "w", 30)

    assert index.jobs.progress(Claim(job_id, "w"), 0.4, "resampling")
    assert (index.jobs.get(job_id).progress, index.jobs.get(job_id).note) == (0.4, "resampling")
    index.jobs.progress(Claim(job_id, "w"), 7)
    assert index.jobs.get(job_id).progress == 1.0


@pytest.mark.parametrize("ending", ["succeed", "skip", "fail"])
def test_a_job_ends_in_one_of_three_ways(index: Index, clock: Clock, ending: str) -> None:
    """With its reason and time, and no claim on it any more."""
    job_id = new(index)
    index.jobs.claim(job_id, "w", 30)
    claim = Claim(job_id, "w")
    ends = {
        "succeed": lambda: index.jobs.succeed(claim, "fine", ["1.1.9"]),
        "skip": lambda: index.jobs.skip(claim, "fine"),
        "fail": lambda: index.jobs.fail(claim, "fine", retry_in_s=None),
    }

    assert ends[ending]()

    job = index.jobs.get(job_id)
    assert job.state == {"succeed": "succeeded", "skip": "skipped", "fail": "failed"}[ending]
    assert (job.reason, job.finished_at) == ("fine", clock.now)
    assert index.jobs.claim(job_id, "w", 30) is None
    assert index.jobs.open_count() == 0
    kinds = [event.kind for event in index.events()]
    assert kinds == ["job_queued", "job_started", f"job_{job.state.value}"]


def test_a_failure_that_may_pass_is_tried_again_later(index: Index, clock: Clock) -> None:
    """Not before its time, even if an old message arrives; the first start stays its start."""
    job_id = new(index)
    first = index.jobs.claim(job_id, "w1", 30)
    index.jobs.fail(Claim(job_id, "w1"), "disk busy", retry_in_s=10)

    assert index.jobs.get(job_id).reason == "disk busy"
    assert index.jobs.due(clock.now + 9) == []
    assert index.jobs.claim(job_id, "w2", 30) is None
    clock.now += 10
    assert index.jobs.due(clock.now) == [(job_id, "cpu")]
    second = index.jobs.claim(job_id, "w2", 30)
    assert first is not None and second is not None
    assert (second.attempt, second.started_at) == (2, first.started_at)


def test_what_is_due_is_announced_once_in_a_while(index: Index, clock: Clock) -> None:
    """Until `redispatch_s` have passed without a claim, or the server starts anew."""
    first = new(index, "a")
    clock.now += 1
    second = new(index, "b", series=("1.1.2",), queue="heavy")

    assert index.jobs.due(clock.now) == [(first, "cpu"), (second, "heavy")]
    assert index.jobs.due(clock.now, 1) == [(first, "cpu")]
    index.jobs.dispatched([first, second])
    assert index.jobs.due(clock.now + 29) == []
    assert len(index.jobs.due(clock.now + 30)) == 2
    index.jobs.undispatch_all()
    assert len(index.jobs.due(clock.now)) == 2


def test_the_job_of_a_dead_worker_is_queued_again_and_fails_in_the_end(index: Index, clock: Clock) -> None:
    """A job that kills its worker does not do so for ever."""
    job_id = new(index)
    for attempt in (1, 2, 3):
        assert index.jobs.due(clock.now, attempts=3) == [(job_id, "cpu")]
        index.jobs.dispatched([job_id])
        claimed = index.jobs.claim(job_id, f"w{attempt}", 30)
        assert claimed is not None and claimed.attempt == attempt
        clock.now += 31

    assert index.jobs.due(clock.now, attempts=3) == []
    job = index.jobs.get(job_id)
    assert job.state is JobState.FAILED
    assert "3 times" in job.reason


def test_some_jobs_are_given_up_later_when_their_workers_die(index: Index, clock: Clock) -> None:
    """`patience` by the beginning of the processor's name: a fourth try of what may have five."""
    job_id = new(index)
    processor = index.jobs.get(job_id).processor
    for attempt in range(1, 6):
        assert index.jobs.due(clock.now, attempts=3, patience={processor[:3]: 5, "send:": 9}) == [(job_id, "cpu")]
        index.jobs.dispatched([job_id])
        index.jobs.claim(job_id, f"w{attempt}", 30)
        clock.now += 31

    assert index.jobs.due(clock.now, attempts=3, patience={processor[:3]: 5}) == []
    assert index.jobs.get(job_id).state is JobState.FAILED


def test_a_running_job_is_not_due(index: Index, clock: Clock) -> None:
    """While its lease lasts, nobody is told of it."""
    job_id = new(index)
    index.jobs.claim(job_id, "w", 30)

    assert index.jobs.due(clock.now + 29) == []
    assert index.jobs.get(job_id).state is JobState.RUNNING


def test_cancelling_voids_the_claim(index: Index) -> None:
    """Whoever runs it learns so at its next word; what has ended is not cancelled."""
    job_id = new(index)
    index.jobs.claim(job_id, "w", 30)

    assert index.jobs.cancel(job_id)
    assert not index.jobs.renew(Claim(job_id, "w"), 30)
    assert index.jobs.get(job_id).state is JobState.CANCELLED
    assert not index.jobs.cancel(job_id)


def test_an_ended_job_can_run_again(index: Index, clock: Clock) -> None:
    """With all its tries before it; one that has not ended is left alone."""
    job_id = new(index)
    assert not index.jobs.again(job_id)
    index.jobs.claim(job_id, "w", 30)
    index.jobs.fail(Claim(job_id, "w"), "broken", retry_in_s=None)

    assert index.jobs.again(job_id)
    job = index.jobs.get(job_id)
    assert (job.state, job.attempt, job.reason) == (JobState.QUEUED, 0, "")
    assert index.jobs.due(clock.now) == [(job_id, "cpu")]


def test_an_unknown_job_is_not_found(index: Index) -> None:
    """By whatever it is asked for."""
    for ask in (index.jobs.get, index.jobs.cancel, index.jobs.again):
        with pytest.raises(NotFound):
            ask("nothing")
    assert index.jobs.claim("nothing", "w", 30) is None


def test_jobs_are_listed_newest_first_by_what_they_are_about(index: Index, clock: Clock) -> None:
    """By state, study, input series and number."""
    first = new(index, "a", series=("1.1.1", "1.1.2"))
    clock.now += 1
    second = new(index, "b", study="1.2", series=("1.1.11",))
    index.jobs.claim(second, "w", 30)

    def ids(**filters: object) -> list[str]:
        return [job.job_id for job in index.jobs.list(**filters)]  # type: ignore[arg-type]  # by name

    assert ids() == [second, first]
    assert ids(limit=1) == [second]
    assert ids(states=[JobState.RUNNING]) == [second]
    assert ids(states=[]) == []
    assert ids(study_instance_uid="1.1") == [first]
    assert ids(series_instance_uid="1.1.1") == [first]
    assert ids(processor="other") == []
    assert index.jobs.open_count() == 2


def test_a_job_over_more_series_supersedes_that_over_some_of_them(index: Index) -> None:
    """A late series makes another job of the same rule; pairs that merely share a series stand side by side."""
    pair = new(index, "a", series=("1.1.1", "1.1.2"))
    other_pair = new(index, "b", series=("1.1.1", "1.1.3"))
    assert index.jobs.get(pair).state is JobState.QUEUED

    three = new(index, "c", series=("1.1.1", "1.1.2", "1.1.3"))

    states = [index.jobs.get(job_id).state for job_id in (pair, other_pair, three)]
    assert states == [JobState.SUPERSEDED, JobState.SUPERSEDED, JobState.QUEUED]


def test_a_job_whose_input_changed_while_it_ran_ends_superseded(index: Index, clock: Clock) -> None:
    """Its result is kept, and the newer job's is the current one."""
    old = new(index, "a")
    index.jobs.claim(old, "w", 30)
    clock.now += 1
    newer = new(index, "b")

    assert index.jobs.succeed(Claim(old, "w"), output=["1.1.9"])

    assert index.jobs.get(old).state is JobState.SUPERSEDED
    assert index.jobs.get(old).output_series_instance_uids == ("1.1.9",)
    index.jobs.claim(newer, "w", 30)
    index.jobs.succeed(Claim(newer, "w"))
    assert index.jobs.get(newer).state is JobState.SUCCEEDED


def test_jobs_made_together_do_not_supersede_each_other(index: Index) -> None:
    """A rule may run one processor twice, with other parameters."""
    both = [NewJob(key, "lungs", "1", {"x": key}, "rule", "cpu", "1.1", ("1.1.1",), "") for key in "ab"]

    made = index.jobs.add(both)

    assert [index.jobs.get(job_id).state for job_id in made] == [JobState.QUEUED] * 2


def test_a_series_without_a_job_has_no_lineage(index: Index) -> None:
    """Only what was made here is in the answer, with the newest job that made it."""
    job_id = new(index)
    index.jobs.claim(job_id, "w", 30)
    index.jobs.succeed(Claim(job_id, "w"), output=["1.1.9"])

    assert {uid: job.job_id for uid, job in index.jobs.lineage(["1.1.1", "1.1.9"]).items()} == {"1.1.9": job_id}
    assert index.jobs.lineage([]) == {}


def test_jobs_are_listed_again_from_their_results(index: Index) -> None:
    """The newer of two for one subject is current, what was made of the older one is not; a recall follows on."""

    def made(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], at: float, rule: str = "r") -> list[Made]:
        by = MadeBy(
            name, f"key of {name}", "p" if rule else "q", "1", rule, "digest" if rule else "", "", "s", {"a": 1}, inputs
        )
        return [Made("study", uid, by, at) for uid in outputs]

    results = [
        *made("older", ("s",), ("one",), 10.0),
        *made("of the older", ("one",), ("two",), 11.0, rule=""),
        *made("newer", ("s", "late"), ("three", "four"), 20.0),
        *made("of the newer", ("three",), ("five",), 21.0, rule=""),
    ]

    assert index.lineage.restore(reversed(results)) == 4

    states = {name: index.jobs.get(name).state for name in ("older", "of the older", "newer", "of the newer")}
    assert list(states.values()) == [JobState.SUPERSEDED, JobState.SUPERSEDED, JobState.SUCCEEDED, JobState.SUCCEEDED]
    newer = index.jobs.get("newer")
    assert (newer.series_instance_uids, newer.output_series_instance_uids) == (("late", "s"), ("four", "three"))
    assert (newer.parameters, newer.finished_at) == ({"a": 1}, 20.0)
    index.recalls.restore([Recall(1, "p", "1", "wrong", 30.0)])
    assert index.jobs.get("newer").state is index.jobs.get("of the newer").state is JobState.RECALLED
