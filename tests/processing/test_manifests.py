"""Processors by manifest: programs, containers and networks, each really run in the isolated process of a job."""

import hashlib
import sys
from pathlib import Path

import making
import networks
import numpy as np
import psutil
import pytest
from pydicom.dataset import Dataset

from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError
from pacs.phantoms import stack
from pacs.processing import scratch, trial
from pacs.processing.manifests import load
from pacs.processing.registry import discover, survey
from pacs.processing.runner import run_job
from pacs.processing.schedule import ask
from pacs.processing.trial import Trial

SEGMENTS = 'segments = [{ label = 1, name = "Bone", code = ["272673000", "SCT", "Bone"] }]'
PROGRAM = """
import json, os, sys, time
from pathlib import Path
import SimpleITK as sitk

folder, out, level, what = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
about = json.loads((folder / "job.json").read_text())
if what == "secrets":
    assert not [name for name in os.environ if name.startswith("PACS_")]
if what == "again":
    sys.exit(75)
if what == "fail":
    sys.exit("Quillfeather broke it")
if what == "sleep":
    time.sleep(301.5)
if what == "skip":
    (out / "results.json").write_text(json.dumps({"skip": "no bone here"}))
    sys.exit(0)
image = sitk.ReadImage(str(folder / about["series"][0]["file"]))
labels = sitk.Cast(image > level, sitk.sitkUInt8)
if what == "coarse":
    labels = sitk.Shrink(labels, [2, 2, 1])
sitk.WriteImage(labels, str(out / "labels.nii"))
sitk.WriteImage(image * 2, str(out / "twice.nii"))
volume = {"name": ["118565006", "SCT", "Volume"], "value": 8, "unit": ["cm3", "UCUM", "cm3"]}
question = {"question": ["Q", "99TEST", "Which"], "answer": ["A", "99TEST", "This"], "certainty": 0.75, "reason": "so"}
(out / "results.json").write_text(json.dumps({"measurements": [volume], "findings": [question]}))
"""
MANIFEST = f"""
name = "program"
version = "1"
summary = "A program of ours."
when = {{ Modality = "CT" }}
makes = ["SEG", "SR"]

[parameters]
level = {{ default = 500.0, low = 0, high = 1000, unit = "HU", help = "bone is above it" }}
what = {{ default = "" }}

RUNNER

[[output]]
kind = "segmentation"
file = "labels.nii"
description = "Bone"
{SEGMENTS}

[[output]]
kind = "images"
file = "twice.nii"
description = "twice"

[[output]]
kind = "map"
file = "twice.nii"
description = "map"
quantity = ["M", "99TEST", "Twice"]
unit = ["[hnsf'U]", "UCUM", "Hounsfield unit"]
"""
COMMAND = f'[command]\nargv = ["{sys.executable}", "{{here}}/program.py.txt", "{{in}}", "{{out}}", "{{level}}", "{{what}}"]'
CONTAINER = f'[container]\nimage = "example.org/bone@sha256:{"a" * 64}"\nargv = ["/in", "/out", "{{level}}", "{{what}}"]'


def block() -> list[Dataset]:
    """Water with a block of 900 HU, 10 x 10 x 4 voxels of 2 x 2 x 5 mm: 8 mL."""
    volume = np.zeros((8, 40, 40))
    volume[2:6, 10:20, 10:20] = 900
    return stack(volume, (5, 2, 2))


def written(folder: Path, runner: str) -> Path:
    (folder / "program.py.txt").write_text(PROGRAM)
    path = folder / "program.toml"
    path.write_text(MANIFEST.replace("RUNNER", runner))
    return path


def run(path: Path, **parameters: object) -> Trial:
    return trial.run(load(path), [block()], parameters, timeout_s=20)


def test_a_program_is_a_processor(tmp_path: Path) -> None:
    """It is found in the folder; its files become labels, numbers, images and a map, all valid."""
    written(tmp_path, COMMAND)
    found, problems = survey(tmp_path)
    assert problems == []
    assert (found["program"].summary, found["program"].parameters[0].unit) == ("A program of ours.", "HU")

    ended = trial.run(found["program"], [block()], {"what": "secrets"})

    assert ended.succeeded, ended.reason + ended.trace
    assert [one.Modality for one in ended.results] == ["SEG", *["CT"] * 8, "OT", "SR", "SR"]
    labels = ended.results[0].pixel_array
    assert labels.shape == (4, 40, 40)
    assert labels.sum() == 400
    middle = next(one for one in ended.results if one.Modality == "CT" and one.InstanceNumber == 4)
    assert middle.pixel_array[15, 15] * float(middle.get("RescaleSlope", 1)) == pytest.approx(1800, rel=1e-3)
    assert "This" in str(ended.results[-1])


def test_a_program_runs_as_a_job(tmp_path: Path) -> None:
    """From the archive and back into it: its results are in the study when the job has ended."""
    folder = tmp_path / "home" / "processors"
    folder.mkdir(parents=True)
    written(folder, COMMAND)
    with making.archive(tmp_path / "home") as archive:
        for one in block():
            ingest(archive, making.received(one))
        (study,) = archive.index.studies()
        (series,) = archive.index.series_of(study.study_instance_uid)
        specs = discover(folder)
        job_id = ask(archive.index, specs["program"], {}, study.study_instance_uid, [series.series_instance_uid])
        assert job_id is not None
        run_job(archive, specs, job_id, worker="test")

        job = archive.index.jobs.get(job_id)
        assert (job.state, job.reason) == ("succeeded", "")
        assert len(archive.index.locate(study_instance_uids=[study.study_instance_uid])) == 8 + 1 + 8 + 1 + 2


def test_labels_of_another_grid_are_brought_back(tmp_path: Path) -> None:
    """A program may work on coarser voxels; its labels lie where they lay."""
    ended = run(written(tmp_path, COMMAND), what="coarse")

    assert ended.succeeded, ended.reason + ended.trace
    assert ended.results[0].pixel_array.sum() == pytest.approx(400, rel=0.25)


@pytest.mark.parametrize(
    ("what", "state", "reason"),
    [
        ("skip", "skipped", "no bone here"),
        ("again", "failed", "Transient"),
        ("fail", "failed", "ProgramFailed at programs.py"),
    ],
)
def test_every_end_of_a_program_is_told(tmp_path: Path, what: str, state: str, reason: str) -> None:
    """A reason to skip, a wish for another try, and a failure; a job would not quote what it printed."""
    ended = run(written(tmp_path, COMMAND), what=what)

    assert ended.state == state
    assert reason in ended.reason


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    """The job's clock ends it with its process group, and its files are gone."""
    before = set(Path(scratch.in_memory() or "/dev/shm").glob("pacs-job-*"))

    ended = trial.run(load(written(tmp_path, COMMAND)), [block()], {"what": "sleep"}, timeout_s=6)

    assert ended.reason == "took longer than 6 s and was ended"
    here = str(tmp_path / "program.py.txt")
    assert [one.pid for one in psutil.process_iter(["cmdline"]) if here in (one.info["cmdline"] or [])] == []
    assert set(Path(scratch.in_memory() or "/dev/shm").glob("pacs-job-*")) <= before


@pytest.mark.skipif(sys.platform != "linux", reason="there is a folder in memory on Linux only")
def test_files_are_in_memory() -> None:
    """The folder of a job with files is on tmpfs, unless another was chosen; one on a disk does not count."""
    assert scratch.in_memory() == "/dev/shm"
    assert scratch.in_memory("/somewhere") == "/somewhere"


# --- containers: no engine can run here, so a program stands in its place, and runs the command itself ---------------------

ENGINE = f"""#!{sys.executable}
import os, sys
from pathlib import Path
with Path(__file__).with_name("log").open("a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] != "run":
    sys.exit(0)
volumes = [word.removeprefix("--volume=") for word in sys.argv if word.startswith("--volume=")]
places = {{one.split(":")[1]: one.split(":")[0] for one in volumes}}
image = next(number for number, word in enumerate(sys.argv) if "@sha256:" in word)
words = [places.get(word, word) for word in sys.argv[image + 1:]]
os.execv(sys.executable, [sys.executable, str(Path(__file__).parent / "program.py.txt"), *words])
"""


def contained(folder: Path) -> Path:
    """A manifest of a container, whose engine is the stand-in beside it."""
    engine = folder / "podman"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    return written(folder, f'{CONTAINER}\nengine = "{engine}"')


def test_a_container_gets_nothing_but_its_files(tmp_path: Path) -> None:
    """No network, no rights, no writing but to the folder of results; it is removed by name when the job has ended."""
    ended = run(contained(tmp_path))

    assert ended.succeeded, ended.reason + ended.trace
    assert [one.Modality for one in ended.results] == ["SEG", *["CT"] * 8, "OT", "SR", "SR"]
    started, removed = (tmp_path / "log").read_text().splitlines()
    for word in (
        "--rm --pull=never --network=none --read-only --cap-drop=ALL --security-opt=no-new-privileges --pids-limit=512"
        " --memory=4096m --memory-swap=4096m"
    ).split():
        assert word in started.split()
    name = started.split("--name=")[1].split()[0]
    assert removed == f"rm --force {name}"
    assert name.startswith("pacs-")


def test_a_container_that_hangs_is_removed(tmp_path: Path) -> None:
    """Killing an engine's client does not end its container, so it is removed by its name, whoever has died."""
    ended = trial.run(load(contained(tmp_path)), [block()], {"what": "sleep"}, timeout_s=6)

    assert ended.reason == "took longer than 6 s and was ended"
    started, removed = (tmp_path / "log").read_text().splitlines()
    assert removed == f"rm --force {started.split('--name=')[1].split()[0]}"


# --- networks ------------------------------------------------------------------------------------------------------------


def network(folder: Path, data: bytes, model: str = "", output: str = "", sha256: str = "") -> Path:
    (folder / "net.onnx").write_bytes(data)
    path = folder / "net.toml"
    path.write_text(
        f"""
name = "net"
version = "1"
[model]
file = "net.onnx"
sha256 = "{sha256 or hashlib.sha256(data).hexdigest()}"
{model}
[model.normalise]
clip = [-1000, 1000]
[[output]]
{output or f'kind = "segmentation"{chr(10)}{SEGMENTS}'}
"""
    )
    return path


@pytest.mark.parametrize(
    "model",
    [
        "",
        "patch = [4, 16, 16]",
        "patch = [6, 64, 32]\noverlap = 0.25",
        'spacing_mm = [5, 2, 2]\norientation = "RAS"',
        "spacing_mm = [2.5, 1, 1]",
    ],
)
def test_a_network_is_a_processor(tmp_path: Path, model: str) -> None:
    """Whole or in patches, in its own spacing and orientation, a threshold labels the block where it is."""
    ended = run(network(tmp_path, networks.threshold(0.75), model))

    assert ended.succeeded, ended.reason + ended.trace
    (segmentation,) = ended.results
    assert segmentation.pixel_array.sum() == pytest.approx(400, rel=0.02)
    places = [one.PlanePositionSequence[0].ImagePositionPatient[2] for one in segmentation.PerFrameFunctionalGroupsSequence]
    assert sorted(map(float, places)) == [10, 15, 20, 25]


def test_a_network_of_slices(tmp_path: Path) -> None:
    """Four dimensions of input: slice by slice, with patches in the plane; probabilities instead of labels."""
    output = f'kind = "probabilities"\n{SEGMENTS}'
    ended = run(network(tmp_path, networks.threshold(0.75, by_slice=True), "patch = [32, 24]", output))

    assert ended.succeeded, ended.reason + ended.trace
    (fractions,) = ended.results
    assert str(fractions.SegmentationType) == "FRACTIONAL"
    assert (fractions.pixel_array > 250).sum() == 400


@pytest.mark.parametrize(("level", "answer"), [(0.4, "high"), (0.6, "low"), (0.515, "Undetermined")])
def test_a_network_that_answers(tmp_path: Path, level: float, answer: str) -> None:
    """Classes become a coded answer with its certainty; between two classes nothing is said."""
    output = """kind = "classification"
question = ["Q", "99TEST", "Level"]
labels = [["L", "99TEST", "low"], ["H", "99TEST", "high"]]
unsure = 0.9"""
    ended = run(network(tmp_path, networks.mean_above(level), "", output))

    assert ended.succeeded, ended.reason + ended.trace
    assert f"'{answer}'" in str(ended.results[0].ContentSequence)


def test_another_network_is_not_run(tmp_path: Path) -> None:
    """A file whose SHA-256 is not the manifest's fails the job: results of a version come from one network."""
    assert "AnotherModel" in run(network(tmp_path, networks.threshold(0.5), sha256="0" * 64)).reason


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("version", "versoin"), "no key versoin"),
        (('name = "program"', 'name = "Pro gram"'), "lower-case"),
        (("[command]", "[program]"), "no key program"),
        (('"{level}"', '"{levle}"'), "levle"),
        (("default = 500.0", "default = 5000.0"), "between"),
        (('kind = "images"', 'kind = "pictures"'), "kind must be one of"),
        (('file = "labels.nii"', 'file = "../labels.nii"'), "without a folder"),
        (('["272673000", "SCT", "Bone"]', '"bone"'), "a code is written"),
        (("what =", "what = 1 ="), "line"),
    ],
)
def test_a_mistake_in_a_manifest_is_told(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    """It is left out, and the problem says what to change; the archive goes on."""
    path = written(tmp_path, COMMAND)
    path.write_text(path.read_text().replace(*change))

    with pytest.raises(ConfigurationError, match=r"program\.toml") as raised:
        load(path)

    assert told in str(raised.value)
    found, problems = survey(tmp_path)
    assert "program" not in found
    assert [one.source for one in problems] == ["program.toml"]


def test_a_container_is_named_by_its_digest(tmp_path: Path) -> None:
    """A tag may be something else tomorrow."""
    path = written(tmp_path, CONTAINER.replace("@sha256:" + "a" * 64, ":latest"))

    with pytest.raises(ConfigurationError, match="digest"):
        load(path)
