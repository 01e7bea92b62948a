"""Sending series to a peer as a job: queued, retried with growing waits over restarts, seen beside all other jobs.

Whoever wants something sent (a route, a rule's destination, a person) makes the job with `send_job` or `schedule`. How the
instances travel is the business of the doors: the worker hands their carriers in, so that this module knows neither DIMSE nor
HTTP. The peer's identity policy is obeyed here, as it is when a peer retrieves.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pacs import reidentify
from pacs.archive import Archive
from pacs.index.database import Index
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotAuthorized, NotFound, Unavailable
from pacs.model.instance import Stored
from pacs.model.job import SEND, Claim, Job, JobState, NewJob, sending_to
from pacs.model.peer import Peer
from pacs.model.waiting import wait_s
from pacs.processing.child import Heartbeat, Outcome, check
from pacs.reidentify import Originals

log = get_logger(__name__)
PREFIX = sending_to("")
VERSION = "1"
PATIENCE_S = 2.0
ANNOUNCED_S = 30.0
"""How long an announced send counts as one that is about to begin."""
WAITS_FOR_OTHERS = "waits for other sends to the same peer"


@dataclass(slots=True)
class Delivery:
    """What became of the instances: how many the peer has, and why it has not the others."""

    delivered: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Reason, as the peer gave it (a status), and how many: another try would end alike."""
    missed: int = 0
    """How many may get through another time: the connection broke, or the peer had no room."""


class Carrier(Protocol):
    """Brings instances to a peer. Raises `Unavailable` where it cannot be reached at all."""

    def __call__(
        self,
        archive: Archive,
        peer: Peer,
        instances: Sequence[Stored],
        originals: Originals | None,
        progress: Callable[[int], None],
    ) -> Delivery:
        """Send in order; call `progress` with the number dealt with before each; what it raises ends the sending."""


Carriers = Mapping[str, Carrier]
"""By kind of peer: "dicom" and "web"."""


def peer_of(processor: str) -> str:
    """Return the AE title that a sending job sends to; "" for every other job."""
    return processor.removeprefix(PREFIX) if processor.startswith(PREFIX) else ""


def send_job(
    index: Index, ae_title: str, study_instance_uid: str, series_instance_uids: Sequence[str], *, rule: str, completion: str
) -> NewJob:
    """Return the job that sends these series, as they are now, to a peer; equal contents to one peer are sent once.

    Parameters
    ----------
    rule : str
        Who wants it; a later job of the same rule over the same series supersedes one that waits.
    completion : str
        How we know that the series are complete, shown with the job.
    """
    unique = ["send", ae_title, index.inputs_digest(series_instance_uids)]
    return NewJob(
        job_key=hashlib.sha256(json.dumps(unique).encode()).hexdigest(),
        processor=sending_to(ae_title),
        version=VERSION,
        parameters={},
        rule=rule,
        queue=SEND,
        study_instance_uid=study_instance_uid,
        series_instance_uids=tuple(series_instance_uids),
        completion=completion,
    )


def schedule(
    index: Index, ae_title: str, study_instance_uid: str, series_instance_uids: Sequence[str], *, rule: str = "manual"
) -> str | None:
    """Queue the sending of series to a peer; returns the job's id, None where the same was queued before.

    Raises `NotFound` where there is no such peer, or no series is named.
    """
    if index.peers.get(ae_title) is None:
        raise NotFound(f"there is no peer {ae_title}; add it with `pacs peers add {ae_title} HOST PORT`")
    if not series_instance_uids:
        raise NotFound("there is nothing to send")
    job = send_job(index, ae_title, study_instance_uid, series_instance_uids, rule=rule, completion="asked for")
    made = index.jobs.add([job])
    return made[0] if made else None


def attempt(
    archive: Archive, job: Job, claim: Claim, heartbeat: Heartbeat, stop: threading.Event, carriers: Carriers
) -> Outcome:
    """Send what the job names, once. What may get through another time is tried again, `dicom.send_attempts` times in all."""
    peer = archive.index.peers.get(peer_of(job.processor))
    if peer is None:
        return Outcome(JobState.FAILED, "there is no peer of this name; add it with `pacs peers add`, and run the job again")
    carry = carriers.get("web" if peer.url else "dicom")
    if carry is None:
        return Outcome(JobState.FAILED, "this worker cannot send")
    instances = archive.index.locate(
        study_instance_uids=[job.study_instance_uid], series_instance_uids=list(job.series_instance_uids)
    )
    if not instances:
        return Outcome(JobState.SKIPPED, "its input is no longer in the archive")

    def progress(done: int) -> None:
        check(heartbeat, stop)
        if done % 50 == 0:
            archive.index.jobs.progress(claim, done / len(instances), f"{done} of {len(instances)} sent")

    again = job.attempt < archive.settings.dicom.send_attempts
    try:
        delivery = carry(archive, peer, instances, _originals(archive, peer, len(instances)), progress)
    except Unavailable as error:
        # The message names the peer, its address and what happened; nothing of a data set.
        reason, settings = str(error)[:200], archive.settings
        later_s = archive.index.away.unreachable(
            peer.ae_title,
            reason,
            wait_s=partial(wait_s, settings.processing.backoff_s),
            attempts=settings.dicom.send_attempts,
        )
        return Outcome(JobState.FAILED, reason, retry=again, blameless=again, retry_in_s=later_s)
    except (NotAuthorized, ArchiveError) as error:
        return Outcome(JobState.FAILED, f"{type(error).__name__}: {error}"[:200])
    archive.index.away.reached(peer.ae_title)
    return _outcome(peer, len(instances), delivery, again)


def permitted(index: Index, due: Sequence[tuple[str, str]], now: float, at_once: int) -> list[tuple[str, str]]:
    """Leave out the sends that must wait: for a peer that is away, but for one that tries it; or for others to the same peer.

    Parameters
    ----------
    due : sequence of (job id, queue)
        What is to be announced; jobs of other queues stay.
    at_once : int
        How many sends there may be at once; to one peer half as many, so that a slow one does not fill the lane.
    """
    sends = [job_id for job_id, queue in due if queue == SEND]
    if not sends:
        return list(due)
    processors, busy = index.jobs.sends_under_way(sends, now - ANNOUNCED_S)
    away = index.away.list()
    late: dict[tuple[float, str], list[str]] = {}
    for job_id in sends:
        processor = processors.get(job_id, "")
        gone = away.get(peer_of(processor))
        if gone is not None and gone.until > now:
            late.setdefault((gone.until, gone.reason), []).append(job_id)
        elif busy.get(processor, 0) >= (1 if gone is not None else max(1, at_once // 2)):
            # What `reached` or `unreachable` says of the peer moves these on, so they need not ask often.
            late.setdefault((now + PATIENCE_S, gone.reason if gone else WAITS_FOR_OTHERS), []).append(job_id)
        else:
            busy[processor] = busy.get(processor, 0) + 1
    for (until, reason), job_ids in late.items():
        index.jobs.postpone(job_ids, until, reason)
    waiting = {job_id for job_ids in late.values() for job_id in job_ids}
    return [(job_id, queue) for job_id, queue in due if job_id not in waiting]


def _originals(archive: Archive, peer: Peer, count: int) -> Originals | None:
    """Return what restores the instances, if the peer gets originals, and note for the audit that it does."""
    if peer.identity != "original":
        return None
    reidentify.vault_of(archive)
    archive.index.note(
        "identity_restored",
        operation="send",
        caller=archive.settings.dicom.ae_title,
        receiver=peer.ae_title,
        count=count,
    )
    return Originals(archive)


def _outcome(peer: Peer, wanted: int, delivery: Delivery, again: bool) -> Outcome:
    log.info("series_sent", ae_title=peer.ae_title, count=delivery.delivered, failed=wanted - delivery.delivered)
    if delivery.delivered == wanted:
        return Outcome(JobState.SUCCEEDED, f"{wanted} instances at {peer.ae_title}")
    reasons = [f"{count} refused with {reason}" for reason, count in sorted(delivery.refused.items())]
    if delivery.missed:
        reasons.append(f"{delivery.missed} not delivered")
    retry = bool(delivery.missed) and again
    return Outcome(JobState.FAILED, f"of {wanted}: {', '.join(reasons)}"[:200], retry=retry, blameless=retry)
