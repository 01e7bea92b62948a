"""What becomes of jobs later: run otherwise, compared, recalled with all that followed, and bundled where they fail."""

import json
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import making
import pydicom
import pytest

from pacs import recalls
from pacs.archive import Archive
from pacs.ingest import ingest, ingest_derived
from pacs.model.errors import ConfigurationError, InvalidQuery, NotFound
from pacs.model.instance import Origin, Received
from pacs.model.job import Job, JobState, Recall
from pacs.processing.bundle import bundle, smallest
from pacs.processing.compare import compare
from pacs.processing.planning import Planner
from pacs.processing.registry import discover
from pacs.processing.rules import parse_rules
from pacs.processing.runner import run_job
from pacs.processing.schedule import ask, ask_again
from pacs.retrieve import data_set
from pacs.sweep import recover
from pacs.upkeep.rebuild import rebuild

PLUGIN = '''
import numpy as np
from pacs.processing import Images, Measurements, Segment, Segmentation, Series, Value, codes, processor

@processor("plus", version="1.3", makes=("CT",), when={"Modality": "CT"})
def plus(series: Series, *, by: int = 1):
    """Every value a little more."""
    yield Images([series.stored(i) + by for i in range(len(series))], like=series.datasets, description="plus")

@processor("box", version="1", makes=("SEG", "SR"), when={"Modality": "CT"})
def box(series: Series, *, rows: int = 20):
    """The first rows."""
    labels = np.zeros((len(series), 64, 64), np.uint8)
    labels[:, :rows] = 1
    segmentation = Segmentation(series, labels, {1: Segment("box", codes.SCT.Bone)}, "box")
    yield segmentation
    yield Measurements(segmentation, {1: [Value(codes.SCT.Volume, rows, codes.UCUM.CubicCentimeter)]}, "volume")

@processor("picky", version="1", makes=("CT",))
def picky(series: Series):
    """Fails on one of the images."""
    for one in series.datasets:
        if one.InstanceNumber == 3:
            raise ValueError("the third is not nice")
    yield Images([series.stored(0)], like=series.datasets[:1], description="first")
'''


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    folder = tmp_path / "home" / "processors"
    folder.mkdir(parents=True)
    (folder / "life.py").write_text(PLUGIN)
    with making.archive(tmp_path / "home") as opened:
        for one in making.ct_series(6):
            ingest(opened, making.received(one))
        opened.index.end_association("a1")
        yield opened


def source(archive: Archive) -> tuple[str, str]:
    study = archive.index.studies()[0].study_instance_uid
    return study, next(one.series_instance_uid for one in archive.index.series_of(study) if not one.derived)


def work(archive: Archive, job_id: str | None) -> Job:
    assert job_id is not None
    run_job(archive, discover(archive.settings.plugins_path), job_id, worker="test")
    return archive.index.jobs.get(job_id)


def run(archive: Archive, name: str, series_uid: str = "", **given: object) -> Job:
    study, series = source(archive)
    spec = discover(archive.settings.plugins_path)[name]
    return work(archive, ask(archive.index, spec, given, study, [series_uid or series]))


def test_a_job_may_be_run_with_other_parameters_and_compared(archive: Archive) -> None:
    """A new job and a new result beside the older one, which is superseded; the comparison tells by how much they differ."""
    registry = discover(archive.settings.plugins_path)
    first = run(archive, "plus", by=1)

    second = work(archive, ask_again(archive.index, registry, first, {"by": "4"}))

    assert (second.state, second.parameters) == (JobState.SUCCEEDED, {"by": 4})
    assert archive.index.jobs.get(first.job_id).state is JobState.SUPERSEDED
    assert ask_again(archive.index, registry, first, {"by": 4}) is None
    found = compare(archive, first, second)
    assert found["parameters"] == {"by": [1, 4]}
    assert found["same_inputs"]
    (made,) = found["outputs"]
    assert not made["equal"] and made["digests"][0] != made["digests"][1]
    assert made["differences"] == [{"what": "pixels", "mean_difference": 3.0, "rms_difference": 3.0, "largest_difference": 3.0}]
    assert compare(archive, first, first)["outputs"][0]["equal"]

    back = ask_again(archive.index, registry, second, {"by": 1})
    assert back == first.job_id, "what was superseded is made current again, not made twice"
    assert archive.index.jobs.get(second.job_id).state is JobState.SUPERSEDED


def test_masks_and_measurements_are_compared(archive: Archive) -> None:
    """Dice of each segment, and the numbers of both reports."""
    found = compare(archive, run(archive, "box", rows=20), run(archive, "box", rows=30))

    differences = {made["modality"]: made["differences"] for made in found["outputs"]}
    (mask,) = differences["SEG"]
    assert mask == {"what": "segment box", "dice": 0.8, "voxels": [6 * 20 * 64, 6 * 30 * 64]}
    assert {"what": "box Volume", "values": [20.0, 30.0]} in differences["SR"]


def test_a_recall_hides_what_a_version_made_and_what_was_made_of_it(archive: Archive) -> None:
    """From queries and retrievals, reversibly and audited; no further job of that version is made."""
    first = run(archive, "plus")
    (made,) = first.output_series_instance_uids
    child = run(archive, "box", made)
    study, series = source(archive)
    before = archive.index.summary()
    waiting = ask(archive.index, discover(archive.settings.plugins_path)["plus"], {"by": 7}, study, [series], by="another")
    assert waiting is not None

    assert archive.index.recalls.begin("plus", "1.3", "shifted by one") == (3, 8)

    assert [one.series_instance_uid for one in archive.index.series_of(study)] == [series]
    assert archive.index.locate(series_instance_uids=[made, *child.output_series_instance_uids]) == []
    states = {job_id: archive.index.jobs.get(job_id).state for job_id in (first.job_id, child.job_id, waiting)}
    assert list(states.values()) == [JobState.RECALLED, JobState.RECALLED, JobState.CANCELLED]
    assert ask(archive.index, discover(archive.settings.plugins_path)["plus"], {"by": 9}, study, [series]) is None
    (listed,) = archive.index.recalls.all()
    assert (listed.processor, listed.version, listed.reason, listed.ended_at) == ("plus", "1.3", "shifted by one", None)
    events = {one.kind: one.detail for one in archive.index.events(limit=1000)}
    assert events["processor_recalled"]["instances"] == 8
    with pytest.raises(NotFound):
        archive.index.recalls.begin("plus", "9.9")

    assert archive.index.recalls.end("plus", "1.3") == (3, 8)

    after = archive.index.summary()
    assert {key: after[key] for key in ("instances", "derived_series", "size_bytes")} == {
        key: before[key] for key in ("instances", "derived_series", "size_bytes")
    }
    assert archive.index.jobs.get(child.job_id).state is JobState.SUCCEEDED
    assert archive.index.recalls.all()[0].ended_at is not None


def test_what_fails_is_bundled_with_the_fewest_inputs_that_fail(archive: Archive, tmp_path: Path) -> None:
    """One of six images is enough; it is in the zip, de-identified, with parameters and versions."""
    job = run(archive, "picky")
    assert job.state is JobState.FAILED
    registry = discover(archive.settings.plugins_path)

    told = bundle(archive, registry, job, tmp_path / "b.zip", seconds=300)

    assert (told.instances, told.of, told.complete) == (1, 6, True)
    assert told.reason == job.reason
    with zipfile.ZipFile(tmp_path / "b.zip") as found:
        about = json.loads(found.read("job.json"))
        (name,) = (one for one in found.namelist() if one.startswith("instances/"))
        data = found.read(name)
    assert (about["processor"], about["version"], about["instances"]) == ("picky", "1", 1)
    assert about["libraries"]["pydicom"] == pydicom.__version__
    assert pydicom.dcmread(BytesIO(data)).InstanceNumber == 3
    assert not any(word.encode() in data for word in making.PLANTED)
    with pytest.raises(FileExistsError):
        bundle(archive, registry, job, tmp_path / "b.zip")
    with pytest.raises(InvalidQuery, match="only one that failed"):
        bundle(archive, registry, run(archive, "plus"), tmp_path / "c.zip")
    assert not (tmp_path / "c.zip").exists()


@pytest.mark.parametrize("needed", [{0}, {7}, {2, 5}, {0, 1, 2, 3, 4, 5, 6, 7}, {1, 6, 7}])
def test_the_smallest_subset_is_found(needed: set[int]) -> None:
    """Whatever has to be together, and in the order it came."""
    assert smallest(range(8), lambda chosen: needed <= set(chosen), time.monotonic() + 60) == (sorted(needed), True)
    assert smallest(range(8), lambda chosen: needed <= set(chosen), time.monotonic()) == (list(range(8)), False)


def test_a_dry_run_tells_what_would_fire_and_the_first_condition_against_it(archive: Archive) -> None:
    """With its line, and without a value of the data."""
    registry = discover(archive.settings.plugins_path)
    text = (
        '[[rule]]\nname = "yes"\nrun = [{ use = "plus" }]\n'
        '[[rule]]\nname = "thin"\n[rule.where]\nModality = "CT"\nSliceThickness = "<=0.1"\n[[rule.run]]\nuse = "plus"\n'
        '[[rule]]\nname = "next"\nafter = "yes"\nrun = [{ use = "box" }]\n'
    )
    planner = Planner(archive.index, registry)
    subjects = [one for one in archive.index.subjects() if one.series_instance_uid]
    (said,) = ([planner.decide(rule, subject) for rule in parse_rules(text, registry)] for subject in subjects)

    assert [(one.fires, one.why, one.line) for one in said] == [
        (True, "", 0),
        (False, "SliceThickness: <=0.1", 8),
        (False, "no result of yes: it made no job", 13),
    ]
    assert archive.index.jobs.list() == []
    assert list(archive.index.subjects(since=time.time() + 60)) == []


def test_what_was_recalled_stays_hidden_when_the_index_is_lost(archive: Archive, tmp_path: Path) -> None:
    """A rebuild lists the jobs of results again and hides what was recalled and what followed; taking it back shows it."""
    first = run(archive, "plus")
    (made,) = first.output_series_instance_uids
    child, other = run(archive, "box", made), run(archive, "box")
    study, series = source(archive)
    recalls.begin(archive, "plus", "1.3", "shifted by one")
    shown = {one.series_instance_uid for one in archive.index.series_of(study)}
    assert shown == {series, *other.output_series_instance_uids}
    archive.close()
    for path in (tmp_path / "home").glob("index.db*"):
        path.unlink()

    with making.archive(tmp_path / "home") as again:
        rebuild(again)

        assert {one.series_instance_uid for one in again.index.series_of(study)} == shown
        assert again.index.locate(series_instance_uids=[made, *child.output_series_instance_uids]) == []
        for job, state in ((first, JobState.RECALLED), (child, JobState.RECALLED), (other, JobState.SUCCEEDED)):
            found = again.index.jobs.get(job.job_id)
            assert (found.state, found.job_key, found.parameters) == (state, job.job_key, job.parameters)
            assert (found.series_instance_uids, found.output_series_instance_uids) == (
                job.series_instance_uids,
                job.output_series_instance_uids,
            )
        plugins = discover(again.settings.plugins_path)
        assert ask(again.index, plugins["plus"], {"by": 9}, study, [series]) is None
        assert recalls.end(again, "plus", "1.3") == (3, 8)
        assert recalls.kept(tmp_path / "home")[0].ended_at is not None


def test_an_index_from_before_the_recall_is_told_of_it(archive: Archive, tmp_path: Path) -> None:
    """At a start, what the file beside the records says is hidden, also by an index that was put back from an older copy."""
    (made,) = run(archive, "plus").output_series_instance_uids
    (tmp_path / "home" / recalls.FILE).write_text(json.dumps([asdict(Recall(1, "plus", "1.3", "shifted by one", 5.0))]))

    recover(archive)

    assert archive.index.locate(series_instance_uids=[made]) == []
    assert recalls.settle(archive) == 0
    (tmp_path / "home" / recalls.FILE).write_text("[{}]")
    with pytest.raises(ConfigurationError, match=r"recalls\.json cannot be read"):
        recover(archive)


def test_a_result_from_before_results_told_their_job_is_recalled(archive: Archive, tmp_path: Path) -> None:
    """Its record names processor and version; that is enough to hide it after a rebuild."""
    study, _ = source(archive)
    stored = archive.index.locate(study_instance_uids=[study])[0]
    parts = data_set(archive, stored, ["1.2.840.10008.1.2.1"])
    one = pydicom.dcmread(BytesIO(b"".join(bytes(buffer) for buffer in parts.buffers)), force=True)
    one.SeriesInstanceUID, one.SOPInstanceUID = "2.25.77", "2.25.78"
    result = Received(making.encode(one), "1.2.840.10008.1.2.1", Origin.PROCESSOR, "plus 1.3", association="a job")
    ingest_derived(archive, [result], finishing=None)
    archive.close()
    for path in (tmp_path / "home").glob("index.db*"):
        path.unlink()

    with making.archive(tmp_path / "home") as again:
        rebuild(again)

        assert recalls.begin(again, "plus", "1.3") == (1, 1)
