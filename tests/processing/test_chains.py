"""Rules after rules: results wake them by data, joins wait for all, branches read findings, late images redo it all."""

import time
from collections.abc import Iterator
from pathlib import Path

import making
import pytest

from pacs.archive import Archive
from pacs.ingest import ingest
from pacs.model.job import Job, JobState
from pacs.processing.registry import discover
from pacs.processing.rules import parse_rules
from pacs.processing.runner import run_job
from pacs.processing.schedule import Scheduler
from pacs.processing.stored_headers import HeaderReader

PLUGIN = '''
from pacs.processing import Code, Finding, Images, Report, Series, Study, codes, processor

@processor("plus", version="1", makes=("CT",), when={"Modality": "CT"})
def plus(series: Series, *, by: int = 1):
    """Every value a little more."""
    yield Images([series.stored(i) + by for i in range(len(series))], like=series.datasets, description=f"plus {by}")

@processor("say", version="1", makes=("SR",))
def say(series: Series, *, region: str = "Chest", certainty: float = 0.9):
    """A region."""
    answer = {"Chest": codes.SCT.Chest, "Head": codes.SCT.Head}[region]
    yield Report(series, [Finding(Code("363698007", "SCT", "Finding Site"), answer, certainty, "said so")], "region")

@processor("both", version="1", level="study", makes=("CT",), when={"Modality": "CT"})
def both(study: Study):
    """The first series it is given, which must be two."""
    first, second = study.series
    yield Images([first.stored(0)], like=first.datasets[:1], description="both")
'''

RULES = """
[[rule]]
name = "what"
where = {{ Modality = "CT" }}
run = [{{ use = "say", region = "{region}" }}]

[[rule]]
name = "one more"
where = {{ Modality = "CT" }}
run = [{{ use = "plus" }}]

[[rule]]
name = "two more"
after = ["one more", "what"]
results = [{{ rule = "what", finding = "Finding Site", is = ["Chest", "Thorax*"], certainty = ">=0.8" }}]
run = [{{ use = "plus", by = 2 }}]

[[rule]]
name = "before and after"
after = "two more"
input = "both"
run = [{{ use = "both" }}]
"""


class Bell:
    def ring(self, job_id: str, queue: str) -> None:
        """Nobody listens: the test runs the jobs itself."""


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    folder = tmp_path / "home" / "processors"
    folder.mkdir(parents=True)
    (folder / "steps.py").write_text(PLUGIN)
    with making.archive(tmp_path / "home", processing__settle_s=0.0, processing__study_settle_s=0.0) as opened:
        yield opened


def bring(archive: Archive, first: int, last: int) -> None:
    for one in making.ct_series(4)[first:last]:
        ingest(archive, making.received(one, association=f"a{first}"))
    archive.index.end_association(f"a{first}")


def settle(archive: Archive, text: str) -> list[Job]:
    """Tick and work until nothing is due; the jobs, oldest first."""
    registry = discover(archive.settings.plugins_path)
    rules = parse_rules(text, registry)
    headers = HeaderReader(archive.settings, archive)
    one = Scheduler(archive.index, registry, rules, Bell(), archive.settings.processing, lambda: time.time() + 0.01, headers)
    for _ in range(12):
        one.tick()
        waiting = archive.index.jobs.list(states=[JobState.QUEUED])
        if not waiting and not archive.index.pending():
            break
        for job in waiting:
            run_job(archive, registry, job.job_id, worker="test")
    return list(reversed(archive.index.jobs.list()))


def current(jobs: list[Job], rule: str) -> Job:
    (found,) = (job for job in jobs if job.rule == rule and job.state is not JobState.SUPERSEDED)
    return found


def test_a_chain_runs_on_results_and_a_late_image_redoes_all_of_it(archive: Archive) -> None:
    """A join waits for both, takes results as input, says which they were; afterwards exactly one result of each is current."""
    bring(archive, 0, 3)

    jobs = settle(archive, RULES.format(region="Chest"))

    assert {job.rule: job.state for job in jobs} == dict.fromkeys(
        ("what", "one more", "two more", "before and after"), JobState.SUCCEEDED
    )
    one, two, last = (current(jobs, name) for name in ("one more", "two more", "before and after"))
    assert two.series_instance_uids == one.output_series_instance_uids
    assert set(archive.index.chains.parents(two.job_id)) == {one.job_id, current(jobs, "what").job_id}
    assert set(last.series_instance_uids) == {*two.output_series_instance_uids, *one.series_instance_uids}
    assert {job.subject for job in jobs} == set(one.series_instance_uids)
    assert all(job.rule_digest for job in jobs)

    bring(archive, 3, 4)
    again = settle(archive, RULES.format(region="Chest"))

    assert len(again) == 8
    for job in jobs:
        assert archive.index.jobs.get(job.job_id).state is JobState.SUPERSEDED
        assert current(again, job.rule).state is JobState.SUCCEEDED


def test_a_branch_is_not_taken_where_the_result_says_otherwise(archive: Archive) -> None:
    """The rule is not woken; of four rules the two at the root have run."""
    bring(archive, 0, 2)

    jobs = settle(archive, RULES.format(region="Head"))

    assert sorted(job.rule for job in jobs) == ["one more", "what"]


def test_any_attribute_of_a_header_may_be_asked_for(archive: Archive) -> None:
    """One that the index does not keep is read from the stored header; also in a sequence, and of a study's series."""
    rule = '[[rule]]\nname = "{n}"\n{on}where = {w}\nrun = [{{ use = "{use}" }}]\n'
    series = making.ct_series(1)
    series[0].KVP = "120"
    ingest(archive, making.received(series[0]))
    archive.index.end_association("a1")

    jobs = settle(
        archive,
        rule.format(n="yes", on="", w='{ KVP = "110..130" }', use="say")
        + rule.format(n="no", on="", w="{ KVP = 80 }", use="plus")
        + rule.format(n="study", on='on = "study"\n', w='{ KVP = 120, ModalitiesInStudy = "CT" }', use="both"),
    )

    assert sorted(job.rule for job in jobs) == ["study", "yes"]
