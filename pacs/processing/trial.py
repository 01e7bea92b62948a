"""A trial of a processor on images at hand, in the same isolated process as a job, with all that an author wants to know of it.

Unlike a job it quotes errors in full, because author and images are in one place. Nothing is stored.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from pacs.dicom import conditions
from pacs.model.errors import Unavailable
from pacs.model.instance import Buffer
from pacs.model.job import JobState
from pacs.processing import scratch, session, wire
from pacs.processing.api import Spec
from pacs.processing.child import child
from pacs.processing.derive import encode
from pacs.processing.registry import in_file

TIMEOUT_S = 1800.0
MEMORY_MB = 6144


@dataclass(frozen=True)
class Trial:
    """How a trial ended: the state and reason of a job, the results, and what a job would not tell."""

    state: JobState
    reason: str
    results: Sequence[Dataset] = ()
    trace: str = ""
    duration_s: float = 0.0
    peak_mb: int = 0
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def succeeded(self) -> bool:
        """Whether it made valid results, or had nothing to add."""
        return self.state is JobState.SUCCEEDED


def read(paths: Sequence[Path]) -> tuple[list[list[Dataset]], int]:
    """Return the images of files and folders as series, and how many files were none (or big endian)."""
    files = [one for path in paths for one in (sorted(path.rglob("*")) if path.is_dir() else [path]) if one.is_file()]
    series: dict[str, list[Dataset]] = {}
    others = 0
    for path in files:
        try:
            dataset = dcmread(path)
        except (InvalidDicomError, OSError):
            others += 1
            continue
        if "SOPInstanceUID" in dataset and dataset.file_meta.TransferSyntaxUID != ExplicitVRBigEndian:
            series.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append(dataset)
    return list(series.values()), others


def inputs_of(spec: Spec, series: Sequence[Sequence[Dataset]]) -> tuple[list[list[Sequence[Dataset]]], list[str]]:
    """Return what the processor would be given, run by run, and for each series left out which condition failed."""
    taken, reasons = [], []
    for one in series:
        middle = one[len(one) // 2]
        failed = conditions.first_failing(
            spec.when, _attributes(middle, spec.when) | {"NumberOfSeriesRelatedInstances": str(len(one))}
        )
        if failed is None:
            taken.append(one)
        else:
            reasons.append(f"{middle.get('Modality', '?')} series of {len(one)}: {failed} is not {spec.when[failed]!r}")
    if spec.level == "series":
        return [[one] for one in taken], reasons
    studies: dict[str, list[Sequence[Dataset]]] = {}
    for one in taken:
        studies.setdefault(str(one[0].get("StudyInstanceUID", "")), []).append(one)
    return list(studies.values()), reasons


def run(
    spec: Spec,
    series: Sequence[Sequence[Dataset]],
    parameters: Mapping[str, Any],
    *,
    timeout_s: float = TIMEOUT_S,
    memory_mb: int = MEMORY_MB,
    folder: str = "",
) -> Trial:
    """Run a processor on the series of one input. Raises `ParameterError` for parameters that it does not take."""
    bound = spec.bind(parameters)
    timeout_s, memory_mb = min(timeout_s, spec.timeout_s or timeout_s), min(memory_mb, spec.memory_mb or memory_mb)
    uids = sorted(str(one.SOPInstanceUID) for images in series for one in images)
    key = hashlib.sha256("|".join((spec.name, spec.version, repr(sorted(bound.items())), *uids)).encode()).hexdigest()
    own = scratch.in_memory(folder) if spec.files else None
    if spec.files and own is None:
        return Trial(JobState.FAILED, scratch.NONE)
    notes: list[str] = []
    results: list[Dataset] = []
    last: dict[str, Any] = {}

    def progress(fraction: float, note: str) -> None:
        notes.append(f"{fraction:4.0%} {note}".rstrip())

    def output(_: str, __: str, data_set: Buffer) -> None:
        one = dcmread(BytesIO(data_set), force=True)
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        results.append(one)

    with child(afterwards=spec.afterwards(key), folder=own) as (process, write_end, reader):
        if not process.pid:
            raise Unavailable("no process could be started")
        started = time.monotonic()
        try:
            head = session.head(
                spec, bound, job_key=key, series=len(series), timeout_s=timeout_s, memory_mb=memory_mb, talks=True
            )
            wire.write(write_end, head)
            for number, images in enumerate(series):
                for one in images:
                    syntax = one.file_meta.TransferSyntaxUID
                    # Native pixels are written as Explicit VR Little Endian whatever the file was, compressed ones as they are.
                    about = {
                        "series": number,
                        "transfer_syntax_uid": syntax if syntax.is_compressed else ExplicitVRLittleEndian,
                    }
                    wire.write(write_end, about, [encode(one)])
            wire.write(write_end, {"end": True})
        except wire.Closed:
            pass  # it has ended early; why, it says below
        outcome = session.listen(
            process,
            reader,
            since=started,
            timeout_s=timeout_s,
            check=lambda: None,
            progress=progress,
            output=output,
            ended=last.update,
        )
    reason = (
        f"{outcome.reason}: {last['message']}" if outcome.state is JobState.FAILED and last.get("message") else outcome.reason
    )
    return Trial(
        state=outcome.state,
        reason=reason,
        results=results if outcome.state is JobState.SUCCEEDED else (),
        trace=str(last.get("trace", "")),
        duration_s=time.monotonic() - started,
        peak_mb=int(last.get("peak_mb", 0)),
        notes=notes,
    )


def try_out(function: Callable[..., Any], datasets: Sequence[Dataset], **parameters: Any) -> Trial:
    """Run a processor on the images of one series: what a plug-in's own test calls.

    The isolated process finds the function again by its file, wherever it lies.
    """
    spec: Spec = function.__processor__  # type: ignore[attr-defined]  # set by @processor
    if "." not in spec.module:
        spec = replace(spec, module=in_file(Path(spec.path)))
    return run(spec, [datasets], parameters)


def _attributes(dataset: Dataset, when: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for keyword in when:
        value = dataset.get(keyword)
        if value is not None:
            several = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
            found[keyword] = "\\".join(map(str, several))
    return found
