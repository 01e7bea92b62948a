"""From what has settled to rung jobs: rules, keys, generations, a broker that is away."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import making
import pytest

from pacs import phantoms
from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.errors import NotFound, Unavailable
from pacs.model.job import Claim, JobState
from pacs.processing.hours import DAYS
from pacs.processing.planning import Planner, job_key
from pacs.processing.registry import discover
from pacs.processing.rules import parse_rules
from pacs.processing.schedule import Scheduler, ask, run_scheduler

REGISTRY = discover()
RULES = parse_rules(
    """
[[rule]]
name = "all CT"
where = { Modality = "CT" }
run = [{ use = "enhance", strength = 0.5 }, { use = "classify-series" }]

[[rule]]
name = "again"
where = { NumberOfSeriesRelatedInstances = ">=2" }
run = [{ use = "classify-series" }]

[[rule]]
name = "fuse"
on = "study"
where = { ModalitiesInStudy = { all = ["CT", "PT"] } }
run = [{ use = "petct-fusion" }]
""",
    REGISTRY,
)


class Bell:
    """A queue that remembers what it rang for, and can be away."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, str]] = []
        self.away = False

    def ring(self, job_id: str, queue: str) -> None:
        if self.away:
            raise Unavailable("away")
        self.rung.append((job_id, queue))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with making.archive(
        tmp_path / "home", processing__settle_s=0.0, processing__quiet_s=60.0, processing__study_settle_s=0.0
    ) as opened:
        yield opened


def bring(archive: Archive, datasets: list, association: str = "a1") -> None:  # type: ignore[type-arg]
    for one in datasets:
        ingest(archive, making.received(one, association=association))
    archive.index.end_association(association)


def scheduler(archive: Archive, bell: Bell) -> Scheduler:
    return Scheduler(archive.index, REGISTRY, RULES, bell, archive.settings.processing, lambda: time.time() + 0.01)


def test_a_complete_series_makes_the_jobs_of_its_rules(archive: Archive) -> None:
    """One job a use; what two rules ask for alike is made once; parameters are complete."""
    bell = Bell()
    bring(archive, making.ct_series(3))

    scheduler(archive, bell).tick()

    jobs = archive.index.jobs.list()
    assert sorted((job.processor, job.rule) for job in jobs) == [("classify-series", "all CT"), ("enhance", "all CT")]
    assert {job_id for job_id, _ in bell.rung} == {job.job_id for job in jobs}
    (enhance,) = (job for job in jobs if job.processor == "enhance")
    assert enhance.parameters["strength"] == 0.5
    assert enhance.parameters["clip_limit"] == 2.0
    assert enhance.completion == "association released"


def test_nothing_is_made_before_the_association_ends(archive: Archive) -> None:
    """A series that is still arriving has no jobs."""
    bell = Bell()
    ingest(archive, making.received(making.dataset(), association="open"))

    scheduler(archive, bell).tick()

    assert archive.index.jobs.list() == []


def test_a_second_tick_and_a_resend_make_nothing_new(archive: Archive) -> None:
    """Job keys are digests of contents, so the same contents never make a second job."""
    bell = Bell()
    bring(archive, making.ct_series(3))
    one = scheduler(archive, bell)
    one.tick()
    bring(archive, making.ct_series(3), "a2")

    one.tick()

    assert len(archive.index.jobs.list()) == 2
    assert len(bell.rung) == 2


def test_a_late_image_supersedes(archive: Archive) -> None:
    """Another image raises the generation: new jobs, and the old ones are superseded, not deleted."""
    bell = Bell()
    series = making.ct_series(4)
    bring(archive, series[:3])
    one = scheduler(archive, bell)
    one.tick()
    bring(archive, series[3:], "a2")

    one.tick()

    states = [job.state for job in archive.index.jobs.list()]
    assert states.count(JobState.QUEUED) == 2
    assert states.count(JobState.SUPERSEDED) == 2


def test_a_study_rule_gets_the_series_it_asks_for(archive: Archive) -> None:
    """PET/CT fusion is asked for when both are there, on exactly the CT and the PET."""
    bell = Bell()
    ct, pet, _ = phantoms.pet_ct()
    localizer = making.dataset(study_uid=phantoms.STUDY, series_uid=f"{phantoms.STUDY}.3")
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    bring(archive, [*ct, *pet, localizer])
    one = scheduler(archive, bell)

    one.tick()
    one.tick()

    (fusion,) = archive.index.jobs.list(processor="petct-fusion")
    modalities = {
        stored.attributes["Modality"] for stored in archive.index.locate(series_instance_uids=list(fusion.series_instance_uids))
    }
    assert len(fusion.series_instance_uids) == 2
    assert modalities == {"CT", "PT"}


def test_while_the_broker_is_away_rows_wait(archive: Archive) -> None:
    """Jobs are made without a broker, and rung for when it is back."""
    bell = Bell()
    bell.away = True
    bring(archive, making.ct_series(3))
    one = scheduler(archive, bell)
    with pytest.raises(Unavailable):
        one.tick()
    assert len(archive.index.jobs.list(states=[JobState.QUEUED])) == 2
    bell.away = False

    one.tick()

    assert len(bell.rung) == 2


def restricted(archive: Archive, bell: Bell, more: str) -> Scheduler:
    """A scheduler whose one rule has hours or a limit, and three series at rest."""
    for number in (1, 2, 3):
        bring(archive, [making.dataset(series_uid=f"1.2.3.{number}", instance=number)], f"a{number}")
    text = f'[[rule]]\nname = "one"\n{more}\nrun = [{{ use = "classify-series" }}]'
    return Scheduler(
        archive.index, REGISTRY, parse_rules(text, REGISTRY), bell, archive.settings.processing, lambda: time.time() + 0.01
    )


def test_jobs_wait_for_the_hours_of_their_rule(archive: Archive) -> None:
    """They are made, say why they wait, and nobody is rung; when the hours come, they run."""
    bell = Bell()
    tomorrow = DAYS[(time.localtime().tm_wday + 2) % 7]
    one = restricted(archive, bell, f'hours = "{tomorrow}"')

    one.tick()

    assert bell.rung == []
    assert {job.reason for job in archive.index.jobs.list()} == {"waits for the hours of its rule"}
    assert len(archive.index.jobs.due(time.time() + 3 * 86400)) == 3


@pytest.mark.parametrize("limit", ["at_once = 2", "per_hour = 2"])
def test_a_rule_gets_no_more_than_its_share(archive: Archive, limit: str) -> None:
    """Two of three jobs are rung; the third waits, until one has ended or the hour is over."""
    bell = Bell()
    one = restricted(archive, bell, limit)

    one.tick()
    one.tick()
    for job_id, _ in bell.rung:
        archive.index.jobs.claim(job_id, "w", 60)
    one.tick()

    assert len(bell.rung) == 2
    (waiting,) = archive.index.jobs.list(states=[JobState.QUEUED])
    assert waiting.reason.startswith("waits")
    assert archive.index.jobs.due(time.time()) == []


def test_urgent_jobs_come_first(archive: Archive) -> None:
    """Whatever job a bell was rung for, a worker takes the first by priority."""
    bell = Bell()
    bring(archive, making.ct_series(2))
    text = '[[rule]]\nname = "{0}"\npriority = {1}\nrun = [{{ use = "enhance", tiles = {2} }}]\n'
    rules = parse_rules(text.format("a", '"low"', 2) + text.format("b", '"urgent"', 3) + text.format("c", 4, 4), REGISTRY)
    Scheduler(archive.index, REGISTRY, rules, bell, archive.settings.processing, lambda: time.time() + 0.01).tick()
    taken = []

    for job_id, _ in reversed(bell.rung):
        chosen = archive.index.jobs.first_due(job_id)
        assert chosen is not None
        taken.append(archive.index.jobs.claim(chosen, "w", 60).rule)  # type: ignore[union-attr]

    assert taken == ["b", "c", "a"]
    assert archive.index.jobs.first_due(bell.rung[0][0]) is None


def test_a_new_version_makes_new_results_and_the_old_one_can_come_back(archive: Archive) -> None:
    """What is stored is asked again: the older version's job is superseded; put back, it is current again, not made twice."""
    bring(archive, making.ct_series(2))
    (rule,) = parse_rules('[[rule]]\nname = "a"\nrun = [{ use = "enhance" }]', REGISTRY)
    (subject, *_) = archive.index.subjects()
    newer = {**REGISTRY, "enhance": replace(REGISTRY["enhance"], version="9")}
    states = []

    for registry in (REGISTRY, newer, REGISTRY, REGISTRY):
        made = archive.index.jobs.add(Planner(archive.index, registry).plan([rule], subject))
        states.append((len(made), {job.version: job.state.value for job in archive.index.jobs.list()}))

    old = REGISTRY["enhance"].version
    assert states == [
        (1, {old: "queued"}),
        (1, {old: "superseded", "9": "queued"}),
        (1, {old: "queued", "9": "superseded"}),
        (0, {old: "queued", "9": "superseded"}),
    ]


def test_results_are_sent_where_their_rule_says(archive: Archive) -> None:
    """One job a peer, once; a job that made nothing sends nothing."""
    bell = Bell()
    one = restricted(archive, bell, 'send = ["DESK", "WALL"]')
    one.tick()
    made, nothing, _ = (job_id for job_id, _ in bell.rung)
    source = archive.index.jobs.get(made).series_instance_uids[0]
    for job_id, output in ((made, [source]), (nothing, [])):
        archive.index.jobs.claim(job_id, "w", 60)
        archive.index.jobs.succeed(Claim(job_id, "w"), output=output)

    one.tick()
    one.tick()

    sends = {job.processor: job for job in archive.index.jobs.list() if job.processor.startswith("send:")}
    assert set(sends) == {"send:DESK", "send:WALL"}
    assert sends["send:DESK"].rule == "results of one"
    assert sends["send:DESK"].series_instance_uids == (source,)


def test_a_person_may_ask_for_a_job(archive: Archive) -> None:
    """Whatever the rules say; the same twice is the same job, other parameters are another one."""
    bring(archive, making.ct_series(3))
    (stored, *_) = archive.index.locate(sop_instance_uids=[s.key.sop_instance_uid for s in _all(archive)])
    study, series = stored.key.study_instance_uid, stored.key.series_instance_uid
    spec = REGISTRY["enhance"]

    assert ask(archive.index, spec, {"strength": 0.9}, study, [series]) is not None
    assert ask(archive.index, spec, {"strength": 0.9}, study, [series]) is None
    assert ask(archive.index, spec, {"strength": 0.8}, study, [series]) is not None
    with pytest.raises(NotFound):
        ask(archive.index, spec, {}, study)


def test_job_keys_tell_parameters_versions_and_inputs_apart() -> None:
    """The key is a digest of all of them, in canonical order."""
    spec = REGISTRY["enhance"]

    assert job_key(spec, {"a": 1, "b": 2}, "x") == job_key(spec, {"b": 2, "a": 1}, "x")
    assert len({job_key(spec, {"a": 1}, "x"), job_key(spec, {"a": 2}, "x"), job_key(spec, {"a": 1}, "y")}) == 3


def test_the_loop_survives_a_missing_broker_and_a_wrong_rules_file(archive: Archive) -> None:
    """Jobs are made while the broker is away; a broken rules file leaves the old rules in force."""
    settings = making.settings(
        archive.settings.home,
        processing__settle_s=0.0,
        processing__study_settle_s=0.0,
        broker__url=f"redis+socket://{archive.settings.home / 'nobody.sock'}",
    )
    rules = archive.settings.home / "rules.toml"
    rules.write_text('[[rule]]\nname = "e"\nwhere = { Modality = "CT" }\nrun = [{ use = "enhance" }]\n')
    stop = threading.Event()
    thread = threading.Thread(target=run_scheduler, args=(settings, stop))
    thread.start()
    try:
        _until(lambda: archive.index.ping() is None)
        time.sleep(1)
        rules.write_text("[[rule]]\nname = ")
        bring(archive, making.ct_series(2))
        _until(lambda: len(archive.index.jobs.list()) == 1)
    finally:
        stop.set()
        thread.join(20)

    assert not thread.is_alive()
    assert archive.index.jobs.list()[0].processor == "enhance"


def _all(archive: Archive) -> list:  # type: ignore[type-arg]
    studies = archive.index.studies()
    return archive.index.locate(study_instance_uids=[one.study_instance_uid for one in studies])


def _until(holds, timeout_s: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
