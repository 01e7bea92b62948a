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
from typing import Protocol

from pacs import reidentify
from pacs.archive import Archive
from pacs.index.database import Index
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotAuthorized, NotFound, Unavailable
from pacs.model.instance import Stored
from pacs.model.job import Claim, Job, JobState, NewJob
from pacs.model.peer import Peer
from pacs.processing.child import Heartbeat, Outcome, check
from pacs.reidentify import Originals

log = get_logger(__name__)
PREFIX = "send:"
"""A sending job's processor is this and the peer's AE title: jobs to two peers do not supersede each other."""
VERSION = "1"
QUEUE = "cpu"


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
        processor=f"{PREFIX}{ae_title}",
        version=VERSION,
        parameters={},
        rule=rule,
        queue=QUEUE,
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
        return Outcome(JobState.FAILED, str(error)[:200], retry=again, blameless=again)
    except (NotAuthorized, ArchiveError) as error:
        return Outcome(JobState.FAILED, f"{type(error).__name__}: {error}"[:200])
    return _outcome(peer, len(instances), delivery, again)


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
