"""Runs one job: claim, inputs out of the archive, the processor in an isolated process, results back in.

The row is the truth. A job is claimed by a lease that a thread renews; whoever loses the lease drops what it has, and results
become visible in the same transaction that ends the job, so that a second delivery, a crash or a zombie changes nothing.
Reasons that people read hold class and place of an error, never a message that may quote values.
"""

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from pacs.archive import Archive
from pacs.ingest import ingest_derived
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotFound, NotTranscodable, Unavailable
from pacs.model.instance import Buffer, Origin, Received, Stored
from pacs.model.job import Claim, Job, JobState, MadeBy
from pacs.model.waiting import wait_s
from pacs.processing import cleaning, scratch, sending, session, wire
from pacs.processing.api import ParameterError, Spec
from pacs.processing.child import Heartbeat, LeaseLost, Outcome, Stopped, check, child
from pacs.processing.cleaners import cleaning_of
from pacs.processing.findings import findings
from pacs.retrieve import data_set

log = get_logger(__name__)
REPORTS = "1.2.840.10008.5.1.4.1.1.88."
"""What the SOP Class UIDs of structured reports begin with (PS3.6 A)."""


def run_job(
    archive: Archive,
    registry: Mapping[str, Spec],
    job_id: str,
    *,
    worker: str,
    stop: threading.Event | None = None,
    carriers: sending.Carriers | None = None,
) -> JobState | None:
    """Claim and run one job; returns its state afterwards, None where it was not ours to take or to end.

    `carriers` bring instances to peers, by kind of peer: a worker that sends has them from the doors.
    """
    settings = archive.settings.processing
    jobs = archive.index.jobs
    claim = Claim(job_id, f"{worker}-{uuid.uuid4()}")
    job = jobs.claim(job_id, claim.owner, settings.lease_s)
    if job is None:
        return None
    started = time.monotonic()
    log.info("job_started", job_id=job_id, processor=job.processor, attempt=job.attempt)
    try:
        with Heartbeat(archive, claim) as heartbeat:
            outcome = _attempt(
                archive, registry.get(job.processor), job, claim, heartbeat, stop or threading.Event(), carriers or {}
            )
    except (LeaseLost, NotFound):
        log.warning("job_lease_lost", job_id=job_id, processor=job.processor)
        return None
    except Stopped:
        jobs.fail(claim, "the worker was stopped", retry_in_s=0.0)
        return JobState.QUEUED
    state = _end(archive, job, claim, outcome)
    log.info(
        "job_ended",
        job_id=job_id,
        processor=job.processor,
        job_state=state,
        reason=outcome.reason,
        duration_ms=round(1000 * (time.monotonic() - started)),
    )
    return state


def _attempt(
    archive: Archive,
    spec: Spec | None,
    job: Job,
    claim: Claim,
    heartbeat: Heartbeat,
    stop: threading.Event,
    carriers: sending.Carriers,
) -> Outcome:
    if cleaning_of(job.processor):
        return cleaning.attempt(archive, job, claim, heartbeat, stop)
    if sending.peer_of(job.processor):
        return sending.attempt(archive, job, claim, heartbeat, stop, carriers)
    if spec is None or spec.version != job.version:
        return Outcome(JobState.FAILED, f"processor {job.processor} {job.version} is not installed here")
    try:
        parameters = spec.bind(job.parameters)
        inputs = inputs_of(archive, job)
        if not inputs:
            return Outcome(JobState.SKIPPED, "its input is no longer in the archive")
        outcome = run_isolated(archive, spec, job, parameters, inputs, claim, heartbeat, stop)
        if outcome.state is JobState.SUCCEEDED and outcome.received:
            heartbeat.check()
            archive.index.chains.found(claim, _findings(outcome.received))
            ingest_derived(archive, outcome.received, finishing=claim)
        return outcome
    except ParameterError as error:
        return Outcome(JobState.FAILED, str(error))
    except Unavailable as error:
        # Ours to mend, not the job's fault: it waits for room (or for the key store) however long that takes.
        return Outcome(JobState.FAILED, f"{type(error).__name__} in the archive", retry=True, blameless=True)
    except OSError as error:
        return Outcome(JobState.FAILED, f"{type(error).__name__} in the archive", retry=True)
    except NotFound:
        raise
    except ArchiveError as error:
        return Outcome(JobState.FAILED, f"{type(error).__name__}: the results were refused by the archive")


def _findings(received: Sequence[Received]) -> list[dict[str, Any]]:
    """What the reports among the results say; rules branch on it."""
    found = []
    for one in received:
        if one.sop_class_uid.startswith(REPORTS) and isinstance(one.data_set, bytes | bytearray | memoryview):
            found += findings(dcmread(BytesIO(one.data_set), force=True))
    return found


def _end(archive: Archive, job: Job, claim: Claim, outcome: Outcome) -> JobState:
    jobs, settings = archive.index.jobs, archive.settings.processing
    if outcome.state is JobState.SUCCEEDED:
        if not outcome.received and not outcome.ended:
            jobs.succeed(claim, outcome.reason or "nothing to add")
    elif outcome.state is JobState.SKIPPED:
        jobs.skip(claim, outcome.reason)
    elif outcome.retry and (outcome.blameless or job.attempt < settings.attempts):
        usual_s = wait_s(settings.backoff_s, job.attempt)
        jobs.fail(claim, outcome.reason, retry_in_s=usual_s if outcome.retry_in_s is None else outcome.retry_in_s)
        return JobState.QUEUED
    else:
        jobs.fail(claim, outcome.reason, retry_in_s=None)
        if cleaning_of(job.processor):
            # Nothing else will free the images: somebody has to look (`pacs doctor`, the quarantine's page).
            log.error("cleaning_failed", job_id=job.job_id, processor=job.processor, reason=outcome.reason)
    return outcome.state


def inputs_of(archive: Archive, job: Job) -> list[list[Stored]]:
    """The instances of each input series, in the order of the job."""
    found = archive.index.locate(
        study_instance_uids=[job.study_instance_uid], series_instance_uids=list(job.series_instance_uids)
    )
    series: dict[str, list[Stored]] = {uid: [] for uid in job.series_instance_uids}
    for one in found:
        series[one.key.series_instance_uid].append(one)
    return [instances for instances in series.values() if instances]


def run_isolated(
    archive: Archive,
    spec: Spec,
    job: Job,
    parameters: Mapping[str, object],
    inputs: Sequence[Sequence[Stored]],
    claim: Claim,
    heartbeat: Heartbeat | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Run a processor on these instances in a process of its own, and return how that ended; nothing is stored.

    Raises `LeaseLost` or `Stopped` as `heartbeat` and `stop` say; without either it goes on to its end.
    """
    settings = archive.settings.processing
    timeout_s = min(settings.timeout_s, spec.timeout_s or settings.timeout_s)
    folder = scratch.in_memory(settings.scratch) if spec.files else None
    if spec.files and folder is None:
        return Outcome(JobState.FAILED, scratch.NONE)
    head = session.head(
        spec,
        parameters,
        job_key=job.job_key,
        series=len(inputs),
        timeout_s=timeout_s,
        memory_mb=min(settings.memory_mb, spec.memory_mb or settings.memory_mb),
    )
    received: list[Received] = []

    def take(sop_class_uid: str, sop_instance_uid: str, data_set: Buffer) -> None:
        received.append(
            Received(
                data_set=data_set,
                transfer_syntax_uid=ExplicitVRLittleEndian,
                origin=Origin.PROCESSOR,
                source=f"{job.processor} {job.version}",
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                association=job.job_id,
                made_by=MadeBy.of(job),
            )
        )

    started = time.monotonic()
    with child(afterwards=spec.afterwards(job.job_key), folder=folder) as (process, write_end, reader):
        try:
            wire.write(write_end, head)
            for number, instances in enumerate(inputs):
                for stored in instances:
                    check(heartbeat, stop)
                    _send(archive, write_end, number, stored)
            wire.write(write_end, {"end": True})
        except wire.Closed:
            pass  # it has ended early; why, it says below
        outcome = session.listen(
            process,
            reader,
            since=started,
            timeout_s=timeout_s,
            check=lambda: check(heartbeat, stop),
            progress=lambda fraction, note: archive.index.jobs.progress(claim, fraction, note),
            output=take,
        )
    return replace(outcome, received=received) if outcome.state is JobState.SUCCEEDED else outcome


def _send(archive: Archive, write_end: int, number: int, stored: Stored) -> None:
    try:
        parts = data_set(archive, stored, [ExplicitVRLittleEndian])
    except NotTranscodable:
        parts = data_set(archive, stored)
    head = {"series": number, "transfer_syntax_uid": str(parts.transfer_syntax_uid)}
    wire.write(write_end, head, parts.buffers, parts.size_bytes)
