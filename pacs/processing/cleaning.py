"""The worker's side of cleaning held images: out of the archive, into the isolated process, and back in its place.

Fail closed: an image that was not called clean stays held while the failure may pass, and goes to the encrypted quarantine when
it will not. What is clean becomes visible in the transaction that ends the job; the held record's bytes are given up after it.
"""

import base64
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from pacs.archive import Archive
from pacs.codec.image import EXPLICIT_LITTLE_ENDIAN, LOSSY_JPEG, PHOTOMETRIC_INTERPRETATION, PIXEL_DATA, PLANAR_CONFIGURATION
from pacs.deid import cleaned
from pacs.dicom.elements import element
from pacs.logs import get_logger
from pacs.model.bulk import LazyFrames
from pacs.model.errors import ConfigurationError, IntegrityError, NotFound, Unavailable
from pacs.model.instance import Arrival, Buffer, Cleaned, Origin, Received, Stored
from pacs.model.job import Claim, Job, JobState
from pacs.processing import located, wire
from pacs.processing.child import Child, Heartbeat, Outcome, check, child, died
from pacs.processing.cleaners import CLEANERS, Cleaning, cleaning_of
from pacs.retrieve import data_set
from pacs.store.record import LARGE_BYTES
from pacs.store.scratch import Arriving

log = get_logger(__name__)
_LOSSY_IMAGE_COMPRESSION = 0x00282110
UNANSWERED = "the cleaner did not answer for it"


def attempt(archive: Archive, job: Job, claim: Claim, heartbeat: Heartbeat, stop: threading.Event) -> Outcome:
    """Run one cleaning job; raises `LeaseLost`, `NotFound` and `Stopped` as the runner expects."""
    kind = cleaning_of(job.processor)
    cleaning = CLEANERS.get(kind)
    if cleaning is None or cleaning.version != job.version:
        return Outcome(JobState.FAILED, f"{job.processor} {job.version} is not installed here; its images stay held")
    work = _Work(archive, job, claim, heartbeat, stop, kind, cleaning)
    try:
        return work.run()
    except Unavailable as error:
        return Outcome(
            JobState.FAILED, f"{type(error).__name__} in the archive; its images stay held", retry=True, blameless=True
        )
    except OSError as error:
        return Outcome(JobState.FAILED, f"{type(error).__name__} in the archive; its images stay held", retry=True)
    except IntegrityError:
        return Outcome(JobState.FAILED, "a held record is damaged; its images stay held")
    except ConfigurationError:
        return Outcome(JobState.FAILED, "where the face lies is sealed under a key that is not here; its images stay held")
    finally:
        work.give_up()


class _Failed(Exception):
    """The isolated process did not end as it should."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class _Work:
    """One attempt: its images, what was said of them, and the records that were written for them."""

    def __init__(
        self,
        archive: Archive,
        job: Job,
        claim: Claim,
        heartbeat: Heartbeat,
        stop: threading.Event,
        kind: str,
        cleaning: Cleaning,
    ) -> None:
        self._archive = archive
        self._job = job
        self._claim = claim
        self._heartbeat = heartbeat
        self._stop = stop
        self._kind = kind
        self._cleaning = cleaning
        self._results: dict[str, Cleaned] = {}
        self._located: dict[str, bytes] = {}
        settings = archive.settings.processing
        self._timeout_s = min(settings.timeout_s, cleaning.timeout_s or settings.timeout_s)
        self._memory_mb = min(settings.memory_mb, cleaning.memory_mb or settings.memory_mb)
        self._deadline = 0.0

    def run(self) -> Outcome:
        found = self._archive.index.locate(
            study_instance_uids=[self._job.study_instance_uid],
            series_instance_uids=list(self._job.series_instance_uids),
            include_held=True,
        )
        held = {one.key.sop_instance_uid: one for one in found if self._kind in one.pending}
        if not held:
            return Outcome(JobState.SKIPPED, "nothing is held for it any more")
        groups = [[one] for one in held.values()] if self._cleaning.each else [found]
        last = self._job.attempt >= self._archive.settings.processing.attempts
        while groups:
            failed = self._through(groups, held)
            if failed is None:
                break
            if failed.retry and not last:
                return failed
            # What it had in hand is not clean and never will be; the others get a process of their own.
            for one in groups.pop(0):
                self._doubt(one, held, f"cleaning failed: {failed.reason}")
        for one in held.values():
            self._doubt(one, held, UNANSWERED)
        return self._commit(list(self._results.values()))

    def give_up(self) -> None:
        """Give up the records of results that were not committed."""
        for one in self._results.values():
            if one.location is not None:
                self._archive.objects.delete(one.location)
        self._results.clear()

    def _through(self, groups: list[list[Stored]], held: dict[str, Stored]) -> Outcome | None:
        """Send groups to one process until none is left; those that are done are taken off the list."""
        head = {
            "cleaner": self._kind,
            "memory_mb": self._memory_mb,
            "cpu_s": self._timeout_s * (os.cpu_count() or 1) * max(1, len(groups)),
            "options": {"devices": list(self._archive.settings.deid.devices)},
        }
        total = len(held)
        with child() as (process, write_end, reader):
            try:
                wire.write(write_end, head)
                if self._cleaning.whole_study:
                    for one in self._archive.index.face_regions.of(self._job.study_instance_uid):
                        region = located.opened(self._archive.notes, one)
                        wire.write(write_end, {"located": one.frame_of_reference_uid}, [region])
            except wire.Closed:
                return died(process)
            while groups:
                self._deadline = time.monotonic() + self._timeout_s
                try:
                    try:
                        for stored in groups[0]:
                            check(self._heartbeat, self._stop)
                            self._send(write_end, stored)
                        wire.write(write_end, {"end": True})
                    except wire.Closed:
                        pass  # it has ended early; why, it says below
                    self._listen(process, reader, held)
                except _Failed as failure:
                    return failure.outcome
                groups.pop(0)
                if self._cleaning.each:
                    self._progress(1 - len(groups) / total, "")
        return None

    def _send(self, write_end: int, stored: Stored) -> None:
        header, frames = self._archive.sealer.open(stored, self._archive.objects)
        entry = self._archive.sealer.open_entry(self._archive.sealer.beginning(stored.location, self._archive.objects))
        found = frames.frames
        lengths = (
            list(map(found.size_of, range(len(found))))
            if isinstance(found, LazyFrames)
            else [memoryview(frame).nbytes for frame in found]
        )
        about = {
            "sop_instance_uid": stored.key.sop_instance_uid,
            "pending": list(stored.pending),
            "transfer_syntax_uid": stored.transfer_syntax_uid,
            "packed": frames.packed,
            "report": dict(entry.report),
            "lengths": [len(header), *lengths],
        }
        wire.write(write_end, {"image": about}, chain([header], found), len(header) + sum(lengths))

    def _listen(self, process: Child, reader: wire.Reader, held: dict[str, Stored]) -> None:
        while True:
            check(self._heartbeat, self._stop)
            if time.monotonic() >= self._deadline:
                raise _Failed(Outcome(JobState.FAILED, f"took longer than {self._timeout_s:g} s and was ended"))
            if not reader.wait(min(0.5, self._deadline - time.monotonic())):
                continue
            try:
                message, payload = reader.read(self._deadline)
            except wire.TimedOut:
                continue
            except wire.Closed:
                raise _Failed(died(process)) from None
            if "verdict" in message:
                self._take(message["verdict"], payload, held)
            elif "located" in message:
                self._located[str(message["located"])] = bytes(payload)
            elif "progress" in message:
                if not self._cleaning.each:
                    self._progress(float(message["progress"]), str(message.get("note", ""))[:80])
            elif "cleaned" in message:
                return
            else:
                reason = f"{message.get('error', 'unknown error')} at {message.get('place', '')}"
                raise _Failed(Outcome(JobState.FAILED, reason, retry=bool(message.get("transient"))))

    def _progress(self, fraction: float, note: str) -> None:
        self._archive.index.jobs.progress(self._claim, fraction, note)

    def _take(self, verdict: dict[str, Any], payload: Buffer, held: dict[str, Stored]) -> None:
        uid = str(verdict["sop_instance_uid"])
        stored = held.get(uid)
        if stored is None or uid in self._results:
            return
        if verdict["doubt"]:
            self._doubt(stored, held, str(verdict["doubt"]))
            return
        arrival = self._arrival(stored, verdict, payload)
        objects, sealed = self._archive.objects, arrival.sealed
        location = objects.put_alone(sealed) if sealed.size_bytes > LARGE_BYTES else objects.put([sealed])[0]
        # The record is durable; of its bytes nothing is needed any more.
        light = replace(
            arrival,
            encoded=replace(arrival.encoded, header=b"", frames=()),
            sealed=replace(arrival.sealed, record=()),
        )
        self._results[uid] = Cleaned(stored, light, location)

    def _doubt(self, stored: Stored, held: dict[str, Stored], reason: str) -> None:
        uid = stored.key.sop_instance_uid
        if uid in held and uid not in self._results:
            self._results[uid] = Cleaned(stored, reason=reason)

    def _arrival(self, stored: Stored, verdict: dict[str, Any], payload: Buffer) -> Arrival:
        archive = self._archive
        header, frames = archive.sealer.open(stored, archive.objects)
        entry = archive.sealer.open_entry(archive.sealer.beginning(stored.location, archive.objects))
        changes: dict[int, tuple[str, bytes] | None] = {
            int(tag): None if change is None else (change[0], base64.b64decode(change[1]))
            for tag, change in verdict["elements"].items()
        }
        report = dict(entry.report)
        for name, count in verdict["counts"].items():
            report[str(name)] = report.get(str(name), 0) + int(count)
        pixel_data, transfer_syntax_uid = None, stored.transfer_syntax_uid
        if "bits_allocated" in verdict:
            # PS3.5 A.2: OW beyond 8 bits; up to 8 either is allowed.
            pixel_data = element(PIXEL_DATA, "OW" if verdict["bits_allocated"] > 8 else "OB", bytes(payload))
            transfer_syntax_uid = EXPLICIT_LITTLE_ENDIAN
            if verdict["colour"]:
                changes[PHOTOMETRIC_INTERPRETATION] = ("CS", str(verdict["colour"]).encode("ascii"))
                changes[PLANAR_CONFIGURATION] = ("US", b"\0\0")
            if stored.transfer_syntax_uid in LOSSY_JPEG:
                # PS3.3 C.7.6.1.1.5: once lossy, always lossy, however it is kept from now on.
                changes[_LOSSY_IMAGE_COMPRESSION] = ("CS", b"01")
        waits_for = tuple(str(one) for one in verdict["waits_for"])
        pending = (*(one for one in stored.pending if one != self._kind), *waits_for)
        deidentified = cleaned.finished(
            header,
            pixel_data,
            key=stored.key,
            sop_class_uid=stored.sop_class_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            policy=stored.policy,
            methods=[str(code) for code in verdict["methods"]],
            changes=changes,
            pending=pending,
            report=report,
        )
        if pixel_data is None:
            encoded = archive.codec.with_header(deidentified, frames, stored.digest)
        else:
            encoded = archive.codec.encode(deidentified, archive.codec.digest(deidentified))
        received_digest = stored.received_digest or stored.digest
        sealed = archive.sealer.seal(
            encoded,
            policy=stored.policy,
            origin=stored.origin,
            pending=pending,
            received_digest=received_digest,
            report=report,
        )
        return Arrival(
            encoded=encoded,
            sealed=sealed,
            origin=stored.origin,
            source="",
            association="",
            policy=stored.policy,
            pending=pending,
            received_digest=received_digest,
            report=report,
        )

    def _commit(self, results: Sequence[Cleaned]) -> Outcome:
        doubtful = [one for one in results if one.arrival is None]
        changed = len(results) - len(doubtful)
        reason = f"{changed} clean, {len(doubtful)} to quarantine" if doubtful else f"{changed} clean"
        check(self._heartbeat, self._stop)
        quarantined = [self._quarantine(one) for one in doubtful]
        uncommitted, self._results = self._results, {}
        try:
            taken = self._archive.index.cleaned(
                results,
                finishing=self._claim,
                reason=reason,
                located=located.sealed(self._archive.notes, self._job, self._located),
            )
        except NotFound:
            # Nothing was changed. After any other error the outcome is unknown (a connection can break behind a COMMIT):
            # then the new records stay; one without a row is passed over at the next start.
            self._results = uncommitted
            for quarantine_id in quarantined:
                self._archive.quarantine.discard(quarantine_id)
            raise
        for one, was_taken in zip(results, taken, strict=True):
            superfluous = one.held.location if was_taken else one.location
            if superfluous is not None:
                self._archive.objects.delete(superfluous)
        return Outcome(JobState.SUCCEEDED, reason, ended=True)

    def _quarantine(self, one: Cleaned) -> str:
        """Keep a held object for a person to look at: de-identified in its attributes, doubtful in its pixels."""
        parts = data_set(self._archive, one.held)
        content = Arriving(self._archive.intake)
        for buffer in parts.buffers:
            content += buffer
        received = Received(
            data_set=content.content(),
            transfer_syntax_uid=str(parts.transfer_syntax_uid),
            origin=Origin.PROCESSOR,
            source=self._job.processor,
            sop_class_uid=one.held.sop_class_uid,
            sop_instance_uid=one.held.key.sop_instance_uid,
            association=self._job.job_id,
        )
        quarantine_id = self._archive.quarantine.keep(received, "Quarantined", one.reason)
        self._archive.intake.release(received.data_set)
        log.warning(
            "instance_quarantined",
            quarantine_id=quarantine_id,
            kind="Quarantined",
            reason=one.reason,
            origin=one.held.origin,
            processor=self._job.processor,
        )
        return quarantine_id
