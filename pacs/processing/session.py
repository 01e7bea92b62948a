"""What is said to the isolated process of a processor, and what it says: the head, its limits, and its end."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from pacs.model.instance import Buffer
from pacs.model.job import JobState
from pacs.processing import wire
from pacs.processing.api import Spec
from pacs.processing.child import Child, Outcome, died


def head(
    spec: Spec,
    parameters: Mapping[str, Any],
    *,
    job_key: str,
    series: int,
    timeout_s: float,
    memory_mb: int,
    talks: bool = False,
) -> dict[str, Any]:
    """Return the first message. `talks` lets it quote an error's message and traceback: for an author's trial, never a job."""
    return {
        "processor": spec.name,
        "module": spec.module,
        "path": spec.path,
        "job_key": job_key,
        "parameters": dict(parameters),
        "series": series,
        "memory_mb": memory_mb,
        "cpu_s": timeout_s * (os.cpu_count() or 1),
        "files": spec.files,
        "talks": talks,
    }


def listen(
    process: Child,
    reader: wire.Reader,
    *,
    since: float,
    timeout_s: float,
    check: Callable[[], None],
    progress: Callable[[float, str], object],
    output: Callable[[str, str, Buffer], None],
    ended: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> Outcome:
    """Listen until it has ended, or until `timeout_s` after `since` (monotonic seconds).

    `check` is called at least twice a second and may raise; `output` gets SOP Class, SOP Instance UID and data set of each
    object, `ended` the last message as it came.
    """
    deadline = since + timeout_s
    while True:
        check()
        if time.monotonic() >= deadline:
            return Outcome(JobState.FAILED, f"took longer than {timeout_s:g} s and was ended")
        if not reader.wait(min(0.5, deadline - time.monotonic())):
            continue
        try:
            message, payload = reader.read(deadline)
        except wire.TimedOut:
            continue
        except wire.Closed:
            return died(process)
        if "progress" in message:
            progress(float(message["progress"]), str(message.get("note", ""))[:80])
        elif "output" in message:
            output(str(message["output"]["sop_class_uid"]), str(message["output"]["sop_instance_uid"]), payload)
        else:
            ended(message)
            return _ended(message)


def _ended(message: Mapping[str, Any]) -> Outcome:
    if "done" in message:
        return Outcome(JobState.SUCCEEDED)
    if "skip" in message:
        return Outcome(JobState.SKIPPED, str(message["skip"]))
    if "invalid" in message:
        return Outcome(JobState.FAILED, f"results are not valid: {'; '.join(map(str, message['invalid']))}"[:1000])
    reason = f"{message.get('error', 'unknown error')} at {message.get('place', '')}"
    return Outcome(JobState.FAILED, reason, retry=bool(message.get("transient")))
