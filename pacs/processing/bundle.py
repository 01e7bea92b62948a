"""The smallest bundle that reproduces a failure: parameters, versions, and the fewest input instances that still fail alike.

Made when somebody asks, in isolated processes as the job was, and never kept: in the archive the inputs are encrypted, and a
bundle on a disk is a copy that a person wanted. Its instances are de-identified, as everything in the archive is.
Method: Zeller A, Hildebrandt R, "Simplifying and isolating failure-inducing input", IEEE Trans Softw Eng 28 (2002) 183-200.
"""

import json
import platform
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pacs.archive import Archive
from pacs.model.errors import InvalidQuery, NotFound
from pacs.model.instance import Stored
from pacs.model.job import Claim, Job, JobState
from pacs.processing.api import Spec
from pacs.processing.runner import inputs_of, run_isolated
from pacs.retrieve import part10_file

T = TypeVar("T")
LIBRARIES = ("mini-pacs", "numpy", "pydicom", "highdicom", "SimpleITK", "opencv-python-headless", "onnxruntime")
README = """A job of mini-pacs that failed, and the fewest of its input instances that make it fail in the same way.

job.json     processor, version, parameters, the reason it failed for, and the versions of the libraries
instances/   the inputs, a folder for each series; de-identified, for research use, not for diagnosis
"""


@dataclass(frozen=True, slots=True)
class Bundled:
    """What a bundle holds: how many instances of how many, after how many tries; `complete` if nothing more was left to try."""

    reason: str
    instances: int
    of: int
    tries: int
    complete: bool


def bundle(archive: Archive, registry: Mapping[str, Spec], job: Job, path: Path, *, seconds: float = 120.0) -> Bundled:
    """Write the smallest bundle found within `seconds` to `path`, a zip file that must not exist.

    Raises
    ------
    NotFound
        The job's inputs are no longer here, or its processor is not installed in its version.
    InvalidQuery
        It has not failed, or does not fail any more.
    FileExistsError
        There is a file of this name.
    """
    spec = registry.get(job.processor)
    if spec is None or spec.version != job.version:
        raise NotFound(f"processor {job.processor} {job.version} is not installed here")
    if job.state is not JobState.FAILED:
        raise InvalidQuery(f"the job is {job.state}; only one that failed has something to reproduce")
    inputs = inputs_of(archive, job)
    every = [(number, stored) for number, instances in enumerate(inputs) for stored in instances]
    if not every:
        raise NotFound("the inputs of the job are no longer in the archive")
    with path.open("xb") as target:  # before the work, so that nothing is in vain
        try:
            found, told = _reduce(archive, spec, job, every, seconds)
            _write(archive, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED), spec, job, found, told)
        except BaseException:
            path.unlink()
            raise
    return told


def _reduce(
    archive: Archive, spec: Spec, job: Job, every: list[tuple[int, Stored]], seconds: float
) -> tuple[list[tuple[int, Stored]], Bundled]:
    tries = 0

    def reason(chosen: Sequence[tuple[int, Stored]]) -> str:
        nonlocal tries
        tries += 1
        series: dict[int, list[Stored]] = {}
        for number, stored in chosen:
            series.setdefault(number, []).append(stored)
        parameters = spec.bind(job.parameters)
        # The claim is nobody's: what is said of progress changes no row.
        outcome = run_isolated(archive, spec, job, parameters, list(series.values()), Claim(job.job_id, "bundle"))
        return outcome.reason if outcome.state is JobState.FAILED else ""

    deadline = time.monotonic() + seconds
    wanted = reason(every)
    if not wanted:
        raise InvalidQuery("the job does not fail any more; try it again")
    found, complete = smallest(every, lambda chosen: reason(chosen) == wanted, deadline)
    return found, Bundled(wanted, len(found), len(every), tries, complete)


def smallest(items: Sequence[T], fails: Callable[[Sequence[T]], bool], deadline: float) -> tuple[list[T], bool]:
    """Return a subset that still fails, of which no part can be left out; and whether time allowed to be sure of that.

    The order is kept. `items` themselves fail; `deadline` is of `time.monotonic`.
    """
    found, parts = list(items), 2
    while len(found) > 1:
        size = -(-len(found) // parts)
        chunks = [found[at : at + size] for at in range(0, len(found), size)]
        # One part alone, then all but one: with two parts these are the same.
        rests = [[one for other in chunks if other is not chunk for one in other] for chunk in chunks] if parts > 2 else []
        for number, candidate in enumerate([*chunks, *rests]):
            if time.monotonic() >= deadline:
                return found, False
            if fails(candidate):
                found, parts = candidate, 2 if number < len(chunks) else max(parts - 1, 2)
                break
        else:
            if parts >= len(found):
                break
            parts = min(parts * 2, len(found))
    return found, True


def _write(
    archive: Archive, target: zipfile.ZipFile, spec: Spec, job: Job, found: Sequence[tuple[int, Stored]], told: Bundled
) -> None:
    about: dict[str, Any] = {
        "processor": spec.name,
        "version": spec.version,
        "parameters": dict(job.parameters),
        "reason": told.reason,
        "job_id": job.job_id,
        "rule": job.rule,
        "instances": told.instances,
        "of_instances": told.of,
        "smallest": told.complete,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libraries": {name: number for name in LIBRARIES if (number := _version(name))},
    }
    with target:
        target.writestr("README.txt", README)
        target.writestr("job.json", json.dumps(about, indent=2))
        for at, (series, stored) in enumerate(found, 1):
            with target.open(f"instances/{series + 1}/{at:04d}.dcm", "w") as entry:
                for buffer in part10_file(archive, stored):
                    entry.write(buffer)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
